"""``mcp-concentrator-relay``: the concentrator's data plane. Speaks Convert with upstream MCPs and connects to servers.

One connection's way: accept, the Convert message (a warm connection sends its prefix long before the rest), who is it, may
this destination be reached, connect, client bytes to the server, Convert reply, bytes both ways, record. Who may use the
concentrator is the control daemon's word; this worker remembers it for a short while.
"""

from __future__ import annotations

import _socket
import errno
import sys
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from cpe_mcp.control.frames import (
    AUTHORIZE,
    AUTHORIZED,
    CAPS,
    CAPS_PER_FRAME,
    CONNECTIONS,
    DEMAND,
    FORGET,
    SETTINGS,
    USAGE,
)
from cpe_mcp.convert import Converter, ErrorCode, PeerError, PrefixReceived, RequestReceived
from cpe_mcp.convert.tlv import TCP_OPTION_MPTCP, TlvType
from cpe_mcp.policy.destinations import DestinationTable
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.policy.speed import PORTS
from cpe_mcp.relay.connection_limits import ConnectionLimits
from cpe_mcp.relay.flow import (
    AUTHORIZING,
    CLOSED,
    CONCENTRATOR,
    CONNECTING,
    DRAINING,
    MEASURING,
    READING,
    RELAYING,
    step,
)
from cpe_mcp.relay.limits import HALF_OPEN, HALF_OPEN_PREFIX, LIMIT_PREFIX, PeerLimits, Strangers
from cpe_mcp.relay.loop import End, Owner
from cpe_mcp.relay.measuring import PER_SUBSCRIBER, Measuring
from cpe_mcp.relay.pump import read_once
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.relay.relaying import NEAR, Flow
from cpe_mcp.relay.sockets import (
    DESCRIPTORS_OUT,
    Socket,
    connect_tcp,
    fell_back,
    is_mptcp,
    listen_mptcp,
    mark,
    set_congestion_control,
    socket_error,
    synack_options,
    unmapped,
    unpack16,
)
from cpe_mcp.relay.subflow_info import subflow_count
from cpe_mcp.relay.subscriber_caps import DOWN, UP, Caps, SubscriberCaps, Turn
from cpe_mcp.relay.worker import Worker, run_worker

DRAIN_S = 2.0
"""How long a refused peer may take to read its Error TLV and close: ten of the longest round trips in sight."""
REMEMBER_S = 60.0
"""A verdict is asked again after this at the latest: the control daemon is the one that knows, this is only a cache."""
REMEMBER_MAX = 16384
"""Verdicts remembered of each kind, about 4 MiB; the oldest goes first. Those who are refused, however many they are, take no
place of those who are served."""
SERVED_S = 3600.0
"""How long an address counts as a subscriber's after he was served there last: longer than warm connections live."""
ASKED_MAX = 8192
"""Questions to the control daemon under way; the oldest is given up. About 4 MiB."""
RETRY_WAIT_S = 5
"""Suggested wait in Convert Errors 64 and 65 of passing troubles of ours (RFC 8803 reads 0 as at least 30 s)."""
NO_CAP = (0.0, 0.0)
SPEEDTEST_PORTS = frozenset(PORTS.values())
USAGE_S = 5.0
"""Between two reports of what subscribers use, where the control daemon accounts."""
EXTENSIONS = bytes([30, 4, 8])
"""TCP option kinds this converter handles: MPTCP, SACK-permitted, timestamps (RFC 8803 section 4.2.4)."""

ERROR_TYPE_AT, ERROR_CODE_AT = 4, 6
"""Octets of a Convert message whose only TLV is an Error: behind the fixed header, and behind type and length (RFC 8803
section 4.2.8)."""

ICMP4_HOST_UNREACHABLE, ICMP4_NET_UNREACHABLE, ICMP4_PROHIBITED = 1, 0, 13
ICMP6_ADDRESS_UNREACHABLE, ICMP6_NO_ROUTE, ICMP6_PROHIBITED = 3, 0, 1


class Verdict(NamedTuple):
    """The control daemon's word about one peer."""

    kind: str
    """``accept``, ``reject``, ``missing-cookie`` or ``later``."""
    subscriber: str
    expires: float
    cookie: bytes
    reason: str
    caps: Caps
    connections: int
    """Most that the subscriber may have at once; 0: no limit."""


Key = TypeVar("Key")
Value = TypeVar("Value")
Peer = tuple[str, str, bytes]
"""``(listener, source address, cookie)``: what authorization depends on."""


