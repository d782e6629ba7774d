"""Interception and the user's rules: the nftables table ``inet cpe_mcp`` and nothing outside it (design D13, D14).

:func:`render` makes the text, :class:`Nft` loads it in one transaction when it changed or when somebody else touched it.
The chains are flushed and filled again; the sets that fill at run time (``direct4``, ``direct6``, the names' addresses that
dnsmasq adds) and the rules' counters keep what they have.

``prerouting`` finds new TCP connections of the LAN, ``intercept`` chooses among them, ``take`` asks what the user's firewall
would say (:mod:`cpe_mcp.policy.firewall_rules`, chains ``fw4`` and ``fw4_*``), ``deliver`` hands them to a worker.
``forward`` is there while a rule blocks something or QUIC is refused: it sees what is forwarded, so that nothing depends on
whether connections are taken at this moment. Rules stand in both in the same order, and the first match ends the walk.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cpe_mcp.aaa.ident import PORT as IDENT_PORT
from cpe_mcp.kernel.nft_table import NFT_TIMEOUT_S, listing, load
from cpe_mcp.kernel.numbers import (
    MARK_CLASS,
    MARK_CLASS_NUMBER,
    MARK_CLASS_SHIFT,
    MARK_DSCP_MASK,
    MARK_DSCP_SHIFT,
    MARK_LOCAL,
    NFT_TABLE,
    class_address,
)
from cpe_mcp.policy.address_space import GLOBAL6, NOT_GLOBAL4
from cpe_mcp.policy.decide import BLOCK, DIRECT, PROXY
from cpe_mcp.policy.firewall_rules import NO_FIREWALL, NOTHING_PASSES, FirewallView, view_of
from cpe_mcp.policy.rules import Rule

log = logging.getLogger(__name__)

FIREWALL_TABLE = "fw4"
"""Of OpenWrt's firewall, family inet."""
QUIC_PORT = 443
NAME_TIMEOUT_S = 86400
"""How long an address stays in a name's set after dnsmasq put it there or a connection last used it. Long, because clients
keep names for longer than their TTL; not for ever, because content networks give the same address to others."""


class Interception(NamedTuple):
    """What the table is to do."""

    lan: tuple[str, ...]
    """Devices whose connections are taken; nothing from elsewhere is even looked at."""
    wans: tuple[str, ...]
    """Devices of managed WANs: only what would leave by one of them is taken."""
    wan_networks: tuple[str, ...]
    """Networks directly behind the WANs, where the modem's page is: never taken."""
    concentrators: tuple[tuple[str, int], ...]
    """Known MCPs; nothing behind this router, LAN, guests or VPN, may connect to them, whether or not anything is taken
    (requirement 5.3-f)."""
    port: int
    """Where the relay workers listen."""
    active4: bool
    """Take IPv4 connections."""
    active6: bool
    """Take IPv6 connections."""
    any_destination: bool
    """Not only global ones."""
    pass_mptcp: bool
    """Leave connections alone that ask for MPTCP themselves."""
    rules: tuple[Rule, ...] = ()
    """The user's, in their order."""
    take_rest: bool = True
    """What no rule is about is taken; else only what a rule takes."""
    reject_quic: bool = False
    """Refuse UDP port 443 to where TCP would be taken."""
    dscp: bool = False
    """Connections to concentrators may carry a DSCP."""
    ident: bool = False
    """The Ident port is there for concentrators; for others on the WANs it is closed (requirement 5.3-c)."""


CHAINS = ("prerouting", "intercept", "take", "deliver", "forward", "refuse", "quic", "output", "dscp", "input")
"""The base chains, with their hooks, are made anew each time: a hook that is not needed costs every packet something."""
HOOKS = {
    "prerouting": "type filter hook prerouting priority mangle + 1; policy accept;",
    "forward": "type filter hook forward priority filter - 1; policy accept;",
    "output": "type filter hook output priority mangle; policy accept;",
    "input": "type filter hook input priority filter - 1; policy accept;",
}
"""Prerouting comes after the marks of mwan3 and pbr, which stand at ``mangle``: of two chains of one priority the kernel runs
the younger one first (seen on 6.18), and their marks tell which way a connection would leave."""
SETS = (
    "mcp4 { type ipv4_addr . inet_service; }",
    "mcp6 { type ipv6_addr . inet_service; }",
    "wan4 { type ipv4_addr; flags interval; auto-merge; }",
    "wan6 { type ipv6_addr; flags interval; auto-merge; }",
    "direct4 { type ipv4_addr . inet_service; flags timeout; size 16384; }",
    "direct6 { type ipv6_addr . inet_service; flags timeout; size 16384; }",
)
REFUSE = ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]
FAMILIES = ((4, "ip", "ipv4"), (6, "ip6", "ipv6"))
"""Version, the word in ``ip daddr``, the word in ``meta nfproto`` and in type names."""


