"""Accounting of this router (section radius, option accounting): while RADIUS has accepted, a session in total and one for
each WAN.

Each WAN's session has an Acct-Session-Id of its own and the total's as Acct-Multi-Session-Id. Wiring only: what a record says
is :mod:`cpe_mcp.aaa.accounting`'s, how it gets to a server :mod:`cpe_mcp.aaa.accounting_client`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cpe_mcp.aaa.accounting import (
    ADMIN_REBOOT,
    ADMIN_RESET,
    LOST_CARRIER,
    OFF,
    ON,
    SESSION_TIMEOUT,
    Record,
    Sessions,
    Usage,
    Who,
)
from cpe_mcp.aaa.accounting_client import AccountingClient
from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.carriers import UdpCarrier
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings import SettingsError, split_host
from cpe_mcp.settings.radius_ways import TLS
from cpe_mcp.settings.router import RadiusSettings
from cpe_mcp.upstream.authenticator import AccountingIds, Authenticator, transport_of

TOTAL = ""
"""The session of all WANs together, where others have a WAN's name."""
TICK_S = 1.0
"""Between two looks at what the WANs carried."""
STOP_WAIT_S = 2.0
"""At the end of the daemon, for the last records: procd kills after 5 s."""
NOTHING = {"sent": 0, "waiting": 0, "lost": 0, "trouble": ""}


class Accounting:
    """One per daemon; without the option nothing is kept and nothing sent. Raises SettingsError.

    ``radius()`` gives today's authenticator, ``wans()`` the WANs that are up, ``carried()`` the bytes of each, up and
    down, since the daemon started.
    """

    def __init__(
        self,
        settings: RadiusSettings,
        *,
        radius: Callable[[], Authenticator],
        wans: Callable[[], Sequence[WanView]],
        carried: Callable[[], Mapping[str, tuple[int, int]]],
    ) -> None:
        self._settings = settings
        self._radius = radius
        self._wans = wans
        self._carried = carried
        boot = f"{int(time.time()):x}-{time.monotonic_ns() & 0xFFFFFF:06x}"
        self._sessions = Sessions(boot, interim_s=settings.interim_s, tell=self._tell)
        self._open: dict[str, tuple[int, int]] = {}
        """WANs that have a session, and what they had carried when it began."""
        self._over = Usage()
        """What WANs carried whose sessions are over, in this total session."""
        self._client = _client(settings, self._ways)
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        """Sends the last records after the option was taken away."""

    def start(self) -> None:
        """The daemon begins."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        if self._client is not None:
            self._client.start()
            self._tell(Record(ON, time.monotonic()))

    def configure(self, settings: RadiusSettings) -> None:
        """Other settings; what waits for servers waits for the new ones; without the option sessions end.

        Raises SettingsError, and the old ones stay.
        """
        if settings == self._settings:
            return
        client, old = _client(settings, self._ways), self._client
        if client is None and old is not None:
            now = time.monotonic()
            self._count(now)
            self._end(ADMIN_RESET, now)
            self._tell(Record(OFF, now))
            self._leaving = old.finish(STOP_WAIT_S) if self._task is not None else None
        elif client is not None and old is not None:
            client.spool = old.spool
            client.counters.update(old.counters)
            old.abandon()
        self._settings, self._client = settings, client
        self._sessions.configure(settings.interim_s)
        if client is not None and self._task is not None:
            client.start()
            if old is None:
                self._tell(Record(ON, time.monotonic()))

    async def stop(self) -> None:
        """It ends: so do all sessions; what servers do not take in STOP_WAIT_S is lost."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None:
            now = time.monotonic()
            self._count(now)
            self._end(ADMIN_REBOOT, now)
            self._tell(Record(OFF, now))
            await self._client.stop(STOP_WAIT_S)
        if self._leaving is not None:
            await self._leaving

    def look(self) -> None:
        """What RADIUS says and which WANs are up may have changed."""
        if self._client is None:
            return
        now = time.monotonic()
        self._count(now)
        accept = self._radius().accept
        if accept is None:
            is_expired = self._radius().status()["reason"] == Reason.AUTH_TIMEOUT
            self._end(SESSION_TIMEOUT if is_expired else ADMIN_RESET, now)
            return
        wans = {wan.name: wan for wan in self._wans()}
        for name in [name for name in self._open if name not in wans]:
            self._end_wan(name, LOST_CARRIER, now)
        carried = self._carried()
        self._sessions.begin(now, TOTAL, self._who(accept, *wans.values()))
        for name, wan in wans.items():
            who = self._who(accept, wan)._replace(port=name)
            self._sessions.begin(now, name, who, multi=self._sessions.session_id(TOTAL))
            self._open.setdefault(name, carried.get(name, (0, 0)))
        self._count(now)

    def ids(self) -> AccountingIds:
        """Of the sessions that are open."""
        total = self._sessions.session_id(TOTAL)
        return AccountingIds((total, *map(self._sessions.session_id, self._open)), total) if total else AccountingIds()

    def status(self) -> dict[str, Any]:
        """For people."""
        client = self._client
        return {
            "enabled": client is not None,
            "sessions": len(self._sessions),
            **(client.status() if client is not None else NOTHING),
            "trouble_words": client.troubles if client is not None else [],
        }

    async def _run(self) -> None:
        while True:
            self.look()
            if self._client is not None:
                self._sessions.tick(time.monotonic())
            await asyncio.sleep(TICK_S)

    def _count(self, now: float) -> None:
        """What the WANs have carried since their sessions began."""
        carried = self._carried()
        up, down = self._over[:2]
        for name, before in self._open.items():
            sent, received = (max(0, sum_ - then) for sum_, then in zip(carried.get(name, before), before, strict=True))
            self._sessions.used(now, name, Usage(sent, received, 1))
            up, down = up + sent, down + received
        self._sessions.used(now, TOTAL, Usage(up, down, len(self._open)))

    def _end_wan(self, name: str, cause: int, now: float) -> None:
        usage = self._sessions.usage(name)
        self._over = Usage(self._over.up + usage.up, self._over.down + usage.down)
        del self._open[name]
        self._sessions.end(now, name, cause)

    def _end(self, cause: int, now: float) -> None:
        """All sessions, the total as the last one."""
        for name in list(self._open):
            self._end_wan(name, cause, now)
        self._sessions.end(now, TOTAL, cause)
        self._over = Usage()

    def _who(self, accept: RadiusAnswer, *wans: WanView) -> Who:
        addresses = tuple(address for wan in wans for address in (wan.address4, wan.address6) if address)
        return Who(accept.user or self._settings.username, accept.classes, addresses, accept.interim_s)

    def _ways(self) -> list[WanView]:
        return self._radius().ways()

    def _tell(self, record: Record) -> None:
        if self._client is not None:
            self._client.tell(record)


def _client(settings: RadiusSettings, ways: Callable[[], Sequence[WanView]]) -> AccountingClient | None:
    """None: these settings want no accounting. Raises SettingsError."""
    if not (settings.enabled and settings.accounting):
        return None
    transport = transport_of(settings)
    servers = [split_host(host, transport.port) for host in settings.server]
    carrier = transport.carrier
    if settings.transport != TLS:  # there it is a port of its own, and each try a packet of its own
        servers = [(address, settings.accounting_port) for address, _ in servers]
        carrier = UdpCarrier(timeout_s=settings.timeout_s, tries=1)
    try:
        return AccountingClient(
            servers, transport.secret, nas_identifier=settings.nas_identifier, carrier=carrier, ways=ways
        )
    except ValueError as error:
        raise SettingsError(f"section radius, option server: {error}") from None
