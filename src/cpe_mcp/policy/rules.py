"""The user's rules: which one a packet meets, as nftables decides it. Pure.

:mod:`cpe_mcp.kernel.nft` renders the same rules, in the same order, for the kernel; a test holds the two to each other. Here
they answer ``cpe-mcp why`` and the UI. A rule looks at the first packet of a connection from a LAN device that would leave by
a managed WAN, and at nothing else (design D13).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cpe_mcp.paths.snapshot import ORDINARY, ClassView
from cpe_mcp.policy.decide import BLOCK, DIRECT, PROXY
from cpe_mcp.policy.reasons import Reason

if TYPE_CHECKING:
    from cpe_mcp.settings.router import RuleSettings

REASONS = {PROXY: Reason.RULE_PROXY, DIRECT: Reason.RULE_DIRECT, BLOCK: Reason.RULE_BLOCK}
"""What ``why`` says of a rule's action."""
DIGEST_DIGITS = 10
"""Of a list of domains, in the names of its sets: 40 bits, and a set name stays below the 31 characters of old kernels."""


class Rule(NamedTuple):
    """One enabled rule. An empty tuple is no condition."""

    section: str
    """UCI's name of it: that of the section, or ``rule[2]``."""
    label: str
    action: str
    """``proxy``, ``direct`` or ``block``."""
    domains: tuple[str, ...]
    """Lower case, punycode; each means itself and every name below it."""
    dest: tuple[str, ...]
    """Prefixes of both families. One condition together with ``domains``: one of either is enough."""
    ports: tuple[tuple[int, int], ...]
    """First and last."""
    protocols: tuple[str, ...]
    """Of ``tcp`` and ``udp``."""
    macs: tuple[str, ...]
    """Lower case with colons. One condition together with ``sources``."""
    sources: tuple[str, ...]
    """Prefixes."""
    dscp: tuple[int, ...]
    is_strict: bool = False
    """With ``proxy``: never direct (design D4)."""
    scheme: str = ""
    """With ``proxy``: see :class:`cpe_mcp.paths.snapshot.ClassView`, as for the two below."""
    concentrator: str = ""
    class_number: int = 0

    def counter(self) -> str:
        """Name of its nftables counter."""
        anonymous = re.fullmatch(r"rule\[(\d+)\]", self.section)
        return f"rule_{anonymous[1]}" if anonymous else f"named_{self.section}"

    def name_set(self, family: int) -> str:
        """Name of the nftables set that dnsmasq fills with the addresses of ``domains``.

        Made of the domains alone: the set keeps its elements when rules are moved, and two rules may share one.
        """
        digest = hashlib.sha256("\n".join(sorted(self.domains)).encode()).hexdigest()[:DIGEST_DIGITS]
        return f"names_{digest}_{family}"

    def can_be_tcp(self) -> bool:
        """Whether a TCP connection can match."""
        return not self.protocols or "tcp" in self.protocols


class Packet(NamedTuple):
    """The first packet of a connection, as far as it is known."""

    dest: str
    port: int = 0
    """0 for a protocol without ports."""
    protocol: str = "tcp"
    source: str = ""
    """"" when the device is not known: no rule for a device matches then."""
    mac: str = ""
    dscp: int = 0
    names: tuple[str, ...] = ()
    """Names that the destination was looked up by."""


def compile_rules(settings: Iterable[RuleSettings]) -> tuple[Rule, ...]:
    """The enabled ones, in their order, and their classes numbered."""
    choices: dict[tuple[str, str], int] = {("", ""): 0}
    rules = []
    for rule in settings:
        if not rule.enabled:
            continue
        choice = choices.setdefault((rule.scheme, rule.concentrator), len(choices))
        is_strict = rule.fallback == BLOCK
        compiled = Rule(
            section=rule.section,
            label=rule.label(),
            action=rule.action,
            domains=rule.domain,
            dest=rule.dest,
            ports=tuple(
                (int(first), int(last or first)) for first, _, last in (p.partition("-") for p in rule.dest_port)
            ),
            protocols=rule.proto,
            macs=rule.mac,
            sources=rule.src,
            dscp=rule.dscp,
            is_strict=is_strict,
            scheme=rule.scheme,
            concentrator=rule.concentrator,
            class_number=2 * choice + is_strict,
        )
        rules.append(compiled)
    return tuple(rules)


def class_of(rule: Rule | None) -> ClassView:
    """The class of what meets this rule."""
    if rule is None or not rule.class_number:
        return ORDINARY
    return ClassView(rule.class_number, rule.is_strict, rule.scheme, rule.concentrator)


def classes_of(rules: Iterable[Rule]) -> tuple[ClassView, ...]:
    """All classes that rules make, by number."""
    return tuple(sorted({class_of(rule) for rule in rules if rule.class_number and rule.can_be_tcp()}))


def first_match(rules: Sequence[Rule], packet: Packet) -> Rule | None:
    """The rule that decides, if any does."""
    return next((rule for rule in rules if matches(rule, packet)), None)


def matches(rule: Rule, packet: Packet) -> bool:
    """Whether every condition that the rule has holds."""
    return (
        (not (rule.dest or rule.domains) or _within(packet.dest, rule.dest) or _named(packet.names, rule.domains))
        and (not rule.protocols or packet.protocol in rule.protocols)
        and (not rule.ports or any(first <= packet.port <= last for first, last in rule.ports))
        and (not (rule.sources or rule.macs) or _within(packet.source, rule.sources) or packet.mac in rule.macs)
        and (not rule.dscp or packet.dscp in rule.dscp)
    )


def is_about_a_device(rule: Rule) -> bool:
    """Whether it depends on who asks."""
    return bool(rule.macs or rule.sources or rule.dscp)


def _within(address: str, prefixes: Sequence[str]) -> bool:
    if not address or not prefixes:
        return False
    import ipaddress  # not above: everything in policy stays light enough for a relay worker

    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(prefix) for prefix in prefixes)


def _named(names: Sequence[str], domains: Sequence[str]) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for name in names for domain in domains)
