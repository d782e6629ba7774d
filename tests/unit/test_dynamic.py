"""Dynamic authorization (RFC 5176): what a request may say, and which packets are looked at at all. Packets are pyrad's, forged
by hand where a library would not send them."""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import secrets
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from pyrad.dictionary import Dictionary
from pyrad.packet import CoAPacket

from cpe_mcp.aaa import dynamic_packets as packets_module
from cpe_mcp.aaa.attributes import push_concentrator
from cpe_mcp.aaa.dictionary import dictionary_text
from cpe_mcp.aaa.dynamic import (
    Attributes,
    Change,
    Decision,
    ErrorCause,
    Nas,
    Refused,
    Selector,
    decide,
)
from cpe_mcp.aaa.dynamic_packets import DynamicAuthorization, Rules

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-b")]

COA, DISCONNECT = 43, 40
OURS = 32473
NAS: Attributes = {32: [b"mcp-1"]}
ALICE: Attributes = {1: [b"alice"]}
ALL = Change._fields


class FakeSessions:
    """Knows alice, who has two, and bob."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.refusal: Refused | None = None

    def find(self, selector: Selector) -> Sequence[str]:
        rows = {"alice-1": ("alice", "192.0.2.7"), "alice-2": ("alice", "2001:db8::7"), "bob": ("bob", "192.0.2.8")}
        return [name for name, (user, address) in rows.items() if selector.matches(users=(user,), addresses=(address,))]

    def change(self, sessions: Sequence[str], change: Change) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.done.append((",".join(sessions), change))

    def disconnect(self, sessions: Sequence[str]) -> None:
        self.done.append((",".join(sessions), None))


def asked(code: int, *parts: Attributes, abilities: Sequence[str] = ALL) -> tuple[Decision, list[tuple[str, Any]]]:
    sessions = FakeSessions()
    nas = Nas("mcp-1", ["192.0.2.1", "2001:db8::1"])
    attributes = {key: values for part in parts for key, values in part.items()}
    decision = decide(code, attributes, nas=nas, enterprise=OURS, abilities=abilities, sessions=sessions)
    return decision, sessions.done


def number(value: int) -> list[bytes]:
    return [struct.pack("!I", value)]


CAP: Attributes = {(OURS, 4): number(50)}


# What a request may say -------------------------------------------------------------------------------------------------


def test_all_sessions_that_match_are_changed_at_once() -> None:
    decision, done = asked(COA, NAS, ALICE, CAP)
    assert (decision.code, decision.error_cause, decision.sessions) == (44, None, 2)
    assert done == [("alice-1,alice-2", Change(down_mbit=50))]


def test_everything_that_can_be_changed() -> None:
    concentrator = (("192.0.2.30", "2001:db8::30"), 5124)
    many: Attributes = {
        (OURS, 1): [bytes([192, 0, 2, 31])],
        (OURS, 3): [push_concentrator(concentrator)],
        (OURS, 4): number(50),
        (OURS, 5): number(0),
        (OURS, 6): [b"overflow"],
        (OURS, 7): [b"gaming 192.0.2.31"],
        (OURS, 16): number(200),
        11: [b"gold", b"silver"],
        27: number(600),
    }
    decision, done = asked(COA, NAS, ALICE, many)
    assert decision.code == 44
    (_, change) = done[0]
    assert change == Change(
        down_mbit=50,
        up_mbit=0,
        scheme="overflow",
        connections=200,
        session_timeout_s=600,
        filters=("gold", "silver"),
        concentrators=(concentrator, (("192.0.2.31",), 0)),
        service_classes=(("gaming", "192.0.2.31"),),
    )


def test_a_disconnect_ends_all_that_match() -> None:
    decision, done = asked(DISCONNECT, NAS, ALICE)
    assert (decision.code, decision.error_cause) == (41, None)
    assert done == [("alice-1,alice-2", None)]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({8: [bytes([192, 0, 2, 7])]}, "alice-1"),
        ({**ALICE, 8: [bytes([192, 0, 2, 7])]}, "alice-1"),
        ({168: [bytes.fromhex("20010db8000000000000000000000007")]}, "alice-2"),
        ({97: [bytes.fromhex("004020010db8000000 00")], 96: [bytes.fromhex("0000000000000007")]}, "alice-2"),
    ],
)
def test_sessions_by_address(attributes: Attributes, name: str) -> None:
    decision, done = asked(DISCONNECT, NAS, attributes)
    assert decision.code == 41
    assert done == [(name, None)]


@pytest.mark.parametrize(
    ("code", "attributes", "cause"),
    [
        (COA, {**ALICE, **CAP}, 402),  # who is meant
        (DISCONNECT, ALICE, 402),
        (COA, {**NAS, **CAP}, 402),  # which session
        (COA, {**NAS, **ALICE}, 402),  # nothing to change
        (DISCONNECT, {**NAS, 97: [bytes.fromhex("004020010db800000000")]}, 402),
        (COA, {32: [b"mcp-2"], **ALICE, **CAP}, 403),
        (COA, {**NAS, 4: [bytes([192, 0, 2, 99])], **ALICE, **CAP}, 403),  # one is right, one is not
        (DISCONNECT, {95: [bytes(16)], **ALICE}, 403),
        (COA, {**NAS, **ALICE, **CAP, 3: [b"x"]}, 401),
        (COA, {**NAS, **ALICE, **CAP, (9, 1): [b"x"]}, 401),  # another vendor's
        (COA, {**NAS, **ALICE, **CAP, (OURS, 99): [b"x"]}, 401),
        (COA, {**NAS, **ALICE, **CAP, 26: [b"x"]}, 401),  # a vendor's that cannot be read
        (COA, {**NAS, **ALICE, **CAP, 245: [b"\x04x"]}, 401),  # RFC 9445: not in CoA-Requests
        (COA, {**NAS, **ALICE, **CAP, 5: number(1)}, 401),
        (DISCONNECT, {**NAS, **ALICE, **CAP}, 401),  # a Disconnect changes nothing
        (COA, {**NAS, **ALICE, **CAP, 6: number(17)}, 405),
        (COA, {**NAS, **ALICE, (OURS, 4): [b"\1"]}, 407),
        (COA, {**NAS, **ALICE, (OURS, 6): [b"fastest"]}, 407),
        (COA, {**NAS, **ALICE, (OURS, 3): [b"\0\0\5"]}, 407),
        (COA, {**NAS, **ALICE, **CAP, 8: [b"\1\2\3"]}, 407),
        (COA, {**NAS, 1: [b"alice", b"bob"], **CAP}, 404),
        (COA, {**NAS, **ALICE, (OURS, 4): number(1) + number(2)}, 404),
        (COA, {**NAS, 1: [b"nobody"], **CAP}, 503),
        (DISCONNECT, {**NAS, 1: [b"bob"], 8: [bytes([192, 0, 2, 7])]}, 503),  # all that is given must match
        (DISCONNECT, {**NAS, **ALICE, 44: [b"another"]}, 503),
    ],
)
def test_error_causes(code: int, attributes: Attributes, cause: int) -> None:
    decision, done = asked(code, attributes)
    assert (decision.code, decision.error_cause) == (45 if code == COA else 42, cause)
    assert decision.text
    assert done == []


def test_what_means_nothing_here_is_unsupported() -> None:
    decision, done = asked(COA, NAS, ALICE, {(OURS, 16): number(2)}, abilities=("down_mbit",))
    assert (decision.error_cause, done) == (ErrorCause.UNSUPPORTED_ATTRIBUTE, [])


def test_who_has_the_sessions_may_refuse() -> None:
    sessions = FakeSessions()
    sessions.refusal = Refused(ErrorCause.RESOURCES_UNAVAILABLE, "no room")
    decision = decide(
        COA, {**NAS, **ALICE, **CAP}, nas=Nas("mcp-1", []), enterprise=OURS, abilities=ALL, sessions=sessions
    )
    assert (decision.code, decision.error_cause, decision.text) == (45, 506, "no room")


# Which packets are looked at --------------------------------------------------------------------------------------------

SECRET = b"between the two of us"
SERVER, OTHER = "192.0.2.10", "192.0.2.11"
UNIX = 1_800_000_000
DICTIONARY = Dictionary(io.StringIO(dictionary_text(OURS)))


def packet(
    code: int = COA,
    attributes: Attributes | None = None,
    *,
    secret: bytes = SECRET,
    stamp: int | None = UNIX,
    sign: bool = True,
    identifier: int = 7,
) -> bytes:
    request = CoAPacket(code, identifier, secret, dict=DICTIONARY)
    if sign:
        request.add_message_authenticator()
    for key, values in ({**NAS, **ALICE, **CAP} if attributes is None else attributes).items():
        request[key] = list(values)
    if stamp is not None:
        request[55] = number(stamp)
    data: bytes = request.RequestPacket()
    return data


class Desk:
    """A core with a decision that counts."""

    def __init__(self, **rules: Any) -> None:
        self.decided: list[tuple[int, Attributes]] = []
        self.core = DynamicAuthorization(Rules({SERVER: SECRET, OTHER: b"another secret"}, OURS, **rules), self._decide)
        self.decision = Decision(44)

    def _decide(self, code: int, attributes: Attributes) -> Decision:
        self.decided.append((code, attributes))
        return self.decision

    def send(
        self, data: bytes, source: str = SERVER, port: int = 40000, now: float = 0.0, unix: float | None = UNIX
    ) -> bytes | None:
        return self.core.receive(data, (source, port), now=now, unix=unix)


def checked_reply(request: bytes, answer: bytes | None) -> Any:
    """The answer as the server reads it, which checks its authenticators."""
    assert answer is not None
    asked = CoAPacket(packet=request, secret=SECRET, dict=DICTIONARY)
    reply = CoAPacket(packet=answer, secret=SECRET, dict=DICTIONARY)
    assert asked.VerifyReply(reply, answer)
    return reply


def test_an_authentic_request_is_decided_and_its_answer_proves_the_secret() -> None:
    desk, request = Desk(), packet()
    answer = desk.send(request)
    reply = checked_reply(request, answer)
    assert (reply.code, answer[20] if answer else 0) == (44, 80), "Message-Authenticator is first"
    (code, attributes) = desk.decided[0]
    assert (code, attributes[1], attributes[OURS, 4]) == (COA, [b"alice"], number(50))
    assert desk.core.counters == {"coa-ack": 1}
    assert desk.core.by_peer == {SERVER: {"coa-ack": 1}, OTHER: {}}


def test_an_ipv4_peer_on_a_socket_of_both_families() -> None:
    assert Desk().send(packet(), f"::ffff:{SERVER}") is not None


def test_a_disconnect_ack_says_why_the_session_ended() -> None:
    desk, request = Desk(), packet(DISCONNECT, {**NAS, **ALICE})
    desk.decision = Decision(41)
    reply = checked_reply(request, desk.send(request))
    assert (reply.code, reply[49], 101 in reply) == (41, number(6), False)


def test_a_nak_says_why_not() -> None:
    desk, request = Desk(), packet(DISCONNECT, {**NAS, **ALICE})
    desk.decision = Decision(42, ErrorCause.SESSION_CONTEXT_NOT_FOUND, "there is no such session")
    reply = checked_reply(request, desk.send(request))
    assert (reply.code, reply[101]) == (42, number(503))
    assert 49 not in reply
    assert 18 not in reply, "Reply-Message is for requests only (RFC 5176 section 3.5)"


def test_proxy_state_comes_back_in_order_and_state_unchanged() -> None:
    desk = Desk()
    for decision in (Decision(44), Decision(45, ErrorCause.UNSUPPORTED_ATTRIBUTE, "no")):
        desk.decision = decision
        attributes = {**NAS, **ALICE, 33: [b"two", b"one", b"three"], 24: [b"\0\1state"]}
        request = packet(attributes=attributes, identifier=decision.code)
        reply = checked_reply(request, desk.send(request))
        assert (reply[33], reply[24]) == ([b"two", b"one", b"three"], [b"\0\1state"])


def forged(data: bytes) -> bytes:
    """With another octet in the packet's last attribute, everything else as it was."""
    return data[:-1] + bytes([data[-1] ^ 1])


