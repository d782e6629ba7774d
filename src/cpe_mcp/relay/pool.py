"""The warm pool: connections to the concentrator that are ready before a flow needs one (design D2).

A pooled connection has sent the Convert fixed header with its final Total Length, and the Cookie TLV where there is one:
these bytes make the kernel join the other subflows and let the concentrator authenticate early. All members go to the same
concentrator by the same first WAN, the ones a new flow would get now; when that changes the members are replaced.
"""

from __future__ import annotations

import _socket
import collections
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from cpe_mcp.aaa.presenter import Presenter, heard
from cpe_mcp.convert import Client, ConvertError, Refused
from cpe_mcp.paths.snapshot import ConcentratorView, Snapshot, WanView
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay.loop import End, Loop
from cpe_mcp.relay.sockets import connect_concentrator, socket_error
from cpe_mcp.relay.subflow_info import speaks_mptcp

if TYPE_CHECKING:
    from cpe_mcp.relay.sockets import Socket

CLOSED_DETAIL = "it has closed a warm connection"
RETRY_S = 1.0
"""Pause after a member could not be opened: the control daemon needs a moment to name another WAN or concentrator."""
PEEK_BYTES = 1024
"""Enough for the largest Convert message, 1020 bytes: what a concentrator says to a warm connection is an Error TLV."""

Trouble = Callable[[str, str, str, float, str], None]
"""``(concentrator, wan, reason, wait_s, detail)``"""
Handshake = Callable[[str, "Socket | None"], str]
"""``(wan, socket)``, None for a handshake without an answer; returns why the connection is plain TCP, or ""."""


class Route:
    """Where new connections go: concentrator, one of its addresses, and the WAN of the first subflow."""

    __slots__ = ("address", "bound", "concentrator", "congestion_control", "source", "wan")

    def __init__(
        self, concentrator: ConcentratorView, wan: WanView, congestion_control: str, *, bound: bool = False
    ) -> None:
        """``bound``: plain TCP, which cannot leave its WAN."""
        self.bound = bound
        self.concentrator = concentrator
        self.wan = wan
        self.congestion_control = congestion_control
        self.address = ""
        self.source = ""
        for address in concentrator.addresses:
            source = wan.address6 if ":" in address else wan.address4
            if source:
                self.address, self.source = address, source
                break

    def key(self) -> tuple[object, ...]:
        """Two routes with the same key are interchangeable."""
        view = self.concentrator
        return (
            view.name,
            self.address,
            view.port,
            view.credential,
            view.foreign,
            self.wan.name,
            self.source,
            self.bound,
        )

    def warms(self) -> bool:
        """Whether warm connections present themselves to this concentrator while they wait."""
        return not self.concentrator.foreign

    def open(self, dscp: int = 0) -> Socket:
        """Start a connection. Raises OSError."""
        return connect_concentrator(
            self.address,
            self.concentrator.port,
            device=self.wan.device,
            source=self.source,
            congestion_control=self.congestion_control,
            dscp=dscp,
            mptcp=not self.bound,
        )


class Member:
    """One warm connection."""

    __slots__ = ("_pool", "convert", "cookie", "deadline", "end", "fallback", "opened", "prefix_sent", "ready", "route")

    def __init__(self, pool: Pool, route: Route, sock: Socket, now: float, timeout_s: float) -> None:
        self._pool = pool
        self.route = route
        self.cookie = b""
        self.convert = Client()
        self.end = End(sock, self)
        self.opened = now
        self.deadline = now + timeout_s
        self.fallback = ""
        """Why the handshake ended in plain TCP; "" when it did not."""
        self.ready = False
        self.prefix_sent = False

    def on_events(self, end: End, mask: int) -> None:
        """The handshake finished, or the concentrator spoke or closed: a warm one has nothing to say but Errors."""
        if not self.ready:
            if end.writable or end.hangup:
                self._pool.connected(self)
        elif end.readable:
            self._pool.spoke(self)

    def on_again(self) -> None:
        """A member never hits a work bound."""

    def abandon(self) -> None:
        """See :class:`cpe_mcp.relay.loop.Owner`."""
        self._pool.drop(self)


