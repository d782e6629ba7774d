"""What ``cpe-mcp speedtest`` prints and how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from cpe_mcp.cli.speedtest import progress_line, report, run

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-10")]


def row(
    wan: str, direction: str, state: str, mbit: float = 0.0, error: str = "", progress: float = 1.0
) -> dict[str, Any]:
    return {"wan": wan, "direction": direction, "state": state, "progress": progress, "mbit": mbit, "error": error}


DONE = {
    "state": "done",
    "concentrator": "mine",
    "runs": [
        row("dsl", "down", "done", 96.5),
        row("dsl", "up", "failed", error="no data came through"),
        row("", "down", "done", 140.2),
        row("", "up", "done", 61.0),
    ],
}


def asker(*answers: dict[str, Any] | type[BaseException]) -> tuple[Callable[..., Any], list[dict[str, Any]]]:
    asked: list[dict[str, Any]] = []
    left = list(answers)

    def ask(method: str, **args: Any) -> Any:
        assert method == "speedtest"
        asked.append(args)
        answer = left.pop(0)
        if isinstance(answer, type):
            raise answer
        return answer

    return ask, asked


ARGUMENTS = argparse.Namespace(json=True, wan="")


def test_a_row_per_wan_and_what_went_wrong() -> None:
    lines = report(DONE).splitlines()
    assert [line.split() for line in lines[1:3]] == [["dsl", "96.5", "failed"], ["all", "together", "140.2", "61.0"]]
    assert lines[3:] == ["dsl, upload: no data came through", "measured against mine"]


def test_the_line_while_it_runs() -> None:
    runs = [row("dsl", "down", "done"), row("dsl", "up", "running", 12.34, progress=0.5)]
    assert progress_line({"runs": runs}) == "2/2 dsl upload [##########          ] 12.3 Mbit/s"
    assert progress_line({"runs": runs[:1]}) == ""


def test_it_waits_for_the_end() -> None:
    ask, asked = asker({"state": "running", "runs": []}, DONE)
    result, _, code = run(ask, ARGUMENTS)
    assert asked == [{"action": "start", "wan": ""}, {}]
    assert (result, code) == (DONE, 1), "one direction has failed"


def test_ctrl_c_stops_it() -> None:
    stopped = {"state": "idle", "concentrator": "mine", "runs": [row("dsl", "down", "stopped")]}
    ask, asked = asker({"state": "running", "runs": []}, KeyboardInterrupt, stopped)
    result, text, code = run(ask, ARGUMENTS)
    assert asked[-1] == {"action": "stop"}
    assert (result, code) == (stopped, 1)
    assert "stopped" in text
