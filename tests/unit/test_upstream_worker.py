"""What an upstream worker does about time and about its own bugs, without a kernel to speak of."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import subflows

from cpe_mcp.paths.snapshot import EMPTY, ORDINARY, WanView
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay import upstream_worker
from cpe_mcp.relay.flow import UPSTREAM
from cpe_mcp.relay.loop import End
from cpe_mcp.relay.opening import Opening
from cpe_mcp.relay.own_cap import OWN
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.relay.relaying import Flow
from cpe_mcp.relay.upstream_worker import SUBFLOWS_KEPT, UpstreamFlow, UpstreamWorker
from cpe_mcp.relay.worker import INTERNAL_ERRORS

pytestmark = pytest.mark.unit


class Worker(UpstreamWorker):
    """Takes no connections."""

    def __init__(self, run_dir: str) -> None:
        super().__init__(run_dir, 0, 5125)
        self.ends: list[str] = []
        self._next_sample = float("inf")  # these flows have nothing to look at

    def ended(self, record: FlowRecord) -> None:
        self.ends.append(record.end)
        super().ended(record)

    def _listen(self, number: int) -> None:
        self._listeners[number] = []


class Route:
    """To somebody who never answers."""

    bound = False
    address = "10.9.0.1"

    def __init__(self, base_rtt_ms: float = 0.0) -> None:
        self.concentrator: Any = type("Concentrator", (), {"name": "mcp", "foreign": False})
        self.wan = WanView("dsl", "eth1", "10.1.0.2", "", base_rtt_ms)
        self.opened = 0

    def key(self) -> object:
        return self.wan.name

    def open(self, dscp: int = 0) -> socket.socket:
        self.opened += 1
        return socket.socket()


class Asker:
    """A flow that waits for a concentrator."""

    said = ""

    def opened(self, end: Any, route: Any, fallback: str) -> None:
        raise AssertionError("nobody answers here")

    def nobody_answers(self, detail: str) -> None:
        self.said = detail

    def abandon(self) -> None:
        raise AssertionError("no bug here")


class Faulty(Flow):
    """Raises in whatever it is asked to do."""

    def __init__(self, worker: Worker, faults: tuple[str, ...] = ("on_events", "on_deadline")) -> None:
        sock, self.peer = socket.socketpair()
        self.faults = faults
        self.edges = 0
        super().__init__(worker, UPSTREAM, "new", sock, ("192.168.1.20", 40000))
        self.deadline = float("inf")
        worker.loop.add(self.near)

    def _do(self, what: str) -> None:
        if what in self.faults:
            raise ZeroDivisionError(what)

    def on_events(self, end: End, mask: int) -> None:
        self.edges += 1
        self._do("on_events")

    def on_deadline(self) -> None:
        self._do("on_deadline")

    def on_again(self) -> None:
        self._do("on_again")

    def describe(self) -> dict[str, Any]:
        self._do("describe")
        return super().describe()

    def peer_names(self) -> tuple[str, str]:
        self._do("peer_names")  # the record asks: even the orderly end fails
        return "", ""

    def end_reason(self, broken: str) -> str:
        return Reason.CLOSED

    def sending(self) -> tuple[Any, int]:
        return None, 0

    def sends_from(self) -> str:
        return ""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(str(tmp_path))
    yield worker
    worker.loop.finish()


def turn(worker: Worker) -> None:
    """One turn of the loop, with a tick."""
    worker.loop._on_turn = worker.loop.stop
    worker.loop._stopped = False
    worker.loop._next_tick = 0.0
    worker.loop.run()


def is_reset(sock: socket.socket) -> bool:
    """Whether the other end of a pair has gone."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


# Time ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout_s", "base_rtt_ms"), [(0.2, 0.0), (3.0, 1100.0)])
def test_the_last_handshake_is_given_up_before_it_counts_as_late(
    worker: Worker, timeout_s: float, base_rtt_ms: float
) -> None:
    worker.snapshot = EMPTY._replace(connect_timeout_s=timeout_s)
    asker, route = Asker(), Route(base_rtt_ms)
    opening = Opening(worker, asker, [route], 0)  # type: ignore[list-item]
    opening.begin()
    assert opening.due() == pytest.approx(worker.loop.now + timeout_s)
    worker.loop.now += timeout_s
    opening.tick(worker.loop.now)
    assert asker.said == "no answer to the handshake"


