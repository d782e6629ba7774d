"""One edge-triggered epoll loop. Every descriptor is registered once and never again (design D20).

An edge is not repeated, so what it said is kept in its :class:`End` until a system call answered EAGAIN. Descriptors are
closed at the end of a turn only: a number that the kernel gave out anew in the middle of a batch would receive the old one's
events.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import _socket

READ_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITE_EVENTS = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
END_EVENTS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

TICK_S = 0.1
"""Timers are looked at this often while any runs; a timeout may be late by that much. Idle loops wake up once a second."""
IDLE_TICK_S = 1.0
NEVER = float("inf")


class Owner(Protocol):
    """Whoever gets the events of an End."""

    def on_events(self, end: End, mask: int) -> None:
        """``end`` has been updated with ``mask`` already."""

    def on_again(self) -> None:
        """The work bound was hit in the last turn; go on."""

    def abandon(self) -> None:
        """One of the two raised what it should not: let go of the End, whatever state this is in."""


class End:
    """One socket in the loop, and what its edges have said."""

    __slots__ = ("fd", "hangup", "owner", "readable", "sock", "writable")

    def __init__(self, sock: _socket.socket, owner: Owner) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.owner = owner
        self.readable = False
        self.writable = False
        self.hangup = False
        """The peer's FIN or an error is in the queue: a short read is not the last one (it may share an edge with it)."""


def raise_on(owner: Owner) -> None:
    """The exception that is being handled ends the loop."""
    raise  # noqa: PLE0704


class Loop:
    """``on_turn`` runs once at the end of every turn, ``on_tick`` ten times a second (once when nothing is timed).

    ``on_error`` is called while the exception is handled that came out of an owner; the others go on.
    """

    def __init__(
        self,
        *,
        on_turn: Callable[[], None],
        on_tick: Callable[[], bool],
        on_error: Callable[[Owner], None] = raise_on,
    ) -> None:
        self._epoll = select.epoll()
        self._ends: dict[int, End] = {}
        self._level: dict[int, Callable[[], None]] = {}
        self._graves: list[_socket.socket] = []
        self._again: list[Owner] = []
        self._on_turn = on_turn
        self._on_tick = on_tick
        self._on_error = on_error
        self._next_tick = 0.0
        self._wake_at = NEVER
        self.on_wake: Callable[[], None] = lambda: None
        """Called once when the time of :meth:`wake_at` has come."""
        self._stopped = False
        self.now = time.monotonic()
        """The one clock reading of this turn, s."""

    def add(self, end: End) -> None:
        """Watch a socket for everything, edge-triggered. What is true already is reported as a first edge."""
        self._ends[end.fd] = end
        self._epoll.register(end.fd, EDGE)

    def add_level(self, fd: int, callback: Callable[[], None]) -> None:
        """Watch a descriptor for reading, level-triggered: listeners and the control channel."""
        self._level[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def forget_level(self, fd: int) -> None:
        """Stop calling back; closing the descriptor takes it out of epoll."""
        self._level.pop(fd, None)

    def close(self, end: End) -> None:
        """Stop watching now, close at the end of the turn. Calling it twice does nothing more."""
        if self._ends.get(end.fd) is end:
            del self._ends[end.fd]
            self._graves.append(end.sock)

    def again(self, owner: Owner) -> None:
        """Call ``owner.on_again()`` in the next turn, which will not sleep."""
        self._again.append(owner)

    def go_on(self, owner: Owner) -> None:
        """Call ``owner.on_again()`` now."""
        try:
            owner.on_again()
        except Exception:
            self._on_error(owner)

    def tick_soon(self) -> None:
        """Something is to be told or timed: do not sleep through the next tick."""
        self._next_tick = min(self._next_tick, self.now + TICK_S)

    def wake_at(self, when: float) -> None:
        """Call ``on_wake`` then, or earlier if that was asked for before; late by less than 1 ms, which is epoll's step."""
        self._wake_at = min(self._wake_at, when)

    def stop(self) -> None:
        """Leave :meth:`run` at the end of this turn."""
        self._stopped = True

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        ends, level = self._ends, self._level
        while not self._stopped:
            wait_s = 0.0 if self._again else max(0.0, min(self._next_tick, self._wake_at) - time.monotonic())
            events = self._epoll.poll(wait_s)
            self.now = time.monotonic()
            again, self._again = self._again, []
            for owner in again:
                self.go_on(owner)
            for fd, mask in events:
                end = ends.get(fd)
                if end is not None:
                    if mask & READ_EVENTS:
                        end.readable = True
                        if mask & END_EVENTS:
                            end.hangup = True
                    if mask & WRITE_EVENTS:
                        end.writable = True
                    try:  # costs nothing as long as nothing is raised
                        end.owner.on_events(end, mask)
                    except Exception:
                        self._on_error(end.owner)
                elif fd in level:
                    level[fd]()
            if self.now >= self._wake_at:
                self._wake_at = NEVER
                self.on_wake()
            self._on_turn()
            if self.now >= self._next_tick:
                self._next_tick = self.now + (TICK_S if self._on_tick() else IDLE_TICK_S)
            if self._graves:
                for sock in self._graves:
                    sock.close()
                self._graves.clear()

    def finish(self) -> None:
        """Close everything that is still watched."""
        for end in list(self._ends.values()):
            self.close(end)
        for sock in self._graves:
            sock.close()
        self._graves.clear()
        self._epoll.close()
