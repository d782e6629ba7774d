"""Proves answers of DNS by their signatures, from a trust anchor down (RFC 4035 section 5). No IO, no clock; dnspython does
the arithmetic, with the package cryptography.

Only what is there can be proven. That something is not there (NSEC, NSEC3) is never proven and never believed: whoever strips
signatures or a delegation from an answer leaves one that counts as unsigned. An answer made from a wildcard would need
such a proof, so it is not believed either (section 5.3.4).
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import dns.dnssec
import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset

from cpe_mcp.discovery.srv import TARGETS_MAX, Srv, rank
from cpe_mcp.policy.reasons import Reason

ALGORITHMS = frozenset({8, 10, 13, 14, 15, 16})
"""RSA with SHA-256 or SHA-512, ECDSA, EdDSA. Those with SHA-1 prove nothing any more (RFC 9905)."""
DIGESTS = {2: "SHA256", 4: "SHA384"}
"""Of a DS record."""
CHECKS_MAX = 64
"""Signatures tried for one name; an honest chain takes about ten. Answers that make a validator try each key with each
signature are a known attack (CVE-2023-50387)."""
KEYS_MAX = 16
"""Of one zone."""
ALIASES_MAX = 8
KINDS = ("A", "AAAA")
"""Of addresses."""
CLOCK_FLOOR = calendar.timegm((2025, 1, 1, 0, 0, 0))
"""No clock shows an earlier time by right: this code is younger. One that was never set shows 1970 or 2000."""

_ZONE_FLAG, _REVOKE_FLAG = 0x0100, 0x0080
"""RFC 4034 section 2.1.1, RFC 5011 section 2.1."""

Anchors = Mapping[dns.name.Name, frozenset[tuple[int, int, int, bytes]]]
"""Zone -> (key tag, algorithm, digest type, digest) of the keys that are trusted without a proof."""


class NotProven(Exception):
    """An RRset that cannot be believed: a value of Reason, and details for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Proven(NamedTuple):
    """Records that are proven, ready for JSON."""

    records: tuple[Srv, ...]
    addresses: dict[str, list[str]]
    """Target -> its addresses that are proven too."""
    valid_s: float
    """Until the first of the signatures ends."""
    detail: str
    """What was not proven of the rest."""


def parse_anchors(texts: Iterable[str]) -> Anchors:
    """``ZONE KEYTAG ALGORITHM DIGESTTYPE DIGEST`` each. Raises ValueError."""
    anchors: dict[dns.name.Name, set[tuple[int, int, int, bytes]]] = {}
    for text in texts:
        zone, tag, algorithm, kind, digest = text.split()
        row = int(tag), int(algorithm), int(kind), bytes.fromhex(digest)
        anchors.setdefault(dns.name.from_text(zone), set()).add(row)
    return {zone: frozenset(rows) for zone, rows in anchors.items()}


def prove(name: str, messages: Sequence[bytes], anchors: Anchors, now: float) -> Proven:
    """The SRV records of a name and their targets' addresses, as far as these messages prove them. Raises NotProven.

    ``now`` is the time of day, in seconds since 1970.
    """
    if now < CLOCK_FLOOR:
        raise NotProven(Reason.DNSSEC_CLOCK, f"the clock shows {time.strftime('%Y-%m-%d', time.gmtime(now))}")
    validator = Validator(messages, anchors, now)
    answer = validator.answer(_name(name), "SRV")
    records = tuple(Srv(row.priority, row.weight, row.port, row.target.to_text()) for row in answer)
    addresses: dict[str, list[str]] = {}
    problems: list[NotProven] = []
    targets = dict.fromkeys(_name(record.target) for record in sorted(records, key=rank))
    known = [target for target in targets if any(validator.has(target, kind) for kind in KINDS)]
    for target in known[:TARGETS_MAX]:
        for kind in KINDS:
            if not validator.has(target, kind):
                continue
            try:
                found = [row.address for row in validator.answer(target, kind)]
            except NotProven as problem:
                problems.append(problem)
            else:
                addresses.setdefault(target.to_text(), []).extend(found)
    if records and not addresses:
        raise problems[0] if problems else NotProven(Reason.DNSSEC_UNSIGNED, f"the targets of {name} have no address")
    return Proven(records, addresses, validator.until - now, "; ".join(problem.detail for problem in problems))