NOT_NOW = Verdict("later", "", 0.0, b"", Reason.AUTH_PENDING, Caps(), 0)
"""Of somebody about whom the control daemon is not even asked."""
HELD = {"prefix": HALF_OPEN_PREFIX, "total": HALF_OPEN}


class Outer(NamedTuple):
    """Our end of the connection to a server."""

    address: str
    port: int
    since: float
    until: float | None = None
    """When it was given up; None: it lasts."""

    def told(self, now: float, unix_offset: float) -> tuple[str, int, float, float]:
        """As a record has it."""
        seconds = (now if self.until is None else self.until) - self.since
        return self.address, self.port, round(self.since + unix_offset, 3), round(seconds, 3)


class ConcentratorFlow(Flow):
    """One connection of an upstream MCP."""

    __slots__ = (
        "_accounted",
        "_concentrator",
        "_convert",
        "_cookie",
        "_counts",
        "_listener",
        "_measuring",
        "_outer",
        "_prefix",
        "_request",
        "_verdict",
        "_waits",
    )

    def __init__(self, worker: ConcentratorWorker, sock: Socket, listener: str, peer: tuple[str, int]) -> None:
        super().__init__(worker, CONCENTRATOR, READING, sock, (unmapped(peer[0]), peer[1]))
        self._concentrator = worker
        self._listener = listener
        self._convert = Converter()
        self._cookie: bytes | None = None
        self._request: RequestReceived | None = None
        self._verdict: Verdict | None = None
        self._waits = False
        """Counted as a warm connection of its subscriber."""
        self._counts = False
        """Counted against its subscriber's limit."""
        self._measuring: Measuring | None = None
        self._prefix = worker.peers.prefix_of(self.client[0])
        self._outer: Outer | None = None
        self._accounted = 0, 0
        """Bytes up and down that were reported."""
        self.deadline = self.accepted + worker.message_timeout_s
        worker.hold(self, self._prefix)

    # The Convert message --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The first bytes are usually here at accept."""
        self.read()
        if self.state != CLOSED:
            self.worker.loop.add(self.near)

    def read(self) -> None:
        """What there is of the message."""
        while self.state == READING and self.near.readable:
            try:
                data = read_once(self.near)
            except OSError:
                self.close(Reason.CLIENT_RESET, reset=True)
                return
            if data is None:
                return
            if not data:
                self.close(Reason.CLOSED, reset=True)
                return
            try:
                events = self._convert.receive_data(data)
            except PeerError as error:
                self._concentrator.count("malformed")
                self._refuse_with(error.reply, Reason.MALFORMED)
                return
            for event in events:
                if isinstance(event, PrefixReceived):
                    self._authorize(event.cookie)
                elif self.state == READING:
                    self._requested(event)
            self.pooled = self.pooled or self.state == READING

    def _requested(self, request: RequestReceived) -> None:
        self.state = step(CONCENTRATOR, self.state, "request")
        self._request = request
        self._stop_waiting()
        self.deadline = self.worker.loop.now + self._concentrator.message_timeout_s
        if self._cookie is None or request.cookie != self._cookie:
            self._verdict = None
            self._authorize(request.cookie)
        elif self._verdict is not None:
            self._proceed(self._verdict)

    # Authorization --------------------------------------------------------------------------------------------------

    def _authorize(self, cookie: bytes) -> None:
        self._cookie = cookie
        verdict = self._concentrator.verdict((self._listener, self.client[0], cookie), self, self._prefix)
        if verdict is not None:
            self.judged(verdict)

    def ends(self) -> dict[str, Any]:
        """The peer's port, and our address and port, for frame ``authorize``."""
        local = self.near.sock.getsockname()
        return {"port": self.client[1], "local": [unmapped(local[0]), local[1]]}

    def judged(self, verdict: Verdict) -> None:
        """The verdict came, at once or later."""
        self._verdict = verdict
        if verdict.kind == "accept":
            self._concentrator.strangers.discard(self)
            self._concentrator.count("authorized")
            mark(self.near.sock, self._concentrator.peers.mark)
        if self.state == AUTHORIZING:
            self._proceed(verdict)
        elif self.state == READING:
            if verdict.kind == "accept":
                self._wait(verdict)
            else:
                self._refuse_peer(verdict)

    def _wait(self, verdict: Verdict) -> None:
        """A warm connection of somebody we serve: it may wait for its flow, within the subscriber's share."""
        worker = self._concentrator
        if worker.waiting.get(verdict.subscriber, 0) >= worker.pool_max:
            self._refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([RETRY_WAIT_S]), Reason.POOL_FULL)
            return
        worker.waiting[verdict.subscriber] = worker.waiting.get(verdict.subscriber, 0) + 1
        self._waits = True
        self.deadline = worker.loop.now + worker.pool_idle_s

    def _stop_waiting(self) -> None:
        if self._waits and self._verdict is not None:
            self._waits = False
            _one_less(self._concentrator.waiting, self._verdict.subscriber)

    def _refuse_peer(self, verdict: Verdict) -> None:
        self._concentrator.count("refused")
        if verdict.kind == "missing-cookie":
            self._refuse(ErrorCode.MISSING_COOKIE, verdict.cookie, verdict.reason)
        elif verdict.kind == "later":
            self._refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([RETRY_WAIT_S]), verdict.reason)
        else:
            self._refuse(ErrorCode.NOT_AUTHORIZED, b"", verdict.reason)

    # The server -----------------------------------------------------------------------------------------------------

    def _proceed(self, verdict: Verdict) -> None:
        if verdict.kind != "accept":
            self._refuse_peer(verdict)
            return
        assert self._request is not None
        worker, connect = self._concentrator, self._request.connect
        if connect is None:
            reply = self._convert.accept(extensions=EXTENSIONS if self._request.info else None)
            self._refuse_with(reply, Reason.CLOSED)
            return
        family, address = unpack16(connect.address)
        self.server, self.server_family = (address, connect.port), family
        unsupported = bytes(kind for kind in self._request.option_kinds if kind not in EXTENSIONS)
        if unsupported:
            self._refuse(ErrorCode.UNSUPPORTED_TCP_OPTION, unsupported, Reason.TCP_OPTION_UNSUPPORTED)
            return
        if connect.port in SPEEDTEST_PORTS and worker.speedtest_s and self._is_addressed(connect.address, address):
            self._measure(verdict, connect.port)
            return
        if not worker.hairpin and worker.is_subscriber_address(address):
            self._refuse(ErrorCode.NOT_AUTHORIZED, b"", Reason.DESTINATION_REFUSED)
            return
        if not worker.destinations.is_reachable(connect.address):
            self._unreachable(ICMP4_PROHIBITED, ICMP6_PROHIBITED, Reason.DESTINATION_REFUSED)
            return
        if worker.has_enough(verdict) or not worker.limits.take(verdict.subscriber, verdict.connections):
            self._refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([RETRY_WAIT_S]), Reason.CONNECTIONS_FULL)
            return
        self._counts = True
        if verdict.connections:
            worker.loop.tick_soon()
        self.state = step(CONCENTRATOR, self.state, "open")
        self.action, self.reason = "proxy", Reason.POOLED if self.pooled else Reason.PROXIED
        self.deadline = worker.loop.now + worker.connect_timeout_s
        mptcp = worker.server_mptcp or TCP_OPTION_MPTCP in self._request.option_kinds
        try:
            sock = connect_tcp(family, address, connect.port, mptcp=mptcp)
        except OSError as error:
            self._failed(error.errno or errno.EIO)
            return
        self.far = End(sock, self)
        worker.loop.add(self.far)
        if worker.logs_addresses:  # now: who scans ports has used ours too, though nobody may ever answer
            outer = sock.getsockname()
            self._outer = Outer(outer[0], outer[1], worker.loop.now)

    def _connected(self) -> None:
        assert self.far is not None
        assert self._request is not None
        error = socket_error(self.far.sock)
        if error:
            self._failed(error)
            return
        request = self._request
        options = None
        if request.connect is not None and request.connect.tcp_options:
            options = synack_options(self.far.sock, mptcp=is_mptcp(self.far.sock))
        reply = self._convert.accept(extensions=EXTENSIONS if request.info else None, extended_header=options)
        up = request.trailing
        try:
            if up:  # to the server first: its answer is what the client waits for
                up = up[self.far.sock.send(up) :]
        except BlockingIOError:
            pass
        except OSError as broken:
            self._failed(broken.errno or errno.EIO)
            return
        try:
            rest = reply[self.near.sock.send(reply) :]
        except BlockingIOError:
            rest = reply
        except OSError:
            self.close(Reason.CLIENT_RESET, reset=True)
            return
        self.state = step(CONCENTRATOR, self.state, "connected")
        self._request = None
        if fell_back(self.near.sock):
            self._concentrator.count("plain_tcp")
        turns = _, up_turn = self._turns(self)
        if up_turn is not None:
            up_turn.spend(len(request.trailing))
        self.relay(up, rest, moved_up=len(request.trailing), moved_down=0, turns=turns)

    def _count_no_more(self) -> None:
        if self._counts and self._verdict is not None:
            self._counts = False
            self._concentrator.limits.give_back(self._verdict.subscriber)
            if self._verdict.connections:
                self.worker.loop.tick_soon()

    def _turns(self, owner: Owner) -> tuple[Turn | None, Turn | None]:
        """Places of DOWN and UP under the subscriber's cap."""
        assert self._verdict is not None
        caps, worker = self._verdict.caps, self._concentrator
        return worker.caps.turn(caps, DOWN, owner), worker.caps.turn(caps, UP, owner)

    def recap(self, caps: Caps) -> None:
        """The subscriber has these caps from now on; one that came or went holds for what runs too."""
        if self._verdict is None or self._verdict.caps is not caps:
            return
        if self._measuring is not None:
            test = self._measuring
            if test.turn is not None:
                test.turn.leave()
            test.turn = self._turns(test)[DOWN if test.is_sending else UP]
            self.worker.loop.again(test)
        elif self.relaying is not None:
            for direction, turn in zip((self.relaying.down, self.relaying.up), self._turns(self), strict=True):
                if direction.turn is not None:
                    direction.turn.leave()
                direction.turn = turn
            self.worker.loop.again(self)

    def _failed(self, error: int) -> None:
        """The server's handshake failed: the Error TLV that says how (RFC 8803 section 4.2.8)."""
        if error in DESCRIPTORS_OUT or error == errno.EADDRNOTAVAIL:
            self._refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([RETRY_WAIT_S]), Reason.NO_RESOURCES)
        elif error == errno.ENETDOWN:
            self._refuse(ErrorCode.NETWORK_FAILURE, bytes([RETRY_WAIT_S]), Reason.NETWORK_FAILURE)
        elif error in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
            self._refuse(ErrorCode.CONNECTION_RESET, b"", Reason.SERVER_REFUSED)
        elif error == errno.ENETUNREACH:
            self._unreachable(ICMP4_NET_UNREACHABLE, ICMP6_NO_ROUTE, Reason.SERVER_UNREACHABLE)
        elif error in (errno.EACCES, errno.EPERM):
            self._unreachable(ICMP4_PROHIBITED, ICMP6_PROHIBITED, Reason.SERVER_UNREACHABLE)
        else:
            self._unreachable(ICMP4_HOST_UNREACHABLE, ICMP6_ADDRESS_UNREACHABLE, Reason.SERVER_UNREACHABLE)

    def _unreachable(self, icmp4: int, icmp6: int, reason: str) -> None:
        code = icmp6 if self.server_family == _socket.AF_INET6 else icmp4
        self._refuse(ErrorCode.DESTINATION_UNREACHABLE, bytes([code]), reason)

    # The speed test -------------------------------------------------------------------------------------------------

    def _is_addressed(self, packed: bytes, address: str) -> bool:
        """Whether this is the address by which the peer has reached us."""
        return address == unmapped(self.near.sock.getsockname()[0]) or packed in self._concentrator.public

    def _measure(self, verdict: Verdict, port: int) -> None:
        assert self._request is not None
        worker = self._concentrator
        running = worker.measuring.get(verdict.subscriber, 0)
        if running >= PER_SUBSCRIBER:
            self._refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([RETRY_WAIT_S]), Reason.SPEEDTEST_FULL)
            return
        worker.measuring[verdict.subscriber] = running + 1
        worker.count("speedtests")
        self.state = step(CONCENTRATOR, self.state, "measure")
        self.action, self.reason = "speedtest", Reason.SPEEDTEST
        self.deadline = worker.loop.now + worker.speedtest_s
        reply = self._convert.accept(extensions=EXTENSIONS if self._request.info else None)
        test = self._measuring = Measuring(self, port, reply, len(self._request.trailing))
        test.turn = self._turns(test)[DOWN if test.is_sending else UP]
        self._request = None
        worker.congestion.begins(worker.loop.now, self)
        self._measuring.start()

    # Refusal --------------------------------------------------------------------------------------------------------

    def _refuse(self, code: ErrorCode, value: bytes, reason: str) -> None:
        self._refuse_with(self._convert.refuse(code, value), reason)

    def _refuse_with(self, reply: bytes, reason: str) -> None:
        """Send the last message and wait for the peer to close. Too many strangers are told nothing, and not waited for."""
        worker = self._concentrator
        if self in worker.strangers:
            is_known = worker.is_subscriber_address(self.client[0])
            if worker.reached(worker.peers.error(self._prefix, worker.loop.now, is_known=is_known)):
                self.close(Reason.NO_RESOURCES, reset=True)
                return
        self._stop_waiting()
        self._count_no_more()
        self.drop_far()
        self.state = step(CONCENTRATOR, self.state, "refuse")
        self.action, self.reason = "block", reason
        self.deadline = self.worker.loop.now + DRAIN_S
        try:
            if reply:
                self.near.sock.send(reply)
                if len(reply) > ERROR_CODE_AT and reply[ERROR_TYPE_AT] == TlvType.ERROR:
                    self._concentrator.count(f"error:{reply[ERROR_CODE_AT]}")
            self.near.sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self.close(Reason.CLIENT_RESET, reset=True)
            return
        self._drain()

    def _drain(self) -> None:
        try:
            while (data := read_once(self.near)) is not None:
                if not data:
                    self.close(self.reason)
                    return
        except OSError:
            self.close(self.reason, reset=True)

    # Events ---------------------------------------------------------------------------------------------------------

    def on_events(self, end: End, mask: int) -> None:
        """An edge."""
        state = self.state
        if state == RELAYING:
            self.on_again()
        elif end is self.far:
            if state == CONNECTING and (end.writable or end.hangup):
                self._connected()
        elif state == READING:
            self.read()
        elif state == DRAINING:
            self._drain()
        elif state != CLOSED and self.is_reset():
            self.close(Reason.CLIENT_RESET, reset=True)

    def on_deadline(self) -> None:
        """Too slow: a half-done message, the control daemon's word, the server's handshake, or the peer's close."""
        if self.state == AUTHORIZING:
            self._refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([RETRY_WAIT_S]), Reason.AUTH_TIMEOUT)
        elif self.state == CONNECTING:
            self._failed(errno.ETIMEDOUT)
        elif self.state == MEASURING:
            self.close(Reason.CLOSED, reset=True)
        else:
            self.close(Reason.IDLE, reset=True)

    def close(self, end: str, *, reset: bool = False) -> None:
        """See :class:`Flow`."""
        # In this order: what counts it is undone, whatever goes wrong after.
        self._concentrator.strangers.discard(self)
        self._stop_waiting()
        self._count_no_more()
        self.account()
        if self._cookie is not None and self._verdict is None:
            self._concentrator.waits_no_more((self._listener, self.client[0], self._cookie), self)
        super().close(end, reset=reset)
        if self._measuring is not None and self._verdict is not None:
            _one_less(self._concentrator.measuring, self._verdict.subscriber)
            if self._measuring.turn is not None:
                self._measuring.turn.leave()
            self._measuring = None

    def account(self) -> None:
        """What was carried since the last time counts for the subscriber."""
        worker, relaying, test = self._concentrator, self.relaying, self._measuring
        if not worker.accounts or self._verdict is None:
            return
        if relaying is not None:
            up, down = relaying.up.moved, relaying.down.moved
        elif test is not None:
            up, down = test.carried()
        else:
            return
        before, self._accounted = self._accounted, (up, down)
        used = worker.usage.setdefault(self._verdict.subscriber, [0, 0, 0])
        used[0] += up - before[0]
        used[1] += down - before[1]
        used[2] = max(used[2], subflow_count(self.near.sock))

    def record(self, end: str) -> FlowRecord:
        """See :class:`Flow`."""
        record, test = super().record(end), self._measuring
        if self._outer is not None:
            record = record._replace(outer=self._outer.told(self.worker.loop.now, self.worker.unix_offset))
        if test is None:
            return record
        up, down = test.carried()
        return record._replace(bytes_up=up, bytes_down=down)

    def drop_far(self) -> None:
        """See :class:`Flow`: with it goes our port."""
        if self._outer is not None:
            self._outer = self._outer._replace(until=self.worker.loop.now)
        super().drop_far()

    def withdraw(self, *, warm_only: bool) -> None:
        """The subscriber's authorization is gone, and with it what was begun under it; a FIN would pass a cut transfer off as
        a complete one."""
        if self.state == READING or not warm_only:
            self.close(Reason.WITHDRAWN, reset=True)

    def belongs_to(self, address: str | None, names: Collection[str]) -> bool:
        """Whether it was accepted as one of these subscribers', and from this address, if there is one."""
        verdict = self._verdict
        if verdict is None or verdict.kind != "accept":
            return False
        return verdict.subscriber in names and (address is None or self.client[0] == address)

    def end_reason(self, broken: str) -> str:
        """See :class:`Flow`."""
        return Reason.MPTCP_RESET if broken == NEAR else Reason.SERVER_RESET

    def peer_names(self) -> tuple[str, str]:
        """The subscriber stands where an upstream record names the concentrator."""
        return (self._verdict.subscriber if self._verdict is not None else "", "")

    def sending(self) -> tuple[Socket | None, int]:
        """See :class:`Flow`."""
        if self.relaying is not None:
            return self.near.sock, self.relaying.down.moved
        if self._measuring is not None and self._measuring.is_sending:
            return self.near.sock, self._measuring.moved
        return None, 0

    def sends_from(self) -> str:
        """See :class:`Flow`: the address of the peer's first subflow."""
        return self.client[0]


