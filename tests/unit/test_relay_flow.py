"""The tables of a flow's life."""

from __future__ import annotations

import pytest

from cpe_mcp.relay.flow import CLOSED, CONCENTRATOR, DRAINING, MEASURING, NEW, READING, RELAYING, UPSTREAM, Table, step

pytestmark = pytest.mark.unit

TABLES = pytest.mark.parametrize(("table", "first"), [(UPSTREAM, NEW), (CONCENTRATOR, READING)])


@TABLES
def test_every_state_is_reached_and_left_for_the_end(table: Table, first: str) -> None:
    reached, todo = {first}, [first]
    while todo:
        for following in table.get(todo.pop(), {}).values():
            if following not in reached:
                reached.add(following)
                todo.append(following)
    assert reached == {*table, CLOSED}
    for state, events in table.items():
        assert events["close"] == CLOSED, state


@TABLES
def test_nothing_leads_out_of_relaying_but_the_end(table: Table, first: str) -> None:
    assert set(table[RELAYING]) == {"close"}
    assert CLOSED not in table, "the end is the end"


def test_a_refused_peer_is_drained_from_wherever_it_is() -> None:
    for state, events in CONCENTRATOR.items():
        if state not in (DRAINING, MEASURING, RELAYING):
            assert events["refuse"] == DRAINING, state


def test_an_event_that_does_not_belong_is_our_bug() -> None:
    assert step(UPSTREAM, NEW, "open") == "connecting"
    with pytest.raises(KeyError):
        step(UPSTREAM, RELAYING, "open")