class Pool:
    """Members of one worker. ``trouble`` is told why a member could not be had, ``handshake`` how each handshake ended,
    ``took`` how long it took over a WAN; ``presenter`` makes the cookies for a concentrator."""

    def __init__(
        self,
        loop: Loop,
        trouble: Trouble,
        handshake: Handshake,
        took: Callable[[str, float], None],
        presenter: Callable[[ConcentratorView], Presenter],
    ) -> None:
        self._loop = loop
        self._trouble = trouble
        self._handshake = handshake
        self._took = took
        self._presenter = presenter
        self._ready: collections.deque[Member] = collections.deque()
        self._opening: set[Member] = set()
        self._route: Route | None = None
        self._size = 0
        self._idle_s = 0.0
        self._timeout_s = 0.0
        self._not_before = 0.0
        self._doubted = self._is_stale = False
        self.taken = 0
        self.missed = 0
        """Flows that found the pool empty."""
        self.died = 0
        """Members that died while they waited."""

    def configure(self, route: Route | None, snapshot: Snapshot) -> None:
        """Use this route from now on. Members of another one are closed: a dead WAN's are useless, others are cheap."""
        self._size = snapshot.pool_size
        self._idle_s = snapshot.pool_idle_s
        self._timeout_s = snapshot.connect_timeout_s
        if route is None or self._route is None or route.key() != self._route.key():
            self.close()
            self._not_before = 0.0
            self._doubted = self._is_stale = False
        self._route = route
        while len(self._ready) > self._size:
            self._loop.close(self._ready.popleft().end)

    def doubt(self, concentrator: str, *, stale: bool) -> None:
        """It has left a flow without an answer: no other flow gets a warm connection to it until it has answered.
        ``stale``: a warm one it was."""
        if self._route is not None and self._route.concentrator.name == concentrator:
            self._doubted = True
            self._is_stale |= stale

    def believe(self, concentrator: str) -> None:
        """It answers. Stale members are of a life that it does not remember."""
        if self._doubted and self._route is not None and self._route.concentrator.name == concentrator:
            if self._is_stale:
                self.close()
            self._doubted = self._is_stale = False

    def ready(self) -> int:
        """Members that a flow can have now."""
        return len(self._ready)

    def plain(self) -> int:
        """Ready members that have fallen back to TCP: evidence that something on the way removes MPTCP."""
        return sum(not speaks_mptcp(member.end.sock) for member in self._ready)

    def take(self, route: Route) -> Member | None:
        """The oldest ready member of this route, proven alive; None: the flow opens its own connection."""
        if self._doubted or self._route is None or route.key() != self._route.key():
            return None
        while self._ready:
            member = self._ready.popleft()
            if self._alive(member):
                self.taken += 1
                return member
            self._lost(member)
        if self._size:
            self.missed += 1
        return None

    def refill(self) -> None:
        """Open what is missing. Called at the end of a turn, after the accepted flows were served."""
        if self._route is None or not self._route.address or self._loop.now < self._not_before:
            return
        while len(self._ready) + len(self._opening) < self._size:
            try:
                sock = self._route.open()
            except OSError as error:
                self._failed(self._route, error.strerror or str(error))
                return
            member = Member(self, self._route, sock, self._loop.now, self._timeout_s)
            self._opening.add(member)
            self._loop.add(member.end)

    def tick(self) -> bool:
        """Give up on late handshakes, replace old members. True: there are handshakes under way."""
        now = self._loop.now
        for member in [member for member in self._opening if member.deadline <= now]:
            self._opening.discard(member)
            self._loop.close(member.end)
            self._handshake(member.route.wan.name, None)
            self._failed(member.route, "no answer to the handshake")
        while self._ready and self._ready[0].opened + self._idle_s <= now:
            self._loop.close(self._ready.popleft().end)
        return bool(self._opening)

    def connected(self, member: Member) -> None:
        """The handshake is over; send the prefix."""
        error = socket_error(member.end.sock)
        if not error:
            view = member.route.concentrator
            member.cookie = self._presenter(view).cookie(self._loop.now)
            member.convert = Client(member.cookie)
            try:
                if not view.foreign:
                    member.end.sock.send(member.convert.prefix())
                    member.prefix_sent = True
            except OSError as failure:
                error = failure.errno or 0
        self._opening.discard(member)
        if error:
            self._loop.close(member.end)
            self._failed(member.route, os.strerror(error))
            return
        self._took(member.route.wan.name, self._loop.now - member.opened)
        member.fallback = self._handshake(member.route.wan.name, member.end.sock)
        member.ready = True
        self._ready.append(member)

    def spoke(self, member: Member) -> None:
        """Readable while waiting: an Error TLV, or the end."""
        try:
            data = member.end.sock.recv(PEEK_BYTES)
        except BlockingIOError:
            member.end.readable = False
            return
        except OSError:
            data = b""
        if member in self._ready:
            self._ready.remove(member)
        if data:
            self._heard(member, data)
        else:
            if self._loop.now - member.opened < RETRY_S:
                # A concentrator that closes at once would otherwise be asked again in every turn.
                self._not_before = self._loop.now + RETRY_S
            # Its death shows here first. If it is only old, the control daemon will find it alive.
            name, wan = member.route.concentrator.name, member.route.wan.name
            self._trouble(name, wan, Reason.CONCENTRATOR_UNREACHABLE, 0.0, CLOSED_DETAIL)
        self._lost(member)

    def _heard(self, member: Member, data: bytes) -> None:
        """An Error TLV, if anything: then the concentrator may only have wanted another cookie, and gets one at once."""
        view = member.route.concentrator
        reason, wait_s, detail, refused = judge_unasked(member.convert, data)
        if refused is not None and heard(self._presenter(view), member.cookie, refused, self._loop.now):
            return
        self._trouble(view.name, member.route.wan.name, reason, wait_s, detail)
        self._not_before = self._loop.now + RETRY_S

    def close(self) -> None:
        """Close every member."""
        for member in [*self._ready, *self._opening]:
            self._loop.close(member.end)
        self._ready.clear()
        self._opening.clear()

    def drop(self, member: Member) -> None:
        """Forget it, wherever it is."""
        self._opening.discard(member)
        if member in self._ready:
            self._ready.remove(member)
        self._lost(member)

    def _alive(self, member: Member) -> bool:
        """Its end may be in the kernel already while its event still waits in epoll."""
        try:
            member.end.sock.recv(1, _socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _lost(self, member: Member) -> None:
        self.died += 1
        self._loop.close(member.end)

    def _failed(self, route: Route, detail: str) -> None:
        self._not_before = self._loop.now + RETRY_S
        reason = Reason.CONCENTRATOR_UNREACHABLE
        self._trouble(route.concentrator.name, route.wan.name, reason, 0.0, detail)


def judge_unasked(convert: Client, data: bytes) -> tuple[str, float, str, Refused | None]:
    """``(reason, wait_s, detail, refusal)`` of what a concentrator said before it was asked for anything."""
    try:
        answer = convert.receive_data(data)
    except ConvertError as error:
        return Reason.CONCENTRATOR_NONSENSE, 0.0, str(error), None
    if isinstance(answer, Refused):
        return *judge_refusal(answer), answer
    return Reason.CONCENTRATOR_NONSENSE, 0.0, "it answered before it was asked", None


def judge_refusal(refused: Refused) -> tuple[str, float, str]:
    """``(reason, wait_s, detail)`` of an Error TLV (RFC 8803 section 4.2.8)."""
    code = int(refused.error.code)
    detail = f"Convert Error {code}"
    if code == 96:
        return Reason.SERVER_REFUSED, 0.0, detail
    if code == 97:
        return Reason.SERVER_UNREACHABLE, 0.0, detail
    if code in (3, 32):
        return Reason.CONCENTRATOR_REFUSED, 0.0, detail
    if code in (64, 65):
        return Reason.CONCENTRATOR_BUSY, refused.wait_s, detail
    return Reason.CONCENTRATOR_NONSENSE, 0.0, detail
