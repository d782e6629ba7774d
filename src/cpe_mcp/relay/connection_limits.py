"""How many connections each subscriber has, against the limit that came with the verdict. No IO.

The limit is for all workers together: each tells its numbers, the control daemon tells what the others have. With one worker it
is exact; with several, those that begin within a tick of each other may go beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping


class ConnectionLimits:
    """Of one worker; only subscribers that have a limit are counted."""

    def __init__(self) -> None:
        self._here: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._changed: set[str] = set()

    def take(self, subscriber: str, limit: int) -> bool:
        """One more; False: it has ``limit`` already, and this one is not counted."""
        here = self._here.get(subscriber, 0)
        if here + self._elsewhere.get(subscriber, 0) >= limit:
            return False
        self._here[subscriber] = here + 1
        self._changed.add(subscriber)
        return True

    def give_back(self, subscriber: str) -> None:
        """One that was taken is over."""
        self._here[subscriber] -= 1
        if not self._here[subscriber]:
            del self._here[subscriber]
        self._changed.add(subscriber)

    def set_elsewhere(self, counts: Mapping[str, int]) -> None:
        """What other workers have of these subscribers."""
        for name, count in counts.items():
            if count:
                self._elsewhere[name] = count
            else:
                self._elsewhere.pop(name, None)

    def forget_told(self) -> None:
        """A new control daemon is to be told everything, and tells everything."""
        self._elsewhere.clear()
        self._changed.update(self._here)

    def news(self) -> dict[str, int]:
        """``{subscriber: connections here}`` of those that are others than at the last call."""
        news = {name: self._here.get(name, 0) for name in self._changed}
        self._changed.clear()
        return news
