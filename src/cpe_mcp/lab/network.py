"""A running lab: namespaces, lines, real programs and our own daemons; brought up, used and taken down.

Wiring only: what is where is in :mod:`.plan`, what the programs are told in :mod:`.configs`, how lines behave in
:mod:`.line`, what is left on the machine meanwhile in :mod:`.state`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from cpe_mcp.aaa.accounting_client import PORT as ACCOUNTING_PORT
from cpe_mcp.aaa.tls_carrier import TLS_PORT
from cpe_mcp.control.ask import ask
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.lab import configs, freeradius, signed_zone, state
from cpe_mcp.lab.certificates import Authority
from cpe_mcp.lab.link import DEFAULT_LINKS, Link, LinkSpec, ask_emulator
from cpe_mcp.lab.namespaces import LabError, create, enter, ip_batch, write_sysctls
from cpe_mcp.lab.neighbours import meet
from cpe_mcp.lab.plan import (
    ACCESS_DEVICE,
    ADDRESSES,
    CORE,
    CORE_BRIDGE,
    CORE_HOSTS,
    HOSTS,
    LINK_NAMES,
    Addresses,
    Both,
    cable_lines,
    host_lines,
    neighbours,
    netns_name,
    netns_names,
    next_address,
    switch_lines,
)
from cpe_mcp.lab.processes import Processes, argv_inside
from cpe_mcp.lab.wan import Wan
from cpe_mcp.settings.router import (
    DEFAULT_DHCP4_CODE,
    DEFAULT_DHCP4_NAME_CODE,
    DEFAULT_DHCP6_CODE,
    DEFAULT_ENTERPRISE,
    DEFAULT_INTERCEPT_PORT,
)

PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "udhcpc": "udhcpc",
    "busybox": "busybox",
    "dhclient": "isc-dhcp-client",
    freeradius.PROGRAM: "freeradius",
    "nginx": "nginx-light",
    "curl": "curl",
    "iperf3": "iperf3",
}
"""What the lab runs, and the Debian package that has it."""
CPE_DAEMONS = ("cpe-mcpd", "cpe-mcp-relay")
LOG = "log"
BRIDGE_SYSCTLS = tuple(f"bridge.bridge-nf-call-{table}" for table in ("iptables", "ip6tables", "arptables"))
DHCP_SERVER_PORT = 67
HTTP_PORT = 80


class RadiusOptions(NamedTuple):
    """What the RADIUS server of the lab knows."""

    secret: str = "lab-shared-secret-1"
    subscriber: str = "alice"
    password: str = "lab-subscriber-password"
    address_password: str = "lab-address-password"
    """User-Password of a concentrator that asks about a source address."""
    authorize_lines: bool = True
    """Whether the cpe's addresses on both lines are known as the subscriber's."""
    tls: bool = False
    """Whether it listens for RADIUS over TLS too; :attr:`Lab.tls_options` is then what the cpe needs."""
    cookie_secret: str = ""
    """Of the concentrators: with it, each Accept brings handle and key, as ``mcp-concentrator handle`` makes them."""
    handle_ttl_s: int = 3600


DEFAULT_RADIUS = RadiusOptions()


class Lab:
    """One network in a box. Use as ``with Lab("name") as lab``; it is taken down also after an exception or a signal.

    ``dhcp4_mcps`` and ``dhcp6_mcp`` are the concentrators that both providers announce by DHCP (None: no option);
    ``dhcp4_raw`` and ``dhcp6_raw`` replace the option's value by any bytes, hex with colons. ``logs_to``: a directory
    that gets a copy of all logs at the end. ``congestion_control`` is that of all hosts, and of this package's daemons too
    unless ``package_congestion_control`` names another one, or ``auto``, which is what they are shipped with.
    """

    def __init__(
        self,
        name: str = "lab",
        *,
        links: Mapping[str, LinkSpec] = DEFAULT_LINKS,
        congestion_control: str = "cubic",
        package_congestion_control: str = "",
        dhcp4_code: int = DEFAULT_DHCP4_CODE,
        dhcp6_code: int = DEFAULT_DHCP6_CODE,
        dhcp4_mcps: Sequence[Sequence[str]] | None = ((ADDRESSES.concentrator1.v4,), (ADDRESSES.concentrator2.v4,)),
        dhcp6_mcp: Sequence[str] | None = (ADDRESSES.concentrator1.v6,),
        dhcp4_raw: str = "",
        dhcp6_raw: str = "",
        radius: RadiusOptions = DEFAULT_RADIUS,
        radius_users: Sequence[freeradius.RadiusUser] | None = None,
        logs_to: Path | None = None,
        addresses: Addresses = ADDRESSES,
    ) -> None:
        self.name = name
        self.directory = state.directory_of(name)
        """State, configuration and logs; gone after :meth:`down`."""
        self.addresses = addresses
        self.congestion_control = congestion_control
        self._package_congestion_control = package_congestion_control or congestion_control
        self.radius = radius
        self._radius_users = radius_users
        self.tls_options: dict[str, str] = {}
        """Options of section radius for a cpe that asks over TLS."""
        self.dhcp4_code = dhcp4_code
        self.dhcp6_code = dhcp6_code
        self._dhcp4_value = dhcp4_raw or (configs.dhcp4_option_hex(dhcp4_mcps) if dhcp4_mcps else "")
        self._dhcp6_value = dhcp6_raw or (configs.dhcp6_option_hex(dhcp6_mcp) if dhcp6_mcp else "")
        self._logs_to = logs_to
        unknown = set(links) - set(LINK_NAMES)
        if unknown:
            raise LabError(f"link {', '.join(sorted(unknown))}: there are {', '.join(LINK_NAMES)}")
        self._processes = Processes(self.directory / LOG)
        self._wans = {
            link: Wan(
                link,
                namespace=self.namespace("cpe"),
                directory=self.directory,
                run_dir=self.cpe_run_dir,
                codes=(dhcp4_code, dhcp6_code),
                processes=self._processes,
                addresses=addresses,
            )
            for link in LINK_NAMES
        }
        self._links = {
            link: Link(link, links.get(link, DEFAULT_LINKS[link]), str(self.directory), self._wans[link])
            for link in LINK_NAMES
        }
        self._handlers: dict[int, Any] = {}
        self._claimed = False

    # up and down

    def up(self) -> None:
        """Bring everything up; returns when the cpe has its addresses and routes on both lines. Raises LabError."""
        check_machine()
        state.claim(self.name, self.congestion_control)
        self._claimed = True
        try:
            for directory in (self.directory / LOG, self.cpe_run_dir):
                directory.mkdir(parents=True)
            self._build()
            self._start_providers()
            self._start_servers()
            for wan in self._wans.values():
                wan.start()
            for wan in self._wans.values():
                wan.wait()
            meet(self._processes, {self.namespace(host): neighbours(host, self.addresses) for host in HOSTS})
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take everything down, whatever state it is in."""
        if not self._claimed:
            return
        with _signals_ignored():
            self._processes.terminate_all()
            if self._logs_to is not None:
                shutil.copytree(self.directory / LOG, self._logs_to, dirs_exist_ok=True)
            state.release(self.name)
            self._processes.reap_all()
            self._claimed = False

    def __enter__(self) -> Lab:
        """Up. In the main thread SIGTERM and SIGHUP end the ``with`` block as Ctrl-C does, so that it is taken down."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, _leave)
        try:
            self.up()
        except BaseException:
            self._restore_handlers()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.down()
        finally:
            self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    # using it

    def namespace(self, host: str) -> str:
        """The network namespace of a host. Raises LabError for a host that is not there."""
        if host not in (*HOSTS, CORE):
            raise LabError(f"host {host}: there are {', '.join(HOSTS)}")
        return netns_name(self.name, host)

    def enter(self, host: str) -> contextlib.AbstractContextManager[None]:
        """The calling thread is on that host: for sockets made in Python."""
        return enter(self.namespace(host))

    def run(
        self, host: str, argv: Sequence[str], *, timeout: float | None = None, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on a host and wait. Raises CalledProcessError (with its stderr as a note), TimeoutExpired.

        Output is text, with U+FFFD for bytes that are none.
        """
        options.setdefault("errors", "replace")
        options.setdefault("capture_output", "stdout" not in options and "stderr" not in options)
        try:
            return subprocess.run(
                argv_inside(self.namespace(host), argv), timeout=timeout, check=check, text=True, **options
            )
        except subprocess.CalledProcessError as error:
            error.add_note((error.stderr or "").strip())
            raise

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program on a host; it is stopped at the end. It does not see the terminal's Ctrl-C: we end it."""
        return self._processes.popen(self.namespace(host), argv, **options)

    def stop(self, process: subprocess.Popen[Any]) -> None:
        """End what :meth:`popen` started: SIGTERM and wait; SIGKILL to its whole process group when it does not end."""
        self._processes.end(process)

    def link(self, name: str) -> Link:
        """``dsl`` or ``lte``."""
        if name not in self._links:
            raise LabError(f"link {name}: there are {', '.join(LINK_NAMES)}")
        return self._links[name]

    def gateway4(self, name: str) -> str:
        """The provider's IPv4 address on a line."""
        gateway: str = self.addresses.of(f"isp-{name}-access").v4
        return gateway

    def offer_next_address(self, name: str) -> str:
        """Have the provider of a line give :func:`~cpe_mcp.lab.plan.next_address` from now on; its client does not know yet."""
        self._processes.stop(f"dnsmasq-{name}")
        (self.directory / f"isp-{name}" / "leases").unlink(missing_ok=True)
        address = next_address(name)
        self._start_dhcp_server(name, Both(address, self.addresses.of(f"cpe-{name}").v6))
        return address

    def announce(
        self,
        name: str,
        dhcp4_mcps: Sequence[Sequence[str]] | None,
        *,
        domain: str = "",
        dhcp6_mcp: Sequence[str] | None = None,
    ) -> None:
        """Have DHCPv4 on a line name these concentrators from now on (None: no option), or a domain that has them, as whoever
        answers there first can; its client hears of it when it renews. DHCPv6 names another one than before where that is
        given."""
        self._processes.stop(f"dnsmasq-{name}")
        value4 = configs.dhcp4_option_hex(dhcp4_mcps) if dhcp4_mcps else ""
        value6 = configs.dhcp6_option_hex(dhcp6_mcp) if dhcp6_mcp else None
        self._start_dhcp_server(name, self.addresses.of(f"cpe-{name}"), value4, domain, value6)

    def start_dns(
        self, host: str, address: str, targets: Sequence[signed_zone.Target], state: str = signed_zone.SIGNED
    ) -> str:
        """Start a DNS server on a host, with the operator's zone of :mod:`.signed_zone`, which names these concentrators;
        returns the trust anchor that its keys need. Raises LabError."""
        if shutil.which(signed_zone.PROGRAM) is None:
            raise LabError(f"needs {signed_zone.PROGRAM}: apt install {signed_zone.PACKAGE}")
        zone = signed_zone.write_zones(self.directory / host / "dns", address, targets, state)
        self._processes.start(f"dns-{host}", self.namespace(host), zone.command)
        self._processes.await_text(f"dns-{host}", signed_zone.READY)
        if zone.then:
            self.run(host, zone.then)
        return zone.anchor

    def wan(self, name: str) -> Wan:
        """The cpe's end of a line, as netifd keeps it."""
        return self._wans[name]

    def strip_mptcp(self, name: str) -> None:
        """The access network of a line takes every MPTCP option away from now on. Raises LabError where nft cannot."""
        self._load_nft(f"isp-{name}", configs.strip_mptcp_nft())

    def emulator_cpu_s(self) -> float:
        """CPU time that the link emulator has taken so far."""
        return float(ask_emulator(str(self.directory))["cpu_s"])

    def log(self, name: str) -> str:
        """What a program has logged: ``cpe-mcpd``, ``cpe-mcp-relay``, ``mcp-concentrator1``, ``radius``, ``udhcpc-dsl`` ..."""
        return self._processes.log(name)

    def serve_file(self, name: str, size: int) -> str:
        """Put a file of random content on the web server as ``/NAME``; returns its SHA-256 in hex."""
        digest = hashlib.sha256()
        with open(self.directory / "server/www" / name, "wb") as file:
            for start in range(0, size, 1 << 20):
                block = os.urandom(min(1 << 20, size - start))
                digest.update(block)
                file.write(block)
        return digest.hexdigest()

    def uploaded(self, name: str) -> Path:
        """Where the web server puts what is PUT to ``/upload/NAME``."""
        return self.directory / "server/www" / configs.UPLOAD_PATH.strip("/") / name

    def facts(self) -> dict[str, Any]:
        """What a report says about this lab: kernel, congestion control, and how lines are emulated."""
        from cpe_mcp.lab.emulator import QUANTUM_S

        return {
            "kernel": os.uname().release,
            "congestion_control": self.congestion_control,
            "package_congestion_control": self._package_congestion_control,
            "emulator": f"user-space forwarder, quantum {QUANTUM_S * 1000:g} ms",
            "wans": {
                name: {
                    "rate_mbit": {"down": link.spec.down_mbit, "up": link.spec.up_mbit},
                    "rtt_ms": link.spec.rtt_ms,
                    "loss_percent": link.spec.loss_percent,
                }
                for name, link in self._links.items()
            },
        }

    # our own daemons

    @property
    def cpe_run_dir(self) -> Path:
        """Where the cpe's daemons and DHCP hooks meet."""
        return self.directory / "cpe/run"

    def start_cpe(
        self,
        *,
        general: Mapping[str, Any] | None = None,
        paths: Mapping[str, Any] | None = None,
        discovery: Mapping[str, Any] | None = None,
        radius: Mapping[str, Any] | None = None,
        wans: Mapping[str, Mapping[str, Any]] | None = None,
        concentrators: Mapping[str, Mapping[str, Any]] | None = None,
        rules: Mapping[str, Mapping[str, Any]] | None = None,
        ident: Mapping[str, Any] | None = None,
        logging: Mapping[str, Any] | None = None,
    ) -> None:
        """Start ``cpe-mcpd`` and one relay worker on the cpe; returns when the daemon answers. Raises LabError.

        Each argument gives options of one section type, over the lab's own of :func:`.configs.router_settings`; ``wans``,
        ``concentrators`` and ``rules`` are by section name.
        """
        given = {
            "global": general,
            "paths": paths,
            "discovery": discovery,
            "radius": radius,
            "ident": ident,
            "logging": logging,
        }
        text = configs.router_settings(
            run_dir=str(self.cpe_run_dir),
            congestion_control=self._package_congestion_control,
            codes=(self.dhcp4_code, self.dhcp6_code),
            radius_secret=self.radius.secret,
            subscriber=self.radius.subscriber,
            password=self.radius.password,
            given=_present({**given, "wan": wans, "concentrator": concentrators, "rule": rules}),
        )
        config = self._write("cpe/cpe-mcp", text)
        self._start_daemon("cpe-mcpd", "cpe", ["cpe-mcpd", "--config", str(config), "--foreground"])
        self._await_answer("cpe-mcpd", self.cpe_run_dir)
        self.start_cpe_relay()

    def start_cpe_relay(self, index: int = 0) -> None:
        """Start the relay worker alone, for instance after it was killed, or a further one, ``cpe-mcp-relay1`` and so on."""
        relay = ["cpe-mcp-relay", "--run-dir", str(self.cpe_run_dir), "--index", str(index)]
        self._start_daemon(f"cpe-mcp-relay{index or ''}", "cpe", [*relay, "--port", str(DEFAULT_INTERCEPT_PORT)])

    def stop_cpe(self, *which: str) -> None:
        """SIGTERM to both daemons of the cpe, or to those named, and wait."""
        self._processes.stop(*(which or CPE_DAEMONS))

    def kill_cpe(self, *which: str) -> None:
        """SIGKILL to both daemons of the cpe, or to those named."""
        self._processes.kill(*(which or CPE_DAEMONS))

    def start_concentrator(
        self,
        number: int = 1,
        *,
        general: Mapping[str, Any] | None = None,
        listener: Mapping[str, Any] | None = None,
        destinations: Mapping[str, Any] | None = None,
        radius: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        subscribers: Mapping[str, Mapping[str, Any]] | None = None,
        ident: Mapping[str, Any] | None = None,
        dynamic: Mapping[str, Any] | None = None,
    ) -> None:
        """Start ``mcp-concentrator`` on concentrator ``number``; returns when it answers. Raises LabError.

        Arguments as for :meth:`start_cpe`, over the lab's own of :func:`.configs.concentrator_settings`.
        """
        given = {
            "global": general,
            "listener": listener,
            "destinations": destinations,
            "radius": radius,
            "limits": limits,
            "ident": ident,
            "dynamic": dynamic,
        }
        text = configs.concentrator_settings(
            run_dir=str(self._concentrator_run_dir(number)),
            congestion_control=self._package_congestion_control,
            radius_secret=self.radius.secret,
            address_password=self.radius.address_password,
            given=_present({**given, "subscriber": subscribers}),
        )
        name = f"mcp-concentrator{number}"
        self._concentrator_run_dir(number).mkdir(parents=True, exist_ok=True)
        config = self._write(f"concentrator{number}/mcp-concentrator", text)
        argv = ["mcp-concentrator", "--config", str(config), "--foreground"]
        self._start_daemon(name, f"concentrator{number}", argv)
        self._await_answer(name, self._concentrator_run_dir(number))

    def stop_concentrator(self, number: int = 1) -> None:
        """SIGTERM and wait."""
        self._processes.stop(f"mcp-concentrator{number}")

    def kill_concentrator(self, number: int = 1) -> None:
        """SIGKILL to it and its workers."""
        self._processes.kill(f"mcp-concentrator{number}")

    def ask(self, method: str, args: Mapping[str, Any] | None = None) -> Any:
        """Ask the cpe's control daemon. Raises ApiError, OSError."""
        return ask(str(self.cpe_run_dir / API_SOCKET), method, args)

    def ask_concentrator(self, number: int, method: str, args: Mapping[str, Any] | None = None) -> Any:
        """Ask a concentrator's control daemon. Raises ApiError, OSError."""
        return ask(str(self._concentrator_run_dir(number) / API_SOCKET), method, args)

    def daemon_pid(self, name: str) -> int:
        """Process id of ``cpe-mcpd``, ``cpe-mcp-relay`` or ``mcp-concentratorN``. Raises LabError when it was not started."""
        return self._processes.pid(name)

    def _concentrator_run_dir(self, number: int) -> Path:
        return self.directory / f"concentrator{number}/run"

    def _start_daemon(self, name: str, host: str, argv: Sequence[str]) -> None:
        self._processes.start(name, self.namespace(host), [_script(argv[0]), *argv[1:]])

    def _await_answer(self, name: str, run_dir: Path) -> None:
        """Until the daemon answers at its question socket."""
        for _ in self._processes.waiting(name):
            with contextlib.suppress(OSError):
                ask(str(run_dir / API_SOCKET), "status")
                return

    # building

    def _build(self) -> None:
        namespaces = netns_names(self.name)
        create(namespaces)
        for host in (*HOSTS, CORE):
            write_sysctls(self.namespace(host), self._sysctls(host))
        ip_batch(None, cable_lines(self.name))
        ip_batch(self.namespace(CORE), switch_lines(CORE_BRIDGE, CORE_HOSTS))
        self._start_emulator()
        for wan in self._wans.values():
            wan.write_sysctls()
        for host in HOSTS:
            ip_batch(self.namespace(host), host_lines(host, self.addresses))
        self._load_nft("cpe", configs.router_nft())
        for name in LINK_NAMES:
            self._load_nft(f"isp-{name}", configs.provider_nft(name, self.addresses))

    def _sysctls(self, host: str) -> dict[str, str]:
        forwards = host == "cpe" or host.startswith("isp-")
        # Where the kernel has br_netfilter, bridged packets would pass the nft hooks below the bridge, and a socket that
        # tproxy finds there is lost again on the way up. OpenWrt does not load that module.
        bridge = {name: "0" for name in BRIDGE_SYSCTLS if os.path.exists(f"/proc/sys/net/{name.replace('.', '/')}")}
        return {
            **bridge,
            "ipv4.tcp_congestion_control": self.congestion_control,
            "ipv4.tcp_no_metrics_save": "1",
            "ipv4.conf.all.rp_filter": "0",
            "ipv4.conf.default.rp_filter": "0",
            "ipv6.conf.default.accept_dad": "0",
            "ipv6.conf.default.accept_ra": "0",
            "ipv4.ip_forward": str(int(forwards)),
            "ipv6.conf.all.forwarding": str(int(forwards)),
        }

    def _load_nft(self, host: str, rules: str) -> None:
        done = self.run(host, ["nft", "-f", "-"], input=rules, check=False)
        if done.returncode:
            raise LabError(f"nft on {host}: {done.stderr.strip().splitlines()[0]}")

    def _start_emulator(self) -> None:
        lines = {
            name: {
                "subscriber": [self.namespace("cpe"), name],
                "provider": [self.namespace(f"isp-{name}"), ACCESS_DEVICE],
                **link.spec.directions(),
            }
            for name, link in self._links.items()
        }
        config = self._write(
            "emulator.json", json.dumps({"control": str(self.directory / "emulator.sock"), "lines": lines})
        )
        # In the core namespace: whoever cleans up after a killed lab finds it by that.
        argv = [sys.executable, "-m", "cpe_mcp.lab.emulator", str(config)]
        self._processes.start("emulator", self.namespace(CORE), argv)
        self._processes.await_text("emulator", "ready")

    def _start_providers(self) -> None:
        for name in LINK_NAMES:
            self._start_dhcp_server(name, self.addresses.of(f"cpe-{name}"))

    def _start_dhcp_server(
        self,
        name: str,
        address: Both,
        dhcp4_value: str | None = None,
        domain: str = "",
        dhcp6_value: str | None = None,
    ) -> None:
        host = f"isp-{name}"
        dhcp4_value = self._dhcp4_value if dhcp4_value is None else dhcp4_value
        dhcp6_value = self._dhcp6_value if dhcp6_value is None else dhcp6_value
        text = configs.dnsmasq_conf(
            name,
            str(self.directory / host),
            dhcp4_option=(self.dhcp4_code, dhcp4_value) if dhcp4_value else None,
            dhcp6_option=(self.dhcp6_code, dhcp6_value) if dhcp6_value else None,
            address=address,
            domain=(DEFAULT_DHCP4_NAME_CODE, domain) if domain else None,
        )
        config = self._write(f"{host}/dnsmasq.conf", text)
        argv = ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"]
        self._processes.start(f"dnsmasq-{name}", self.namespace(host), argv)
        self._processes.await_port(f"dnsmasq-{name}", "udp", DHCP_SERVER_PORT)

    def _radius_tls(self) -> freeradius.TlsListener:
        authority = Authority(self.directory / "tls")
        server = authority.sign("radius", alternative=f"IP:{ADDRESSES.radius.v4}")
        own = authority.sign("cpe")
        self.tls_options = {
            "transport": "tls",
            "tls_ca": str(authority.pair.cert),
            "tls_cert": str(own.cert),
            "tls_key": str(own.key),
        }
        address = "0.0.0.0"
        return freeradius.TlsListener(address, TLS_PORT, str(authority.pair.cert), str(server.cert), str(server.key))

    def _handle_program(self) -> str:
        """As docs/manual/radius.md has it."""
        text = f"config global 'global'\n\toption cookie_secret '{self.radius.cookie_secret}'\n"
        config = self._write("radius/mcp-concentrator", text)
        argv = [sys.executable, "-m", "cpe_mcp.concentrator.daemon", "handle", "%{User-Name}"]
        return " ".join([*argv, "--ttl", str(self.radius.handle_ttl_s), "--config", str(config)])

    def _start_servers(self) -> None:
        radius_directory = self.directory / "radius"
        line_addresses = self._line_addresses() if self.radius.authorize_lines else ()
        users = self._radius_users
        if users is None:
            users = [freeradius.RadiusUser(self.radius.subscriber, self.radius.password)]
        argv = freeradius.write_config(
            str(radius_directory),
            secret=self.radius.secret,
            clients=[*ADDRESSES.core, *ADDRESSES.dsl, *ADDRESSES.lte],
            users=users,
            address_users=[
                freeradius.RadiusUser(address, self.radius.address_password, user=self.radius.subscriber)
                for address in line_addresses
            ],
            enterprise=DEFAULT_ENTERPRISE,
            tls=self._radius_tls() if self.radius.tls else None,
            accounting=[(ADDRESSES.radius.v4, ACCOUNTING_PORT)],
            post_auth_program=self._handle_program() if self.radius.cookie_secret else "",
        )
        self._processes.start("radius", self.namespace("radius"), argv)
        server_directory = self.directory / "server"
        self.uploaded("").mkdir(parents=True)
        config = self._write("server/nginx.conf", configs.nginx_conf(str(server_directory)))
        self.serve_file(configs.SMALL_FILE, configs.SMALL_FILE_BYTES)
        argv = ["nginx", "-c", str(config), "-p", str(server_directory), "-e", "stderr"]
        self._processes.start("nginx", self.namespace("server"), argv)
        self._processes.await_text("radius", "Ready to process requests")
        for table in ("tcp", "tcp6"):
            self._processes.await_port("nginx", table, HTTP_PORT)

    def _line_addresses(self) -> list[str]:
        """All from which the subscriber may come."""
        found = [next_address(name) for name in LINK_NAMES]
        for name in LINK_NAMES:
            found += self.addresses.of(f"cpe-{name}")
            if name in self.addresses.translated:
                found.append(self.addresses.of(f"isp-{name}").v4)
        return found

    def _write(self, path: str, text: str) -> Path:
        target = self.directory / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o600)
        return target


def check_machine() -> None:
    """Raises LabError when the lab cannot work here: not root, or a program is missing."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces")
    missing = {program: package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise LabError(f"the lab needs {', '.join(missing)}: apt install {' '.join(missing.values())}")
    if not os.path.exists("/dev/net/tun"):
        raise LabError("the lab needs /dev/net/tun: modprobe tun")


def _present(options: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Mapping[str, Any]]:
    return {kind: values for kind, values in options.items() if values is not None}


def _script(name: str) -> str:
    """A program of this package: beside the interpreter, as in a virtual environment, or on PATH. Raises LabError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise LabError(f"{name} is not installed: pip install . in the source tree")
    return found


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Cleaning up is not interrupted by a second Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
