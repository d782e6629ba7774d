"""DNSSEC with zones that are really signed: what is proven, and that each way to forge an answer proves nothing."""
# ruff: noqa: E402

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
from types import MappingProxyType
from typing import Any

import pytest

for _package in ("dns", "cryptography"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"needs the Python package {_package}", allow_module_level=True)

import dns.dnssec
import dns.name
import dns.rrset
from signed_zones import DAY, NOW, TTL, Zone, message, rows

from cpe_mcp.discovery import dnssec, dnssec_process
from cpe_mcp.discovery.candidates import CandidateTable
from cpe_mcp.discovery.dnssec import NotProven, Proven, Validator, parse_anchors, prove
from cpe_mcp.discovery.srv import TARGETS_MAX
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings import SettingsError, load_router
from cpe_mcp.settings.router import ROOT_ANCHORS, DiscoverySettings

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.3-a")]

NAME = "_convert._tcp.operator.example."
TARGET = "mcp1.operator.example."
GOOD, EVIL = "192.0.2.1", "203.0.113.66"
ROOT, EXAMPLE, OPERATOR, ATTACKER = (Zone(name) for name in (".", "example.", "operator.example.", "attacker.example."))
SRV = rows(NAME, "SRV", f"10 60 5124 {TARGET}")
ADDRESS = rows(TARGET, "A", GOOD)
FORGED = rows(TARGET, "A", EVIL)
CHAIN = [ROOT.keys(), ROOT.vouches_for(EXAMPLE), EXAMPLE.keys(), EXAMPLE.vouches_for(OPERATOR), OPERATOR.keys()]


def proven(*parts: list[dns.rrset.RRset], anchor: Zone = ROOT, now: float = NOW) -> Proven:
    return prove(NAME, [message(part) for part in parts], parse_anchors([anchor.anchor()]), now)


def reason(*parts: list[dns.rrset.RRset], anchor: Zone = ROOT, now: float = NOW) -> str:
    with pytest.raises(NotProven) as caught:
        proven(*parts, anchor=anchor, now=now)
    assert caught.value.detail
    return caught.value.reason


class TestWhatIsProven:
    def test_a_chain_from_the_root(self) -> None:
        found = proven(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), *CHAIN)
        assert found == ((((10, 60, 5124, TARGET)),), {TARGET: [GOOD]}, DAY, "")

    def test_it_holds_until_the_first_signature_ends(self) -> None:
        found = proven(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS, ends=NOW + 60), *CHAIN)
        assert found.valid_s == 60

    def test_a_private_zone_by_an_anchor_of_its_own(self) -> None:
        answer = OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), OPERATOR.keys()
        assert proven(*answer, anchor=OPERATOR).addresses == {TARGET: [GOOD]}

    def test_aliases_whose_every_step_is_signed(self) -> None:
        alias = rows(NAME, "CNAME", "_convert._tcp.pool.operator.example.")
        there = rows("_convert._tcp.pool.operator.example.", "SRV", f"10 60 5124 {TARGET}")
        answer = OPERATOR.signed(alias), OPERATOR.signed(there), OPERATOR.signed(ADDRESS)
        assert proven(*answer, *CHAIN).addresses == {TARGET: [GOOD]}
        assert reason([alias], OPERATOR.signed(there), OPERATOR.signed(ADDRESS), *CHAIN) == Reason.DNSSEC_UNSIGNED

    def test_of_several_targets_those_that_are_proven(self) -> None:
        both = rows(NAME, "SRV", f"10 60 5124 {TARGET}", "20 0 5124 mcp2.operator.example.")
        other = rows("mcp2.operator.example.", "A", EVIL)
        found = proven(OPERATOR.signed(both), OPERATOR.signed(ADDRESS), [other], *CHAIN)
        assert found.addresses == {TARGET: [GOOD]}
        assert "mcp2.operator.example. A is not signed" in found.detail

    def test_of_more_targets_than_are_taken_the_best_are_proven(self) -> None:
        """Also where their names come last, and whatever is there of the rest."""
        count = 2 * TARGETS_MAX
        targets = [f"mcp{number:02}.operator.example." for number in range(count)]
        many = rows(NAME, "SRV", *(f"{count - number} 0 5124 {target}" for number, target in enumerate(targets)))
        addresses = [OPERATOR.signed(rows(target, "A", GOOD)) for target in targets]
        found = proven(OPERATOR.signed(many), *addresses, *CHAIN)
        assert list(found.addresses) == targets[: -TARGETS_MAX - 1 : -1]
        few = addresses[:3]
        assert list(proven(OPERATOR.signed(many), *few, *CHAIN).addresses) == targets[2::-1], (
            "asked for by somebody else's order"
        )

    def test_among_equals_those_of_more_weight_come_first(self) -> None:
        targets = [f"mcp{number:02}.operator.example." for number in range(TARGETS_MAX + 1)]
        many = rows(NAME, "SRV", *(f"1 {number} 5124 {target}" for number, target in enumerate(targets)))
        addresses = [OPERATOR.signed(rows(target, "A", GOOD)) for target in targets]
        assert targets[0] not in proven(OPERATOR.signed(many), *addresses, *CHAIN).addresses

    def test_a_second_signature_counts_when_the_first_is_of_no_use(self) -> None:
        (rrset, good), (_, bad) = OPERATOR.signed(ADDRESS), ATTACKER.signed(ADDRESS)
        both = dns.rrset.from_rdata_list(rrset.name, TTL, [bad[0], good[0]])
        assert proven(OPERATOR.signed(SRV), [rrset, both], *CHAIN).addresses == {TARGET: [GOOD]}


