"""What grows with every event or address, and ends somewhere."""

from __future__ import annotations

import pytest

from cpe_mcp.paths.pace import Pace
from cpe_mcp.settings.router import RouterSettings
from cpe_mcp.upstream.path_manager import PROBLEMS_KEPT, REPAIRS_KEPT, PathManager

pytestmark = pytest.mark.unit


def test_some_at_once_and_then_one_per_interval() -> None:
    pace, now, done = Pace(burst=5, interval_s=0.5), 100.0, 0
    while now < 110.0:
        if not pace.wait_s(now):
            pace.took(now)
            done += 1
        now += 0.01
    assert done == pytest.approx(5 + 10 / 0.5, abs=1)
    assert pace.wait_s(now + 5) == 0
    for _ in range(5):
        assert pace.wait_s(now + 5) == 0, "a quiet time gives all back"
        pace.took(now + 5)
    assert pace.wait_s(now + 5) == pytest.approx(0.5)


def test_repairs_and_problems_of_ever_new_addresses(caplog: pytest.LogCaptureFixture) -> None:
    paths = PathManager(RouterSettings(), on_change=lambda: None)
    kept = paths._repair_of("10.1.0.2")
    for number in range(1000):
        paths._repair_of(f"2001:db8:{number:x}::2")
        assert paths._repair_of("10.1.0.2") is kept, "one that is asked for stays"
        paths._complain(f"endpoint 2001:db8:{number:x}::2: no")
    assert len(paths._repairs) == REPAIRS_KEPT
    assert len(paths._problems) == PROBLEMS_KEPT
    assert len(caplog.records) == 1000
    paths._complain("endpoint 2001:db8:3e7::2: no")
    assert len(caplog.records) == 1000
