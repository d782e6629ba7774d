"""Whose cookie it is, and whether it was here before. One for all workers of a concentrator, so that a cookie is refused at one
worker that was used at another. No IO, and times in s are arguments: ``clock_s``, a Unix time that never steps, by which epochs
are counted, and that routers are told; ``unix_s``, what it really is, for the end of a handle.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import NamedTuple

from cpe_mcp.aaa.cookie import (
    OWN_TABLE,
    Parts,
    epoch_of,
    is_proven,
    make_challenge,
    own_handle,
    pull_cookie,
    read_handle,
    whole_epoch,
)
from cpe_mcp.policy.reasons import Reason

NONCES_MAX = 1_000_000
"""Cookies remembered, about 100 MB when full: 1,100 connections/s for the 15 minutes that one may be taken."""
SUBSCRIBER_SHARE = 4
"""One subscriber's part of them: nobody fills it alone."""

TAKEN = "taken"
"""Of an outcome: the cookie is good, and is so no more."""


class Checked(NamedTuple):
    """What is to be thought of a cookie."""

    outcome: str
    """TAKEN, or the reason why not: a value of Reason."""
    subscriber: str = ""
    expires: int = 0
    """The end of its handle, Unix time in s; 0: the cookie is of the own table."""


class CookieChecker:
    """``keys``: name -> key of the own table. ``secret``: the operator's, b"" for none."""

    def __init__(self, keys: Mapping[str, bytes], secret: bytes, *, nonces_max: int = NONCES_MAX) -> None:
        self._keys = dict(keys)
        self._secret = secret
        self._nonces_max = nonces_max
        self._handles: dict[int, dict[bytes, str]] = {}
        """Epoch -> handle -> name; those of three epochs."""
        self._seen: dict[int, dict[str, set[bytes]]] = {}
        """Epoch -> subscriber -> nonces."""
        self._count = 0
        self._floor = 0
        """No older epoch is taken: what was seen in those is forgotten, whatever the clock says now."""
        self.counters: collections.Counter[str] = collections.Counter()
        """By outcome."""

    def inherit(self, other: CookieChecker) -> None:
        """Settings were read again: what was seen stays seen."""
        self._seen, self._floor, self.counters = other._seen, other._floor, other.counters
        self._count = other._count

    def check(self, cookie: bytes, clock_s: float, unix_s: float) -> Checked:
        """Once for each connection: a cookie that is taken is taken only once. Never raises."""
        checked = self._check(cookie, clock_s, unix_s)
        self.counters[checked.outcome] += 1
        return checked

    def challenge(self, clock_s: float) -> bytes | None:
        """What the router needs to know to make a right one; None: nobody can make one. How many are told it is for the workers
        to limit, as with every error (:meth:`cpe_mcp.relay.limits.PeerLimits.error`)."""
        return make_challenge(clock_s) if self._keys or self._secret else None

    def remembered(self) -> int:
        """Cookies."""
        return self._count

    def _check(self, cookie: bytes, clock_s: float, unix_s: float) -> Checked:
        parts = pull_cookie(cookie)
        if parts is None:
            return Checked(Reason.WRONG_COOKIE)
        around = epoch_of(clock_s)
        self._turn(around)
        epoch = whole_epoch(parts.epoch, around)
        if epoch is None or epoch < self._floor:
            return Checked(Reason.COOKIE_TIME)
        found = self._whose(parts, epoch, unix_s)
        if found.outcome == TAKEN:
            return self._use_up(parts, epoch, found)
        return found

    def _whose(self, parts: Parts, epoch: int, unix_s: float) -> Checked:
        if parts.kind == OWN_TABLE:
            name = self._handles[epoch].get(parts.handle, "")
            if not name:
                return Checked(Reason.UNKNOWN_SUBSCRIBER)
            is_right = is_proven(parts, self._keys[name], epoch)
            return Checked(TAKEN, name) if is_right else Checked(Reason.WRONG_COOKIE)
        handle = read_handle(parts.handle, self._secret)
        if handle is None:
            return Checked(Reason.UNKNOWN_SUBSCRIBER)
        if not is_proven(parts, handle.key, epoch):
            return Checked(Reason.WRONG_COOKIE)
        if handle.expires <= unix_s:
            return Checked(Reason.HANDLE_EXPIRED)
        return Checked(TAKEN, handle.name, handle.expires)

    def _use_up(self, parts: Parts, epoch: int, found: Checked) -> Checked:
        names = self._seen.setdefault(epoch, {})
        nonces = names.get(found.subscriber, ())
        if parts.nonce in nonces:
            return Checked(Reason.REPLAYED_COOKIE)
        used = sum(len(rows.get(found.subscriber, ())) for rows in self._seen.values())
        if used >= self._nonces_max // SUBSCRIBER_SHARE or self._count >= self._nonces_max:
            return Checked(Reason.COOKIES_FULL)
        names.setdefault(found.subscriber, set()).add(parts.nonce)
        self._count += 1
        return found

    def _turn(self, around: int) -> None:
        """Handles of the epochs around this one; what was seen in older ones is forgotten."""
        wanted = {epoch for epoch in (around - 1, around, around + 1) if epoch >= 0}
        if wanted == self._handles.keys():
            return
        self._handles = {
            epoch: self._handles.get(epoch) or {own_handle(name, key, epoch): name for name, key in self._keys.items()}
            for epoch in wanted
        }
        for epoch in [epoch for epoch in self._seen if epoch < around - 1]:
            self._count -= sum(map(len, self._seen.pop(epoch).values()))
        self._floor = max(self._floor, around - 1)
