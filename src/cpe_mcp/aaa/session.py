"""The router's authentication: what RADIUS said of this subscriber, how long it holds, when to ask again.

A table over four states. New flows may be proxied in one of them; running flows are never touched from here: a new
answer changes what later flows get. Packets and sockets must not be in here; time is an argument, in seconds of
time.monotonic().
"""

from __future__ import annotations

from typing import NamedTuple

from cpe_mcp.aaa.answer import ACCEPT, REJECT, TIMEOUT, RadiusAnswer
from cpe_mcp.policy.reasons import Reason

RENEW_SHARE = 0.8
"""Of a Session-Timeout: when to ask again. The rest leaves time for retries before running out."""
MIN_SESSION_S = 5.0
"""A shorter Session-Timeout is taken as this: it would make the router ask without pause."""

PENDING, ACCEPTED, REJECTED, TIMED_OUT = "pending", "accepted", "rejected", "timed-out"
EXPIRE = "expire"
"""The one event that is not a verdict: the Session-Timeout of the last Accept has passed."""

TRANSITIONS: dict[tuple[str, str], str] = {
    (PENDING, ACCEPT): ACCEPTED,
    (PENDING, REJECT): REJECTED,
    (PENDING, TIMEOUT): TIMED_OUT,
    (ACCEPTED, ACCEPT): ACCEPTED,
    (ACCEPTED, REJECT): REJECTED,
    (ACCEPTED, TIMEOUT): ACCEPTED,  # an Accept holds as long as it said, whether or not the servers are there
    (ACCEPTED, EXPIRE): TIMED_OUT,
    (REJECTED, ACCEPT): ACCEPTED,
    (REJECTED, REJECT): REJECTED,
    (REJECTED, TIMEOUT): REJECTED,  # silence takes nothing back
    (TIMED_OUT, ACCEPT): ACCEPTED,
    (TIMED_OUT, REJECT): REJECTED,
    (TIMED_OUT, TIMEOUT): TIMED_OUT,
}
REASONS = {
    PENDING: Reason.AUTH_PENDING,
    ACCEPTED: Reason.READY,
    REJECTED: Reason.NOT_AUTHORIZED,
    TIMED_OUT: Reason.AUTH_TIMEOUT,
}


class View(NamedTuple):
    """What follows from the state now."""

    may_proxy: bool
    reason: str
    """A value of :class:`Reason`."""
    detail: str
    """What the server said, or why none answered."""


class AuthSession:
    """One subscriber's session. Use: when :meth:`ask_at` is reached, :meth:`asked`, ask, :meth:`answered`.

    ``retry_s`` is the pause after a Reject, and after a timeout.
    """

    def __init__(self, *, retry_s: float, now: float) -> None:
        self._retry_s = retry_s
        self._state = PENDING
        self._ask_at = now
        self._answered = float("-inf")
        self._until: float | None = None
        self._is_asking = False
        self.answer: RadiusAnswer | None = None
        """The last answer, whatever its verdict: for people."""
        self.accept: RadiusAnswer | None = None
        """The Accept in force, also while servers are silent at its renewal: its concentrators are the ones to use."""

    def ask_at(self, now: float) -> float | None:
        """When the next question is due (it is when this is <= now); None: while one is open, or never."""
        self._expire(now)
        return None if self._is_asking or self._ask_at == float("inf") else self._ask_at

    @property
    def is_asking(self) -> bool:
        """Whether a question is open."""
        return self._is_asking

    def asked(self) -> None:
        """A question is on its way."""
        self._is_asking = True

    def answered(self, answer: RadiusAnswer, now: float) -> None:
        """Its answer is here."""
        self._expire(now)
        self._is_asking = False
        self.answer = answer
        self._answered = now
        self._state = TRANSITIONS[self._state, answer.verdict]
        self._ask_at = now + self._retry_s
        if answer.verdict == ACCEPT:
            self.accept = answer
            self._hold(answer, now)
        elif answer.verdict == REJECT:
            self.accept = self._until = None

    def replace(self, accept: RadiusAnswer, now: float, *, is_new_time: bool) -> None:
        """The server has changed the Accept in force (RFC 5176); ``is_new_time``: how long it holds, from now, too. What is
        being asked was asked before: its answer must not be told to :meth:`answered`."""
        self.accept = accept
        if self._is_asking:
            self._is_asking = False
            self._ask_at = now + self._retry_s
        if is_new_time:
            self._hold(accept, now)

    def hurry(self, now: float) -> None:
        """Something changed that may change the answer (a WAN came up, new credentials): ask at once."""
        self._ask_at = now

    def doubt(self, now: float) -> None:
        """A concentrator refuses whom the Accept in force has let in: ask again, as long after the last answer as after a
        Reject."""
        self._ask_at = min(self._ask_at, max(now, self._answered + self._retry_s))

    def view(self, now: float) -> View:
        """Whether new flows may be proxied, and why."""
        self._expire(now)
        return View(self._state == ACCEPTED, REASONS[self._state], self.answer.reason if self.answer else "")

    @property
    def until(self) -> float | None:
        """When the Accept in force runs out; None: there is none, or it holds until it is taken back."""
        return self._until

    def _hold(self, accept: RadiusAnswer, now: float) -> None:
        self._until, self._ask_at = None, float("inf")
        if accept.session_timeout_s is not None:
            session_s = max(accept.session_timeout_s, MIN_SESSION_S)
            self._until, self._ask_at = now + session_s, now + RENEW_SHARE * session_s

    def _expire(self, now: float) -> None:
        if self._until is not None and now >= self._until:
            self._state = TRANSITIONS[self._state, EXPIRE]
            self.accept = self._until = None
