"""Which concentrators are candidates now: a table of what each source said, and one ordered list made of it.

Sources are static configuration, RADIUS, the DHCP answers of each WAN, and DNS. The best source that names anybody gives
the whole list, and so for each service class; a lesser one is never a spare for it, because traffic that the user or the
operator directed to one party must not move to another when that party is down (it goes direct then, design D4). Addresses
that are not to be believed (:mod:`.trust`) are in no list. Nothing is asked and no packet is read in here; time is an
argument, in seconds of time.monotonic().
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpe_mcp.discovery.dhcp_options import OptionError
from cpe_mcp.discovery.lease import Lease, domain_of_lease4, mcps_of_lease4, mcps_of_lease6
from cpe_mcp.discovery.srv import SERVICE
from cpe_mcp.discovery.trust import Refusal, Trust, Voice
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings.router import TRUST_DHCP, TRUST_DNSSEC, ConcentratorSettings, DiscoverySettings

STATIC = "static"
RADIUS = "radius"
DHCP4 = "dhcp4"
DHCP6 = "dhcp6"
DNS = "dns"

DHCP = "dhcp"
"""In the list of precedence: both families."""
PRECEDENCE_DHCP_OVERRIDE = (RADIUS, DHCP, STATIC, DNS)
"""What ``dhcp_override`` means."""


class Candidate(NamedTuple):
    """One concentrator (MCP)."""

    name: str
    """The section's name, ``radius#1``, or ``dhcp4:wan#1``: source, interface or name in DNS, place in its list."""
    addresses: tuple[str, ...]
    """Its addresses in the order they are to be tried."""
    port: int
    source: str
    interface: str
    """netifd's name of the interface whose DHCP answer named it first; "" for the other sources."""
    subscriber: str
    """Whom the Convert Cookie names; "" for no cookie."""
    key: str
    foreign: bool = False
    """Another make of converter (setting of a static concentrator)."""
    service_class: tuple[str, ...] = ()
    """Serves only what a rule sends to one of these classes, or to it by name; empty: serves all others."""

    def __repr__(self) -> str:
        return f"Candidate({self.name!r}, {self.addresses!r}, {self.port})"  # the key is a secret


class Line(NamedTuple):
    """Whose DHCP answers an interface brings."""

    wan: str
    is_trusted: bool = False
    """Its option ``trust_dhcp``."""


NO_LINE = Line("")
"""Of an interface that belongs to no WAN: nobody knows whether it is independent of the others."""


BLOCKS_MAX = 256
"""Names that are left alone, those that are known no more included; the one whose time is over first goes first."""


class Block(NamedTuple):
    """Why a candidate is left alone, and until when."""

    until: float
    reason: str


class _Row(NamedTuple):
    """What one source said on one interface."""

    mcps: tuple[tuple[tuple[str, ...], int], ...] = ()
    """(addresses, port or 0) of each MCP."""
    until: float | None = None
    """None: until it is withdrawn."""
    discarded: str = ""
    """Why its last word was discarded and the one before is still here; "" when it was not."""
    service_classes: tuple[tuple[str, str], ...] = ()
    """(class, address)"""
    dnssec: str = ""
    """Of DNS: a value of Reason, what came of its signatures."""
    detail: str = ""
    """More on that, for people."""
    name: str = ""
    """Of DHCP: where in DNS the concentrators' SRV records are; "" where it said nothing of that."""