def with_wrong_signature(data: bytes) -> bytes:
    """As from somebody who knows how to make a request authenticator but signs with something else."""
    body = data[20:22] + secrets.token_bytes(16) + data[38:]
    head = data[:4]
    return head + hashlib.md5(head + bytes(16) + body + SECRET).digest() + body


def test_the_forger_of_these_tests_can_sign_rightly_too() -> None:
    data = packet()
    body = data[20:22] + bytes(16) + data[38:]
    mac = hmac.new(SECRET, data[:4] + bytes(16) + body, "md5").digest()
    body = data[20:22] + mac + data[38:]
    assert data[:4] + hashlib.md5(data[:4] + bytes(16) + body + SECRET).digest() + body == data


@pytest.mark.parametrize(
    ("data", "source", "kind"),
    [
        (packet(), "192.0.2.66", "unknown-peer"),
        (packet(), OTHER, "forged"),  # the right packet from an address that has another secret
        (packet(secret=b"guessed"), SERVER, "forged"),
        (forged(packet()), SERVER, "forged"),
        (with_wrong_signature(packet()), SERVER, "forged"),
        (packet(sign=False), SERVER, "unsigned"),
        (packet(stamp=None), SERVER, "no-timestamp"),
        (packet(stamp=UNIX - 301), SERVER, "stale"),
        (packet(stamp=UNIX + 301), SERVER, "stale"),
        (packet(4), SERVER, "unexpected"),
        (packet()[:19], SERVER, "malformed"),
        (packet()[:-1], SERVER, "malformed"),
        (b"", SERVER, "malformed"),
        (b"\x2b\x01\xff\xff" + bytes(16), SERVER, "malformed"),
    ],
    ids=[
        "unknown-source",
        "another-peers-address",
        "wrong-secret",
        "altered",
        "wrong-signature",
        "unsigned",
        "no-timestamp",
        "old",
        "future",
        "other-code",
        "short",
        "cut-short",
        "empty",
        "length-beyond-the-end",
    ],
)
def test_what_is_discarded_without_an_answer(data: bytes, source: str, kind: str) -> None:
    desk = Desk()
    assert desk.send(data, source) is None
    assert desk.decided == []
    assert desk.core.counters == {kind: 1}
    assert desk.core.by_peer.get(source, {kind: 1}) == {kind: 1}


