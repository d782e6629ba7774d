"""Who lacks a subflow where, and when that is repaired; the kernel's events as bytes."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct

import pytest

from cpe_mcp.kernel.mptcp_events import pull_event, pull_events
from cpe_mcp.kernel.netlink import HEADER, push_attribute
from cpe_mcp.paths import subflow_tracker
from cpe_mcp.paths.observed import (
    EVENT_CLOSED,
    EVENT_CREATED,
    EVENT_ESTABLISHED,
    EVENT_SUB_CLOSED,
    EVENT_SUB_ESTABLISHED,
    MptcpEvent,
    Subflow,
)
from cpe_mcp.paths.subflow_tracker import (
    JOIN_S,
    LACK_S,
    PATIENCE_S,
    TRIES,
    Loss,
    Repair,
    Standing,
    SubflowTracker,
)

pytestmark = pytest.mark.unit

ONE, TWO, SIX = "10.1.0.1", "10.2.0.1", "2001:db8:1::1"
RTT_S = 0.05


def subflow(token: int, local: str, moved: int = 0, *, is_fallback: bool = False) -> Subflow:
    remote = "2001:db8:9::1" if ":" in local else "10.9.0.1"
    base = Subflow(local, 4000 + token, remote, 5124, 1, 0, 0, 0, 0, 20.0, 1.0, 0, moved, 0)
    return base._replace(token=token, is_fallback=is_fallback)


def event(kind: int, token: int, local: str = "", error: int = 0) -> MptcpEvent:
    return MptcpEvent(kind, token, local, 4000 + token, "10.9.0.1", 5124, error=error)


def busy(tokens: int, *locals: str) -> SubflowTracker:
    """That many connections, with traffic over all these addresses."""
    tracker = SubflowTracker()
    for moved in (0, 10_000):
        tracker.see(
            moved / 10_000, [subflow(token, local, moved) for token in range(1, tokens + 1) for local in locals]
        )
    return tracker


def test_a_reset_subflow_is_a_lack_with_its_cause() -> None:
    tracker = busy(2, ONE, TWO)
    tracker.event(1.2, event(EVENT_SUB_CLOSED, 1, TWO, errno.ECONNRESET))
    standing = tracker.standing(1.3, TWO)
    assert standing == Standing({1: Loss(1.2, errno.ECONNRESET)}, using=1, alone=0, total=2)
    assert standing.lacking[1].cause() == "reset"
    assert tracker.standing(1.3, ONE) == Standing({}, using=2, alone=1, total=2)


def test_a_look_before_the_event_loses_no_cause() -> None:
    tracker = busy(1, ONE, TWO)
    tracker.see(1.1, [subflow(1, ONE, 20_000)])
    tracker.event(1.2, event(EVENT_SUB_CLOSED, 1, TWO, errno.ETIMEDOUT))
    assert tracker.standing(1.2, TWO).lacking[1] == Loss(1.1, errno.ETIMEDOUT)


def test_what_joins_again_lacks_nothing() -> None:
    tracker = busy(1, ONE, TWO)
    tracker.event(1.1, event(EVENT_SUB_CLOSED, 1, TWO, errno.ECONNRESET))
    tracker.event(1.2, event(EVENT_SUB_ESTABLISHED, 1, TWO))
    assert not tracker.standing(1.2, TWO).lacking


def test_idle_connections_do_not_count() -> None:
    tracker = busy(1, ONE, TWO)
    tracker.see(1.1, [subflow(1, ONE, 10_000), subflow(2, ONE)])
    assert set(tracker.standing(1.2, TWO).lacking) == {1}
    tracker.see(9.0, [subflow(1, ONE, 10_000), subflow(2, ONE)])
    assert tracker.standing(9.0, TWO).total == 0


def test_a_slow_connection_has_traffic_however_often_a_busy_router_looks() -> None:
    """A call of 100 kbit/s beside a download: 375 bytes from one look to the next."""
    tracker = SubflowTracker()
    for look in range(100):
        tracker.see(look * 0.03, [subflow(1, ONE, look * 375), subflow(2, ONE, look * 20)])
    assert set(tracker.standing(3.0, TWO).lacking) == {1}, "and not one of 5 kbit/s, which is keepalives and the like"


def test_a_connection_towards_ipv4_lacks_no_ipv6_address() -> None:
    assert not busy(1, ONE, TWO).standing(1, SIX).lacking
    assert set(busy(1, SIX).standing(1, "2001:db8:2::1").lacking) == {1}


def test_a_look_is_the_truth() -> None:
    tracker = busy(2, ONE, TWO)
    tracker.see(1.5, [subflow(1, ONE, 30_000)])
    assert len(tracker) == 1
    assert set(tracker.standing(1.5, TWO).lacking) == {1}


def test_fallbacks_in_the_handshake() -> None:
    tracker = SubflowTracker()
    assert tracker.see(0, [subflow(1, ONE, is_fallback=True), subflow(2, TWO)]) == [ONE]
    assert tracker.see(1, [subflow(1, ONE, is_fallback=True), subflow(2, TWO)]) == []
    assert len(tracker) == 1
    for kind in (EVENT_CREATED, EVENT_ESTABLISHED, EVENT_CLOSED):
        tracker.event(2, event(kind, 7, ONE))
    assert tracker.unplaced_fallbacks == 0
    tracker.event(2, event(EVENT_CLOSED, 8))
    assert tracker.unplaced_fallbacks == 1


def test_ends_that_were_missed_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subflow_tracker, "BORN_KEPT", 100)
    tracker = busy(3, ONE)
    for token in range(10, 1000):
        tracker.event(2.0, event(EVENT_ESTABLISHED, token, ONE))
        tracker.see(2.0, [subflow(known, ONE) for known in (1, 2, 3)])
    assert len(tracker._born) <= 103
    for token in (1, 2, 3):
        tracker.event(3.0, event(EVENT_CLOSED, token, ONE))
    assert tracker.unplaced_fallbacks == 0, "those that live are known"
    for token in range(1000, 2000):  # and without a look
        tracker.event(4.0, event(EVENT_ESTABLISHED, token, ONE))
    assert len(tracker) <= 101
    assert len(tracker._born) <= 101


def test_connections_that_others_opened_are_not_ours() -> None:
    tracker = SubflowTracker()
    tracker.event(0, event(EVENT_ESTABLISHED, 1, ONE)._replace(is_server=True))
    assert len(tracker) == 0


class Line:
    """A repair policy asked twice a second, and a WAN that kills its subflows whenever it likes."""

    def __init__(self) -> None:
        self.repair = Repair()
        self.joined_from = 0.0
        self.done: list[float] = []

    def run(
        self, start: float, end: float, lacking: dict[int, Loss], using: int = 0, alone: int = 0, total: int = 0
    ) -> int:
        before = len(self.done)
        now = start
        while now < end:
            standing = Standing(lacking, using, alone, total or len(lacking))
            if self.repair.due(now, standing, joined_from=self.joined_from, rtt_s=RTT_S):
                self.done.append(now)
                self.joined_from = now + LACK_S
                lacking = {}
            now += 0.1
        return len(self.done) - before


def test_a_reset_is_repaired_within_half_a_second() -> None:
    line = Line()
    assert line.run(100, 102, {1: Loss(100, errno.ECONNRESET)}, using=3, total=4) == 1
    assert line.done[0] <= 100.5


def test_one_that_never_joined_gets_time_to() -> None:
    line = Line()
    line.run(100, 105, {1: Loss(100, 0)})
    assert 100 + JOIN_S <= line.done[0] <= 100 + JOIN_S + 4 * RTT_S


def test_a_nat_that_kills_each_minute_costs_the_others_little() -> None:
    line = Line()
    for minute in range(120):
        start = 1000.0 + 60 * minute
        line.run(start, start + 60, {minute: Loss(start, errno.ECONNRESET)}, using=2, total=3)
    first_hour = [at for at in line.done if at < 1000 + 3600]
    second_hour = [at for at in line.done if at >= 1000 + 3600]
    assert 5 <= len(first_hour) <= 11
    assert len(second_hour) <= 6
    assert line.done[0] < 1001


def test_a_wan_that_nobody_uses_is_repaired_without_growing_pauses() -> None:
    line = Line()
    for minute in range(20):
        start = 1000.0 + 60 * minute
        line.run(start, start + 60, {minute: Loss(start, errno.ECONNRESET)}, using=0)
    assert len(line.done) == 20


def test_one_of_many_waits_longer() -> None:
    line = Line()
    line.run(100, 160, {1: Loss(100, errno.ECONNRESET)}, using=19, total=20)
    assert PATIENCE_S <= line.done[0] - 100 <= PATIENCE_S + 1


def test_never_the_last_subflow_of_another() -> None:
    assert Line().run(100, 400, {1: Loss(100, errno.ECONNRESET)}, using=1, alone=1, total=2) == 0


def test_a_peer_that_wants_no_subflow_is_asked_twice() -> None:
    line = Line()
    for start in range(100, 5000, 100):
        line.run(start, start + 100, {1: Loss(100, 0)})
    assert len(line.done) == TRIES


def message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = bytes([kind, 1, 0, 0]) + b"".join(push_attribute(*attribute) for attribute in attributes)
    return HEADER.pack(HEADER.size + len(body), 30, 0, 0, 0) + body + bytes(-len(body) % 4)


CLOSED_BY_RESET = message(
    EVENT_SUB_CLOSED,
    (1, struct.pack("=I", 0xDEADBEEF)),
    (2, struct.pack("=H", socket.AF_INET)),
    (5, socket.inet_aton(TWO)),
    (7, socket.inet_aton("10.9.0.1")),
    (9, struct.pack("!H", 40001)),
    (10, struct.pack("!H", 5124)),
    (11, b"\x01"),
    (12, bytes([errno.ECONNRESET])),
    (16, struct.pack("=I", 3)),
)


def test_an_event_as_the_kernel_sends_it() -> None:
    expected = MptcpEvent(EVENT_SUB_CLOSED, 0xDEADBEEF, TWO, 40001, "10.9.0.1", 5124, True, errno.ECONNRESET, 3, False)
    assert list(pull_events(CLOSED_BY_RESET * 2)) == [expected, expected]


def test_addresses_of_mapped_and_real_ipv6() -> None:
    mapped = socket.inet_pton(socket.AF_INET6, f"::ffff:{ONE}")
    token = (1, struct.pack("=I", 1))
    assert next(pull_events(message(EVENT_CREATED, token, (6, mapped)))).local == ONE
    assert next(pull_events(message(EVENT_CREATED, token, (6, socket.inet_pton(socket.AF_INET6, SIX))))).local == SIX


@pytest.mark.parametrize("attribute", [(13, struct.pack("=H", 2)), (18, b"\x01")])
def test_the_server_side_old_and_new(attribute: tuple[int, bytes]) -> None:
    assert next(pull_events(message(EVENT_CREATED, (1, struct.pack("=I", 1)), attribute))).is_server


def test_a_listener_is_no_connection() -> None:
    assert list(pull_events(message(15, (2, struct.pack("=H", socket.AF_INET))))) == []


def test_truncated_and_random_events() -> None:
    for length in range(len(CLOSED_BY_RESET)):
        list(pull_events(CLOSED_BY_RESET[:length]))
        pull_event(CLOSED_BY_RESET[HEADER.size : HEADER.size + length])
    source = random.Random(4)
    for _ in range(2000):
        data = bytearray(CLOSED_BY_RESET)
        for _ in range(source.randrange(1, 12)):
            data[source.randrange(len(data))] = source.randrange(256)
        list(pull_events(bytes(data)))
        pull_event(os.urandom(source.randrange(80)))
