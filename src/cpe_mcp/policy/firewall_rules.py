"""What the user's firewall would say to a connection before it is taken: fw4's forward rules, said again in our own table.

A taken connection never crosses FORWARD, so that what a rule there drops would get through (design D13). The rules are read
as nftables lists them, whoever wrote them: zones, parental rules with times, files of /etc/nftables.d. Each chain that the
forward hook can reach is repeated at prerouting with the same matches, and other verdicts: what fw4 would accept goes on to
be taken, what it would drop or reject is left alone and meets fw4 itself. The same is done to dstnat, so that a connection
that the user redirects (DNS, a transparent proxy) stays redirected.

A match that means something else at prerouting, or that changes while nobody looks (sets, limits, marks), counts as fulfilled
where that leaves the connection alone, and as not fulfilled where it would have it taken. So the doubt costs speed, never the
firewall. Pure text work; who reads the ruleset and loads the result must not be in here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

TAKE_CHAIN = "deliver"
"""Where a connection goes that fw4 would let through; made by :mod:`cpe_mcp.kernel.nft`."""
LEAVE = "accept"
"""Ends our own base chain and nothing else: the packet goes its plain way, through fw4."""
FORWARD = "forward"
"""fw4's own base chain of the forward hook (firewall4, ruleset.uc)."""
REFUSING_HOOKS = ("filter forward", "nat prerouting")
"""What a taken connection would miss: nat prerouting comes later than interception and would send it elsewhere."""
START_CHAIN = "fw4"
PREFIX = "fw4_"
"""Of the repeated chains' names."""

_VALUE = r'(?:\{[^}]*\}|"[^"]*"(?:-"[^"]*")?|(?![@{]|\.\s)[^\s]+)'
_OPERATED = rf"(?:(?:!=|==|<=|>=|<|>) )?(?:& \S+ (?:==|!=) )?{_VALUE}"
_KNOWN = re.compile(
    r"(?:"
    rf"meta nfproto {_OPERATED}|meta l4proto {_OPERATED}|(?:ip|ip6) (?:saddr|daddr) {_OPERATED}"
    rf"|(?:tcp|udp|th) (?:sport|dport) {_OPERATED}|ether (?:saddr|daddr) {_OPERATED}"
    rf"|(?P<output>oifname) {_OPERATED}|iifname {_OPERATED}|meta (?:hour|day|time) {_OPERATED}|ct state (?!vmap){_OPERATED}"
    rf"|ct status dnat|(?:icmp|icmpv6) type {_OPERATED}|tcp flags \S+ / \S+|(?:ip|ip6) dscp {_OPERATED}"
    r")(?=\s|$)\s*"
)
_UNSURE = re.compile(
    r"(?:"
    r"(?:[a-z0-9]+ [a-z]+ \. )*[a-z0-9]+ [a-z]+ (?:!= )?@\S+"
    r"|limit rate (?:over )?\S+(?: burst \d+ \S+)?|limit name \S+"
    r"|(?:meta|ct) mark (?:& \S+ )?(?:!= |== )?\S+"
    r")(?=\s|$)\s*"
)
_VERDICT = re.compile(
    r"(?:^|\s)(?:(?P<plain>accept|drop|return|continue)|(?P<reject>reject(?: with [^@]+)?|queue\b.*)"
    r"|(?P<call>jump|goto) (?P<chain>\S+)|(?P<nat>dnat (?:ip6? )?(?:addr \. port )?to\b.*|redirect(?: .*)?))$"
)
_NO_MATCHES = re.compile(
    r'\s*comment "[^"]*"|\bcounter(?: packets \d+ bytes \d+)?\s*|\blog(?: prefix "[^"]*"| level \S+| flags \S+)*\s*'
)
_NEVER_TCP = re.compile(r"(?:^|\s)(?:udp|icmp|icmpv6) |(?:^|\s)meta l4proto (?!tcp\b)[a-z0-9-]+(?=\s|$)")
_CHAIN = re.compile(r"\tchain (\S+) \{\n(.*?)\n?\t\}", re.DOTALL)
_BASE = re.compile(r"type (?P<kind>\S+) hook (?P<hook>\S+) .*?policy (?P<policy>\w+);")


class Chain(NamedTuple):
    """One chain of fw4 as it is listed."""

    rules: tuple[str, ...]
    hook: str = ""
    """``filter forward``, ``nat prerouting``; "" for one that is only jumped to."""
    policy: str = ""
    """accept or drop, of a base chain."""