@pytest.mark.parametrize(
    "data",
    [
        packet(secret=b"guessed", sign=False),
        forged(packet(sign=False)),
        packet(sign=False)[:4] + bytes(16) + packet(sign=False)[20:],
        packet()[:4] + bytes(16) + packet()[20:],  # its signature is right
    ],
    ids=["wrong-secret", "altered", "no-authenticator", "no-authenticator-but-signed"],
)
def test_the_request_authenticator_counts_where_no_signature_is_wanted(data: bytes) -> None:
    desk = Desk(require_message_authenticator=False)
    assert desk.send(packet(sign=False)) is not None
    assert desk.send(data) is None
    assert desk.core.counters == {"coa-ack": 1, "forged": 1}


def test_octets_behind_the_length_are_padding() -> None:
    request = packet()
    checked_reply(request, Desk().send(request + b"padding"))


def test_settings_can_do_without_signature_and_timestamp() -> None:
    desk = Desk(require_message_authenticator=False, require_timestamp=False)
    assert desk.send(packet(sign=False, stamp=None)) is not None
    assert desk.send(with_wrong_signature(packet())) is None, "one that is there must be right"
    assert desk.send(packet(stamp=UNIX - 400, identifier=9)) is None, "the same for a timestamp"
    assert desk.core.counters == {"coa-ack": 1, "forged": 1, "stale": 1}


