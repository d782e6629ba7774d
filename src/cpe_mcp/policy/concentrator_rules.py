"""A concentrator's nftables table ``inet mcp_concentrator``, as text: what it limits before TCP sees it. Pure.

No conntrack. A handshake is limited by its source address, by the prefix around it, and together with those of all other
strangers. A stranger is an address where no subscriber is served: the relay workers mark the sockets of accepted subscribers,
a packet that belongs to such a socket brings its source into the set ``known4`` or ``known6``, and the addresses there have
no part in the strangers' limits. So a flood with forged sources does not keep out those who are served, on none of their lines.
A set that is full takes no further address, and then only the limit on all strangers holds for those that are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cpe_mcp.kernel.numbers import CONCENTRATOR_TABLE, MARK_SUBSCRIBER
from cpe_mcp.policy.filter_rules import Filter, chain_rules, filter_rules, set_definitions

KNOWN_S = 3600
"""How long an address is known after its last new entry: longer than warm connections live, so that a line whose connections
broke in the middle of an attack comes back."""
KNOWN_MAX, SOURCES_MAX, PREFIXES_MAX = 65536, 32768, 32768
"""Elements per family; about 150 octets each, so at most 40 MiB of kernel memory together."""
WINDOW_S = 10
"""How long a source without a handshake is remembered: its limit is full again long before."""
BURST_S = 2
"""A burst may have what comes in this time."""
BEFORE_DEFRAGMENTATION = -450
"""Hook priority, NF_IP_PRI_RAW_BEFORE_DEFRAG: conntrack, where it is loaded, puts fragments together at -400."""
BEFORE_ROUTING = -150
"""NF_IP_PRI_MANGLE: a mark that a filter sets can still choose a route."""

FRAGMENTS, FORGED, SOURCE, PREFIX, STRANGERS = "fragments", "forged", "source", "prefix", "strangers"
SIDE = "side"
COUNTERS = (FRAGMENTS, SIDE, FORGED, SOURCE, PREFIX, STRANGERS)
"""Names of the counters of what was dropped, or refused."""
EVERY_IPV4 = "0.0.0.0"


class Side(NamedTuple):
    """A listener, as it is reached over a device that faces one side."""

    device: str
    port: int
    address: str
    """None of IPv4 as IPv6 has it; "" for every address of this machine, ``0.0.0.0`` for every one of IPv4."""
    is_open: bool
    """It faces that side too."""


class Border(NamedTuple):
    """What the table is to do."""

    ports: tuple[int, ...]
    """Service ports of all listeners."""
    source_rate: int
    """Handshakes/s of one IPv4 address or IPv6 /64."""
    prefix_rate: int
    """Handshakes/s of the strangers in one prefix."""
    stranger_rate: int
    """Handshakes/s of all strangers."""
    prefix_v4: int
    """Length of a prefix."""
    prefix_v6: int
    strict_source: bool
    """A source must have its route by the device that it came from (RFC 3704 section 2.2)."""
    sides: tuple[Side, ...] = ()
    """In the order in which the kernel chooses among listeners: the first that matches counts."""
    has_limits: bool = True
    """Without them only filters are carried out, and there are no sides."""
    filters: tuple[Filter, ...] = ()

    def is_needed(self) -> bool:
        """Somebody counts on the table: without it more is missing than a protection."""
        return bool(self.sides or self.filters)


class _Family(NamedTuple):
    version: int
    saddr: str
    bits: int
    source_bits: int

    def masked(self, length: int) -> str:
        """The prefix of a packet's source, as an expression."""
        if length == self.bits:
            return self.saddr
        mask = (1 << self.bits) - (1 << self.bits - length)
        if self.version == 4:
            return f"{self.saddr} and {'.'.join(str(octet) for octet in mask.to_bytes(4, 'big'))}"
        digits = f"{mask:032x}"
        return f"{self.saddr} and {':'.join(digits[at : at + 4] for at in range(0, 32, 4))}"


FAMILIES = (_Family(4, "ip saddr", 32, 32), _Family(6, "ip6 saddr", 128, 64))


