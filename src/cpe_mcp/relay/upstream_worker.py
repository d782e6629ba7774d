"""``cpe-mcp-relay``: the upstream MCP's data plane. Takes intercepted LAN connections and carries them to a concentrator.

One connection's way: accept, original destination, one try to read, ``decide``, a warm connection or a new one, Connect TLV
with what the client already said, Convert reply stripped, bytes both ways, record. When the concentrator fails before a
client byte is lost the same LAN socket is served directly (design D4).
"""

from __future__ import annotations

import _socket
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from cpe_mcp.aaa.presenter import Presenter, Presenters, heard
from cpe_mcp.control.frames import ANSWERED, CAPS, DEMAND, SNAPSHOT, TROUBLE
from cpe_mcp.control.frames import DIRECT as DIRECT_FRAME
from cpe_mcp.convert import Client, ConvertError, ErrorCode, Established, Refused
from cpe_mcp.kernel.numbers import class_address
from cpe_mcp.paths.snapshot import EMPTY, ORDINARY, ClassView, ConcentratorView, Snapshot, from_wire
from cpe_mcp.policy.decide import decide, wans_of, ways_of
from cpe_mcp.policy.handshakes import NEGOTIATED, PREFIX, UNANSWERED
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay.flow import CLOSED, DIRECT, NEW, RELAYING, UPSTREAM, WAITING, step
from cpe_mcp.relay.loop import End
from cpe_mcp.relay.opening import Attempt, Opening, is_repeatable, late_s
from cpe_mcp.relay.own_cap import OWN, OwnCap
from cpe_mcp.relay.pool import Pool, Route, judge_refusal
from cpe_mcp.relay.pump import read_once
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.relay.relaying import FAR, NEAR, Flow
from cpe_mcp.relay.sockets import (
    Socket,
    connect_tcp,
    listen_transparent,
    pack16,
    reset_on_close,
    set_dscp,
    set_mptcp_dscp,
    socket_error,
    syn_dscp,
    unacknowledged,
)
from cpe_mcp.relay.subflow_info import (
    LanInfo,
    SubflowInfo,
    lan_info,
    plain_info,
    speaks_mptcp,
    subflows_of,
    syn_retransmits,
)
from cpe_mcp.relay.worker import Worker, run_worker

EARLY_BYTES = 8192
"""Client bytes that go out before the Convert reply is here, and are kept until then in case they must be said again. Below
the 16 KiB that a fresh socket takes at once; a TLS ClientHello has at most 2 KiB."""
DIRECT_TIMEOUT_S = 30.0
"""For a direct handshake: four SYNs of Linux (1 + 2 + 4 + 8 s) and a margin, as a browser would wait itself."""
DOUBT_S = 4.0
"""How long a concentrator that left a flow without an answer is asked last; by then the control daemon has asked it."""
SYN_AGAIN_S = 1.0
"""A handshake that took longer may have had its SYN sent twice (RFC 6298 section 2.1) and says nothing of the round trip."""
FADE_S = 10.0
"""In which a long handshake loses half of its weight: queues come and go with the transfers that fill them."""
TROUBLE_S = 1.0
"""The same trouble is reported at most this often."""
PROOF_BYTES = 64 * 1024
"""A flow that moved less is not worth the question what each WAN carried of it (20 us); most flows are smaller."""
SAMPLE_S = 2.0
"""Flows that are moving are looked at this often: because the kernel forgets a subflow's bytes when its line dies, and to
know what they did of late when somebody asks."""
SAMPLE_BYTES = 64 * 1024
"""What a flow must have moved since the last look to be worth another one of 25 us (0.26 Mbit/s)."""
RECENT_S = 1.0
"""Rates are averages over at least this long, and at most SAMPLE_S more."""
FILL_SEGMENTS = 50
"""Fewer say nothing about whether the sender had whole ones to send."""
COMPARE_S = 300.0
"""After a fallback to TCP one handshake over another WAN shows whether it is the first WAN's fault, this often: 200 octets."""
SYNS_WITH_MPTCP = 2
"""Retransmitted SYNs that still carry MPTCP."""
SUBFLOWS_KEPT = 24
"""Of one flow, those that have gone included; the kernel has nine at once. Of older ones the sums are kept."""
ADDRESSES_KEPT = 64
"""WAN addresses remembered with their WAN's name: that of a dead line is needed when its flows end."""


class Mark(NamedTuple):
    """What a flow had done at one moment."""

    at: float
    up: int
    """Bytes from the client, and below to it."""
    down: int
    lan: LanInfo | None = None
    looked_at: float = 0.0
    """When the kernel was asked for ``lan`` and ``subflows``; not later than ``at``."""
    subflows: Mapping[tuple[str, int, str, int], SubflowInfo] = {}


START = Mark(0.0, 0, 0)
"""A flow that has done nothing."""
WAITS = {"": "", NEAR: "client", FAR: "concentrator"}


def mbit(count: int, seconds: float) -> float:
    """Rate of ``count`` bytes."""
    return round(count * 8e-6 / seconds, 3) if seconds > 0 else 0.0


