"""What the router's control makes of a silence over all WANs. No kernel, no workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.discovery.candidates import Candidate
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.concentrator_health import HOLD_S, Answer
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings import parse_router
from cpe_mcp.upstream.control import Control

pytestmark = pytest.mark.unit

SETTINGS = """
config global 'global'
	option run_dir '{run_dir}'

config wan 'dsl'
	option device 'eth1'

config concentrator 'mine'
	list address '192.0.2.1'
	option subscriber 'alice'
	option key 'wonderland'

config concentrator 'far'
	list address '192.0.2.2'
	option subscriber 'alice'
	option key 'wonderland'
"""


class Paths:
    """One WAN that is used."""

    def wans(self) -> tuple[WanView, ...]:
        return (WanView("dsl", "eth1", "10.1.0.1", "", 20.0),)

    def other_wans(self) -> tuple[WanView, ...]:
        return ()

    def scheme(self) -> tuple[str, str]:
        return ("adaptive", Reason.SCHEME_ONE)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@pytest.mark.requirement("5.1-a")
def test_concentrators_that_answer_over_no_wan_are_dead_at_once_and_asked_when_they_are_heard(tmp_path: Path) -> None:
    asked: list[str] = []

    async def ask(candidate: Candidate, wans: Sequence[WanView], _: object) -> dict[str, Answer]:
        asked.append(candidate.name)
        return {"dsl": Answer(is_alive=True)}

    async def scenario() -> None:
        settings = parse_router(SETTINGS.format(run_dir=tmp_path))
        control = Control(settings, Paths(), congestion_controls=[], ask=ask)
        control.changed()
        await asyncio.sleep(0)
        control.concentrators_unheard(frozenset({"192.0.2.1"}))
        await asyncio.sleep(0.01)
        assert [row.name for row in control.snapshot.concentrators] == ["far"], "who was not probed is not judged"
        control.concentrators_unheard(frozenset({"192.0.2.1", "192.0.2.2"}))
        await asyncio.sleep(0.01)
        assert (control.snapshot.reason, len(control.snapshot.wans)) == (Reason.CONCENTRATOR_UNREACHABLE, 1)
        for name in ("mine", "far"):  # as after an hour without it
            control.health._standings[name].ask_at += 30
        control.concentrators_heard(frozenset({"192.0.2.2"}))
        await asyncio.sleep(HOLD_S + 0.1)
        assert asked == ["far"]
        assert [row.name for row in control.snapshot.concentrators] == ["far"]
        control.stop()

    asyncio.run(scenario())