def render(plan: Interception, firewall: FirewallView = NO_FIREWALL) -> str:
    """The transaction for ``nft -f -``. Idempotent; the first one makes the table."""
    chains = {
        "prerouting": _prerouting(plan),
        "intercept": _intercept(plan),
        "take": [f"goto {firewall.start or 'deliver'}"] if plan.active4 or plan.active6 else [],
        "deliver": _deliver(plan),
        "forward": _forward(plan),
        "refuse": REFUSE if "forward" in hooks(plan) else [],
        "quic": _quic(plan),
        "output": _output(plan),
        "dscp": _dscp(plan),
        "input": _input(plan),
        **dict(firewall.chains),
    }
    lines = [
        f"add table inet {NFT_TABLE}",
        *(f"add set inet {NFT_TABLE} {definition}" for definition in (*SETS, *_name_sets(plan))),
        *(f"add counter inet {NFT_TABLE} {name}" for name in counters(plan)),
        *(f"add chain inet {NFT_TABLE} {chain}" for chain in (*CHAINS, *dict(firewall.chains))),
        f"flush table inet {NFT_TABLE}",
        *(f"delete chain inet {NFT_TABLE} {chain}" for chain in HOOKS),
        *(f"add chain inet {NFT_TABLE} {chain} {{ {HOOKS[chain]} }}" for chain in hooks(plan)),
        f"flush set inet {NFT_TABLE} mcp4",
        f"flush set inet {NFT_TABLE} mcp6",
        f"flush set inet {NFT_TABLE} wan4",
        f"flush set inet {NFT_TABLE} wan6",
    ]
    for address, port in plan.concentrators:
        plain = _plain(address)
        lines.append(f"add element inet {NFT_TABLE} mcp{_version(plain)} {{ {plain} . {port} }}")
    for network in plan.wan_networks:
        lines.append(f"add element inet {NFT_TABLE} wan{ipaddress.ip_network(network).version} {{ {network} }}")
    for chain, rules in chains.items():
        lines += [f"add rule inet {NFT_TABLE} {chain} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def hooks(plan: Interception) -> tuple[str, ...]:
    """The base chains of this plan."""
    wanted = {
        "prerouting": True,
        "forward": bool(_forward(plan)),
        "output": bool(_output(plan)),
        "input": bool(_input(plan)),
    }
    return tuple(chain for chain in HOOKS if wanted[chain])


def counters(plan: Interception) -> tuple[str, ...]:
    """Names of the rules' counters."""
    return tuple(rule.counter() for rule in plan.rules)


def name_sets(plan: Interception) -> tuple[str, ...]:
    """Names of the sets that dnsmasq fills."""
    return tuple(dict.fromkeys(rule.name_set(family) for rule in plan.rules if rule.domains for family in (4, 6)))


def _name_sets(plan: Interception) -> list[str]:
    """Dynamic: a connection that uses an address makes it stay, which dnsmasq's adding it again does not before
    kernel 6.12."""
    return [
        f"{name} {{ type ipv{name[-1]}_addr; flags dynamic,timeout; timeout {NAME_TIMEOUT_S}s; size 16384; }}"
        for name in name_sets(plan)
    ]


def _prerouting(plan: Interception) -> list[str]:
    outside = [device for device in ("lo", *plan.wans) if device not in plan.lan]
    rules = [
        *([f"iifname {_names(outside)} return"] if outside else []),
        # From guests and VPN too: they leave with the line's address, by which a concentrator may know the subscriber.
        "ip daddr . tcp dport @mcp4 drop",
        "ip6 daddr . tcp dport @mcp6 drop",
    ]
    if not plan.lan:
        return rules
    rules += [
        f"iifname != {_names(plan.lan)} return",
        # Connections that a worker has accepted; they go on while interception is being switched off.
        f"meta l4proto tcp socket transparent 1 meta mark set meta mark or {MARK_LOCAL:#x} accept",
    ]
    if plan.active4 or plan.active6:
        # A bare SYN of a new connection and nothing else: what runs directly keeps running, and so do the answers of
        # port-forwarded servers.
        rules.append("ct state new tcp flags & (fin | syn | rst | ack) == syn jump intercept")
    return rules


def _intercept(plan: Interception) -> list[str]:
    if not plan.wans or not (plan.active4 or plan.active6):
        return []
    rules = [
        "fib daddr type { local, broadcast, anycast, multicast } return",
        "ip daddr @wan4 return",
        "ip6 daddr @wan6 return",
        "ip daddr . tcp dport @direct4 return",
        "ip6 daddr . tcp dport @direct6 return",
        f"fib daddr . mark oifname != {_names(plan.wans)} return",
    ]
    # What a rule blocks is not taken, and refused in forward.
    verdicts = {PROXY: "goto take", DIRECT: "return", BLOCK: "return"}
    for rule in plan.rules:
        if rule.can_be_tcp():
            # forward counts what it sees: all that is not taken, but for that it must be there
            counted = rule.action == PROXY or not _forward(plan)
            marked = f"meta mark set {_class_mark(rule.class_number)} " if rule.class_number else ""
            rules += _matches(rule, marked + verdicts[rule.action], counted=counted, is_tcp=True)
    if not plan.take_rest:
        return rules
    rules += _not_global(plan)
    if plan.pass_mptcp:
        rules.append("tcp option mptcp exists return")
    return [*rules, "goto take"]


def _deliver(plan: Interception) -> list[str]:
    """The workers tell the classes apart by the listener that a connection comes to."""
    numbers = sorted({rule.class_number for rule in plan.rules if rule.class_number and rule.can_be_tcp()})
    return [
        f"{_is_class(number)}meta nfproto {nfproto} meta l4proto tcp tproxy {protocol} to"
        f" {_listener(version, number)}:{plan.port} meta mark set meta mark or {MARK_LOCAL:#x} accept"
        for number in (*numbers, 0)
        for active, (version, protocol, nfproto) in zip((plan.active4, plan.active6), FAMILIES, strict=True)
        if active
    ]


def _class_mark(number: int) -> str:
    """The mark of a connection with this class in it, as an expression."""
    keep = 0xFFFF_FFFF ^ MARK_CLASS_NUMBER
    return f"meta mark and {keep:#x} or {MARK_CLASS | number << MARK_CLASS_SHIFT:#x}"


def _is_class(number: int) -> str:
    if number == 0:
        return ""
    return f"meta mark and {MARK_CLASS | MARK_CLASS_NUMBER:#x} == {MARK_CLASS | number << MARK_CLASS_SHIFT:#x} "


def _listener(version: int, number: int) -> str:
    address = class_address(version, number)
    return f"[{address}]" if version == 6 and address else address


def _forward(plan: Interception) -> list[str]:
    if not plan.lan or not plan.wans:
        return []
    blocks = any(rule.action == BLOCK or rule.is_strict for rule in plan.rules)
    quic = _quic(plan)
    if not blocks and not quic:
        return []
    rules = [
        f"iifname != {_names(plan.lan)} return",
        f"oifname != {_names(plan.wans)} return",
        "ct state != new return",
        "ip daddr @wan4 return",
        "ip6 daddr @wan6 return",
    ]
    for rule in plan.rules:
        if rule.action == BLOCK:
            rules += _matches(rule, "goto refuse")
        elif rule.action == DIRECT:
            rules += _matches(rule, "return")
        else:  # what is forwarded although a rule takes it is UDP, or TCP at a moment when nothing is taken
            if rule.is_strict:
                rules += _matches(rule, f"meta l4proto tcp counter name {rule.counter()} goto refuse", counted=False)
            rules += _matches(rule, "goto quic" if quic else "return", counted=False)
    return [*rules, *([*_not_global(plan), "goto quic"] if quic and plan.take_rest else [])]


def _quic(plan: Interception) -> list[str]:
    """ICMP port unreachable: a browser's socket sees ECONNREFUSED and the browser falls back to TCP within a round trip."""
    if not plan.reject_quic:
        return []
    return [
        f"meta nfproto {nfproto} udp dport {QUIC_PORT} reject with icmpx port-unreachable"
        for active, (_, _, nfproto) in zip((plan.active4, plan.active6), FAMILIES, strict=True)
        if active
    ]


def _output(plan: Interception) -> list[str]:
    """Only with a concentrator that has an IPv6 address: there are no IPv6 subflows otherwise."""
    if not plan.dscp or not any(_version(address) == 6 for address, _ in plan.concentrators):
        return []
    return [f"meta nfproto ipv6 meta mark and {MARK_DSCP_MASK:#x} != 0 jump dscp"]


def _input(plan: Interception) -> list[str]:
    """A reset is what a closed port answers: only concentrators see that there is something."""
    if not plan.ident or not plan.wans:
        return []
    rules = []
    addresses = [_plain(address) for address, _ in plan.concentrators]
    for version, protocol, nfproto in FAMILIES:
        known = [address for address in addresses if _version(address) == version]
        others = f"{protocol} saddr != {_set(known)}" if known else ""
        rules.append(
            f"iifname {_names(plan.wans)} meta nfproto {nfproto} tcp dport {IDENT_PORT} {others} reject with tcp reset"
        )
    return rules


def _dscp(plan: Interception) -> list[str]:
    """One rule for each value: nftables 1.0 cannot compute a DSCP from a mark."""
    return [
        f"meta mark and {MARK_DSCP_MASK:#x} == {value << MARK_DSCP_SHIFT:#x} ip6 dscp set {value} return"
        for value in range(1, 64)
        if _output(plan)
    ]


def _not_global(plan: Interception) -> list[str]:
    if plan.any_destination:
        return []
    return [f"ip daddr {{ {', '.join(NOT_GLOBAL4)} }} return", f"ip6 daddr != {GLOBAL6} return"]


def _matches(rule: Rule, verdict: str, *, counted: bool = True, is_tcp: bool = False) -> list[str]:
    """One rule of the user as rules of nftables: one for each family and each way in which its conditions can hold."""
    counter = f"counter name {rule.counter()} " if counted else ""
    return [
        " ".join([f"meta nfproto {nfproto}", *devices, *transport, *dscp, *destination, f"{counter}{verdict}"])
        for version, protocol, nfproto in FAMILIES
        for devices in _devices(rule, version, protocol)
        for transport in [_transport(rule, is_tcp=is_tcp)]
        for dscp in [[f"{protocol} dscp {_set(rule.dscp)}"] if rule.dscp else []]
        for destination in _destinations(rule, version, protocol)
    ]


def _devices(rule: Rule, version: int, protocol: str) -> list[list[str]]:
    if not (rule.macs or rule.sources):
        return [[]]
    ways = [[f"ether saddr {_set(rule.macs)}"]] if rule.macs else []
    sources = _prefixes(rule.sources, version)
    return ways + ([[f"{protocol} saddr {_set(sources)}"]] if sources else [])


def _transport(rule: Rule, *, is_tcp: bool) -> list[str]:
    protocols = rule.protocols or (("tcp", "udp") if rule.ports else ())
    words = [f"meta l4proto {_set(protocols)}"] if protocols and not is_tcp else []
    if rule.ports:
        ports = _set(f"{first}-{last}" if first != last else str(first) for first, last in _joined(rule.ports))
        words.append(f"{'tcp' if is_tcp else 'th'} dport {ports}")
    return words


def _destinations(rule: Rule, version: int, protocol: str) -> list[list[str]]:
    if not (rule.dest or rule.domains):
        return [[]]
    prefixes = _prefixes(rule.dest, version)
    ways = [[f"{protocol} daddr {_set(prefixes)}"]] if prefixes else []
    if rule.domains:
        name = rule.name_set(version)
        used = f"update @{name} {{ {protocol} daddr timeout {NAME_TIMEOUT_S}s }}"
        ways.append([f"{protocol} daddr @{name} {used}"])
    return ways


def _prefixes(prefixes: Iterable[str], version: int) -> list[str]:
    """Those of one family, without overlaps, which nftables refuses."""
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    if version == 4:
        four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
        return [str(network) for network in ipaddress.collapse_addresses(four)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return [str(network) for network in ipaddress.collapse_addresses(six)]


def _joined(ports: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ports without overlaps."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _set(values: Iterable[object]) -> str:
    return "{ " + ", ".join(str(value) for value in dict.fromkeys(values)) + " }"


def _names(devices: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{device}"' for device in devices) + " }"


def _plain(address: str) -> str:
    """An IPv4 address that somebody names as IPv6 has it (``::ffff:192.0.2.1``) is met in IPv4 packets."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


class Nft:
    """Keeps the table as planned. Every call runs ``nft`` once, a few milliseconds."""

    def __init__(self) -> None:
        self._text = ""
        self._listing = ""
        self._firewall = NO_FIREWALL
        self._chains: set[str] = set()
        """Of the firewall, as loaded."""

    @property
    def unsure(self) -> tuple[str, ...]:
        """Rules of the user's firewall because of which more is left to plain forwarding than they would refuse."""
        return self._firewall.unsure

    def apply(self, plan: Interception, *, verify: bool) -> bool:
        """Load the table when the plan or the firewall changed, or when ``verify`` shows that somebody else changed our chains.

        True: it was loaded. Raises RuntimeError with nft's own words when it refuses.
        """
        if verify or not self._text:
            self._look_at_firewall()
        text = render(plan, self._firewall)
        if text == self._text and not (verify and listing(NFT_TABLE) != self._listing):
            return False
        try:
            self._run(text + self._leftovers(plan) + self._gone_chains())
        except RuntimeError as error:
            if not self._firewall.start:
                raise
            log.warning("what the firewall would refuse cannot be told, so nothing is taken: %s", error)
            self._run(render(plan, NOTHING_PASSES))
        self._chains = set(dict(self._firewall.chains))
        self._text, self._listing = text, listing(NFT_TABLE)
        return True

    def _gone_chains(self) -> str:
        """Statements that delete chains of the firewall before. Added first, since somebody may have deleted the table."""
        return "".join(
            f"add chain inet {NFT_TABLE} {chain}\ndelete chain inet {NFT_TABLE} {chain}\n"
            for chain in sorted(self._chains - set(dict(self._firewall.chains)))
        )

    def _look_at_firewall(self) -> None:
        view = view_of(listing(FIREWALL_TABLE))
        for name in sorted(set(view.unsure) - set(self._firewall.unsure)):
            log.warning(
                "firewall rule '%s' cannot be foreseen: connections it might refuse are forwarded, not taken", name
            )
        self._firewall = view

    def add_direct(self, servers: Sequence[tuple[str, int]], timeout_s: float) -> None:
        """New connections to these servers, address and port, are left to plain forwarding for a while (design D14)."""
        timeout = f"timeout {max(1, round(timeout_s))}s"
        rows: dict[int, list[str]] = {}
        for address, port in servers:
            rows.setdefault(_version(address), []).append(f"{address} . {port} {timeout}")
        self._run(
            "".join(
                f"add element inet {NFT_TABLE} direct{version} {{ {', '.join(elements)} }}\n"
                for version, elements in rows.items()
            )
        )

    def counters(self) -> dict[str, int]:
        """Connections that met each rule since it was there, by :meth:`Rule.counter`; empty when the table has gone."""
        return {row["name"]: int(row["packets"]) for row in self._objects("counters") if "packets" in row}

    def remove(self) -> None:
        """Delete the table: no trace."""
        self._text = ""
        self._run(f"add table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n")

    def _leftovers(self, plan: Interception) -> str:
        """Statements that delete counters and name sets of rules that are gone."""
        keep = {*counters(plan), *name_sets(plan)}
        lines = []
        for kind, prefixes in (("counter", ("rule_", "named_")), ("set", ("names_",))):
            for row in self._objects(f"{kind}s"):
                if row["name"].startswith(prefixes) and row["name"] not in keep:
                    lines.append(f"delete {kind} inet {NFT_TABLE} {row['name']}\n")
        return "".join(lines)

    def _objects(self, kind: str) -> list[dict[str, Any]]:
        """The table's ``sets`` or ``counters``."""
        # -t: without the elements, of which there may be thousands
        argv = ["nft", "-j", "-t", "list", kind, "table", "inet", NFT_TABLE]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False)
        if result.returncode:
            return []
        rows = [row.get(kind[:-1]) for row in json.loads(result.stdout)["nftables"]]
        return [row for row in rows if row is not None and row.get("table") == NFT_TABLE]

    def _run(self, text: str) -> None:
        load(text)
