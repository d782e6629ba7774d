"""Whom to believe about concentrators: an address that one source names is used when that source is trusted alone, or when a
second, independent one names it too.

Independent means that no single attacker can be both: two WANs are, both families of one WAN are not, and unvalidated DNS
and DHCP are not, because whoever answers DHCP on a line names its resolver. No IO; time is an argument, in seconds of
time.monotonic().
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.router import NOBODY, TRUST_DHCP, TRUST_DNS, DiscoverySettings

CONFIRMED_S = 7 * 86400.0
"""How long an agreement holds after one of the two fell silent: a line may be down for a week, and the concentrator
is needed just then. One that says something else ends it at once."""
CONFIRMED_MAX = 256
"""Agreements kept; more than any network has concentrators."""


class Voice(NamedTuple):
    """One source, as far as trust goes."""

    source: str
    """A value of the option ``trust_alone``: static, radius, dnssec, dhcp, dns."""
    wan: str = ""
    """Of DHCP: the WAN; "" for an interface that belongs to none."""
    is_marked: bool = False
    """The settings say that this one is believed (option ``trust_dhcp`` of the WAN)."""
    family: str = ""
    """Of DHCP: the families of one WAN speak and fall silent each by itself."""


class Trust:
    """Judges addresses by the policy of the settings, and remembers agreements."""

    def __init__(self, settings: DiscoverySettings) -> None:
        self._alone = frozenset(settings.trust_alone) - {NOBODY}
        self._second = frozenset(settings.second_source) - {NOBODY}
        self._agreed: dict[str, tuple[float, frozenset[Voice]]] = {}  # address -> until when, who agreed

    def trusted(self, said: Mapping[Voice, Collection[str]], now: float) -> frozenset[str]:
        """Which addresses may be used. ``said``: what each voice says now, which may be that there are none; a voice that is
        silent (no answer, line down) is not in it."""
        voices: dict[str, set[Voice]] = {}
        for voice, addresses in said.items():
            for address in addresses:
                voices.setdefault(address, set()).add(voice)
        self._forget(said, now)
        found = set()
        for address, named_by in voices.items():
            agreeing = self._agreeing(named_by)
            if agreeing and (address in self._agreed or len(self._agreed) < CONFIRMED_MAX):
                self._agreed[address] = now + CONFIRMED_S, agreeing
            if agreeing or address in self._agreed or any(self.is_alone(voice) for voice in named_by):
                found.add(address)
        return frozenset(found)

    def is_alone(self, voice: Voice) -> bool:
        """Whether its word is enough."""
        return voice.is_marked or voice.source in self._alone

    def _agreeing(self, voices: Iterable[Voice]) -> frozenset[Voice]:
        """Those of them that confirm each other; empty: none do."""
        known = sorted(voices)
        return frozenset(
            voice
            for first in known
            for second in known
            if second.source in self._second and are_independent(first, second)
            for voice in (first, second)
        )

    def _forget(self, said: Mapping[Voice, Collection[str]], now: float) -> None:
        for address, (until, agreeing) in list(self._agreed.items()):
            if now >= until or any(voice in said and address not in said[voice] for voice in agreeing):
                del self._agreed[address]


def are_independent(first: Voice, second: Voice) -> bool:
    """Whether it takes two attackers to be both."""
    if first.source == second.source == TRUST_DHCP:
        return bool(first.wan and second.wan) and first.wan != second.wan
    if {first.source, second.source} == {TRUST_DHCP, TRUST_DNS}:
        return False
    return first.source != second.source


class Refusal(NamedTuple):
    """What a source says and nobody believes."""

    source: str
    interface: str
    addresses: tuple[str, ...]
    reason: str = Reason.UNCONFIRMED
    """A value of Reason: of an answer of DNS, what is wrong with its signatures."""


SETTLE_S = 10.0
"""A refusal is told when it has lasted so long: at start one source is seconds ahead of the other."""
AGAIN_S = 600.0
"""One source is told of again after this, at the earliest: a liar that names another address each second fills no log."""
SOURCES_MAX = 64
"""Sources told of in that time: a DHCP server that gives another domain at each renewal is another source each time. The next
one waits until the oldest is forgotten."""


class Refusals:
    """Which refusals people are told of, and when: each one once."""

    def __init__(self) -> None:
        self._since: dict[Refusal, float] = {}
        self._told: dict[tuple[str, str], float] = {}  # source, interface -> when; the oldest first
        self.shown: tuple[Refusal, ...] = ()
        """Those that were told and go on."""

    def look(self, now_refused: Iterable[Refusal], now: float) -> list[Refusal]:
        """Those to be told of now."""
        self._since = {refusal: self._since.get(refusal, now) for refusal in now_refused}
        new = []
        shown = [refusal for refusal in self.shown if refusal in self._since]
        for refusal, since in self._since.items():
            if refusal in shown or now < self._due(refusal, since):
                continue
            key = refusal.source, refusal.interface
            self._told.pop(key, None)
            if len(self._told) >= SOURCES_MAX:
                del self._told[next(iter(self._told))]
            self._told[key] = now
            new.append(refusal)
        self.shown = (*shown, *new)
        return new

    def next_change(self, now: float) -> float | None:
        """When the next one is due; None: none is."""
        due = [self._due(refusal, since) for refusal, since in self._since.items() if refusal not in self.shown]
        return min((time for time in due if time > now), default=None)

    def _due(self, refusal: Refusal, since: float) -> float:
        """When it may be told."""
        last = self._told.get((refusal.source, refusal.interface))
        if last is None and len(self._told) >= SOURCES_MAX:
            last = next(iter(self._told.values()))
        return since + SETTLE_S if last is None else max(since + SETTLE_S, last + AGAIN_S)
