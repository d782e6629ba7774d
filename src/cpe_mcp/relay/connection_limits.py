"""How many connections each subscriber has, against the limit that came with the verdict. No IO.

The limit is for all workers together: each tells its numbers, the control daemon tells what the others have. With one worker it
is exact; with several, those that begin within a tick of each other may go beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping


class ConnectionLimits:
    """Of one worker. Everybody is counted, since a limit may come while connections run; those with one are told of."""

    def __init__(self) -> None:
        self._here: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._limited: set[str] = set()
        self._changed: set[str] = set()

    def take(self, subscriber: str, limit: int) -> bool:
        """One more; False: it has ``limit`` (0: none) already, and this one is not counted."""
        here = self._here.get(subscriber, 0)
        is_allowed = not limit or here + self._elsewhere.get(subscriber, 0) < limit
        if is_allowed:
            self._here[subscriber] = here + 1
            if subscriber in self._limited:
                self._changed.add(subscriber)
        if limit:
            self._watch(subscriber)
        return is_allowed

    def here(self, subscriber: str) -> int:
        """How many it has in this worker."""
        return self._here.get(subscriber, 0)

    def give_back(self, subscriber: str) -> None:
        """One that was taken is over."""
        self._here[subscriber] -= 1
        if subscriber in self._limited:
            self._changed.add(subscriber)
        if not self._here[subscriber]:
            del self._here[subscriber]
            self._limited.discard(subscriber)

    def set_elsewhere(self, counts: Mapping[str, int]) -> None:
        """What other workers have of these subscribers, who have a limit."""
        for name, count in counts.items():
            self._watch(name)
            if count:
                self._elsewhere[name] = count
            else:
                self._elsewhere.pop(name, None)

    def forget_told(self) -> None:
        """A new control daemon is to be told everything, and tells everything."""
        self._elsewhere.clear()
        self._changed.update(self._limited)

    def news(self) -> dict[str, int]:
        """``{subscriber: connections here}`` of those that have a limit and others than at the last call."""
        news = {name: self._here.get(name, 0) for name in self._changed}
        self._changed.clear()
        return news

    def _watch(self, subscriber: str) -> None:
        """It has a limit: nothing is kept of who has no connection here."""
        if subscriber in self._here and subscriber not in self._limited:
            self._limited.add(subscriber)
            self._changed.add(subscriber)