def render(border: Border) -> str:
    """The transaction for ``nft -f -``: the table as planned, whatever was there before; "" when nothing is. What its sets
    knew is gone with it: the next packet of each connection brings its address again, and :func:`elements` those of filters."""
    hooks: dict[str, tuple[int, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    sets: list[str] = []
    if border.has_limits:
        hooks["border"] = (BEFORE_DEFRAGMENTATION, _border(border))
        chains |= {"service": _service(), "handshake": _handshake(border), "subscriber": _subscriber(border)}
        sets += _sets()
        if border.sides:
            chains["sides"] = [_side(row) for row in border.sides]
    if border.filters:
        hooks["filters"] = (BEFORE_ROUTING, filter_rules(border.filters))
        chains |= {row.chain(): chain_rules(row) for row in border.filters}
        sets += set_definitions(border.filters)
    if not hooks:
        return ""
    lines = [
        *removal().splitlines(),
        f"add table inet {CONCENTRATOR_TABLE}",
        *(f"add set inet {CONCENTRATOR_TABLE} {row}" for row in sets),
        *(f"add counter inet {CONCENTRATOR_TABLE} {name}" for name in COUNTERS),
        *(f"add chain inet {CONCENTRATOR_TABLE} {name}" for name in chains),
    ]
    for name, (priority, rules) in hooks.items():
        hook = f"type filter hook prerouting priority {priority}; policy accept;"
        lines.append(f"add chain inet {CONCENTRATOR_TABLE} {name} {{ {hook} }}")
        chains[name] = rules
    for chain, rules in chains.items():
        lines += [f"add rule inet {CONCENTRATOR_TABLE} {chain} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def elements(add: Mapping[str, Sequence[str]], remove: Mapping[str, Sequence[str]] | None = None) -> str:
    """Statements that take addresses out of sets, whether or not they are there, and then bring others in."""
    lines = []
    for name, addresses in (remove or {}).items():
        # What is not there cannot be deleted, and would spoil the transaction: it is added first.
        lines += [_element(verb, name, addresses) for verb in ("add", "delete")]
    lines += [_element("add", name, addresses) for name, addresses in add.items()]
    return "".join(f"{line}\n" for line in lines)


def _element(verb: str, name: str, addresses: Sequence[str]) -> str:
    return f"{verb} element inet {CONCENTRATOR_TABLE} {name} {{ {', '.join(addresses)} }}"


def removal() -> str:
    """The transaction that leaves no trace."""
    return f"add table inet {CONCENTRATOR_TABLE}\ndelete table inet {CONCENTRATOR_TABLE}\n"


def _sets() -> list[str]:
    return [
        f"{name}{family.version} {{ type ipv{family.version}_addr; flags dynamic,timeout;"
        f" timeout {timeout_s}s; size {size}; }}"
        for name, timeout_s, size in (
            ("known", KNOWN_S, KNOWN_MAX),
            ("subscribers", WINDOW_S, KNOWN_MAX),
            ("sources", WINDOW_S, SOURCES_MAX),
            ("prefixes", WINDOW_S, PREFIXES_MAX),
        )
        for family in FAMILIES
    ]


def _border(border: Border) -> list[str]:
    """TCP never needs fragments: the other end finds the path's MTU. Only the first one of a packet has a port, so all that
    are for this machine are dropped (requirement 7.4-a)."""
    ports = f"tcp dport {_set(border.ports)} fib daddr type local"
    return [
        f"ip frag-off & 0x3fff != 0 meta l4proto tcp fib daddr type local {_drop(FRAGMENTS)}",
        f"exthdr frag exists meta l4proto tcp fib daddr type local {_drop(FRAGMENTS)}",
        *([f"{ports} jump sides"] if border.sides else []),
        f"{ports} goto service",
    ]


def _side(row: Side) -> str:
    """A reset, so that a router that comes from the wrong side learns it at once."""
    where = ""
    if row.address == EVERY_IPV4:
        where = "meta nfproto ipv4 "
    elif row.address:
        where = f"{'ip6' if ':' in row.address else 'ip'} daddr {row.address} "
    verdict = "return" if row.is_open else f"counter name {SIDE} reject with tcp reset"
    return f'iifname "{row.device}" {where}tcp dport {row.port} {verdict}'


def _service() -> list[str]:
    """Of what belongs to connections, the cheap question comes first: it is asked of each packet."""
    marked = f"socket mark and {MARK_SUBSCRIBER:#x} == {MARK_SUBSCRIBER:#x}"
    return [
        "tcp flags & (fin | syn | rst | ack) == syn goto handshake",
        *(f"{family.saddr} @known{family.version} accept" for family in FAMILIES),
        *(
            f"meta nfproto ipv{family.version} {marked} add @known{family.version} {{ {family.saddr} }} accept"
            for family in FAMILIES
        ),
    ]


def _handshake(border: Border) -> list[str]:
    rules = [f'iifname != "lo" fib saddr type {{ local, broadcast, multicast, unspec }} {_drop(FORGED)}']
    if border.strict_source:
        rules.append(f'iifname != "lo" fib saddr . iif oif missing {_drop(FORGED)}')
    rules += [f"{family.saddr} @known{family.version} goto subscriber" for family in FAMILIES]
    for family in FAMILIES:
        length = border.prefix_v4 if family.version == 4 else border.prefix_v6
        source, prefix = family.masked(family.source_bits), family.masked(length)
        rules += [
            _limit(f"sources{family.version}", source, border.source_rate, SOURCE),
            _limit(f"prefixes{family.version}", prefix, border.prefix_rate, PREFIX),
        ]
    return [*rules, f"limit rate over {_rate(border.stranger_rate)} {_drop(STRANGERS)}"]


def _subscriber(border: Border) -> list[str]:
    """In sets of their own: strangers take no place there."""
    return [
        _limit(f"subscribers{family.version}", family.masked(family.source_bits), border.source_rate, SOURCE)
        for family in FAMILIES
    ]


def _limit(name: str, key: str, rate: int, counter: str) -> str:
    return f"update @{name} {{ {key} limit rate over {_rate(rate)} }} {_drop(counter)}"


def _rate(rate: int) -> str:
    return f"{rate}/second burst {BURST_S * rate} packets"


def _drop(counter: str) -> str:
    return f"counter name {counter} drop"


def _set(values: Sequence[int]) -> str:
    return "{ " + ", ".join(str(value) for value in sorted(set(values))) + " }"