def test_a_retransmission_gets_the_same_answer_and_is_not_decided_again() -> None:
    desk, request = Desk(), packet()
    answers = [desk.send(request, now=now) for now in (0, 2, 299)]
    assert answers[0] is not None
    assert answers == [answers[0]] * 3
    assert len(desk.decided) == 1
    assert desk.core.counters == {"coa-ack": 1, "duplicate": 2}


def test_a_replay_from_another_port_changes_nothing() -> None:
    desk, request = Desk(), packet()
    desk.send(request)
    desk.send(request, port=50000, now=200, unix=UNIX + 200)
    assert len(desk.decided) == 1
    assert desk.send(request, port=50000, now=301, unix=UNIX + 301) is None, "and later it is stale"
    assert (len(desk.decided), desk.core.counters["stale"]) == (1, 1)


def test_a_request_from_the_future_is_known_for_as_long_as_it_is_fresh() -> None:
    desk, request = Desk(), packet(stamp=UNIX + 290)
    desk.send(request)
    desk.send(request, now=589, unix=UNIX + 589)
    assert len(desk.decided) == 1


def test_without_timestamps_only_the_same_port_and_identifier_repeat() -> None:
    desk = Desk(require_timestamp=False)
    request = packet(stamp=None)
    for port, now in ((40000, 0), (40000, 10), (40001, 20), (40000, 301)):
        assert desk.send(request, port=port, now=now) is not None
    assert desk.send(packet(stamp=None, identifier=8), now=302) is not None
    assert len(desk.decided) == 4
    assert desk.core.counters["duplicate"] == 1