def test_the_next_way_does_not_wait_for_a_handshake_that_was_given_up(worker: Worker) -> None:
    worker.snapshot = EMPTY._replace(connect_timeout_s=0.2)
    asker, routes = Asker(), [Route(1100.0), Route()]
    opening = Opening(worker, asker, routes, 0)  # type: ignore[arg-type]
    opening.begin()
    worker.loop.now += 0.2
    opening.tick(worker.loop.now)
    assert [route.opened for route in routes] == [1, 1]
    assert not asker.said
    assert opening.due() == pytest.approx(worker.loop.now + 0.2)


def test_late_handshakes_of_the_pool_are_given_up_while_capped_traffic_runs(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    route: Any = Route()
    worker.pool.configure(route, EMPTY._replace(pool_size=1, connect_timeout_s=3.0))
    worker.pool.refill()
    monkeypatch.setattr(worker.cap, "demands", lambda: {OWN: [1_000_000.0, 1, 0, 0]})
    worker.loop.now += 3.1
    assert worker.on_tick()
    worker.loop.now += 1.1
    worker.pool.refill()
    assert route.opened == 2, "another one takes its place"
    assert worker.totals["handshakes:dsl:unanswered"] == 1


# Bugs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [("on_events",), ("on_events", "peer_names")])
def test_a_bug_ends_the_flow_that_met_it_and_no_other(
    worker: Worker, faults: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    bad, worse, good = Faulty(worker, faults), Faulty(worker, faults), Faulty(worker, ())
    turn(worker)
    assert list(worker.live.values()) == [good]
    assert worker.unsettled == {good}
    assert good.edges == 1
    assert is_reset(bad.peer)
    assert is_reset(worse.peer)
    assert not is_reset(good.peer)
    assert worker.ends == ([] if "peer_names" in faults else ["internal-error"] * 2)
    assert worker.totals[INTERNAL_ERRORS] == len(faults) * 2
    assert capsys.readouterr().err.count("Traceback") == 1, "the log is not flooded"


def test_a_bug_in_a_timer_or_a_further_turn_ends_the_flow(worker: Worker) -> None:
    timed, again, good = Faulty(worker, ("on_deadline",)), Faulty(worker, ("on_again",)), Faulty(worker, ())
    timed.deadline = 0.0
    worker.loop.again(again)
    turn(worker)
    assert list(worker.live.values()) == [good]
    assert worker.totals[INTERNAL_ERRORS] == 2


def test_a_question_that_meets_a_bug_is_answered_with_the_others_and_ends_nothing(worker: Worker) -> None:
    bad, good = Faulty(worker, ("describe",)), Faulty(worker, ())
    assert [row["id"] for row in worker._rows([bad, good])] == [good.id]
    assert len(worker.live) == 2


def test_a_bug_met_while_a_concentrator_answers_ends_the_flow_that_waits(worker: Worker) -> None:
    class Waiting(Faulty):
        def opened(self, end: Any, route: Any, fallback: str) -> None:
            raise ZeroDivisionError("opened")

        def nobody_answers(self, detail: str) -> None:
            raise AssertionError("somebody did")

    flow = Waiting(worker, ())
    here, _ = socket.socketpair()
    route: Any = Route()
    route.bound = True
    route.open = lambda dscp: here
    opening = Opening(worker, flow, [route], 0)
    opening.begin()
    turn(worker)
    assert not worker.live
    assert here.fileno() < 0
    assert not worker.witnesses


# What is kept -----------------------------------------------------------------------------------------------------------


def test_of_subflows_that_went_long_ago_the_sums_are_kept(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    sock, _ = socket.socketpair()
    flow = UpstreamFlow(worker, sock, socket.AF_INET, ("192.168.1.20", 40000), ORDINARY)
    flow.action = "proxy"
    flow.far = End(sock, flow)
    flow.relaying = object()  # type: ignore[assignment]
    worker.wan_of = {"10.1.0.2": "dsl", "10.2.0.2": "lte"}
    first = subflows.SUBFLOW._replace(local="10.1.0.2", bytes_down=1000, bytes_up=10)
    for number in range(500):  # lte comes and goes
        later = first._replace(local="10.2.0.2", local_port=number, bytes_down=3, bytes_up=1)
        rows = [first, later]
        monkeypatch.setattr(upstream_worker, "subflows_of", lambda sock, rows=rows: rows)
        flow._look()
    assert flow._bytes_by_wan() == {"dsl": {"down": 1000, "up": 10}, "lte": {"down": 1500, "up": 500}}
    assert flow._bytes_by_wan() == {"dsl": {"down": 1000, "up": 10}, "lte": {"down": 1500, "up": 500}}
    assert len(flow._seen) <= SUBFLOWS_KEPT
    sock.close()