def share(part: float, whole: float) -> float:
    """From 0 to 1."""
    return round(min(1.0, part / whole), 3) if whole > 0 else 0.0


def recent_lan(before: Mark, after: Mark) -> dict[str, Any]:
    """The connection to the LAN device; ``busy`` is the share of the last seconds in which it had something to send,
    ``rwnd_limited`` the share of that in which the device took no more."""
    if after.lan is None:
        return {}
    busy_ms, rwnd_ms = after.lan.busy_ms, after.lan.rwnd_limited_ms
    if before.lan is not None:
        busy_ms, rwnd_ms = busy_ms - before.lan.busy_ms, rwnd_ms - before.lan.rwnd_limited_ms
    seconds = after.looked_at - before.looked_at
    return {**after.lan._asdict(), "busy": share(busy_ms / 1000, seconds), "rwnd_limited": share(rwnd_ms, busy_ms)}


def recent_subflow(before: Mark, after: Mark, subflow: SubflowInfo) -> dict[str, Any]:
    """One subflow, with what it did in the last seconds: rates, the shares of segments that came out of order and that were
    sent again, and ``fill``: how full the segments were that came, 1 when the sender always had a whole one to send."""
    row = subflow._asdict()
    old = before.subflows.get(subflow[:4])
    down, up, came, odd, again = subflow.bytes_down, subflow.bytes_up, subflow.segments_in, subflow.reordered, 0
    if old is not None:
        down, up, came, odd = (
            down - old.bytes_down,
            up - old.bytes_up,
            came - old.segments_in,
            odd - old.reordered,
        )
        again = subflow.retransmits - old.retransmits
    seconds = after.looked_at - before.looked_at
    row["down_mbit"], row["up_mbit"] = mbit(down, seconds), mbit(up, seconds)
    row["reordered_share"] = share(odd, came)
    row["resent_share"] = share(again * subflow.segment_bytes, up)
    row["fill"] = share(down, came * subflow.segment_bytes) if came >= FILL_SEGMENTS else 0.0
    return row


def fallback_of(sock: Socket) -> str:
    """Why a connection that has just been established is plain TCP. The kernel leaves MPTCP out of the SYN only after
    several with it were lost (net.mptcp.syn_retrans_before_tcp_fallback, 2 by default)."""
    return Reason.MPTCP_BLACKHOLE if syn_retransmits(sock) > SYNS_WITH_MPTCP else Reason.MPTCP_STRIPPED


