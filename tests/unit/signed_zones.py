"""Zones that are really signed, on paper: keys, records, and the messages a resolver would give."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from typing import Any

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from cryptography.hazmat.primitives.asymmetric import ec

NOW = float(calendar.timegm((2027, 3, 1, 0, 0, 0)))
DAY = 86400.0
TTL = 3600
ALGORITHM = 13  # ECDSAP256SHA256


def rows(name: str, kind: str, *texts: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, TTL, "IN", kind, *texts)


class Zone:
    """One zone with one key, which signs everything."""

    def __init__(self, name: str) -> None:
        self.name = dns.name.from_text(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.dnskey = dns.dnssec.make_dnskey(self.key.public_key(), ALGORITHM, flags=257)

    def signed(
        self, rrset: dns.rrset.RRset, *, begins: float = NOW - DAY, ends: float = NOW + DAY
    ) -> list[dns.rrset.RRset]:
        """The RRset, and its signature by this zone, wherever its name is."""
        signature = dns.dnssec.sign(
            rrset, self.key, self.name, self.dnskey, inception=int(begins), expiration=int(ends)
        )
        return [rrset, dns.rrset.from_rdata(rrset.name, TTL, signature)]

    def keys(self, **times: float) -> list[dns.rrset.RRset]:
        return self.signed(dns.rrset.from_rdata(self.name, TTL, self.dnskey), **times)

    def vouches_for(self, child: Zone, **times: float) -> list[dns.rrset.RRset]:
        return self.signed(dns.rrset.from_rdata(child.name, TTL, child.ds()), **times)

    def ds(self) -> Any:
        return dns.dnssec.make_ds(self.name, self.dnskey, "SHA256")

    def anchor(self) -> str:
        return f"{self.name.to_text()} {self.ds().to_text()}"


def message(*parts: Sequence[dns.rrset.RRset]) -> bytes:
    """One response with these in its answer section."""
    answer = dns.message.make_response(dns.message.make_query("x.", "A"))
    answer.flags |= dns.flags.RA
    answer.answer = [rrset for part in parts for rrset in part]
    return answer.to_wire(max_size=65535)
