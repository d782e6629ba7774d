"""Dynamic authorization with any octets: an answer or none, never anything else, also from a peer that has the secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpe_mcp.aaa.dynamic import Attributes, Change, Decision, Nas, Selector, decide
from cpe_mcp.aaa.dynamic_packets import DynamicAuthorization, Rules

pytestmark = [pytest.mark.fuzz, pytest.mark.requirement("5.3-b")]

SECRET, SERVER, OURS = b"between us", "192.0.2.10", 32473
TYPES = (1, 4, 6, 8, 11, 24, 26, 27, 31, 32, 33, 44, 50, 55, 80, 95, 96, 97, 168, 245)
VALUES = st.binary(max_size=40) | st.sampled_from([b"alice", b"mcp-1", bytes(4), bytes(16), b"\0\x40" + bytes(16)])
VENDORS = st.builds(
    lambda vendor, kind, value: vendor.to_bytes(4, "big") + bytes((kind, len(value) + 2)) + value,
    st.sampled_from([OURS, 9]),
    st.integers(0, 20),
    VALUES,
)
ATTRIBUTES = st.lists(st.tuples(st.sampled_from(TYPES), VALUES) | st.tuples(st.just(26), VENDORS), max_size=12)


class Sessions:
    """Alice's one."""

    def find(self, selector: Selector) -> Sequence[str]:
        return ["alice"] if selector.matches(users=("alice",), addresses=("0.0.0.0",)) else []

    def change(self, sessions: Sequence[Any], change: Change) -> None:
        """Fine."""

    def disconnect(self, sessions: Sequence[Any]) -> None:
        """Fine."""


def desk() -> DynamicAuthorization:
    def decided(code: int, attributes: Attributes) -> Decision:
        nas = Nas("mcp-1", ["0.0.0.0"])
        return decide(code, attributes, nas=nas, enterprise=OURS, abilities=Change._fields, sessions=Sessions())

    rules = Rules({SERVER: SECRET}, OURS, require_message_authenticator=False, require_timestamp=False)
    return DynamicAuthorization(rules, decided)


@given(st.binary(max_size=200))
def test_any_octets_from_a_known_address(data: bytes) -> None:
    assert desk().receive(data, (SERVER, 1), now=0.0, unix=0.0) is None


@given(st.sampled_from([40, 43]), ATTRIBUTES, st.binary(max_size=8))
def test_any_attributes_of_who_has_the_secret(code: int, attributes: list[tuple[int, bytes]], tail: bytes) -> None:
    body = b"".join(bytes((kind, len(value) + 2)) + value for kind, value in attributes) + tail
    head = bytes((code, 7)) + (20 + len(body)).to_bytes(2, "big")
    data = head + hashlib.md5(head + bytes(16) + body + SECRET).digest() + body
    core = desk()
    answer = core.receive(data, (SERVER, 1), now=0.0, unix=0.0)
    if answer is None:
        assert core.counters.keys() <= {"malformed", "forged", "stale"}
    else:
        assert answer[0] in (code + 1, code + 2)
        assert answer[1] == 7
        (result,) = core.counters
        assert result.endswith(("-ack", "-nak"))


@given(st.sampled_from([40, 43]), ATTRIBUTES)
def test_an_ack_is_for_alice_and_for_this_nas(code: int, attributes: list[tuple[int, bytes]]) -> None:
    """Whatever else is there: what is acknowledged named both."""
    grouped: dict[Any, list[bytes]] = {32: [b"mcp-1"], 1: [b"alice"]}
    for kind, value in attributes:
        grouped.setdefault(kind, []).append(value)
    nas = Nas("mcp-1", ["0.0.0.0"])
    decision = decide(code, grouped, nas=nas, enterprise=OURS, abilities=Change._fields, sessions=Sessions())
    if decision.error_cause is None:
        assert (set(grouped[32]), grouped[1]) == ({b"mcp-1"}, [b"alice"])
    else:
        assert (decision.code, decision.sessions) == (code + 2, 0)


def test_the_signature_of_these_tests_is_a_real_one() -> None:
    """So that the tests above do not only meet discarded packets."""
    body = bytes((32, 7)) + b"mcp-1" + bytes((1, 7)) + b"alice"
    head = bytes((40, 7)) + (38 + len(body)).to_bytes(2, "big")
    mac = hmac.new(SECRET, head + bytes(16) + body + bytes((80, 18)) + bytes(16), "md5").digest()
    body += bytes((80, 18)) + mac
    data = head + hashlib.md5(head + bytes(16) + body + SECRET).digest() + body
    answer = desk().receive(data, (SERVER, 1), now=0.0, unix=0.0)
    assert answer is not None
    assert answer[0] == 41