class ConcentratorWorker(Worker):
    """The worker: listeners, remembered verdicts, flows. Serves nobody until the control daemon sent its settings."""

    role = "concentrator"

    def __init__(self, run_dir: str, index: int, parent: int) -> None:
        super().__init__(run_dir, index, parent=parent)
        self.message_timeout_s = 5.0
        self.connect_timeout_s = 8.0
        self.pool_idle_s = 300.0
        self.pool_max = 0
        self.server_mptcp = False
        self.hairpin = False
        self.logs_addresses = False
        self.accounts = False
        self.usage: dict[str, list[int]] = {}
        """Subscriber -> octets up and down since the last report, and the most subflows of one connection."""
        self._next_usage = 0.0
        self.destinations = DestinationTable({"allow": [], "deny": []})
        self.waiting: dict[str, int] = {}
        """Warm connections by subscriber."""
        self.speedtest_s = 0.0
        """A speed test ends after this at the latest; 0: none is served."""
        self.measuring: dict[str, int] = {}
        """Speed tests by subscriber."""
        self.caps = SubscriberCaps(self.loop)
        self.limits = ConnectionLimits()
        self.public: frozenset[bytes] = frozenset()
        """Addresses in front of us that lead here, 16 octets each."""
        self.peers = PeerLimits()
        self.strangers: Strangers[ConcentratorFlow] = Strangers()
        """Flows whose peer is not authenticated, so they may not hold a place for long."""
        self._accepted: dict[Peer, Verdict] = {}
        self._refused: dict[Peer, Verdict] = {}
        self._served: dict[str, float] = {}
        """Source address -> until when it counts as a subscriber's."""
        self._asked: dict[int, tuple[Peer, dict[ConcentratorFlow, None]]] = {}
        """Questions under way, by number: about whom, and the flows that wait."""
        self._asking: dict[Peer, int] = {}
        self._asks = 0
        self._listeners: dict[tuple[Any, ...], Socket] = {}
        self._congestion_control = ""

    # Authorization --------------------------------------------------------------------------------------------------

    def verdict(self, peer: Peer, flow: ConcentratorFlow, prefix: bytes) -> Verdict | None:
        """What is remembered of this peer; None: the control daemon was asked, ``flow.judged`` comes later."""
        known = self._accepted.get(peer) or self._refused.get(peer)
        if known is not None and known.expires > self.loop.now:
            self.count("verdict_cached")
            return known
        if self.reached(self.peers.question(prefix, self.loop.now, is_known=self.is_subscriber_address(peer[1]))):
            return NOT_NOW
        self.count("verdict_asked")
        number = self._asking.get(peer) if not peer[2] else None  # each cookie is one connection's
        if number is not None:
            self._asked[number][1][flow] = None
            return None
        if len(self._asked) >= ASKED_MAX:  # its flows have a deadline, and the next one of that peer asks again
            self._asking.pop(self._asked.pop(next(iter(self._asked)))[0], None)
        self._asks += 1
        self._asked[self._asks] = (peer, {flow: None})
        if not peer[2]:
            self._asking[peer] = self._asks
        listener, address, cookie = peer
        question = {"id": self._asks, "address": address, "listener": listener, "cookie": cookie, **flow.ends()}
        self.control.send(AUTHORIZE, question, keep=True)
        return None

    # Limits ---------------------------------------------------------------------------------------------------------

    def reached(self, limit: str) -> bool:
        """Whether it is one; then it is counted."""
        if limit:
            self.count(LIMIT_PREFIX + limit)
        return bool(limit)

    def hold(self, flow: ConcentratorFlow, prefix: bytes) -> None:
        """Nobody knows yet who this is: the oldest stranger goes when there are too many."""
        gone = self.strangers.add(flow, prefix, is_known=self.is_subscriber_address(flow.client[0]))
        if gone is not None:
            self.reached(HELD[gone[1]])
            gone[0].close(Reason.NO_RESOURCES, reset=True)

    def has_enough(self, verdict: Verdict) -> bool:
        """Whether a subscriber opens flows too fast, or has the most that one without a limit of its own may have."""
        name = verdict.subscriber
        own = bool(verdict.connections)
        return self.reached(self.peers.flow(name, self.limits.here(name), self.loop.now, has_own_limit=own))

    def waits_no_more(self, peer: Peer, flow: ConcentratorFlow) -> None:
        """This flow is over and needs no answer: many that come and go leave nothing behind."""
        number = self._asking.get(peer)
        if number is not None:
            self._asked[number][1].pop(flow, None)

    def is_subscriber_address(self, address: str) -> bool:
        """Whether somebody was served from this address lately: connecting to it would be hairpin."""
        return self._served.get(address, 0.0) > self.loop.now

    def _judged(self, payload: dict[str, Any]) -> None:
        peer, flows = self._asked.pop(payload["id"], (None, {}))
        if peer is None:
            return
        if self._asking.get(peer) == payload["id"]:
            del self._asking[peer]
        ttl_s = min(float(payload["ttl_s"]), REMEMBER_S)
        name = payload["subscriber"]
        caps = self.caps.of(name)
        verdict = Verdict(
            payload["verdict"],
            name,
            self.loop.now + ttl_s,
            payload["cookie"],
            payload["reason"],
            caps,
            payload.get("connections", 0),
        )
        self._cap(name, payload.get("caps", NO_CAP))
        self._accepted.pop(peer, None)
        self._refused.pop(peer, None)
        if verdict.kind == "accept":
            _remember(self._served, peer[1], self.loop.now + SERVED_S)
        if ttl_s:  # 0: of this connection only
            _remember(self._accepted if verdict.kind == "accept" else self._refused, peer, verdict)
        for flow in flows:
            if flow.state in (READING, AUTHORIZING):
                self.guarded(flow, partial(flow.judged, verdict))

    def _cap(self, name: str, rates: Sequence[float]) -> None:
        """This worker's share of the subscriber's cap, bytes/s down and up; 0: no cap."""
        if self.caps.set(name, rates):
            caps = self.caps.of(name)
            for flow in list(self.live.values()):
                if isinstance(flow, ConcentratorFlow):
                    flow.recap(caps)

    def _forget(self, payload: dict[str, Any]) -> None:
        address, subscriber = payload.get("address"), payload.get("subscriber")
        for verdicts in (self._accepted, self._refused):
            for peer, verdict in list(verdicts.items()):
                if payload.get("all") or peer[1] == address or (subscriber and verdict.subscriber == subscriber):
                    del verdicts[peer]
        end = payload.get("end")
        if end:
            names = payload.get("names") or [subscriber]
            for flow in list(self.live.values()):
                if isinstance(flow, ConcentratorFlow) and flow.belongs_to(address, names):
                    flow.withdraw(warm_only=end == "warm")

    # The worker's hooks ---------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """See :class:`Worker`. Bytes of live flows count as they go: a long download is not one jump at its end."""
        counters = super().counters()
        relaying = [flow.relaying for flow in self.live.values() if flow.relaying is not None]
        return {
            **counters,
            "bytes_up": counters.get("bytes_up", 0) + sum(row.up.moved for row in relaying),
            "bytes_down": counters.get("bytes_down", 0) + sum(row.down.moved for row in relaying),
            "relaying": len(relaying),
            "waiting": sum(self.waiting.values()),
            "half_open": len(self.strangers),
            "verdicts": len(self._accepted) + len(self._refused),
            "held_back": self.caps.waiting(),
        }

    def on_disconnected(self) -> None:
        """Nobody will answer what was asked until now; who comes from the same address next asks anew."""
        asked = list(self._asked.values())
        self._asked.clear()
        self._asking.clear()
        for _, flows in asked:
            for flow in flows:
                if flow.state in (READING, AUTHORIZING):
                    flow.close(Reason.NO_RESOURCES, reset=True)

    def on_tick(self) -> bool:
        """Tell who wants how much of its cap, and who with a limit has how many connections."""
        if self.control.fileno() < 0:
            self.limits.forget_told()
        demands, connections = list(self.caps.demands().items()), list(self.limits.news().items())
        for start in range(0, len(demands), CAPS_PER_FRAME):
            self.control.send(DEMAND, dict(demands[start : start + CAPS_PER_FRAME]))
        for start in range(0, len(connections), CAPS_PER_FRAME):
            self.control.send(CONNECTIONS, dict(connections[start : start + CAPS_PER_FRAME]))
        if self.accounts and self.loop.now >= self._next_usage:
            self._next_usage = self.loop.now + USAGE_S
            for flow in self.live.values():
                assert isinstance(flow, ConcentratorFlow)
                flow.account()
            self._report_usage()
        return bool(demands)

    def _report_usage(self) -> None:
        rows, self.usage = list(self.usage.items()), {}
        for start in range(0, len(rows), CAPS_PER_FRAME):
            self.control.send(USAGE, dict(rows[start : start + CAPS_PER_FRAME]), keep=True)

    def on_frame(self, kind: str, payload: Any) -> None:
        """Settings, or the answer to a question."""
        if kind == AUTHORIZED:
            self._judged(payload)
        elif kind == FORGET:
            self._forget(payload)
        elif kind == CAPS:
            for name, rates in payload.items():
                self._cap(name, rates)
        elif kind == CONNECTIONS:
            self.limits.set_elsewhere(payload)
            self.loop.tick_soon()
        elif kind == SETTINGS:
            self._configure(payload)

    def on_stop(self) -> None:
        """Joins to running connections are refused from here on too, but these end as well."""
        for listener in self._listeners.values():
            listener.close()

    def on_stopped(self) -> None:
        """See :class:`Worker`."""
        self._report_usage()

    def ended(self, record: FlowRecord) -> None:
        """See :class:`Worker`. Routers look whether their lines work by opening a connection and resetting it, each line
        every 2 s while it is idle: those are counted, and no more is made of them. Nor is of strangers that had to go: their
        limit has counted them, and the control daemon has better to do in an attack."""
        if not record.action and record.end == Reason.CLIENT_RESET:
            self.count("probes")
        elif not record.action and record.end == Reason.NO_RESOURCES:
            pass
        else:
            super().ended(record)

    def _configure(self, settings: dict[str, Any]) -> None:
        self.message_timeout_s = float(settings["message_timeout_s"])
        self.connect_timeout_s = float(settings["connect_timeout_s"])
        self.pool_idle_s = float(settings["pool_idle_s"])
        self.pool_max = int(settings["pool_max"])
        self.strangers.total_max = int(settings["half_open_max"])
        self.strangers.prefix_max = int(settings["half_open_prefix"])
        self.peers.configure(settings["limits"])
        self.server_mptcp = bool(settings["server_mptcp"])
        self.hairpin = bool(settings["hairpin"])
        self.logs_addresses = bool(settings["logs_addresses"])
        self.accounts = bool(settings["accounts"])
        self.speedtest_s = float(settings["speedtest_s"])
        self.public = frozenset(settings["public"])
        self.destinations = DestinationTable(settings["destinations"])
        self._congestion_control = settings["congestion_control"]
        self.congestion.configure(settings["lossy_congestion_control"])
        wanted = {
            (row["name"], address, row["port"], row["device"])
            for row in settings["listeners"]
            for address in row["addresses"]
        }
        for key in [key for key in self._listeners if key not in wanted]:
            self.loop.forget_level(self._listeners[key].fileno())
            self._listeners.pop(key).close()
        for key in wanted - self._listeners.keys():
            self._listen(*key)

    def _listen(self, name: str, address: str, port: int, device: str) -> None:
        try:
            listener = listen_mptcp(address, port, device, self.peers.backlog)
        except OSError as error:
            print(f"listener {name}: {address} port {port}: {error.strerror}", file=sys.stderr)
            self.count("listen_failed")
            return
        if self._congestion_control:
            set_congestion_control(listener, self._congestion_control)
        self._listeners[name, address, port, device] = listener
        self.loop.add_level(listener.fileno(), partial(self._accept, listener, name))

    def _accept(self, listener: Socket, name: str) -> None:
        for sock, peer in self.accepted(listener, _socket.AF_INET6):
            self.count(f"accepted:{name}")
            flow = ConcentratorFlow(self, sock, name, peer)
            self.guarded(flow, flow.start)


def _one_less(table: dict[str, int], name: str) -> None:
    """Count down; nothing is kept of who has none."""
    table[name] -= 1
    if not table[name]:
        del table[name]


def _remember(table: dict[Key, Value], key: Key, value: Value) -> None:
    """Put it last; the oldest goes when there are too many."""
    table.pop(key, None)
    table[key] = value
    if len(table) > REMEMBER_MAX:
        del table[next(iter(table))]


def main(argv: list[str] | None = None) -> int:
    """``mcp-concentrator-relay [--run-dir DIR] [--index N] [--parent PID]``"""

    def make(values: dict[str, str]) -> Worker:
        return ConcentratorWorker(values["run-dir"], int(values["index"]), int(values["parent"]))

    defaults = {"run-dir": "/run/mcp-concentrator", "index": "0", "parent": "0"}
    return run_worker("mcp-concentrator-relay", defaults, make, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
