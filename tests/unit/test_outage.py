"""Whose fault a silence is: one WAN's, or the concentrator's."""

from __future__ import annotations

import pytest

from cpe_mcp.policy.outage import WINDOW_S, Outages

pytestmark = pytest.mark.unit

BOTH = ("dsl", "lte")


def test_one_wan_is_not_the_concentrator() -> None:
    outages = Outages()
    for now in (1.0, 2.0, 3.0):
        assert not outages.failed("far", "dsl", BOTH, now)


def test_two_wans_are() -> None:
    outages = Outages()
    assert not outages.failed("far", "dsl", BOTH, 1.0)
    assert outages.failed("far", "lte", BOTH, 2.0)


def test_the_only_usable_wan_is_enough() -> None:
    assert Outages().failed("far", "dsl", ("dsl",), 1.0)


def test_with_no_usable_wan_the_one_that_failed_is_enough() -> None:
    """The worker may be one snapshot behind."""
    assert Outages().failed("far", "dsl", (), 1.0)


@pytest.mark.parametrize(("pause_s", "is_down"), [(WINDOW_S - 0.001, True), (WINDOW_S, False)])
def test_failures_count_together_only_within_the_window(pause_s: float, is_down: bool) -> None:
    outages = Outages()
    outages.failed("far", "dsl", BOTH, 100.0)
    assert outages.failed("far", "lte", BOTH, 100.0 + pause_s) is is_down


def test_a_wan_that_is_no_longer_usable_proves_nothing() -> None:
    """Its failure was its own: it has been found dead since."""
    outages = Outages()
    outages.failed("far", "lte", ("dsl", "lte", "cable"), 1.0)
    assert not outages.failed("far", "dsl", ("dsl", "cable"), 2.0)
    assert outages.failed("far", "cable", ("dsl", "cable"), 3.0)


def test_an_answer_starts_the_count_again() -> None:
    outages = Outages()
    outages.failed("far", "dsl", BOTH, 1.0)
    outages.answered("far")
    assert not outages.failed("far", "lte", BOTH, 2.0)


def test_an_outage_starts_the_count_again_too() -> None:
    outages = Outages()
    outages.failed("far", "dsl", BOTH, 1.0)
    assert outages.failed("far", "lte", BOTH, 1.0)
    assert not outages.failed("far", "lte", BOTH, 1.1)


def test_concentrators_are_judged_apart() -> None:
    outages = Outages()
    outages.failed("far", "dsl", BOTH, 1.0)
    assert not outages.failed("near", "lte", BOTH, 1.0)
    outages.answered("near")
    assert outages.failed("far", "lte", BOTH, 1.0)


def test_an_answer_of_one_that_never_failed_is_nothing() -> None:
    Outages().answered("far")