class UpstreamFlow(Flow):
    """One intercepted connection."""

    __slots__ = (
        "_class",
        "_convert",
        "_cookie",
        "_cookie_again",
        "_dscp",
        "_early",
        "_fallback",
        "_is_late",
        "_marks",
        "_opening",
        "_past",
        "_refusers",
        "_reply_by",
        "_rest",
        "_retried",
        "_route",
        "_scheme",
        "_seen",
        "_sent_early",
        "_upstream",
        "_was_mptcp",
    )

    def __init__(
        self, worker: UpstreamWorker, sock: Socket, family: int, peer: tuple[str, int], flow_class: ClassView
    ) -> None:
        super().__init__(worker, UPSTREAM, NEW, sock, peer)
        self._class = flow_class
        self._scheme = "", ""
        """Its own and why, where its class has one or could not have it; else it is that of the snapshot."""
        self._upstream = worker
        self.server = sock.getsockname()[:2]
        self.server_family = family
        self.deadline = self.accepted + DIRECT_TIMEOUT_S
        self._route: Route | None = None
        self._dscp = 0
        """Of both ends of this flow."""
        self._convert: Client | None = None
        self._cookie = b""
        self._cookie_again = False
        """It has come again with another cookie."""
        self._early = b""
        self._sent_early = False
        self._rest = b""
        self._retried = False
        self._opening: Opening | None = None
        """While CONNECTING."""
        self._reply_by = 0.0
        """While WAITING: when to give up."""
        self._is_late = False
        """While WAITING: what was said was not acknowledged when it was time."""
        self._refusers: set[str] = set()
        """Concentrators that have refused to serve it."""
        self._was_mptcp = False
        self._fallback = ""
        """Why the connection to the concentrator was plain TCP by the time of the Convert reply; "" when it was not."""
        self._seen: dict[tuple[str, int, str, int], SubflowInfo] = {}
        """The last that was seen of each subflow, those that have gone included."""
        self._past: dict[str, dict[str, int]] | None = None
        """By WAN: bytes of subflows that are not even in ``_seen`` any more; None: of none."""
        self._marks: tuple[Mark, ...] = ()
        """The last two looks, the older one first."""

    # Opening --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Decide and open. The client has usually spoken by the time of accept, a server-first one never will (D17)."""
        worker = self._upstream
        try:
            self._early = read_once(self.near, EARLY_BYTES) or b""
        except OSError:
            self.close(Reason.CLIENT_RESET, reset=True)
            return
        worker.loop.add(self.near)
        worker.loop.tick_soon()
        table = worker.snapshot.dscp
        if table:
            self._dscp = table[syn_dscp(self.near.sock)]
            if self._dscp:
                set_dscp(self.near.sock, self.server_family, self._dscp)
        if worker.is_own(self.server_family, self.server):
            self.close(Reason.BLOCKED, reset=True)
            return
        family = 6 if self.server_family == _socket.AF_INET6 else 4
        decision = decide(family, self.server[0], self.server[1], worker.snapshot, self._class)
        self.action, self.reason = decision.action, decision.reasons[0]
        if decision.action == "proxy":
            assert decision.concentrator is not None
            assert decision.wan is not None
            if self._class.scheme:
                self._scheme = decision.scheme, decision.scheme_reason
            self._proxy(worker.preferred(self.routes()))
        elif decision.action == "direct":
            self._go_direct(self.reason)
        else:
            self.action = "block"
            self.close(Reason.BLOCKED, reset=True)

    def routes(self) -> list[Route]:
        """Every way to carry it now, best first."""
        worker = self._upstream
        family = 6 if self.server_family == _socket.AF_INET6 else 4
        ways = ways_of(family, worker.snapshot, self._class)
        return [worker.route(*way) for way in ways if way[0].name not in self._refusers]

    def _proxy(self, routes: list[Route]) -> None:
        route = routes[0]
        member = self._upstream.pool.take(route)
        if member is None:
            self._open(routes)
            return
        self._route = route
        self.state = step(UPSTREAM, self.state, "take")
        self.pooled, self.reason = True, Reason.POOLED
        self._convert, self._cookie, self._fallback = member.convert, member.cookie, member.fallback
        self.far = member.end
        self.far.owner = self
        if self._dscp:
            set_mptcp_dscp(self.far.sock, self._dscp)
        self._connect_tlv()

    def _open(self, routes: list[Route]) -> None:
        self.drop_far()
        self.state = step(UPSTREAM, self.state, "open")
        self.pooled, self.reason, self._sent_early = False, Reason.PROXIED, False
        self._route = routes[0]
        self._opening = Opening(self._upstream, self, routes, self._dscp)
        self._opening.begin()
        if self._opening is not None:
            self.deadline = self._opening.due()

    def opened(self, end: End, route: Route, fallback: str) -> None:
        """A concentrator has answered the handshake."""
        self._opening = None
        self._route = route
        self._cookie = self._upstream.presenter(route.concentrator).cookie(self._upstream.loop.now)
        self._convert, self._fallback = Client(self._cookie), fallback
        self.far = end
        end.owner = self
        self.state = step(UPSTREAM, self.state, "connected")
        self._connect_tlv()

    def nobody_answers(self, detail: str) -> None:
        """No concentrator has."""
        self._opening = None
        self._not_served(Reason.CONCENTRATOR_UNREACHABLE, may_repeat=False)

    def _more_early(self) -> bytes:
        """What the client has said by now, as long as there is room to keep it."""
        room = EARLY_BYTES - len(self._early)
        if not room or not self.near.readable:
            return b""
        try:
            more = read_once(self.near, room) or b""
        except OSError:
            return b""  # its reset is an event of its own
        self._early += more
        return more

    def _connect_tlv(self) -> None:
        """Send the Connect TLV and what the client has said so far."""
        self._more_early()
        assert self._convert is not None
        assert self.far is not None
        assert self._route is not None
        now = self._upstream.loop.now
        self._is_late = False
        self._reply_by = now + self._upstream.snapshot.reply_timeout_s
        self.deadline = min(self._reply_by, now + self._upstream.late_s(self._route))
        self._rest = self._convert.connect(pack16(self.server_family, self.server[0]), self.server[1]) + self._early
        self._send_rest()

    def _send_rest(self) -> None:
        assert self.far is not None
        try:
            sent = self.far.sock.send(self._rest)
        except BlockingIOError:
            return
        except OSError:
            self._broken_before_reply()
            return
        self._sent_early = bool(self._early)
        self._rest = self._rest[sent:]

    # Events ---------------------------------------------------------------------------------------------------------

    def on_events(self, end: End, mask: int) -> None:
        """An edge.

        A request that comes just after accept does not wait for the Convert reply: that would cost the round trip which
        the warm pool has saved. Otherwise the near end's edges are only remembered, in the End itself.
        """
        if self.state == RELAYING:
            self.on_again()
        elif end is self.far:
            if self.state == WAITING:
                if self._rest and end.writable:
                    self._send_rest()
                if self.state == WAITING and end is self.far and end.readable:
                    self._read_reply()
            elif self.state == DIRECT and (end.writable or end.hangup):
                self._connected_directly()
        elif self.state != CLOSED and self.is_reset():
            self.close(Reason.CLIENT_RESET, reset=True)
        elif self.state == WAITING:
            more = self._more_early()
            if more:
                self._rest += more
                self._send_rest()

    def on_deadline(self) -> None:
        """A handshake or a reply is late."""
        if self._opening is not None:
            self._opening.tick(self._upstream.loop.now)
            if self._opening is not None:
                self.deadline = self._opening.due()
        elif self.state == WAITING:
            if self._upstream.loop.now < self._reply_by:
                self._is_heard()
                return
            assert self.far is not None
            is_harmless = bool(unacknowledged(self.far.sock)) and is_repeatable(self._early)
            self._trouble(Reason.CONCENTRATOR_TIMEOUT, 0.0, "no Convert reply")
            self._not_served(Reason.CONCENTRATOR_TIMEOUT, may_repeat=is_harmless)
        elif self.state == DIRECT:
            self.close(Reason.SERVER_UNREACHABLE, reset=True)

    def _is_heard(self) -> None:
        """The reply may take long, since the server's handshake is in it; the acknowledgement may not."""
        assert self.far is not None
        assert self._route is not None
        self.deadline = self._reply_by
        if not unacknowledged(self.far.sock):
            return
        now = self._upstream.loop.now
        self._upstream.doubt(self._route, "what was said to it is not acknowledged", stale=self.pooled)
        if not self._is_late:
            self._is_late = True
            self.deadline = min(self._reply_by, now + self._upstream.late_s(self._route))
            return
        if self._move_on():
            return
        # What the client has said may have arrived and may not be said twice: wait for as long as for a handshake.
        self.deadline = self._reply_by = min(self._reply_by, now + self._upstream.snapshot.connect_timeout_s)

    def _move_on(self) -> bool:
        """Leave a concentrator that does not acknowledge for the next way, once; False where that may not be."""
        assert self._route is not None
        if self._retried or (self._sent_early and not is_repeatable(self._early)):
            return False
        self._retried = True
        here = self._route
        routes = self._upstream.preferred(self.routes())
        others = [route for route in routes if route is not here]
        self._open([*others, here] if here in routes or not others else others)
        return True

    def look_again(self) -> None:
        """There is another snapshot: its concentrator may have been found dead."""
        names = {row.name for row in self._upstream.snapshot.concentrators}
        if self._opening is not None:
            if names.isdisjoint(self._opening.concentrators()):
                self._opening.leave()
                self._opening = None
                routes = self.routes()
                if routes:
                    self._open(routes)
                else:
                    self._not_served(Reason.CONCENTRATOR_UNREACHABLE, may_repeat=False)
        elif self.state == WAITING and self._route is not None and self._route.concentrator.name not in names:
            assert self.far is not None
            if unacknowledged(self.far.sock) and self.routes():
                self._move_on()

    def _connected_directly(self) -> None:
        assert self.far is not None
        error = socket_error(self.far.sock)
        if error:
            self.close(Reason.SERVER_REFUSED, reset=True)
            return
        self.state = step(UPSTREAM, self.state, "connected")
        self._relay(self._early, b"")

    def _read_reply(self) -> None:
        assert self.far is not None
        assert self._convert is not None
        try:
            data = read_once(self.far)
        except OSError:
            data = b""
        if data is None:
            return
        if not data:
            self._broken_before_reply()
            return
        try:
            answer = self._convert.receive_data(data)
        except ConvertError as error:
            self._trouble(Reason.CONCENTRATOR_NONSENSE, 0.0, str(error))
            self._not_served(Reason.CONCENTRATOR_NONSENSE, may_repeat=False)
            return
        if isinstance(answer, Established):
            assert self._route is not None
            self._upstream.answered(self._route)
            self._was_mptcp = speaks_mptcp(self.far.sock)
            if not self._was_mptcp and not self._route.bound and not self._fallback:
                self._fallback = Reason.MPTCP_LOST  # with the first bytes: the handshake was Multipath TCP's
            self.state = step(UPSTREAM, self.state, "established")
            self._relay(self._rest, answer.trailing)
        elif isinstance(answer, Refused):
            self._refused(answer)

    def _refused(self, refused: Refused) -> None:
        reason, wait_s, detail = judge_refusal(refused)
        if reason in (Reason.SERVER_REFUSED, Reason.SERVER_UNREACHABLE):
            # The LAN's handshake is over, so refusal can only be a reset now; the next try goes direct (design D14).
            if not self._class.strict:
                self._upstream.control.send(
                    DIRECT_FRAME, {"address": self.server[0], "port": self.server[1], "reason": reason}
                )
            self.close(reason, reset=True)
            return
        assert self._route is not None
        view = self._route.concentrator
        again = heard(self._upstream.presenter(view), self._cookie, refused, self._upstream.loop.now)
        if again and not self._cookie_again:
            self._cookie_again = True
            self._open([self._route])  # an Error proves that nothing was said to the server
            return
        is_unwelcome = refused.error.code == ErrorCode.NOT_AUTHORIZED
        if is_unwelcome and self._upstream.snapshot.pool_size and self._route.warms():
            # Warm connections are refused at their prefix when it is us who are not welcome, and the pool tells of it. Here it
            # is this destination (hairpin, RFC 8803 section 4.2.8): no reason to leave the concentrator alone.
            refused_here = Reason.DESTINATION_REFUSED
            self._upstream.control.send(
                DIRECT_FRAME, {"address": self.server[0], "port": self.server[1], "reason": refused_here}
            )
            self._not_served(refused_here, may_repeat=True)
            return
        self._trouble(reason, wait_s, detail)
        self._refusers.add(self._route.concentrator.name)
        others = self.routes()
        if others:
            self._open(self._upstream.preferred(others))  # an Error proves that nothing was said to the server
        else:
            self._not_served(reason, may_repeat=True)

    # When the concentrator does not serve it ------------------------------------------------------------------------

    def _broken_before_reply(self) -> None:
        """The connection died under the Connect TLV. A warm one may just have been old: open one, if nothing is lost."""
        assert self._route is not None
        if not self._retried and (not self._sent_early or is_repeatable(self._early)):
            self._retried = True
            self._upstream.doubt(self._route, "connection closed before the Convert reply", stale=self.pooled)
            self._open(self._upstream.preferred(self.routes() or [self._route]))
            return
        self._trouble(Reason.CONCENTRATOR_UNREACHABLE, 0.0, "connection closed before the Convert reply")
        self._not_served(Reason.CONCENTRATOR_UNREACHABLE, may_repeat=False)

    def _not_served(self, reason: str, *, may_repeat: bool) -> None:
        """Direct if the settings allow and no client byte can arrive twice; ``may_repeat``: an Error TLV proves that it cannot,
        or it would do no harm."""
        may_go = self._upstream.snapshot.fallback == "direct" and not self._class.strict
        if may_go and (may_repeat or not self._sent_early):
            self._go_direct(reason)
        else:
            self.close(reason, reset=True)

    def _go_direct(self, reason: str) -> None:
        self.drop_far()
        self.state = step(UPSTREAM, self.state, "go_direct")
        self.action, self.reason, self.pooled, self._route = "direct", reason, False, None
        self.deadline = self._upstream.loop.now + DIRECT_TIMEOUT_S
        try:
            device = self._upstream.best_device(self.server_family, self._class)
            sock = connect_tcp(self.server_family, *self.server, device=device, dscp=self._dscp)
        except OSError:
            self.close(Reason.SERVER_UNREACHABLE, reset=True)
            return
        self.far = End(sock, self)
        self._upstream.loop.add(self.far)

    # The end --------------------------------------------------------------------------------------------------------

    def close(self, end: str, *, reset: bool = False) -> None:
        """See :class:`Flow`."""
        if self._opening is not None:
            self._opening.leave()
            self._opening = None
        super().close(end, reset=reset)

    def end_reason(self, broken: str) -> str:
        """See :class:`Flow`."""
        if broken == NEAR:
            return Reason.CLIENT_RESET
        return Reason.MPTCP_RESET if self.action == "proxy" else Reason.SERVER_RESET

    def on_half_closed(self) -> None:
        """See :class:`Flow`."""
        if self._moved() >= PROOF_BYTES:
            self._look()

    def sample(self) -> None:
        """Remember what was, so that an answer can say what has been since; the kernel is asked if much has happened."""
        if self.relaying is None:
            return
        last = self._marks[-1] if self._marks else self._beginning()
        up, down = self.relaying.up.moved, self.relaying.down.moved
        if up + down - last.up - last.down >= SAMPLE_BYTES:
            mark = self._mark()
        else:
            mark = last._replace(at=self._upstream.loop.now, up=up, down=down)
        self._marks = (last, mark) if self._marks else (mark,)

    def _beginning(self) -> Mark:
        return START._replace(at=self.accepted, looked_at=self.accepted)

    def _mark(self) -> Mark:
        assert self.relaying is not None
        now = self._upstream.loop.now
        looked = self._look()
        if not looked and self.action == "proxy" and self.far is not None:
            plain = plain_info(self.far.sock)  # fallen back, or bound to one WAN
            looked = [plain] if plain is not None else []
        subflows = {row[:4]: row for row in looked}
        return Mark(now, self.relaying.up.moved, self.relaying.down.moved, lan_info(self.near.sock), now, subflows)

    def describe(self) -> dict[str, Any]:
        """See :class:`Flow`; with what it did in the last seconds, what its pump waits for, and the subflows."""
        row = super().describe()
        now = self._upstream.loop.now
        if self.relaying is None:
            before = after = START._replace(at=now)
            waits = "", ""
        else:
            after = self._mark()
            # The newer look is worth more, unless it has only just been taken.
            recent = [mark for mark in self._marks[::-1] if now - mark.at >= RECENT_S]
            before = recent[0] if recent else self._beginning()
            waits = self.relaying.waits()
        wan_of = self._upstream.wan_of
        return {
            **row,
            "up_mbit": mbit(after.up - before.up, now - before.at),
            "down_mbit": mbit(after.down - before.down, now - before.at),
            "waits_up": WAITS[waits[0]],
            "waits_down": WAITS[waits[1]],
            "lan": recent_lan(before, after),
            "worker_busy": self._upstream.busy,
            "subflows": [
                {"wan": wan_of.get(subflow.local, ""), **recent_subflow(before, after, subflow)}
                for subflow in after.subflows.values()
            ],
        }

    def record(self, end: str) -> FlowRecord:
        """See :class:`Flow`."""
        record = super().record(end)
        if self.action != "proxy" or self.relaying is None or self.far is None:
            return record
        snapshot = self._upstream.snapshot
        scheme, scheme_reason = self._scheme if self._scheme[0] else (snapshot.scheme, snapshot.scheme_reason)
        record = record._replace(scheme=scheme, scheme_reason=scheme_reason)
        if self._was_mptcp and self._moved() < PROOF_BYTES:
            return record._replace(mptcp=True)
        if not speaks_mptcp(self.far.sock):
            _, wan = self.peer_names()
            whole = {wan: {"down": record.bytes_down, "up": record.bytes_up}}
            return record._replace(
                fallback=Reason.MPTCP_LOST if self._was_mptcp else self._fallback,
                bytes_by_wan={} if self._was_mptcp else whole,
            )
        if end:
            self._look()
        return record._replace(mptcp=True, bytes_by_wan=self._bytes_by_wan())

    def _moved(self) -> int:
        relaying = self.relaying
        return relaying.up.moved + relaying.down.moved if relaying is not None else 0

    def _look(self) -> list[SubflowInfo]:
        """The subflows of now, empty for a flow that is not proxied."""
        if self.action != "proxy" or self.relaying is None or self.far is None:
            return []
        subflows = subflows_of(self.far.sock)
        for row in subflows:
            self._seen[row[:4]] = row
        if len(self._seen) > SUBFLOWS_KEPT:
            self._forget_gone({row[:4] for row in subflows})
        return subflows

    def _forget_gone(self, there: set[tuple[str, int, str, int]]) -> None:
        """A connection that lives for weeks over a line that comes and goes: the sums are enough."""
        gone = [self._seen.pop(key) for key in list(self._seen) if key not in there]
        self._past = self._sum(gone, self._past or {})

    def _bytes_by_wan(self) -> dict[str, dict[str, int]]:
        return self._sum(self._seen.values(), {name: dict(counted) for name, counted in (self._past or {}).items()})

    def _sum(self, rows: Iterable[SubflowInfo], wans: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        for row in rows:
            name = self._upstream.wan_of.get(row.local)
            if name is not None:
                counted = wans.setdefault(name, {"down": 0, "up": 0})
                counted["down"] += row.bytes_down
                counted["up"] += row.bytes_up
        return wans

    def peer_names(self) -> tuple[str, str]:
        """See :class:`Flow`."""
        route = self._route
        return (route.concentrator.name, route.wan.name) if route is not None else ("", "")

    def sending(self) -> tuple[Socket | None, int]:
        """See :class:`Flow`."""
        if self.action != "proxy" or self.relaying is None or self.far is None:
            return None, 0
        return self.far.sock, self.relaying.up.moved

    def sends_from(self) -> str:
        """See :class:`Flow`: where the first subflow leaves, and the concentrator."""
        return " ".join(self.peer_names())

    def _relay(self, up: bytes, down: bytes) -> None:
        early, self._early, self._convert = self._early, b"", None
        turns = self._upstream.cap.turns(self)
        self.relay(up, down, moved_up=len(early), moved_down=len(down), turns=turns)

    def _trouble(self, reason: str, wait_s: float, detail: str) -> None:
        self._upstream.trouble(*self.peer_names(), reason, wait_s, detail)


class Comparison:
    """One handshake over another WAN, after one has fallen back to TCP: does MPTCP get through there? Given up at once."""

    def __init__(self, worker: UpstreamWorker, route: Route) -> None:
        """Raises OSError."""
        self._worker = worker
        self._wan = route.wan.name
        self.deadline = worker.loop.now + worker.snapshot.connect_timeout_s
        self.end = End(route.open(), self)
        worker.loop.add(self.end)

    def on_events(self, end: End, mask: int) -> None:
        """The handshake is over."""
        if not (end.writable or end.hangup):
            return
        if not socket_error(end.sock):
            self._worker.handshake(self._wan, end.sock)
        self.close()

    def on_again(self) -> None:
        """It never hits a work bound."""

    def abandon(self) -> None:
        """See :class:`cpe_mcp.relay.loop.Owner`."""
        self.close()

    def on_deadline(self) -> None:
        """No answer."""
        self._worker.handshake(self._wan, None)
        self.close()

    def close(self) -> None:
        """Forget it."""
        reset_on_close(self.end.sock)
        self._worker.loop.close(self.end)
        self._worker.comparison = None


class UpstreamWorker(Worker):
    """The worker: listeners, the pool, and the flows."""

    role = "upstream"

    def __init__(self, run_dir: str, index: int, port: int) -> None:
        super().__init__(run_dir, index, port=port)
        self.snapshot: Snapshot = EMPTY
        self.presenters = Presenters()
        self.pool = Pool(self.loop, self.trouble, self.handshake, self.handshake_took, self.presenter)
        self.cap = OwnCap(self.loop)
        self.wan_of: dict[str, str] = {}
        """Name of the WAN that has or had this address."""
        self.busy = 0.0
        """Share of the last seconds in which this process ran or waited for the CPU."""
        self.comparison: Comparison | None = None
        self.witnesses: set[Attempt] = set()
        """Handshakes that no flow waits for any more."""
        self._rtts: dict[str, tuple[float, float]] = {}
        """WAN -> a long handshake, and when it was."""
        self._doubted: dict[str, float] = {}
        """Concentrator that did not answer -> until when others are asked first."""
        self._next_comparison = 0.0
        self._next_sample = 0.0
        self._ran = 0.0, 0.0
        self._port = port
        self._routes: dict[tuple[str, str, bool], Route] = {}
        self._reported: dict[tuple[str, str, str], float] = {}
        self._classes: dict[int, ClassView] = {0: ORDINARY}
        self._listeners: dict[int, list[Socket]] = {}
        """By the number of the class."""
        self._listen(0)

    # For flows ------------------------------------------------------------------------------------------------------

    def route(self, concentrator: Any, wan: Any, bound: bool = False) -> Route:
        """The route object of this pair, made once per snapshot."""
        key = (concentrator.name, wan.name, bound)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(concentrator, wan, self.snapshot.congestion_control, bound=bound)
        return route

    def presenter(self, view: ConcentratorView) -> Presenter:
        """Makes the cookies for this concentrator."""
        return self.presenters.of(view.name, view.credential)

    def preferred(self, routes: list[Route]) -> list[Route]:
        """The same, with concentrators last that have just left somebody without an answer."""
        if not self._doubted:
            return routes
        now = self.loop.now
        self._doubted = {name: until for name, until in self._doubted.items() if until > now}
        return sorted(routes, key=lambda route: route.concentrator.name in self._doubted)

    def doubt(self, route: Route, detail: str, *, stale: bool = False) -> None:
        """No answer over this route so far: the next flows need not find out too. The control daemon asks, and decides.
        ``stale``: it was a warm connection that failed."""
        name = route.concentrator.name
        self._doubted[name] = self.loop.now + DOUBT_S
        self.pool.doubt(name, stale=stale)
        self.trouble(name, route.wan.name, Reason.CONCENTRATOR_UNREACHABLE, 0.0, detail)

    def best_device(self, family: int, flow_class: ClassView) -> str:
        """Device of the best WAN that has an address of this family; "" leaves the choice to the routing table."""
        for wan in (*wans_of(self.snapshot, flow_class).wans, *self.snapshot.wans):
            if wan.address6 if family == _socket.AF_INET6 else wan.address4:
                return wan.device
        return ""

    def trouble(self, concentrator: str, wan: str, reason: str, wait_s: float, detail: str) -> None:
        """Tell the control daemon, not more often than it can use."""
        key = (concentrator, wan, reason)
        if self._reported.get(key, -TROUBLE_S) + TROUBLE_S > self.loop.now:
            return
        self._reported[key] = self.loop.now
        payload = {"concentrator": concentrator, "wan": wan, "reason": reason, "wait_s": wait_s, "detail": detail}
        self.control.send(TROUBLE, payload)

    def handshake(self, wan: str, sock: Socket | None) -> str:
        """Count how a handshake with a concentrator went; ``sock`` None: there was no answer. Returns why the connection is
        plain TCP, "" when it is not."""
        if sock is None:
            fallback, outcome = "", UNANSWERED
        else:
            fallback = "" if speaks_mptcp(sock) else fallback_of(sock)
            outcome = fallback or NEGOTIATED
        self.count(f"{PREFIX}:{wan}:{outcome}")
        if fallback and self.loop.now >= self._next_comparison:
            self._compare(wan)
        return fallback

    def _compare(self, fallen: str) -> None:
        """A WAN is to blame only if MPTCP gets through another one."""
        self._next_comparison = self.loop.now + COMPARE_S
        for concentrator in self.snapshot.concentrators[:1]:
            for wan in self.snapshot.wans:
                route = self.route(concentrator, wan)
                if wan.name != fallen and route.address and self.comparison is None:
                    try:
                        self.comparison = Comparison(self, route)
                    except OSError:
                        continue

    def is_doubted(self, route: Route) -> bool:
        """Whether its concentrator has answered nobody since it was doubted."""
        return self._doubted.get(route.concentrator.name, 0.0) > self.loop.now

    def handshake_took(self, wan: str, seconds: float) -> None:
        """A handshake over this WAN was answered: what its queue adds is in this."""
        if seconds < SYN_AGAIN_S:
            self._rtts[wan] = max(seconds, self.recent_rtt_s(wan)), self.loop.now

    def recent_rtt_s(self, wan: str) -> float:
        """The longest handshake of late; it fades."""
        seconds, at = self._rtts.get(wan, (0.0, 0.0))
        return float(seconds * 0.5 ** ((self.loop.now - at) / FADE_S))

    def late_s(self, route: Route) -> float:
        """After how long an answer over this route is late."""
        return late_s(route, self.recent_rtt_s(route.wan.name))

    def answered(self, route: Route) -> None:
        """A concentrator has answered; worth a word only after trouble with it."""
        if not self._reported:
            return
        self._doubted.pop(route.concentrator.name, None)
        self.pool.believe(route.concentrator.name)
        pair = (route.concentrator.name, route.wan.name)
        troubled = [key for key in self._reported if key[:2] == pair]
        if troubled:
            for key in troubled:
                del self._reported[key]
            self.control.send(ANSWERED, {"concentrator": pair[0], "wan": pair[1]})

    def is_own(self, family: int, server: tuple[str, int]) -> bool:
        """Somebody connected to our own listener, not through tproxy: serving that would loop for ever."""
        if server[1] != self._port:
            return False
        probe = Socket(family, _socket.SOCK_STREAM)
        try:
            probe.bind((server[0], 0))
        except OSError:
            return False
        finally:
            probe.close()
        return True

    # The worker's hooks ---------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """See :class:`Worker`."""
        pool = self.pool
        return {
            **super().counters(),
            "pool_ready": pool.ready(),
            "pool_taken": pool.taken,
            "pool_missed": pool.missed,
            "pool_died": pool.died,
            "pool_plain": pool.plain(),
        }

    def on_frame(self, kind: str, payload: Any) -> None:
        """A new snapshot, or another share of the cap."""
        if kind == CAPS:
            self.cap.set(payload[OWN], list(self.live.values()))
        if kind != SNAPSHOT:
            return
        self.snapshot = from_wire(payload)
        self.congestion.configure(self.snapshot.lossy_congestion_control)
        self._routes.clear()
        self.presenters.keep([row.name for row in self.snapshot.concentrators])
        self._learn_addresses()
        self._listen_for_classes()
        decision = decide(4, "", 0, self.snapshot)
        best = None
        if decision.action == "proxy" and decision.concentrator is not None and decision.wan is not None:
            best = self.route(decision.concentrator, decision.wan)
        self.pool.configure(best, self.snapshot)
        for flow in list(self.unsettled):
            assert isinstance(flow, UpstreamFlow)
            self.guarded(flow, flow.look_again)

    def on_turn(self) -> None:
        """Fill the pool after the flows of this turn were served."""
        self.pool.refill()

    def on_tick(self) -> bool:
        """The pool's handshakes are timed too, and who is held back by a cap says so."""
        if self.loop.now >= self._next_sample:
            self._next_sample = self.loop.now + SAMPLE_S
            self._measure_busy()
            for flow in list(self.live.values()):
                assert isinstance(flow, UpstreamFlow)
                self.guarded(flow, flow.sample)
        if self.comparison is not None and self.comparison.deadline <= self.loop.now:
            self.comparison.on_deadline()
        for witness in [witness for witness in self.witnesses if witness.deadline <= self.loop.now]:
            witness.give_up()
        is_opening = self.pool.tick()
        demands = self.cap.demands()
        if demands:
            self.control.send(DEMAND, dict(demands))
        return is_opening or bool(demands) or self.comparison is not None or bool(self.witnesses)

    def _measure_busy(self) -> None:
        before, self._ran = self._ran, (self.loop.now, wanted_cpu_s())
        self.busy = share(self._ran[1] - before[1], self._ran[0] - before[0]) if before[0] else 0.0

    def on_stop(self) -> None:
        """From here on new connections are forwarded: tproxy without a listener does not match."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()
        for witness in list(self.witnesses):
            witness.drop()
        self.pool.close()

    def _listen_for_classes(self) -> None:
        """One listener for each class of the snapshot and each family."""
        self._classes = {0: ORDINARY, **{row.number: row for row in self.snapshot.classes}}
        for number in [number for number in self._listeners if number not in self._classes]:
            for listener in self._listeners.pop(number):
                self.loop.forget_level(listener.fileno())
                listener.close()
        for number in self._classes:
            if number not in self._listeners:
                self._listen(number)

    def _listen(self, number: int) -> None:
        self._listeners[number] = []
        for family, version in ((_socket.AF_INET, 4), (_socket.AF_INET6, 6)):
            listener = listen_transparent(family, self._port, class_address(version, number))
            self._listeners[number].append(listener)
            self.loop.add_level(listener.fileno(), partial(self._accept, listener, family, number))

    def _learn_addresses(self) -> None:
        for wan in (*self.snapshot.other_wans, *self.snapshot.wans):
            for address in (wan.address4, wan.address6):
                if address:
                    self.wan_of.pop(address, None)
                    self.wan_of[address] = wan.name
        while len(self.wan_of) > ADDRESSES_KEPT:
            del self.wan_of[next(iter(self.wan_of))]

    def _accept(self, listener: Socket, family: int, number: int) -> None:
        for sock, peer in self.accepted(listener, family):
            flow = UpstreamFlow(self, sock, family, peer, self._classes[number])
            self.guarded(flow, flow.start)


def wanted_cpu_s() -> float:
    """Time for which this process has run, and has waited for a CPU where the kernel tells (CONFIG_SCHED_INFO)."""
    try:
        with open("/proc/self/schedstat", "rb") as file:
            ran, waited, *_ = file.read().split()
    except (OSError, ValueError):
        return time.process_time()
    return (int(ran) + int(waited)) * 1e-9


def main(argv: list[str] | None = None) -> int:
    """``cpe-mcp-relay [--run-dir DIR] [--index N] [--port N]``"""
    defaults = {"run-dir": "/var/run/cpe-mcp", "index": "0", "port": "5125"}

    def make(values: dict[str, str]) -> Worker:
        return UpstreamWorker(values["run-dir"], int(values["index"]), int(values["port"]))

    return run_worker("cpe-mcp-relay", defaults, make, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
