"""For tasks that go round for ever and that everything depends on: one round that fails is not their end.

Whatever was raised is logged with its traceback, once as long as it stays the same, and shown to people; the next round
comes after a pause. When nothing but failures has come for :data:`PATIENCE_S` the process is told to end: procd starts it
again with whatever was broken in it made anew, and where that does not help either connections are forwarded plainly
(design D4), which is better than a daemon that takes them and is blind.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

PAUSE_S, PAUSE_MAX_S, PAUSE_GROWTH = 0.1, 5.0, 2.0
"""After a round that failed; longer with each further one in a row. A dump that was cut off is repeated at once, a router
without descriptors has other worries."""
PATIENCE_S = 300.0
OTHER_S, REPEAT_S = 10.0, 600.0
"""Another failure than the last one is logged after this at the earliest, and the same again after that."""


class Rounds:
    """Of one task. ``what``: what it does, for people; ``on_hopeless`` is called when it has long failed."""

    def __init__(self, what: str, on_hopeless: Callable[[str], None]) -> None:
        self._what = what
        self._on_hopeless = on_hopeless
        self._failing_since: float | None = None
        self._pause_s = 0.0
        self._logged = ""
        self._logged_at = float("-inf")
        self.problem = ""
        """Why the last round failed; "" when it did not."""

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """Around what is done in one round."""
        try:
            yield
        except Exception as error:
            self._failed(time.monotonic(), f"{self._what}: {error!r}")
        else:
            self.problem = ""
            self._failing_since = None
            self._pause_s = 0.0

    def pause_s(self) -> float:
        """How long to wait, at least, before the next round."""
        return self._pause_s

    def _failed(self, now: float, problem: str) -> None:
        self.problem = problem
        self._pause_s = min(PAUSE_MAX_S, self._pause_s * PAUSE_GROWTH) if self._pause_s else PAUSE_S
        if now - self._logged_at >= (REPEAT_S if problem == self._logged else OTHER_S):
            self._logged, self._logged_at = problem, now
            log.exception("%s failed, and is tried again", self._what)
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= PATIENCE_S:
            self._on_hopeless(problem)