class CandidateTable:
    """Collects what the sources say; gives the list. ``interfaces`` are those whose DHCP answers are looked at, best first;
    ``lines`` says to which WAN each belongs."""

    def __init__(
        self,
        settings: DiscoverySettings,
        *,
        interfaces: Sequence[str] = (),
        lines: Mapping[str, Line] | None = None,
        concentrators: Sequence[ConcentratorSettings] = (),
    ) -> None:
        self._configured: object = None
        self._trust = Trust(settings)
        self._trusted: frozenset[str] = frozenset()
        self._rows: dict[tuple[str, str], _Row] = {}  # (source, interface) -> row
        self._down: set[str] = set()
        self._blocks: dict[str, Block] = {}  # name of a candidate -> its block
        self._static: tuple[Candidate, ...] = ()
        self.configure(settings, interfaces=interfaces, lines=lines, concentrators=concentrators)

    # what is said

    def configure(
        self,
        settings: DiscoverySettings,
        *,
        interfaces: Sequence[str],
        concentrators: Sequence[ConcentratorSettings],
        lines: Mapping[str, Line] | None = None,
    ) -> None:
        """Take new settings; what the other sources said stays."""
        configured = (settings, tuple(interfaces), tuple(concentrators), dict(lines or {}))
        if configured != self._configured:  # who agreed under other settings has agreed on nothing
            self._trust = Trust(settings)
        self._configured = configured
        self._settings = settings
        self._interfaces = tuple(interfaces)
        self._lines = dict(lines or {})
        old = set(self._static)
        self._static = tuple(
            Candidate(c.name, c.address, c.port, STATIC, "", c.subscriber, c.key, c.foreign, c.service_class)
            for c in concentrators
            if c.enabled and c.address
        )
        for candidate in old.difference(self._static):
            self.unblock(candidate.name)
        self._forget_names()

    def learn_radius(
        self,
        mcps: Sequence[tuple[tuple[str, ...], int]],
        until: float | None,
        service_classes: Sequence[tuple[str, str]] = (),
    ) -> None:
        """The concentrators of an Access-Accept, (addresses, port or 0) each; none withdraws those of the last one.
        ``service_classes``: (class, an address of one of them) each."""
        self._learn(RADIUS, "", _Row(tuple(mcps), until, service_classes=tuple(service_classes)))

    def learn_dhcp(
        self, interface: str, family: int, lease: Lease | None, now: float, *, own: Collection[str] = ()
    ) -> None:
        """A DHCP answer on ``interface``, ``family`` 4 or 6; None withdraws the last one, as does one without the option.

        A malformed option leaves the last value, to the end of its own lease, and the reason for :meth:`status`.
        """
        source = DHCP4 if family == 4 else DHCP6
        domain = ""
        if lease is None:
            self._learn(source, interface, None)
            self._forget_names()
            return
        try:
            if family == 4:
                mcps = mcps_of_lease4(lease, self._settings.dhcp4_code, own=own)
                domain = domain_of_lease4(lease, self._settings.dhcp4_name_code)
            else:
                mcps = mcps_of_lease6(lease, self._settings.dhcp6_code, own=own)
        except OptionError as error:
            row = self._rows.get((source, interface), _Row())._replace(discarded=str(error))
        else:
            name = f"{SERVICE}.{domain}" if domain else ""
            row = _Row(tuple((mcp, 0) for mcp in mcps), lease.end(now), name=name)
        self._learn(source, interface, row)
        self._forget_names()

    def dns_names(self, now: float) -> tuple[str, ...]:
        """The names to ask DNS for: those of the settings, then those that DHCP answers gave."""
        return tuple(dict.fromkeys((*self._settings.dns_name, *self._names_of_dhcp(now))))

    def learn_dns(
        self,
        name: str,
        mcps: Sequence[tuple[tuple[str, ...], int]],
        until: float,
        *,
        dnssec: str = Reason.DNSSEC_OFF,
        detail: str = "",
        now: float = 0.0,
    ) -> None:
        """What DNS said under this name, (addresses, port) each, best first; none: that there are none. ``dnssec``: what came
        of its signatures. A signed answer is not replaced by one that is not, until its end: that may be a forgery."""
        if not self._is_known(name):
            return
        old = self._rows.get((DNS, name), _Row())
        is_kept = old.dnssec == Reason.DNSSEC_VALID != dnssec and old.until is not None and now < old.until
        if is_kept:
            why = f"{TEXTS[dnssec]}{f' ({detail})' if detail else ''}"
            self._learn(DNS, name, old._replace(discarded=f"{why}; the signed answer before is kept"))
        else:
            self._learn(DNS, name, _Row(tuple(mcps), until, dnssec=dnssec, detail=detail))

    def dns_failed(self, name: str, why: str) -> None:
        """No answer under this name: what was there before stays to its end, with the reason for :meth:`status`."""
        if self._is_known(name):
            self._learn(DNS, name, self._rows.get((DNS, name), _Row())._replace(discarded=why))

    def interface_changed(self, interface: str, *, up: bool) -> None:
        """While an interface is down, what its DHCP answers said does not count."""
        (self._down.discard if up else self._down.add)(interface)

    def blocked(self, name: str, until: float, reason: str) -> None:
        """Leave a candidate alone until then: it answered nonsense, or asked to wait. A longer wait stays as it is."""
        old = self._blocks.get(name)
        if old is None or old.until <= until:
            self._blocks[name] = Block(until, reason)
        if len(self._blocks) > BLOCKS_MAX:
            del self._blocks[min(self._blocks, key=lambda one: self._blocks[one].until)]

    def unblock(self, name: str) -> None:
        """It answers as it should, or its name means another concentrator now."""
        self._blocks.pop(name, None)

    def unblock_all(self, reason: str) -> None:
        """Whom this reason held off may be tried again."""
        for name in [name for name, block in self._blocks.items() if block.reason == reason]:
            self.unblock(name)

    def _is_known(self, name: str) -> bool:
        return name in self._settings.dns_name or any(row.name == name for row in self._rows.values())

    def _forget_names(self) -> None:
        """What DNS said under a name that nobody gives any more."""
        for source, name in [key for key in self._rows if key[0] == DNS and not self._is_known(key[1])]:
            self._learn(source, name, None)

    def _names_of_dhcp(self, now: float) -> dict[str, list[str]]:
        """Name -> the interfaces whose DHCP answers gave it, best first."""
        names: dict[str, list[str]] = {}
        for interface in self._interfaces:
            row = self._rows.get((DHCP4, interface))
            if row is not None and row.name and self._speaks(DHCP4, interface, row, now):
                names.setdefault(row.name, []).append(interface)
        return names

    def _learn(self, source: str, interface: str, row: _Row | None) -> None:
        old = self._rows.pop((source, interface), _Row())
        if row is not None:
            self._rows[source, interface] = row
        if row is None or row.mcps != old.mcps:
            for number in range(1, len(old.mcps) + 1):
                self.unblock(_name(source, interface, number))

    # what follows from it

    def candidates(self, now: float) -> tuple[Candidate, ...]:
        """Every candidate, best first, blocked ones too."""
        return tuple(self._listed(now))

    def endpoints(self, now: float) -> tuple[tuple[str, int], ...]:
        """(address, port) of all concentrators that are known, those included whose place a better source's have taken: the LAN
        is kept away from them (requirement 5.3-f). Of what nobody believes only the settings' own are in it, so that a liar
        cannot close ports of others to the LAN."""
        self._trusted = self._trust.trusted(self._said(now), now)
        known = [row for source in self._precedence() if source != STATIC for row in self._of_source(source, now)]
        return tuple(dict.fromkeys((address, row.port) for row in (*self._static, *known) for address in row.addresses))

    def usable(self, now: float) -> tuple[Candidate, ...]:
        """The candidates that may be connected to, best first."""
        return tuple(candidate for candidate in self._listed(now) if self.block_of(candidate.name, now) is None)

    def block_of(self, name: str, now: float) -> Block | None:
        """Why this candidate is left alone now; None when it is not."""
        block = self._blocks.get(name)
        return block if block and now < block.until else None

    def refused(self, now: float) -> list[Refusal]:
        """What is said and not believed."""
        trusted = self._trust.trusted(self._said(now), now)
        said = [Refusal(STATIC, row.name, row.addresses) for row in self._static if self._is_asked(STATIC)]
        for (source, interface), row in sorted(self._rows.items()):
            if self._counts(source, interface, row, now):
                addresses = tuple(dict.fromkeys(address for part, _ in row.mcps for address in part))
                reason = row.dnssec if row.dnssec not in ("", Reason.DNSSEC_VALID) else Reason.UNCONFIRMED
                said.append(Refusal(source, interface, addresses, reason))
        rest = (row._replace(addresses=tuple(a for a in row.addresses if a not in trusted)) for row in said)
        return [refusal for refusal in rest if refusal.addresses]

    def next_change(self, now: float) -> float | None:
        """When time alone will change the answers: the next end of a lease or a block. None: never."""
        ends = [row.until for row in self._rows.values()] + [block.until for block in self._blocks.values()]
        return min((end for end in ends if end is not None and end > now), default=None)

    def status(self, now: float) -> dict[str, Any]:
        """Both halves for people, ready for JSON, without keys: ``concentrators`` in order, and ``sources``."""
        listed = self._listed(now)
        sources = {candidate.source for candidate in listed}
        refused = {(row.source, row.interface): row for row in self.refused(now)}
        used = {
            key
            for key, row in self._rows.items()
            if key[0] in sources and any(True for _ in self._of_row(*key, now))  # an address of it is believed
        }
        concentrators = []
        for candidate in listed:
            block = self.block_of(candidate.name, now)
            shown = candidate._asdict() | {"addresses": list(candidate.addresses), "usable": block is None}
            shown["service_class"] = list(candidate.service_class)
            del shown["key"]
            if block is not None:
                shown |= {"reason": block.reason, "wait_s": round(block.until - now, 1)}
            concentrators.append(shown)
        return {
            "concentrators": concentrators,
            "sources": [
                {
                    "source": source,
                    "interface": interface,
                    "concentrators": [list(addresses) for addresses, _ in row.mcps],
                    "expires_s": None if row.until is None else round(row.until - now, 1),
                    "used": (source, interface) in used,
                    "discarded": row.discarded,
                    "dnssec": row.dnssec,
                    "name": row.name,
                    **_unconfirmed(refused.get((source, interface)), row.detail),
                }
                for (source, interface), row in sorted(self._rows.items())
            ],
        }

    def _listed(self, now: float) -> list[Candidate]:
        """The best source's, and of the others those that serve a class which no better source serves."""
        self._trusted = self._trust.trusted(self._said(now), now)
        listed: list[Candidate] = []
        served: set[str] = set()
        for source in self._precedence():
            found = self._of_source(source, now)
            fresh = [row for row in found if served.isdisjoint(row.service_class or ("",))]
            listed += fresh
            served.update(name for row in found for name in row.service_class or ("",))
        return listed

    def _precedence(self) -> tuple[str, ...]:
        return PRECEDENCE_DHCP_OVERRIDE if self._settings.dhcp_override else self._settings.precedence

    def _is_asked(self, source: str) -> bool:
        return (DHCP if source in (DHCP4, DHCP6) else source) in self._precedence()

    def _of_source(self, source: str, now: float) -> list[Candidate]:
        if source == STATIC:
            return [row for candidate in self._static for row in self._believed(candidate)]
        if source == RADIUS:
            return list(self._of_row(RADIUS, "", now))
        if source == DNS:
            return self._merged(row for name in self.dns_names(now) for row in self._of_row(DNS, name, now))
        return self._merged(self._of_dhcp(now))

    def _of_dhcp(self, now: float) -> Iterator[Candidate]:
        families = (DHCP6, DHCP4) if self._settings.prefer == "ipv6" else (DHCP4, DHCP6)
        for interface in self._interfaces:
            for source in families:
                yield from self._of_row(source, interface, now)

    def _of_row(self, source: str, interface: str, now: float) -> Iterator[Candidate]:
        row = self._rows.get((source, interface))
        if row is None or not self._counts(source, interface, row, now):
            return
        for number, (addresses, port) in enumerate(row.mcps, 1):
            yield from self._believed(
                Candidate(
                    _name(source, interface, number),
                    self._by_family(addresses),
                    port or self._settings.service_port,
                    source,
                    "" if source == DNS else interface,
                    subscriber="",
                    key="",
                    service_class=tuple(
                        dict.fromkeys(word for word, address in row.service_classes if address in addresses)
                    ),
                )
            )

    def _believed(self, candidate: Candidate) -> Iterator[Candidate]:
        """It, with those of its addresses that are trusted; nothing when none is."""
        addresses = tuple(address for address in candidate.addresses if address in self._trusted)
        if addresses:
            yield candidate._replace(addresses=addresses)

    def _said(self, now: float) -> dict[Voice, set[str]]:
        """What each voice says. The settings are never silent."""
        said: dict[Voice, set[str]] = {}
        if self._is_asked(STATIC):
            said[Voice(STATIC)] = {address for candidate in self._static for address in candidate.addresses}
        for (source, interface), row in self._rows.items():
            is_silent = row.discarded and not row.mcps  # it has never said anything that had a meaning
            if not is_silent and self._speaks(source, interface, row, now):
                for voice in self._voices(source, interface, row, now):
                    addresses = said.setdefault(voice, set())
                    addresses.update(address for part, _ in row.mcps for address in part)
        return said

    def _voices(self, source: str, interface: str, row: _Row, now: float) -> list[Voice]:
        """Whose words these are. Signatures prove what the owner of a name says; where DHCP gave the name, that may be an
        attacker who owns one, so that it counts as the word of those DHCP servers."""
        if source == RADIUS or (source == DNS and row.dnssec != Reason.DNSSEC_VALID):
            return [Voice(source)]
        if source == DNS and interface in self._settings.dns_name:
            return [Voice(TRUST_DNSSEC)]
        interfaces = self._names_of_dhcp(now).get(interface, []) if source == DNS else [interface]
        lines = [self._lines.get(name, NO_LINE) for name in interfaces]
        return [Voice(TRUST_DHCP, line.wan, line.is_trusted, source) for line in lines]

    def _speaks(self, source: str, interface: str, row: _Row, now: float) -> bool:
        """Whether this is what a source says today, if it says anything."""
        if not self._is_asked(source) or (row.until is not None and now >= row.until):
            return False
        if source == DNS:
            return interface in self._settings.dns_name or interface in self._names_of_dhcp(now)
        if source == RADIUS:
            return True
        return self._settings.dhcp and interface in self._interfaces and interface not in self._down

    def _counts(self, source: str, interface: str, row: _Row, now: float) -> bool:
        """Whether a row may be used; the precedence and trust decide whether it is."""
        return bool(row.mcps) and self._speaks(source, interface, row, now)

    def _merged(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """One candidate for one MCP: those that share an address are it, and it keeps the name it had first."""
        merged: list[Candidate] = []
        for candidate in candidates:
            same = [other for other in merged if not set(other.addresses).isdisjoint(candidate.addresses)]
            if not same:
                merged.append(candidate)
                continue
            addresses = dict.fromkeys(a for part in [*same, candidate] for a in part.addresses)
            merged[merged.index(same[0])] = same[0]._replace(addresses=self._by_family(addresses))
            for other in same[1:]:
                merged.remove(other)
        return merged

    def _by_family(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """The preferred family first; within a family the order that was given."""
        return tuple(sorted(addresses, key=lambda address: (":" in address) != (self._settings.prefer == "ipv6")))


def _unconfirmed(refusal: Refusal | None, detail: str) -> dict[str, Any]:
    """What a row of ``sources`` says of addresses that are not believed."""
    if refusal is None:
        return {"unconfirmed": [], "reason": "", "text": "", "detail": detail}
    text = TEXTS[refusal.reason]
    return {"unconfirmed": list(refusal.addresses), "reason": refusal.reason, "text": text, "detail": detail}


def _name(source: str, interface: str, number: int) -> str:
    return f"{source}:{interface}#{number}" if interface else f"{source}#{number}"
