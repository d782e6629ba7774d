"""What Ident (RFC 1413) says of source addresses: asked once for each, remembered for a while, and what it is used for.

The question is about the first connection of an address: joins are the kernel's business and never come here, and what is
remembered is not asked again (draft-nam-mptcp-deployment-considerations section 5.3). Only about those who are accepted, so
that nobody makes this machine knock elsewhere by a forged source.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from cpe_mcp.aaa.ident import HIDDEN_USER, INVALID_PORT, NO_USER, UNKNOWN_ERROR, Answer
from cpe_mcp.aaa.ident_client import NONSENSE, REFUSED, SILENT, Connection, ask
from cpe_mcp.settings.concentrator import IDENT_OFF, IDENT_REQUIRE, IdentSettings

REMEMBERED_MAX = 16384
"""Addresses whose answer is remembered, some 8 MiB; the oldest goes first, and is asked again."""
ASKING_MAX = 128
"""Addresses that are asked at once, one descriptor each."""
FAILED_S = 60.0
"""How long an answer without a name counts as one."""
PASSING_S = 5.0
"""How long at first, where somebody waits for the answer and none came: a packet may have been lost. Doubles, so that routers
that never answer take little of the room of others."""
SHOWN_MAX = 100
"""Rows of ``status``, the newest."""
BUSY = "busy"
TOLD = "told"
PASSING = frozenset((BUSY, SILENT, REFUSED, NONSENSE))
"""Errors that say nothing of the router: the next question may have its answer."""
RESULTS = PASSING | {TOLD, NO_USER, HIDDEN_USER, INVALID_PORT, UNKNOWN_ERROR}
"""What is counted by its own name; other errors are the router's own words, and stay here (RFC 1413 section 6 has four)."""
OTHER = "other"


class Remembered(NamedTuple):
    """An answer."""

    answer: Answer
    until: float
    holds_s: float


class IdentDesk:
    """One per daemon. ``ask``: see :func:`cpe_mcp.aaa.ident_client.ask`."""

    def __init__(
        self,
        settings: IdentSettings,
        *,
        ask: Callable[..., Awaitable[Answer]] = ask,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.counters: collections.Counter[str] = collections.Counter()
        """Questions by what came of them."""
        self._ask = ask
        self._now = now
        self._remembered: dict[str, Remembered] = {}
        self._asking: dict[str, asyncio.Task[Answer]] = {}

    @property
    def is_on(self) -> bool:
        """Whether anything is asked."""
        return self.settings.mode != IDENT_OFF

    def decides(self, *, has_cookie: bool) -> bool:
        """Whether somebody has to wait for the answer. A cookie proves more than Ident does, and what it lets in at once stays
        quick: warm connections among them (design D2)."""
        return self.settings.mode == IDENT_REQUIRE and not has_cookie

    def follow(self, connection: Connection) -> asyncio.Task[Answer] | Answer:
        """What is known of its address, or the question about it that is under way."""
        address = connection.peer
        known = self._remembered.get(address)
        if known is not None and known.until > self._now():
            return known.answer
        task = self._asking.get(address)
        if task is None:
            if len(self._asking) >= ASKING_MAX:
                self._count(BUSY)
                return Answer("", BUSY)
            task = self._asking[address] = asyncio.get_running_loop().create_task(self._learn(connection))
        return task

    def confirms(self, answer: Answer, *, subscriber: str, address: str) -> bool:
        """Whether this lets a subscriber in. Where nobody has a name for it but its address, any id will do."""
        return bool(answer.user) and subscriber in (answer.user, address)

    def is_passing(self, answer: Answer) -> bool:
        """Whether there may be another answer soon: this one is no reason to send anybody away."""
        return not answer.user and answer.error in PASSING

    def close(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()

    def status(self) -> dict[str, Any]:
        """For people, ready for JSON."""
        now = self._now()
        known = [(address, row) for address, row in self._remembered.items() if row.until > now]
        return {
            "mode": self.settings.mode,
            "counters": dict(self.counters),
            "asking": len(self._asking),
            "remembered": len(known),
            "addresses": [
                {
                    "address": address,
                    "user": row.answer.user,
                    "error": row.answer.error,
                    "left_s": round(row.until - now, 1),
                }
                for address, row in known[: -SHOWN_MAX - 1 : -1]
            ],
        }

    async def _learn(self, connection: Connection) -> Answer:
        try:
            answer = await self._ask(connection, timeout_s=self.settings.timeout_s)
        finally:
            del self._asking[connection.peer]
        self._count(TOLD if answer.user else answer.error)
        before = self._remembered.pop(connection.peer, None)
        holds_s = self._holds_s(answer, before)
        self._remembered[connection.peer] = Remembered(answer, self._now() + holds_s, holds_s)
        if len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        return answer

    def _holds_s(self, answer: Answer, before: Remembered | None) -> float:
        if answer.user:
            return self.settings.remember_s
        longest_s = min(FAILED_S, self.settings.remember_s)
        if self.settings.mode != IDENT_REQUIRE or not self.is_passing(answer):
            return longest_s
        if before is None or not self.is_passing(before.answer):
            return min(longest_s, PASSING_S)
        return min(longest_s, 2 * before.holds_s)

    def _count(self, result: str) -> None:
        self.counters[result if result in RESULTS else OTHER] += 1