class TestForgeries:
    def test_a_bogus_signature(self) -> None:
        _, signature = OPERATOR.signed(ADDRESS)
        assert reason(OPERATOR.signed(SRV), [FORGED, signature], *CHAIN) == Reason.DNSSEC_BOGUS

    def test_a_changed_srv_record(self) -> None:
        _, signature = OPERATOR.signed(SRV)
        changed = rows(NAME, "SRV", "10 60 5124 mcp.attacker.example.")
        answer = [changed, signature], ATTACKER.signed(rows("mcp.attacker.example.", "A", EVIL))
        assert reason(*answer, *CHAIN, EXAMPLE.vouches_for(ATTACKER), ATTACKER.keys()) == Reason.DNSSEC_BOGUS

    def test_expired(self) -> None:
        old = OPERATOR.signed(FORGED, begins=NOW - 9 * DAY, ends=NOW - 1)
        assert reason(OPERATOR.signed(SRV), old, *CHAIN) == Reason.DNSSEC_EXPIRED

    @pytest.mark.parametrize("at", range(len(CHAIN)))
    def test_expired_anywhere_in_the_chain(self, at: int) -> None:
        times = {"begins": NOW - 9 * DAY, "ends": NOW - 1}
        old = [
            ROOT.keys(**times),
            ROOT.vouches_for(EXAMPLE, **times),
            EXAMPLE.keys(**times),
            EXAMPLE.vouches_for(OPERATOR, **times),
            OPERATOR.keys(**times),
        ]
        chain = [*CHAIN[:at], old[at], *CHAIN[at + 1 :]]
        assert reason(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), *chain) == Reason.DNSSEC_EXPIRED

    def test_stripped_signatures(self) -> None:
        assert reason([SRV], [FORGED], *CHAIN) == Reason.DNSSEC_UNSIGNED
        assert reason(OPERATOR.signed(SRV), [FORGED], *CHAIN) == Reason.DNSSEC_UNSIGNED
        assert reason([SRV], OPERATOR.signed(ADDRESS), *CHAIN) == Reason.DNSSEC_UNSIGNED

    def test_signed_by_a_zone_that_has_no_say(self) -> None:
        """The attacker owns a zone that is signed and delegated all right."""
        his = EXAMPLE.vouches_for(ATTACKER), ATTACKER.keys()
        assert reason(OPERATOR.signed(SRV), ATTACKER.signed(FORGED), *CHAIN, *his) == Reason.DNSSEC_BOGUS
        assert reason(ATTACKER.signed(SRV), ATTACKER.signed(FORGED), *CHAIN, *his) == Reason.DNSSEC_BOGUS

    def test_an_answer_for_another_name(self) -> None:
        other = rows("_convert._tcp.attacker.example.", "SRV", "10 60 5124 mcp.attacker.example.")
        answer = ATTACKER.signed(other), ATTACKER.signed(rows("mcp.attacker.example.", "A", EVIL))
        his = EXAMPLE.vouches_for(ATTACKER), ATTACKER.keys()
        assert reason(*answer, *CHAIN, *his) == Reason.DNSSEC_UNSIGNED

    def test_a_delegation_downgraded_to_unsigned(self) -> None:
        """The DS is taken away, and the zone's own keys are the attacker's, or none."""
        fake = Zone("operator.example.")
        upper = CHAIN[:3]
        assert reason([SRV], [FORGED], *upper) == Reason.DNSSEC_UNSIGNED
        assert reason(fake.signed(SRV), fake.signed(FORGED), fake.keys(), *upper) == Reason.DNSSEC_UNSIGNED
        ds = [dns.rrset.from_rdata(fake.name, TTL, fake.ds())]
        assert reason(fake.signed(SRV), fake.signed(FORGED), fake.keys(), ds, *upper) == Reason.DNSSEC_UNSIGNED

    def test_a_zone_that_vouches_for_itself(self) -> None:
        fake = Zone("operator.example.")
        ds = fake.signed(dns.rrset.from_rdata(fake.name, TTL, fake.ds()))
        answer = fake.signed(SRV), fake.signed(FORGED), fake.keys()
        assert reason(*answer, ds, *CHAIN[:3]) == Reason.DNSSEC_BOGUS

    def test_keys_that_the_parent_does_not_vouch_for(self) -> None:
        fake = Zone("operator.example.")
        answer = fake.signed(SRV), fake.signed(FORGED), fake.keys()
        assert reason(*answer, *CHAIN[:4]) == Reason.DNSSEC_BOGUS

    def test_the_right_key_in_a_set_that_another_one_signed(self) -> None:
        fake = Zone("operator.example.")
        keys = fake.signed(dns.rrset.from_rdata(fake.name, TTL, OPERATOR.dnskey, fake.dnskey))
        assert reason(fake.signed(SRV), fake.signed(FORGED), keys, *CHAIN[:4]) == Reason.DNSSEC_BOGUS

    def test_another_root(self) -> None:
        fake = Zone(".")
        chain = [fake.keys(), fake.vouches_for(EXAMPLE), *CHAIN[2:]]
        assert reason(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), *chain) == Reason.DNSSEC_BOGUS

    def test_a_private_zone_is_not_taken_over_from_above(self) -> None:
        """The anchor of a zone is the only way into it, also where its parent is anchored too."""
        anchors = parse_anchors([EXAMPLE.anchor(), OPERATOR.anchor()])
        answer = EXAMPLE.signed(SRV), EXAMPLE.signed(FORGED), EXAMPLE.keys(), OPERATOR.keys()
        with pytest.raises(NotProven):
            prove(NAME, [message(part) for part in answer], anchors, NOW)

    def test_a_wildcard_proves_nothing(self) -> None:
        _, signature = OPERATOR.signed(rows("*.operator.example.", "A", EVIL))
        if signature[0].labels != 2:
            pytest.skip("this dnspython signs wildcards with another number of labels than RFC 4034 section 3.1.3 has")
        expanded = dns.rrset.from_rdata(dns.name.from_text(TARGET), TTL, signature[0])
        assert reason(OPERATOR.signed(SRV), [FORGED, expanded], *CHAIN) == Reason.DNSSEC_UNSIGNED

    def test_an_algorithm_that_proves_nothing_any_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dnssec, "ALGORITHMS", dnssec.ALGORITHMS - {13})
        assert reason(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), *CHAIN) == Reason.DNSSEC_UNSIGNED

    def test_a_digest_with_sha1(self) -> None:
        digest = hashlib.sha1(OPERATOR.name.to_digestable() + OPERATOR.dnskey.to_digestable()).digest()
        ds = OPERATOR.ds().replace(digest_type=1, digest=digest)
        weak = EXAMPLE.signed(dns.rrset.from_rdata(OPERATOR.name, TTL, ds))
        chain = [*CHAIN[:3], weak, CHAIN[4]]
        assert reason(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), *chain) == Reason.DNSSEC_BOGUS

    def test_a_key_that_was_revoked(self) -> None:
        gone = Zone("operator.example.")
        revoked: Any = gone.dnskey.replace(flags=257 | 0x80)
        gone.dnskey = revoked
        chain = [*CHAIN[:3], EXAMPLE.vouches_for(gone), gone.keys()]
        assert reason(gone.signed(SRV), gone.signed(ADDRESS), *chain) == Reason.DNSSEC_BOGUS
        assert not Validator._keyset(TTL, [gone.dnskey]), "whatever the library thinks of it"

    def test_more_signatures_than_anybody_has_time_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """CVE-2023-50387."""
        tried = []
        real = dns.dnssec.validate_rrsig

        def counted(*arguments: Any, **more: Any) -> None:
            tried.append(1)
            real(*arguments, **more)

        monkeypatch.setattr(dns.dnssec, "validate_rrsig", counted)
        _, signature = OPERATOR.signed(rows(TARGET, "A", GOOD))
        many = [signature[0].replace(original_ttl=number) for number in range(2 * dnssec.CHECKS_MAX)]
        junk = dns.rrset.from_rdata_list(dns.name.from_text(TARGET), TTL, many)
        assert reason(OPERATOR.signed(SRV), [FORGED, junk], *CHAIN) == Reason.DNSSEC_BOGUS
        assert len(tried) == dnssec.CHECKS_MAX


