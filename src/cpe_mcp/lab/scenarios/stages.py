"""Runs a scenario's stages one after the other: one that fails is recorded and does not hide those behind it."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cpe_mcp.control.ask import ApiError
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab

T = TypeVar("T")

EXPECTED = (LabError, ApiError, OSError, subprocess.SubprocessError)
"""What goes wrong in a lab; anything else is a fault in the scenario and gets its place in the source."""


class Stages:
    """Fills ``report["stages"]``, one row each: ``stage``, ``ok``, ``seconds``, ``error``. Tells a person what runs."""

    def __init__(self, report: dict[str, Any]) -> None:
        self._rows: list[dict[str, Any]] = report.setdefault("stages", [])
        self._started = time.monotonic()

    def do(self, title: str, stage: Callable[[], T]) -> T | None:
        """Run one stage; gives its result, or None when it failed."""
        started = time.monotonic()
        print(f"[{started - self._started:5.1f} s] {title}", file=sys.stderr, flush=True)
        row: dict[str, Any] = {"stage": title, "ok": True, "error": ""}
        self._rows.append(row)
        try:
            return stage()
        except Exception as error:
            row["ok"] = False
            row["error"] = describe(error)
            print(f"          FAILED: {row['error']}", file=sys.stderr, flush=True)
            return None
        finally:
            row["seconds"] = round(time.monotonic() - started, 1)

    @property
    def failed(self) -> list[str]:
        """Titles of the stages that failed."""
        return [row["stage"] for row in self._rows if not row["ok"]]


def describe(error: Exception) -> str:
    """One line for a person."""
    text = "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())]).replace("\n", " ")
    if isinstance(error, EXPECTED):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno})"


def in_lab(
    options: Mapping[str, Any], report: dict[str, Any], course: Callable[[Lab, Stages, dict[str, Any]], None]
) -> Stages:
    """Bring a lab up, run ``course(lab, stages, report)`` in it, take it down. Raises LabError when it does not come up."""
    started = time.monotonic()
    stages = Stages(report)
    print("[  0.0 s] bring up the network", file=sys.stderr, flush=True)
    with Lab(**options) as lab:
        report.update(lab.facts())
        try:
            course(lab, stages, report)
        finally:
            report["emulator_cpu_s"] = round(lab.emulator_cpu_s(), 1)
    report["seconds"] = round(time.monotonic() - started, 1)
    return stages
