"""Keeps nftables, and the dnsmasq that fills its sets of names, as settings and WANs say.

``nft`` takes some milliseconds, more on a router with a large firewall, and failures of WANs are to be found within a tenth
of a second: it runs in a thread, but for the switch that turns interception on and off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Sequence

from cpe_mcp.kernel.bridge_filter import active
from cpe_mcp.kernel.dnsmasq import Dnsmasq
from cpe_mcp.kernel.nft import Interception, Nft
from cpe_mcp.paths.observed import DeviceView
from cpe_mcp.policy.decide import PROXY
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.policy.rules import Rule, compile_rules
from cpe_mcp.settings import RouterSettings
from cpe_mcp.upstream.direct_queue import DirectQueue

log = logging.getLogger(__name__)


class InterceptionKeeper:
    """One per router. ``complain`` is told of each problem; ``on_change`` when :meth:`cannot_take` says something else."""

    def __init__(
        self, settings: RouterSettings, *, complain: Callable[[str], None], on_change: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._complain = complain
        self._on_change = on_change
        self._port = settings.general.intercept_port
        """Where the workers listen: the init script starts them with it, and anew when it is another one."""
        self._is_on = (False, False)
        self._bridge_filters: tuple[str, ...] = ()
        self._wans: tuple[tuple[str, DeviceView | None], ...] = ()
        self._concentrators: tuple[tuple[str, int], ...] = ()
        self._verify = False
        self._names_changed = asyncio.Event()
        self._dnsmasq = Dnsmasq()
        self._name_problems: list[str] = []
        self._nft: Nft | None = None
        self._loading = threading.Lock()
        """Held while a table is made and loaded, so that the last one that was made is the one that is loaded."""
        self._direct = DirectQueue(self._load_direct, complain)

    def start(self) -> None:
        """Take hold of nftables."""
        self._nft = Nft()
        self._names_changed.set()

    def remove(self) -> None:
        """End interception."""
        self._direct.close()
        with self._loading:
            nft, self._nft = self._nft, None
            if nft is not None:
                with contextlib.suppress(RuntimeError):
                    nft.remove()

    def remove_names(self) -> None:
        """Take our names out of dnsmasq."""
        self._dnsmasq.remove(self._settings.dns.confdir, self._settings.dns.restart)

    def configure(self, settings: RouterSettings) -> None:
        """Other settings; in force with the next :meth:`apply`."""
        self._settings = settings
        self._names_changed.set()

    def touched(self) -> None:
        """Somebody, maybe we ourselves, changed something in nftables: compare it with the next :meth:`apply`."""
        self._verify = True

    def cannot_take(self) -> str:
        """Why connections could not be taken now whatever is wanted; "" when nothing is in the way."""
        return Reason.BRIDGE_FILTER if self._bridge_filters else ""

    def take(self, on: bool, ipv6: bool) -> None:
        """Take new connections, IPv6 ones too, or leave them to plain forwarding. In force when this returns."""
        self._is_on = (on, on and ipv6)
        self._load()

    def listens_on(self, port: int) -> None:
        """A worker says where it listens: that counts, whatever the settings have become since it was started."""
        if port != self._port:
            self._port = port
            self._load()

    def add_direct(self, address: str, port: int) -> None:
        """New connections to this server go direct for a while; in force within a moment."""
        self._direct.add(address, port)

    def _load_direct(self, servers: Sequence[tuple[str, int]]) -> None:
        nft = self._nft
        if nft is not None:
            nft.add_direct(servers, self._settings.general.direct_s)

    def warnings(self) -> list[str]:
        """What the settings ask for and does not take place, one sentence each."""
        lines = list(self._name_problems)
        if self._settings.general.intercept_port != self._port:
            lines.append(
                f"the workers listen on port {self._port}: "
                "/etc/init.d/cpe-mcp reload starts them with option intercept_port of section global"
            )
        return lines

    def names_work(self) -> bool:
        """Whether dnsmasq fills the sets of the names in rules."""
        return not self._name_problems

    def counters(self) -> dict[str, int]:
        """New connections that met each rule, by the rule's counter name. Runs ``nft``: for questions of people only."""
        return self._nft.counters() if self._nft is not None else {}

    def look_at_bridges(self) -> None:
        """Nothing tells that somebody has loaded the filter; until this look the LAN's connections vanish."""
        filters = active(self._settings.general.lan)
        if filters != self._bridge_filters:
            self._bridge_filters = filters
            if filters:
                log.warning("kernel: %s is 1: bridged connections cannot be taken; set it to 0", " and ".join(filters))
            self._on_change()

    def see(self, wans: Sequence[tuple[str, DeviceView | None]], concentrators: Sequence[tuple[str, int]]) -> None:
        """``wans``: device and what is seen of it, of every managed WAN; ``concentrators``: address and port of all known. In
        force after :meth:`apply`."""
        self._wans, self._concentrators = tuple(wans), tuple(concentrators)

    def apply(self) -> None:
        """Compare and load. May be called in another thread than the rest."""
        self._load()

    async def keep_names(self) -> None:
        """Tell dnsmasq the names of the rules. Never in anybody's way: it may take a second or two to restart."""
        while True:
            await self._names_changed.wait()
            self._names_changed.clear()
            dns = self._settings.dns
            self._name_problems = await asyncio.to_thread(self._dnsmasq.apply, self._rules(), dns.confdir, dns.restart)
            for line in self._name_problems:
                self._complain(line)

    def _rules(self) -> tuple[Rule, ...]:
        return compile_rules(self._settings.rules) if self._settings.general.enabled else ()

    def _load(self) -> None:
        with self._loading:
            self._load_locked()

    def _load_locked(self) -> None:
        if self._nft is None:
            return
        general = self._settings.general
        on, ipv6 = self._is_on
        rules = self._rules()
        on = on and (general.intercept != "none" or any(rule.action == PROXY for rule in rules))
        networks = sorted({network for _, view in self._wans if view is not None for network in view.networks})
        plan = Interception(
            lan=general.lan,
            wans=tuple(device for device, _ in self._wans),
            wan_networks=tuple(networks),
            concentrators=self._concentrators,
            port=self._port,
            active4=on,
            active6=on and ipv6,
            any_destination=general.intercept == "any",
            pass_mptcp=general.mptcp_syn == "pass",
            rules=rules,
            take_rest=general.intercept != "none",
            reject_quic=self._settings.quic.policy == "reject",
            dscp=self._settings.dscp.mode != "off",
            ident=self._settings.ident.enabled and self._settings.general.enabled,
        )
        verify, self._verify = self._verify, False  # somebody may touch it again meanwhile
        try:
            if self._nft.apply(plan, verify=verify):
                log.debug("nft table loaded")
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self._verify = self._verify or verify
            self._complain(str(error))