class FirewallView(NamedTuple):
    """Chains for our own table. Empty: there is no fw4, and nothing is held back."""

    chains: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, rules), those first that others jump to."""
    start: str = ""
    """The chain that a connection enters. It ends in :data:`TAKE_CHAIN` or is left alone."""
    unsure: tuple[str, ...] = ()
    """Rules of fw4 that are taken to leave more alone than they would drop, for the user to see."""


NO_FIREWALL = FirewallView()
NOTHING_PASSES = FirewallView(((START_CHAIN, (LEAVE,)),), START_CHAIN)
"""For a ruleset that cannot be repeated."""


def read_chains(listing: str) -> dict[str, Chain]:
    """The chains of ``nft -s list table inet fw4``; none of a text of another kind."""
    chains = {}
    for name, body in _CHAIN.findall(listing):
        lines = [line.strip() for line in body.splitlines() if line.strip()]
        base = next((match for line in lines if (match := _BASE.match(line))), None)
        rules = tuple(line for line in lines if not _BASE.match(line))
        chains[name] = Chain(rules, f"{base['kind']} {base['hook']}", base["policy"]) if base else Chain(rules)
    return chains


def view_of(listing: str) -> FirewallView:
    """fw4's opinion as chains of our own."""
    chains = read_chains(listing)
    if FORWARD not in chains:
        return NO_FIREWALL
    copier = _Copier(chains)
    # /etc/nftables.d may bring more base chains: each of them can refuse, and none can let through for the others.
    others = [name for name, chain in chains.items() if chain.hook in REFUSING_HOOKS and name != FORWARD]
    start = [f"jump {copier.copy(name, sure=False)}" for name in others]
    start.append(f"goto {copier.copy(FORWARD, sure=True)}")
    made = (*copier.made.items(), (START_CHAIN, start))
    return FirewallView(
        tuple((name, tuple(rules)) for name, rules in made), START_CHAIN, tuple(dict.fromkeys(copier.unsure))
    )


class _Copier:
    """Repeats chains. ``sure``: the packet is certainly in the chain; else only its refusals are repeated."""

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        self._chains = chains
        self.made: dict[str, list[str]] = {}
        self.unsure: list[str] = []

    def copy(self, name: str, *, sure: bool) -> str:
        """Make the chain unless it is there; returns its new name."""
        new = f"{PREFIX}{name}" if sure else f"{PREFIX}refusals_{name}"
        if new in self.made or name not in self._chains:
            self.made.setdefault(new, [] if name in self._chains else [LEAVE])
            return new
        chain = self._chains[name]
        rules = [text for rule in chain.rules for text in self._rule(rule, sure=sure)]
        if chain.policy == "drop":
            rules.append(LEAVE)
        elif chain.policy and sure:
            rules.append(f"goto {TAKE_CHAIN}")
        self.made[new] = rules
        return new

    def _rule(self, rule: str, *, sure: bool) -> list[str]:
        text = _NO_MATCHES.sub("", rule).strip()
        if " vmap " in f" {text} ":
            return self._map(rule, text)
        verdict = _VERDICT.search(text)
        if verdict is None or verdict["plain"] == "continue":
            return []  # a statement that neither lets through nor refuses
        matches, certain = _matches(text[: verdict.start()].strip())
        if _NEVER_TCP.search(matches):
            return []
        if verdict["call"]:
            target = self.copy(verdict["chain"], sure=sure and certain)
            if not self.made[target] and (not sure or not certain):
                return []
            self._note(rule, certain)
            # Whoever may be in the chain or not comes back from it.
            return [f"{matches} {verdict['call'] if sure and certain else 'jump'} {target}".strip()]
        if verdict["plain"] == "accept":
            return [f"{matches} goto {TAKE_CHAIN}".strip()] if sure and certain else []
        if verdict["plain"] == "return":
            if not sure:
                return []
            self._note(rule, certain)
            return [f"{matches} return".strip()] if certain else [f"{matches} {LEAVE}".strip()]
        self._note(rule, certain)
        return [f"{matches} {LEAVE}".strip()]

    def _note(self, rule: str, certain: bool) -> None:
        if not certain:
            self.unsure.append(_name_of(rule))

    def _map(self, rule: str, text: str) -> list[str]:
        """Verdict maps: fw4's own is by state and does not speak of new connections."""
        if text.startswith("ct state vmap ") and not re.search(r"\bnew\b|\buntracked\b", text):
            return []
        self.unsure.append(_name_of(rule))
        return [LEAVE]


def _matches(text: str) -> tuple[str, bool]:
    """The matches that hold at prerouting too, and whether that is all of them."""
    kept, certain = [], True
    while text:
        if match := _KNOWN.match(text):
            condition = match[0].strip()
            # There is no output device yet: ask where the packet would go.
            kept.append(f"fib daddr . mark {condition}" if match["output"] else condition)
        elif match := _UNSURE.match(text):
            certain = False
        else:
            return " ".join(kept), False
        text = text[match.end() :]
    return " ".join(kept), certain


def _name_of(rule: str) -> str:
    """What the user calls the rule: fw4 puts its name into the comment."""
    comment = re.search(r'comment "(?:!fw4: )?([^"]*)"', rule)
    return comment[1] if comment else rule
