"""How the concentrator's control asks RADIUS: once for all who wait, not about too many at once, and again in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.concentrator import control as module
from cpe_mcp.concentrator.control import Control
from cpe_mcp.concentrator.filters import FilterError, Filters
from cpe_mcp.settings import parse_concentrator

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-d")]

CONFIG = """
config global 'global'
	option run_dir '@RUN@'

config listener 'customers'
	option facing 'customer'

config radius 'radius'
	option enabled '1'
	list server '127.0.0.1'
	option secret 'between-us-only'
"""


class FakeWorker:
    """Takes frames."""

    def __init__(self, pid: int) -> None:
        self.pid = self.index = pid
        self.counters: dict[str, int] = {}
        self.frames: list[tuple[str, Any]] = []

    def send(self, kind: str, payload: Any) -> None:
        self.frames.append((kind, payload))

    def answers(self) -> list[tuple[int, str, str]]:
        return [(p["id"], p["verdict"], p["reason"]) for kind, p in self.frames if kind == "authorized"]


class FakeRadius:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[RadiusAnswer]]] = []
        self.counters: dict[str, int] = {}

    async def authorize_address(self, address: str, *, password: str) -> RadiusAnswer:
        future: asyncio.Future[RadiusAnswer] = asyncio.get_running_loop().create_future()
        self.asked.append((address, future))
        return await future


class FakeFilters:
    """Knows gold and silver."""

    def __init__(self) -> None:
        self.applied: list[Filters] = []
        self.is_broken = False

    def knows(self, name: str) -> bool:
        return name in ("gold", "silver")

    def apply(self, filters: Filters) -> None:
        if self.is_broken:
            raise FilterError("no room")
        self.applied.append(filters)


class Desk:
    """A control with workers and a RADIUS server of paper."""

    def __init__(self, directory: Path, workers: int = 2) -> None:
        self.filters = FakeFilters()
        settings = parse_concentrator(CONFIG.replace("@RUN@", str(directory)))
        self.control = Control(settings, filters=self.filters)
        self.radius = self.control._radius = FakeRadius()  # type: ignore[assignment]
        self.workers = [FakeWorker(pid) for pid in range(1, workers + 1)]
        self.control.server.workers.update(self.workers)  # type: ignore[arg-type]
        self.questions = 0

    def ask(self, address: str, worker: int = 0, cookie: bytes = b"", listener: str = "customers") -> int:
        self.questions += 1
        question = {"id": self.questions, "address": address, "listener": listener, "cookie": cookie}
        self.control._frame(self.workers[worker], "authorize", question)  # type: ignore[arg-type]
        return self.questions

    async def answer(self, number: int, answer: RadiusAnswer) -> None:
        self.radius.asked[number][1].set_result(answer)
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(directory: Path, scenario: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Desk(directory))

    asyncio.run(main())


ACCEPT = RadiusAnswer("accept", "", user="line-7", session_timeout_s=600.0)


def test_questions_about_one_address_become_one(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        for worker in (0, 0, 1):
            desk.ask("10.9.9.9", worker)
        await settle()
        assert [address for address, _ in desk.radius.asked] == ["10.9.9.9"]
        await desk.answer(0, ACCEPT)
        assert desk.workers[0].answers() == [(1, "accept", "ready"), (2, "accept", "ready")]
        assert desk.workers[1].answers() == [(3, "accept", "ready")]
        desk.ask("10.9.9.9", 1)
        assert len(desk.radius.asked) == 1, "remembered"

    run(tmp_path, scenario)


@pytest.mark.requirement("7.4-a")
def test_strangers_do_not_keep_a_subscriber_from_being_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASKING_MAX", 4)

    async def scenario(desk: Desk) -> None:
        desk.ask("10.9.9.9")
        await settle()
        await desk.answer(0, ACCEPT._replace(session_timeout_s=1e-9))
        for host in range(10):
            desk.ask(f"10.66.0.{host}")
        assert [row[1:] for row in desk.workers[0].answers()[1:]] == [("later", "auth-pending")] * 6
        desk.ask("10.9.9.9")
        await settle()
        assert [address for address, _ in desk.radius.asked][1:] == [
            *(f"10.66.0.{host}" for host in range(4)),
            "10.9.9.9",
        ]

    run(tmp_path, scenario)


def test_an_accept_that_ends_soon_is_renewed_while_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))

    async def scenario(desk: Desk) -> None:
        desk.ask("10.9.9.9")
        await settle()
        await desk.answer(0, ACCEPT)
        now[0] += 500
        for _ in range(2):
            desk.ask("10.9.9.9")
        await settle()
        assert desk.workers[0].answers()[1:] == [(2, "accept", "ready"), (3, "accept", "ready")], "nobody waits"
        assert len(desk.radius.asked) == 2
        await desk.answer(1, ACCEPT._replace(down_mbit=5))
        assert ("forget", {"address": "10.9.9.9"}) in desk.workers[1].frames, "other terms: workers ask anew"
        now[0] += 590
        desk.ask("10.9.9.9")
        assert desk.workers[0].answers()[-1] == (4, "accept", "ready")

    run(tmp_path, scenario)


def test_a_question_that_cannot_be_sent_is_a_silence_and_not_the_end(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.ask("10.9.9.9")
        await settle()
        desk.radius.asked[0][1].set_exception(OSError(24, "Too many open files"))
        await settle()
        assert desk.workers[0].answers() == [(1, "reject", "auth-timeout")]
        assert desk.control._asking == {}

    run(tmp_path, scenario)


@pytest.mark.requirement("7.1-a")
def test_the_log_names_nobody_whom_radius_was_asked_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(desk: Desk) -> None:
        for number, verdict in enumerate(("accept", "reject", "timeout")):
            desk.ask(f"10.9.9.{number}")
            await settle()
            reason = "192.0.2.9 is silent" if verdict == "timeout" else "dear line-7"
            await desk.answer(number, ACCEPT._replace(verdict=verdict, reason=reason))
        assert [line for line in caplog.messages if line.startswith("RADIUS on")] == [
            "RADIUS on 10.9.9.x: accept",
            "RADIUS on 10.9.9.x: reject",
            "RADIUS on 10.9.9.x: timeout (192.0.2.9 is silent)",
        ]

    with caplog.at_level(logging.DEBUG, logger="cpe_mcp"):
        run(tmp_path, scenario)
    assert {row.levelno for row in caplog.records if "RADIUS on" in row.getMessage()} == {logging.DEBUG}


@pytest.mark.requirement("5.3-b")
def test_filters_of_an_accept_are_carried_out_and_end_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(desk: Desk) -> None:
        desk.ask("10.9.9.9")
        await settle()
        await desk.answer(0, ACCEPT._replace(filters=("gold", "lead", "silver")))
        assert desk.filters.applied == [{"10.9.9.9": ("gold", "silver")}]
        assert "10.9.9.x: no filter here for Filter-Id 'lead'" in caplog.text
        desk.control.authorizer.withdraw("10.9.9.9")
        desk.control.follow_filters()
        assert desk.filters.applied[1:] == [{"10.9.9.9": ()}]
        desk.filters.is_broken = True
        desk.ask("10.9.9.8")
        await settle()
        await desk.answer(1, ACCEPT._replace(filters=("gold",)))
        assert "filters of 1 addresses are not in place: no room" in caplog.text
        assert not [address for address in ("10.9.9.8", "10.9.9.9") if address in caplog.text]
        assert desk.workers[0].answers()[-1] == (2, "accept", "ready")

    run(tmp_path, scenario)


@pytest.mark.requirement("X-13")
def test_each_worker_is_told_what_the_others_have(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        one, two = desk.workers
        desk.control._frame(one, "connections", {"alice": 3})  # type: ignore[arg-type]
        assert ("connections", {"alice": 3}) in two.frames
        assert ("connections", {"alice": 0}) in one.frames
        desk.control.server.workers.discard(one)
        desk.control.server.workers.add(FakeWorker(3))  # type: ignore[arg-type]
        desk.control._worker_gone(one)  # type: ignore[arg-type]
        assert two.frames[-1] == ("connections", {"alice": 0})

    run(tmp_path, scenario)


def test_a_cap_goes_with_the_last_session_once_nothing_uses_it(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        control = desk.control
        desk.ask("10.9.9.9")
        await settle()
        await desk.answer(0, ACCEPT._replace(down_mbit=8))
        assert list(control._caps.names()) == ["line-7"]
        control._frame(desk.workers[0], "demand", {"line-7": [5.0, 0, 0.0, 0]})  # type: ignore[arg-type]
        now = time.monotonic()
        control._drop_caps(now)
        control.authorizer.withdraw("10.9.9.9")
        control._drop_caps(now + module.UNUSED_CAP_S / 2)
        assert list(control._caps.names()) == ["line-7"], "something runs still"
        control._drop_caps(now + 2 * module.UNUSED_CAP_S)
        assert list(control._caps.names()) == []
        assert desk.workers[0].frames[-1] == ("caps", {"line-7": (0.0, 0.0)})
        assert control._ended == set()

    run(tmp_path, scenario)


def test_totals_of_subscribers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUBSCRIBERS_MAX", 3)

    async def scenario(desk: Desk) -> None:
        for name in ("a", "b", "c", "a", "d", "a"):
            desk.control._count({"concentrator": name, "bytes_up": 1, "bytes_down": 2, "action": "proxy", "reason": ""})
        assert {name: row["flows"] for name, row in desk.control.subscribers.items()} == {"c": 1, "d": 1, "a": 3}

    run(tmp_path, scenario)


def test_counts_for_the_metrics(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        for number, answer in enumerate((ACCEPT, RadiusAnswer("reject", ""), ACCEPT._replace(session_timeout_s=1e-9))):
            desk.ask(f"10.9.9.{number}")
            await settle()
            await desk.answer(number, answer)
        desk.ask("10.9.9.99")
        figures = desk.control.figures(worker_restarts=0)
        assert figures.authorizations == {"accepted": 1, "refused": 1, "lapsed": 1}
        assert figures.asking == 1

    run(tmp_path, scenario)
