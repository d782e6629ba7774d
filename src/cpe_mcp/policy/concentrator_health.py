"""Whether each concentrator is alive, by what the workers report and what it answers when it is asked. No IO, no clock.

Workers report every handshake and every word that a concentrator leaves without an answer. That may be one lost packet or one
dead WAN, so nobody is condemned for it: the concentrator is asked at once, over all WANs, and only when it answers over
none it is dead. Whoever is dead is asked again and again, and used again when it answers.

========  =========================================  ==============================================================
state     for new flows                              left when
========  =========================================  ==============================================================
up        used                                       somebody had no answer: suspect
suspect   used (the flow itself tries others soon)   answers: up; answers over no WAN: dead
dead      not used                                   answers, and its hold-off is over: up
========  =========================================  ==============================================================

The hold-off doubles with each death, from 1 s to 1 minute, and starts again at 1 s after 10 minutes without one: a concentrator
that comes and goes does not take the flows along each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

UP = "up"
SUSPECT = "suspect"
DEAD = "dead"

STATES = {
    UP: {"silence": SUSPECT, "answer": UP, "no-answer": DEAD},
    SUSPECT: {"silence": SUSPECT, "answer": UP, "no-answer": DEAD},
    DEAD: {"silence": DEAD, "early-answer": DEAD, "answer": UP, "no-answer": DEAD},
}

HOLD_S, HOLD_MAX_S = 1.0, 60.0
"""Shortest time for which a dead one is not used. 1 s: what a restart of its workers takes."""
MEMORY_S = 600.0
"""Deaths longer ago are forgotten."""
ASK_S, ASK_MAX_S = 1.0, 30.0
"""Pause between two questions to a dead one; it doubles. About 500 octets each: 17 octets/s."""
REGULAR_S = 60.0
"""A concentrator that nobody has heard of for so long is asked too, over unmetered WANs: a spare that is dead is found before
it is needed. 8 octets/s for each concentrator and WAN."""


class Answer(NamedTuple):
    """What a concentrator had to say over one WAN when it was asked."""

    is_alive: bool
    rtt_ms: float = 0.0
    """Of the handshake; 0 where there was none."""
    detail: str = ""
    """Why it is not alive, for people."""


class Standing:
    """One concentrator."""

    __slots__ = ("_deaths", "_pause_s", "ask_at", "detail", "held_until", "identity", "since", "state", "wans")

    def __init__(self, now: float, identity: object = None) -> None:
        self.identity = identity
        self.state = UP
        self.since = now
        self.detail = ""
        self.wans: dict[str, tuple[float, Answer]] = {}
        """WAN -> when it was last asked over it, and the answer."""
        self.ask_at = now + REGULAR_S
        self.held_until = 0.0
        self._deaths: list[float] = []
        self._pause_s = ASK_S

    def deaths(self, now: float) -> int:
        """Those that count still."""
        self._deaths = [at for at in self._deaths if at > now - MEMORY_S]
        return len(self._deaths)

    def step(self, event: str, now: float, detail: str) -> None:
        """Go on by :data:`STATES`."""
        before, self.state = self.state, STATES[self.state][event]
        if before == self.state == UP:
            return
        self.detail = detail
        if before != self.state:
            self.since = now
        if self.state == DEAD and before != DEAD:
            number = self.deaths(now)
            self._deaths.append(now)
            self.held_until = now + min(HOLD_MAX_S, HOLD_S * 2**number)
            self._pause_s = ASK_S
            self.ask_at = self.held_until

    def ask_later(self, now: float) -> None:
        """The next question."""
        if self.state == DEAD:
            self.ask_at = max(self.held_until, now + self._pause_s)
            self._pause_s = min(ASK_MAX_S, 2 * self._pause_s)
        elif self.state == SUSPECT:
            self.ask_at = now + ASK_S
        else:
            self.ask_at = now + REGULAR_S


class ConcentratorHealth:
    """All concentrators, by name. ``now`` is in seconds of time.monotonic()."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def keep(self, known: Mapping[str, object], now: float) -> None:
        """These are known now, by name, and what else tells that one is still the same; others are forgotten."""
        old, self._standings = self._standings, {}
        for name, identity in known.items():
            standing = old.get(name)
            if standing is None or standing.identity != identity:
                standing = Standing(now, identity)
            self._standings[name] = standing

    def is_usable(self, name: str) -> bool:
        """Whether new flows may use it."""
        standing = self._standings.get(name)
        return standing is None or standing.state != DEAD

    def silent(self, name: str, now: float, detail: str) -> None:
        """A worker had no answer from it: it is to be asked, at once if it was thought to be well."""
        standing = self._standings.get(name)
        if standing is None:
            return
        if standing.state == UP:
            standing.ask_at = now
        standing.step("silence", now, detail)

    def heard(self, name: str, now: float) -> None:
        """A worker had an answer. A dead one is asked soon then, because an answer may be older than the death."""
        standing = self._standings.get(name)
        if standing is None:
            return
        if standing.state == DEAD:
            standing.ask_at = min(standing.ask_at, max(now, standing.held_until))
        else:
            standing.step("answer", now, "")
            standing.ask_at = now + REGULAR_S

    def due(self, now: float) -> list[str]:
        """Whom to ask now. Each one is to be followed by :meth:`asked`."""
        return [name for name, standing in self._standings.items() if standing.ask_at <= now]

    def asking(self, name: str) -> None:
        """The question is under way: it is not due meanwhile."""
        self._standings[name].ask_at = float("inf")

    def asked(self, name: str, answers: Mapping[str, Answer], now: float) -> None:
        """What it answered, by WAN; empty: it could not be asked over any, which says nothing about it."""
        standing = self._standings.get(name)
        if standing is None:
            return
        for wan, answer in answers.items():
            standing.wans[wan] = now, answer
        if any(answer.is_alive for answer in answers.values()):
            standing.step("early-answer" if self._is_held(standing, now) else "answer", now, "it answers")
        elif answers:
            standing.step("no-answer", now, next(iter(answers.values())).detail)
        standing.ask_later(now)

    def state(self, name: str) -> str:
        """:data:`UP`, :data:`SUSPECT` or :data:`DEAD`."""
        standing = self._standings.get(name)
        return standing.state if standing is not None else UP

    def next_wake(self) -> float | None:
        """When somebody is due."""
        due = min((standing.ask_at for standing in self._standings.values()), default=float("inf"))
        return due if due < float("inf") else None

    def report(self, name: str, now: float) -> dict[str, Any]:
        """For people, ready for JSON: ``state``, ``since_s``, ``detail``, ``deaths`` in the last 10 minutes, ``asks_again_s``
        of a dead one, and ``wans``: what it last answered over each."""
        standing = self._standings.get(name) or Standing(now)
        is_dead = standing.state == DEAD
        return {
            "state": standing.state,
            "since_s": round(now - standing.since, 1),
            "detail": standing.detail,
            "deaths": standing.deaths(now),
            "asks_again_s": round(max(0.0, standing.ask_at - now), 1) if is_dead and standing.ask_at < 1e12 else None,
            "wans": [
                {
                    "name": wan,
                    "answers": row.is_alive,
                    "rtt_ms": row.rtt_ms,
                    "detail": row.detail,
                    "ago_s": round(now - at),
                }
                for wan, (at, row) in standing.wans.items()
            ],
        }

    @staticmethod
    def _is_held(standing: Standing, now: float) -> bool:
        return standing.state == DEAD and now < standing.held_until