class Validator:
    """Knows what messages say, and proves it. Nothing outside the answer sections is looked at."""

    def __init__(self, messages: Sequence[bytes], anchors: Anchors, now: float) -> None:
        self._anchors = anchors
        self._now = now
        self._sets: dict[tuple[dns.name.Name, Any], dns.rrset.RRset] = {}
        self._signatures: dict[tuple[dns.name.Name, Any], dns.rrset.RRset] = {}
        self._keys: dict[dns.name.Name, dns.rdataset.Rdataset] = {}
        self._checks = 0
        self.until = now + 10 * 365 * 86400.0
        """When the first of the signatures that were used ends."""
        for wire in messages:
            for rrset in dns.message.from_wire(wire, ignore_trailing=True).answer:
                if rrset.rdclass != dns.rdataclass.IN:
                    continue
                if rrset.rdtype == dns.rdatatype.RRSIG:
                    self._signatures.setdefault((rrset.name, rrset.covers), rrset)
                else:
                    self._sets.setdefault((rrset.name, rrset.rdtype), rrset)

    def has(self, name: dns.name.Name, kind: str) -> bool:
        """Whether there is such a record, or an alias, proven or not."""
        return (name, dns.rdatatype.from_text(kind)) in self._sets or (name, dns.rdatatype.CNAME) in self._sets

    def answer(self, name: dns.name.Name, kind: str) -> dns.rrset.RRset:
        """The records of a name, over aliases, every step proven. Raises NotProven."""
        rdtype = dns.rdatatype.from_text(kind)
        for _ in range(ALIASES_MAX):
            if (name, rdtype) in self._sets or (name, dns.rdatatype.CNAME) not in self._sets:
                return self.proven(name, rdtype)
            name = self.proven(name, dns.rdatatype.CNAME)[0].target
        raise NotProven(Reason.DNSSEC_BOGUS, f"{name.to_text()}: more than {ALIASES_MAX} aliases")

    def proven(self, name: dns.name.Name, rdtype: Any) -> dns.rrset.RRset:
        """One RRset, proven by the zone that signed it. Raises NotProven."""
        what = f"{name.to_text()} {dns.rdatatype.to_text(rdtype)}"
        rrset, signatures = self._found(name, rdtype, what)
        problem = NotProven(Reason.DNSSEC_UNSIGNED, f"{what} has no signature of a known kind")
        for signature in signatures:
            if signature.algorithm not in ALGORITHMS:
                continue
            try:
                self._check_place(name, rdtype, signature, what)
                self._check(rrset, signature, self._zone_keys(signature.signer), what)
            except NotProven as error:
                problem = error
                continue
            return rrset
        raise problem

    def _found(self, name: dns.name.Name, rdtype: Any, what: str) -> tuple[dns.rrset.RRset, dns.rrset.RRset]:
        rrset, signatures = self._sets.get((name, rdtype)), self._signatures.get((name, rdtype))
        if rrset is None:
            raise NotProven(Reason.DNSSEC_UNSIGNED, f"{what} is not there")
        if signatures is None:
            raise NotProven(Reason.DNSSEC_UNSIGNED, f"{what} is not signed")
        return rrset, signatures

    def _check_place(self, name: dns.name.Name, rdtype: Any, signature: Any, what: str) -> None:
        """A zone signs what is in it; a parent, and not the zone itself, vouches for a zone (RFC 4035 sections 5.2, 5.3.1)."""
        signer = signature.signer
        if not name.is_subdomain(signer) or (rdtype == dns.rdatatype.DS and name == signer):
            raise NotProven(Reason.DNSSEC_BOGUS, f"{what} is signed by {signer.to_text()}, which has no say there")
        anchor = self._anchor_above(name)
        if anchor is None or not signer.is_subdomain(anchor):
            raise NotProven(Reason.DNSSEC_UNSIGNED, f"no trust anchor leads to {what}")
        if signature.labels != len(name) - 1:
            raise NotProven(
                Reason.DNSSEC_UNSIGNED, f"{what} was made from a wildcard, which would need a proof of its own"
            )

    def _anchor_above(self, name: dns.name.Name) -> dns.name.Name | None:
        """The nearest: a private zone's anchor is the only way into it."""
        above = [zone for zone in self._anchors if name.is_subdomain(zone)]
        return max(above, key=len, default=None)

    def _zone_keys(self, zone: dns.name.Name) -> dns.rdataset.Rdataset:
        """The keys of a zone, proven from the anchor down. Raises NotProven. Each step up has fewer labels, so it ends."""
        if zone in self._keys:
            return self._keys[zone]
        what = f"{zone.to_text()} DNSKEY"
        if zone in self._anchors:
            digests = self._anchors[zone]
        else:
            rows = self.proven(zone, dns.rdatatype.DS)
            digests = frozenset((row.key_tag, row.algorithm, row.digest_type, row.digest) for row in rows)
        rrset, signatures = self._found(zone, dns.rdatatype.DNSKEY, what)
        if len(rrset) > KEYS_MAX:
            raise NotProven(Reason.DNSSEC_BOGUS, f"{what}: more than {KEYS_MAX} keys")
        entry = self._keyset(rrset.ttl, (key for key in rrset if self._is_vouched_for(zone, key, digests)))
        problem = NotProven(Reason.DNSSEC_BOGUS, f"{what}: no key is the one that is trusted")
        for signature in signatures if len(entry) else ():
            try:
                if signature.signer != zone:
                    raise NotProven(Reason.DNSSEC_BOGUS, f"{what} is signed by {signature.signer.to_text()}")
                self._check(rrset, signature, entry, what)
            except NotProven as error:
                problem = error
                continue
            self._keys[zone] = self._keyset(rrset.ttl, rrset)
            return self._keys[zone]
        raise problem

    @staticmethod
    def _keyset(ttl: int, keys: Iterable[Any]) -> dns.rdataset.Rdataset:
        """Those that may sign a zone's records."""
        usable = dns.rdataset.Rdataset(dns.rdataclass.IN, dns.rdatatype.DNSKEY, ttl=ttl)
        for key in keys:
            flags = int(key.flags)
            if flags & _ZONE_FLAG and not flags & _REVOKE_FLAG and key.protocol == 3 and key.algorithm in ALGORITHMS:
                usable.add(key)
        return usable

    @staticmethod
    def _is_vouched_for(zone: dns.name.Name, key: Any, digests: frozenset[tuple[int, int, int, bytes]]) -> bool:
        tag = dns.dnssec.key_id(key)
        return any(
            (tag, int(key.algorithm)) == (row[0], int(row[1]))
            and int(row[2]) in DIGESTS
            and dns.dnssec.make_ds(zone, key, DIGESTS[int(row[2])]).digest == row[3]
            for row in digests
        )

    def _check(self, rrset: dns.rrset.RRset, signature: Any, keys: dns.rdataset.Rdataset, what: str) -> None:
        """One signature. Raises NotProven."""
        self._checks += 1
        if self._checks > CHECKS_MAX:
            raise NotProven(Reason.DNSSEC_BOGUS, f"more than {CHECKS_MAX} signatures would have to be tried")
        if signature.expiration < self._now:
            raise NotProven(Reason.DNSSEC_EXPIRED, f"the signature of {what} ended on {_date(signature.expiration)}")
        if signature.inception > self._now:
            raise NotProven(Reason.DNSSEC_CLOCK, f"the signature of {what} begins on {_date(signature.inception)}")
        try:
            dns.dnssec.validate_rrsig(rrset, signature, {signature.signer: keys}, now=self._now)
        except dns.exception.DNSException as error:
            raise NotProven(Reason.DNSSEC_BOGUS, f"the signature of {what} is wrong ({error})") from None
        self.until = min(self.until, float(signature.expiration))


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
