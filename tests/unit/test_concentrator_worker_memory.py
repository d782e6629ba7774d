"""What a worker of the concentrator remembers of verdicts, without sockets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpe_mcp.relay import concentrator_worker as module
from cpe_mcp.relay.concentrator_worker import ConcentratorWorker
from cpe_mcp.relay.flow import READING
from cpe_mcp.settings.concentrator import LimitSettings

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-d")]


PEER_LIMITS = {**dataclasses.asdict(LimitSettings()), "mark": 0}


class FakeFlow:
    """Waits for a verdict."""

    state = READING

    def __init__(self) -> None:
        self.verdicts: list[Any] = []

    def ends(self) -> dict[str, Any]:
        return {"port": 40000, "local": ["192.0.2.1", 5124]}

    def judged(self, verdict: Any) -> None:
        self.verdicts.append(verdict)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConcentratorWorker]:
    monkeypatch.setattr(module, "REMEMBER_MAX", 50)
    worker = ConcentratorWorker(str(tmp_path), 0, 0)
    worker.peers.configure({**PEER_LIMITS, "question_rate": 1_000_000, "question_prefix_rate": 1_000_000})
    yield worker
    worker.loop.finish()


def ask(worker: ConcentratorWorker, address: str, kind: str = "accept", cookie: bytes = b"") -> bool:
    """Whether the control daemon had to be asked; it answers at once."""
    before = worker._asks
    flow = FakeFlow()
    known = worker.verdict(("customers", address, cookie), flow, address.encode())  # type: ignore[arg-type]
    if worker._asks == before:
        assert known is not None
        return False
    answer = {"id": worker._asks, "address": address, "verdict": kind, "subscriber": "line-7", "ttl_s": 600.0}
    worker.on_frame("authorized", answer | {"cookie": b"", "reason": "ready", "caps": (0, 0)})
    assert [verdict.kind for verdict in flow.verdicts] == [kind]
    return True


@pytest.mark.requirement("7.4-a")
def test_those_who_are_refused_throw_out_nobody_who_is_served(worker: ConcentratorWorker) -> None:
    assert ask(worker, "10.9.9.9")
    for number in range(1000):
        ask(worker, f"10.66.{number // 250}.{number % 250}", "reject")
        ask(worker, "10.66.0.1", "reject", number.to_bytes(4, "big"))
    assert not ask(worker, "10.9.9.9")
    assert worker.is_subscriber_address("10.9.9.9")
    assert worker.counters()["verdicts"] == 51, "bounded"


def test_another_verdict_takes_the_place_of_the_one_before(worker: ConcentratorWorker) -> None:
    ask(worker, "10.9.9.9")
    worker.on_frame("forget", {"address": "10.9.9.9"})
    assert ask(worker, "10.9.9.9", "reject")
    worker.on_frame("forget", {"address": "10.9.9.9"})
    assert ask(worker, "10.9.9.9", "accept"), "refusals are forgotten too"
    worker.on_frame("forget", {"subscriber": "line-7"})
    assert ask(worker, "10.9.9.9", "accept")
    assert worker.counters()["verdicts"] == 1


@pytest.mark.requirement("7.2-a")
def test_questions_that_nobody_answers_fill_no_memory(
    worker: ConcentratorWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASKED_MAX", 50)
    for number in range(1000):
        peer = ("customers", f"10.66.{number // 250}.{number % 250}", b"")
        for _ in range(3):
            flow = FakeFlow()
            assert worker.verdict(peer, flow, b"10.66") is None  # type: ignore[arg-type]
            worker.waits_no_more(peer, flow)  # type: ignore[arg-type]
    assert (len(worker._asked), len(worker._asking)) == (50, 50)
    assert not any(flows for _, flows in worker._asked.values())
    asks = worker._asks
    assert worker.verdict(("customers", "10.66.0.1", b""), FakeFlow(), b"10.66") is None  # type: ignore[arg-type]
    assert worker._asks == asks + 1, "one that was given up is asked about again"


@pytest.mark.requirement("7.2-a")
def test_strangers_do_not_keep_the_control_daemon_busy(worker: ConcentratorWorker) -> None:
    """1,000 other cookies a second from one prefix: its share is asked about, the rest is told to come later."""
    worker.peers.configure(PEER_LIMITS)
    flows = [FakeFlow() for _ in range(1000)]
    kinds = []
    for number, flow in enumerate(flows):
        known = worker.verdict(("internet", "10.66.0.1", number.to_bytes(4, "big")), flow, b"10.66")  # type: ignore[arg-type]
        kinds.append(known.kind if known is not None else "asked")
    assert (kinds.count("asked"), kinds.count("later")) == (200, 800)
    assert worker.totals["limit:questions_prefix"] == 800
    assert worker.verdict(("internet", "10.9.9.9", b""), FakeFlow(), b"10.9") is None, "others are asked about"  # type: ignore[arg-type]


@pytest.mark.requirement("X-16")
def test_each_connection_with_a_cookie_is_asked_about_also_when_two_bring_the_same_at_once(
    worker: ConcentratorWorker,
) -> None:
    def asked(cookie: bytes) -> list[int]:
        flows = [FakeFlow(), FakeFlow()]
        before = worker._asks
        for flow in flows:
            worker.verdict(("internet", "10.9.9.9", cookie), flow, b"10.9.9")  # type: ignore[arg-type]
        numbers = list(range(before + 1, worker._asks + 1))
        for number, kind in zip(numbers, ("accept", "reject"), strict=False):
            answer = {"id": number, "verdict": kind, "subscriber": "line-7", "ttl_s": 0.0, "reason": "ready"}
            worker.on_frame("authorized", answer | {"cookie": b"", "caps": (0, 0)})
        assert [len(flow.verdicts) for flow in flows] == [1, 1]
        return numbers

    assert len(asked(b"the same")) == 2
    assert len(asked(b"the same")) == 2, "nothing of it is remembered"
    assert len(asked(b"")) == 1, "an address is asked about once for both"


@pytest.mark.requirement("X-16")
def test_an_address_counts_as_a_subscribers_for_an_hour(
    worker: ConcentratorWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(worker, "loop", SimpleNamespace(finish=worker.loop.finish))
    monkeypatch.setattr(worker.loop, "now", now[0], raising=False)
    ask(worker, "10.9.9.9", cookie=b"of this connection")
    for passed_s, is_known in ((3599, True), (3601, False)):
        monkeypatch.setattr(worker.loop, "now", now[0] + passed_s)
        assert worker.is_subscriber_address("10.9.9.9") == is_known


def test_when_the_channel_breaks_those_who_wait_are_reset_and_the_next_one_asks_anew(
    worker: ConcentratorWorker,
) -> None:
    closed = []

    class Waiting(FakeFlow):
        def close(self, reason: str, *, reset: bool) -> None:
            closed.append((reason, reset))

    for _ in range(2):
        assert worker.verdict(("customers", "10.9.9.9", b""), Waiting(), b"prefix") is None  # type: ignore[arg-type]
    assert worker._asks == 1, "both wait for one answer"
    worker.on_disconnected()
    assert closed == 2 * [("no-resources", True)]
    assert ask(worker, "10.9.9.9")
