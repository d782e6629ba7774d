"""When a connection gets the congestion control for lossy lines."""

from __future__ import annotations

import _socket
from collections.abc import Iterator

import pytest
import subflows

from cpe_mcp.policy.congestion_control import Choice, choose
from cpe_mcp.relay import congestion
from cpe_mcp.relay.congestion import (
    LOOK_BYTES,
    LOOK_S,
    LOOKS,
    LOOKS_MAX,
    LOSSY_S,
    STRIKES,
    CongestionKeeper,
    LossWatch,
)
from cpe_mcp.relay.subflow_info import SubflowInfo

pytestmark = pytest.mark.unit

SUBFLOW = subflows.SUBFLOW._replace(rtt_ms=21.0)


@pytest.mark.parametrize(
    ("wanted", "available", "chosen"),
    [
        ("auto", ["cubic", "bbr"], Choice("", "bbr")),
        ("auto", ["cubic"], Choice("", "")),
        ("cubic", ["cubic", "bbr"], Choice("cubic", "")),
        ("", ["bbr"], Choice("", "")),
    ],
)
def test_choice(wanted: str, available: list[str], chosen: Choice) -> None:
    assert choose(wanted, available) == chosen


def looks(*steps: tuple[int, int], rtt_ms: float = 21.0) -> list[bool]:
    """What the watch says after each look; a step is (segments sent, sent again) since the last one."""
    watch, now, said = LossWatch(), SUBFLOW._replace(rtt_ms=rtt_ms), []
    watch.is_losing([now])
    for sent, lost in steps:
        now = now._replace(segments_out=now.segments_out + sent, retransmits=now.retransmits + lost)
        said.append(watch.is_losing([now]))
    return said


def test_steady_loss_without_a_queue() -> None:
    assert looks((300, 3), (300, 2), (300, 4)) == [False, False, True]


def test_loss_that_is_not_seen_in_each_look() -> None:
    assert looks((60, 1), (50, 0), (60, 1), (60, 0), (40, 0), (50, 1)) == [False] * 5 + [True]


def test_loss_with_a_queue_is_what_congestion_control_makes_itself() -> None:
    assert looks((300, 3), (300, 2), (300, 4), (300, 3), rtt_ms=45.0) == [False] * 4


def test_one_burst_of_losses_is_not_steady() -> None:
    assert looks((300, 90), (300, 40), *[(300, 0)] * 20) == [False] * 22


def test_few_losses_are_not_lossy() -> None:
    assert looks(*[(4000, 2)] * 20) == [False] * 20


def test_what_lies_back_counts_no_more() -> None:
    assert looks((300, 9), *[(300, 0)] * LOOKS, (300, 9), *[(300, 0)] * LOOKS, (300, 9)) == [False] * (2 * LOOKS + 3)


def test_a_subflow_that_sends_little_says_nothing() -> None:
    assert looks((10, 1), (10, 1), (10, 1), (10, 1)) == [False] * 4


def test_each_subflow_counts_for_itself() -> None:
    watch = LossWatch()
    clean, lossy = SUBFLOW, SUBFLOW._replace(local="10.2.0.1")
    said = []
    for step in range(1, STRIKES + 2):
        clean = clean._replace(segments_out=step * 3000)
        lossy = lossy._replace(segments_out=step * 100, retransmits=step)
        said.append(watch.is_losing([clean, lossy]))
    assert said == [False] * STRIKES + [True]


class Sender:
    """A flow that has a real socket, and subflows as the test says."""

    def __init__(self, number: int, place: str = "10.1.0.1") -> None:
        self.id = number
        self.is_robust = False
        self.sock = _socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)
        self.place = place
        self.sent = 0
        self.subflow = SUBFLOW

    def sending(self) -> tuple[_socket.socket | None, int]:
        return self.sock, self.sent

    def sends_from(self) -> str:
        return self.place

    def send(self, *, lost: int) -> None:
        self.sent += LOOK_BYTES
        before = self.subflow
        self.subflow = before._replace(segments_out=before.segments_out + 100, retransmits=before.retransmits + lost)

    def algorithm(self) -> str:
        return self.sock.getsockopt(_socket.IPPROTO_TCP, 13, 16).split(b"\0")[0].decode()


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sender]]:
    made = [Sender(number) for number in range(1, 4)]
    by_socket = {id(sender.sock): sender for sender in made}
    monkeypatch.setattr(congestion, "subflows_of", lambda sock: [by_socket[id(sock)].subflow])
    yield made
    for sender in made:
        sender.sock.close()


def test_a_lossy_connection_is_changed_and_those_that_follow_begin_so(senders: list[Sender]) -> None:
    keeper = CongestionKeeper()
    keeper.configure("reno")  # the one that every kernel has
    lossy, clean, late = senders
    clean.place = "10.3.0.1"
    before = lossy.algorithm()
    assert before != "reno"
    for step in range(STRIKES + 1):
        assert not lossy.is_robust
        lossy.send(lost=2)
        clean.send(lost=0)
        keeper.look(step * LOOK_S, [lossy, clean])
    assert lossy.is_robust
    assert (lossy.algorithm(), clean.algorithm()) == ("reno", before)
    now = STRIKES * LOOK_S
    keeper.begins(now + 1, late)
    assert late.algorithm() == "reno"
    assert keeper.changed == 2
    keeper.begins(now + 1, clean)
    assert not clean.is_robust
    late.is_robust = False
    keeper.begins(now + LOSSY_S + 1, late)
    assert not late.is_robust


def test_without_a_second_one_nothing_is_looked_at(senders: list[Sender], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sock: object) -> list[SubflowInfo]:
        raise AssertionError("looked")

    monkeypatch.setattr(congestion, "subflows_of", fail)
    keeper = CongestionKeeper()
    keeper.configure("")
    senders[0].send(lost=9)
    keeper.look(0.0, senders)


def test_many_senders_are_looked_at_by_turns(senders: list[Sender], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[object] = set()

    def look(sock: object) -> list[SubflowInfo]:
        seen.add(sock)
        return []

    monkeypatch.setattr(congestion, "subflows_of", look)
    keeper = CongestionKeeper()
    keeper.configure("reno")
    many = [Sender(number) for number in range(2 * LOOKS_MAX)]
    try:
        for step in range(2):
            for sender in many:
                sender.send(lost=0)
            keeper.look(step * LOOK_S, many)
            assert len(seen) == (step + 1) * LOOKS_MAX
    finally:
        for sender in many:
            sender.sock.close()