class TestClock:
    def test_a_clock_before_the_signatures(self) -> None:
        late = OPERATOR.signed(SRV, begins=NOW + 60), OPERATOR.signed(ADDRESS)
        assert reason(*late, *CHAIN) == Reason.DNSSEC_CLOCK

    def test_a_clock_that_was_never_set(self) -> None:
        times = {"begins": 0.0, "ends": NOW}
        chain = [ROOT.keys(**times), ROOT.vouches_for(OPERATOR, **times), OPERATOR.keys(**times)]
        answer = OPERATOR.signed(SRV, **times), OPERATOR.signed(ADDRESS, **times)
        assert reason(*answer, *chain, now=1000.0) == Reason.DNSSEC_CLOCK
        assert proven(*answer, *chain, now=NOW - 1).addresses == {TARGET: [GOOD]}


class TestProcess:
    QUESTION = MappingProxyType({"name": NAME, "anchors": [ROOT.anchor()], "now": NOW})

    def _asked(self, *parts: list[dns.rrset.RRset]) -> dict[str, object]:
        messages = [base64.b64encode(message(part)).decode() for part in parts]
        text = json.dumps({**self.QUESTION, "messages": messages})
        command = [sys.executable, "-m", "cpe_mcp.discovery.dnssec_process"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        verdict: dict[str, object] = json.loads(done.stdout)
        return verdict

    def test_it_answers(self) -> None:
        verdict = self._asked(OPERATOR.signed(SRV), OPERATOR.signed(ADDRESS), *CHAIN)
        assert (verdict["reason"], verdict["addresses"]) == (Reason.DNSSEC_VALID, {TARGET: [GOOD]})
        assert self._asked([SRV], [FORGED])["reason"] == Reason.DNSSEC_UNSIGNED

    def test_without_the_package_nothing_is_proven(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cryptography", None)
        assert dnssec_process.verdict({**self.QUESTION, "messages": []})["reason"] == Reason.DNSSEC_NO_PACKAGE

    def test_garbage_proves_nothing(self) -> None:
        verdict = dnssec_process.verdict({**self.QUESTION, "messages": ["AAAA"]})
        assert verdict["reason"] == Reason.DNSSEC_BOGUS


class TestTable:
    NAME = NAME.rstrip(".")

    def _table(self) -> CandidateTable:
        return CandidateTable(DiscoverySettings(dns_name=(self.NAME,)))

    def test_signed_is_enough_and_unsigned_is_not(self) -> None:
        t = self._table()
        t.learn_dns(self.NAME, [((EVIL,), 5124)], 100.0, dnssec=Reason.DNSSEC_UNSIGNED, detail="no DS")
        assert t.candidates(0) == ()
        (row,) = t.status(0)["sources"]
        assert (row["unconfirmed"], row["reason"], row["detail"]) == ([EVIL], Reason.DNSSEC_UNSIGNED, "no DS")
        t.learn_dns(self.NAME, [((GOOD,), 5124)], 100.0, dnssec=Reason.DNSSEC_VALID)
        assert [c.addresses for c in t.candidates(0)] == [(GOOD,)]

    @pytest.mark.parametrize("mcps", [[((EVIL,), 5124)], []])
    def test_a_forgery_does_not_push_a_signed_answer_out_before_its_end(
        self, mcps: list[tuple[tuple[str, ...], int]]
    ) -> None:
        t = self._table()
        t.learn_dns(self.NAME, [((GOOD,), 5124)], 100.0, dnssec=Reason.DNSSEC_VALID)
        t.learn_dns(self.NAME, mcps, 900.0, dnssec=Reason.DNSSEC_BOGUS, now=50.0)
        assert [c.addresses for c in t.candidates(99.0)] == [(GOOD,)]
        assert "the signed answer before is kept" in t.status(99.0)["sources"][0]["discarded"]
        assert t.candidates(100.0) == ()


def test_the_root_is_anchored_by_keys_of_a_known_kind() -> None:
    anchors = parse_anchors(ROOT_ANCHORS)
    assert {row[:3] for row in anchors[dns.name.root]} == {(20326, 8, 2), (38696, 8, 2)}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["list trust_anchor 'example. 1 13 2 00ff'"], "trust_anchor.*is not a DS record"),
        (["list trust_anchor 'example. 1 13 1 " + 40 * "0" + "'"], "trust_anchor.*is not a DS record"),
        (["option dnssec 'resolver'"], "dnssec.*needs a list dns_server"),
        (["option dnssec 'resolver'", "list dns_server '192.0.2.53'"], "dnssec.*192.0.2.53 could forge"),
    ],
)
def test_settings_that_would_prove_nothing_name_the_option(tmp_path, lines: list[str], complaint: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "cpe-mcp"
    path.write_text("config discovery 'discovery'\n\t" + "\n\t".join(lines) + "\n")
    with pytest.raises(SettingsError, match=complaint):
        load_router(str(path))
