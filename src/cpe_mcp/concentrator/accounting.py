"""Accounting of this concentrator's subscribers (section radius, option accounting): who began and ended when, and how much.

A session is a subscriber, whatever his addresses and connections; it ends when nothing of his was seen for IDLE_S. Wiring only:
what a record says is :mod:`cpe_mcp.aaa.accounting`'s, how it gets to a server :mod:`cpe_mcp.aaa.accounting_client`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cpe_mcp.aaa.accounting import ADMIN_REBOOT, ADMIN_RESET, OFF, ON, Record, Sessions, Usage, Who
from cpe_mcp.aaa.accounting_client import AccountingClient
from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.carriers import UdpCarrier
from cpe_mcp.settings import SettingsError, split_host
from cpe_mcp.settings.concentrator import RadiusSettings

IDLE_S = 900.0
"""Longer than warm connections live and than any interval of keepalives: who is silent for so long has gone."""
KNOWN_MAX = 65536
"""Subscribers whose Accept is remembered for their next session; the oldest goes first."""
LAST_WORDS_S = 6.0
"""Workers report what subscribers use every 5 s."""
STOP_WAIT_S = 3.0
"""At the end of the service, for the last records."""


class Accounting:
    """One per daemon; without the option nothing is kept and nothing sent. Raises SettingsError."""

    def __init__(self, settings: RadiusSettings) -> None:
        self._settings = RadiusSettings()
        self._client: AccountingClient | None = None
        self._ending: dict[str, tuple[int, float]] = {}
        """Subscribers whose session AAA has ended, the cause that the Stop will have, and when that was."""
        self._known: dict[str, Who] = {}
        boot = f"{int(time.time()):x}-{time.monotonic_ns() & 0xFFFFFF:06x}"
        self._sessions = Sessions(boot, interim_s=settings.interim_s, tell=self._tell)
        self._is_started = False
        self._leaving: asyncio.Task[None] | None = None
        """Sends the last records after the option was taken away."""
        self.configure(settings)

    @property
    def is_on(self) -> bool:
        """Whether workers are to tell what subscribers use."""
        return self._client is not None

    def configure(self, settings: RadiusSettings) -> None:
        """Other settings. Sessions go on, and what waits for servers waits for the new ones; without the option they end.

        Raises SettingsError, and the settings before stay in force.
        """
        if settings == self._settings:
            return
        client, old = _client(settings), self._client
        if client is None and old is not None:
            self._end(ADMIN_RESET)
            self._leaving = old.finish(STOP_WAIT_S) if self._is_started else None
        elif client is not None and old is not None:
            client.spool = old.spool
            client.counters.update(old.counters)
            old.abandon()
        self._settings, self._client = settings, client
        self._sessions.configure(settings.interim_s)
        if client is not None and self._is_started:
            client.start()
            if old is None:
                self._tell(Record(ON, time.monotonic()))

    def start(self) -> None:
        """The service begins."""
        self._is_started = True
        if self._client is not None:
            self._client.start()
            self._tell(Record(ON, time.monotonic()))

    async def stop(self) -> None:
        """It ends: so do all sessions; what servers do not take in STOP_WAIT_S is lost."""
        if self._client is not None and self._is_started:
            self._end(ADMIN_REBOOT)
            await self._client.stop(STOP_WAIT_S)
        if self._leaving is not None:
            await self._leaving

    def accepted(self, subscriber: str, address: str, answer: RadiusAnswer) -> None:
        """What RADIUS said of somebody, for this session or the next one."""
        if self._client is None:
            return
        self._known.pop(subscriber, None)
        self._known[subscriber] = Who(answer.user or subscriber, answer.classes, (address,), answer.interim_s)
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def seen(self, subscriber: str) -> None:
        """A connection of his was accepted."""
        self._end_ended(subscriber)
        if self._client is not None:
            self._sessions.begin(time.monotonic(), subscriber, self._known.get(subscriber) or Who(subscriber))

    def used(self, rows: Mapping[str, Sequence[int]]) -> None:
        """Octets up and down since the last report of that worker, and the most subflows of one connection."""
        now = time.monotonic()
        for subscriber, (up, down, links) in rows.items():
            if self._client is not None and subscriber not in self._sessions:
                self.seen(subscriber)  # it was idle for long, or ended while connections ran on
            before = self._sessions.usage(subscriber)
            self._sessions.used(now, subscriber, Usage(before.up + up, before.down + down, links))

    def ended(self, subscriber: str, cause: int) -> None:
        """AAA has ended it, now. It is told LAST_WORDS_S later: those of the workers on its flows are on their way."""
        if subscriber in self._sessions:
            self._ending.setdefault(subscriber, (cause, time.monotonic()))

    def session_id(self, subscriber: str) -> str:
        """Acct-Session-Id; "" without a session."""
        return self._sessions.session_id(subscriber)

    def subscriber_of(self, session_id: str) -> str:
        """Whose it is; "": of no open session."""
        return str(self._sessions.key_of(session_id) or "")

    def tick(self) -> None:
        """Time passed."""
        now = time.monotonic()
        self._end_ended(*[name for name, (_, at) in self._ending.items() if at + LAST_WORDS_S <= now])
        if self._client is not None:
            self._sessions.tick(now, idle_s=IDLE_S)

    def status(self) -> dict[str, Any]:
        """For people."""
        nothing = {"sent": 0, "waiting": 0, "lost": 0, "trouble": ""}
        client = self._client
        return {
            "enabled": client is not None,
            "sessions": len(self._sessions),
            **(client.status() if client is not None else nothing),
        }

    def _end_ended(self, *subscribers: str) -> None:
        for subscriber in subscribers:
            if subscriber in self._ending:
                cause, at = self._ending.pop(subscriber)
                self._sessions.end(at, subscriber, cause)

    def _end(self, cause: int) -> None:
        self._end_ended(*list(self._ending))
        now = time.monotonic()
        self._sessions.end_all(now, cause)
        self._tell(Record(OFF, now))

    def _tell(self, record: Record) -> None:
        if self._client is not None:
            self._client.tell(record)


def _client(settings: RadiusSettings) -> AccountingClient | None:
    """None: these settings want no accounting. Raises SettingsError."""
    if not settings.accounting:
        return None
    try:
        servers = [split_host(text, settings.accounting_port) for text in settings.server]
        return AccountingClient(
            [(address, settings.accounting_port) for address, _ in servers],
            settings.secret.encode(),
            nas_identifier=settings.nas_identifier,
            carrier=UdpCarrier(timeout_s=settings.timeout_s, tries=1),
        )
    except ValueError as error:
        raise SettingsError(f"section radius, option server: {error}") from None
