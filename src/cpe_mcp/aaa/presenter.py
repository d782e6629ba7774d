"""The cookies of a router towards one concentrator: what time it is there, and what to do when it wants another cookie
(Convert Error 3, RFC 8803 section 4.2.8). No IO; ``now`` in s of the monotonic clock is an argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from cpe_mcp.aaa.cookie import Credential, epoch_of, make_cookie, pull_cookie, time_of, whole_epoch
from cpe_mcp.convert import ErrorCode, Refused

RELEARN_S = 10.0
"""A concentrator that names another time twice within this is wrong about the time, and asking on would never end."""
MAX_OPAQUE_OCTETS = 1012
"""The longest value of a Cookie TLV."""


class Presenter:
    """Until the concentrator has said otherwise, its clock is thought to be ours (``guess``: Unix time, s)."""

    __slots__ = ("_guess", "_learnt", "_offset_s", "_opaque", "credential")

    def __init__(self, credential: Credential, guess: Callable[[], float] | None = None) -> None:
        self.credential = credential
        self._guess = guess
        self._offset_s: float | None = None
        self._learnt = float("-inf")
        self._opaque = b""

    def cookie(self, now: float) -> bytes:
        """For one connection; b"" for none."""
        return self._opaque or make_cookie(self.credential, self._time(now))

    def refused(self, cookie: bytes, wanted: bytes, now: float) -> bool:
        """Error 3, whose cookie is ``wanted``, came for this ``cookie``. Whether it is worth to come again, once."""
        there_s = time_of(wanted)
        if there_s is None:
            self._opaque = wanted if len(wanted) <= MAX_OPAQUE_OCTETS else b""
            return bool(self._opaque) and self._opaque != cookie
        self._opaque = b""
        parts = pull_cookie(cookie)
        if not self.credential.key or (parts and whole_epoch(parts.epoch, epoch_of(there_s)) is not None):
            return False  # it is not about the time
        offset_s = there_s - now
        if self._offset_s is not None:
            known = epoch_of(now + self._offset_s) & 0xFFFF
            if whole_epoch(known, epoch_of(there_s)) is not None:
                return True  # learnt from another connection that was refused at the same time
            if now - self._learnt < RELEARN_S:
                return False
        self._offset_s, self._learnt = offset_s, now
        return True

    def rejected(self) -> None:
        """Error 32: a cookie of the concentrator's own is worth nothing any more."""
        self._opaque = b""

    def use(self, credential: Credential) -> None:
        """Another one; what was learnt of the concentrator's clock stays."""
        self.credential = credential

    def _time(self, now: float) -> float:
        if self._offset_s is None:
            return (self._guess or time.time)()
        return now + self._offset_s


def heard(presenter: Presenter, cookie: bytes, refused: Refused, now: float) -> bool:
    """An Error TLV came for this cookie. Whether it is worth to come again with another one, once."""
    if refused.error.code == ErrorCode.MISSING_COOKIE:
        return presenter.refused(cookie, refused.error.value[1:], now)
    if refused.error.code == ErrorCode.NOT_AUTHORIZED:
        presenter.rejected()
    return False


class Presenters:
    """By the concentrator's name."""

    def __init__(self) -> None:
        self._rows: dict[str, Presenter] = {}

    def of(self, name: str, credential: Credential) -> Presenter:
        """The one for this concentrator."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = Presenter(credential)
        elif row.credential != credential:
            row.use(credential)
        return row

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        for name in self._rows.keys() - set(names):
            del self._rows[name]