def test_answers_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets_module, "ANSWERS_MAX", 3)
    desk = Desk()
    requests = [packet(identifier=number) for number in range(5)]
    for request in requests:
        desk.send(request)
    assert len(desk.core._answers) == 3
    desk.send(requests[-1])
    assert len(desk.decided) == 5


def test_strangers_take_no_place_among_the_answers() -> None:
    desk = Desk()
    for host in range(50):
        desk.send(packet(), f"198.51.100.{host}")
    assert (desk.core._answers, desk.core.by_peer) == ({}, {SERVER: {}, OTHER: {}})


def test_a_clock_that_was_never_set_locks_nobody_out_and_still_sees_replays() -> None:
    desk = Desk()
    first, later = packet(stamp=UNIX), packet(stamp=UNIX + 5000, identifier=8)
    assert desk.send(first, unix=None) is not None
    assert desk.send(later, now=5000, unix=None) is not None
    assert desk.send(first, now=5001, unix=None) is None
    assert desk.core.counters == {"coa-ack": 2, "stale": 1}


def test_discarded_packets_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    desk = Desk()
    for now in range(50):
        desk.send(packet(secret=b"guessed"), now=now)
    assert len(caplog.records) == 1
    assert "its authenticator is wrong" in caplog.text
    desk.send(packet(secret=b"guessed"), now=61)
    assert len(caplog.records) == 2


def test_other_settings_keep_counts_of_peers_that_stay() -> None:
    desk = Desk()
    desk.send(packet())
    desk.core.configure(Rules({SERVER: b"a new secret"}, OURS))
    assert desk.send(packet(identifier=8)) is None
    assert desk.core.by_peer == {SERVER: {"coa-ack": 1, "forged": 1}}
    assert desk.core.status() == {
        "counters": {"coa-ack": 1, "forged": 1},
        "peers": [{"address": SERVER, "counters": {"coa-ack": 1, "forged": 1}}],
    }


def test_one_with_other_settings_that_takes_over_knows_what_was_answered() -> None:
    old, new, request = Desk(), Desk(window_s=200), packet()
    answer = old.send(request)
    new.core.inherit(old.core)
    assert new.send(request, port=50000) == answer
    assert new.decided == []
    assert new.core.counters == {"coa-ack": 1, "duplicate": 1}


def test_a_port_names_a_line_of_the_session() -> None:
    selector = Selector(user="alice", port="dsl")
    assert selector.matches(users=("alice",), addresses=(), ports=("dsl", "lte"))
    assert not selector.matches(users=("alice",), addresses=(), ports=("lte",))
    assert not selector.matches(users=("alice",), addresses=())
    decision, done = asked(40, NAS, {87: [b"dsl"]})
    assert (decision.error_cause, done) == (503, []), "understood, and nobody's"
