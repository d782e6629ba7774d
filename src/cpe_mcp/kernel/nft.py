"""Interception: the nftables table ``inet cpe_mcp`` and nothing outside it (design D13, D14).

:func:`render` makes the text, :class:`Nft` loads it in one transaction when it changed or when somebody else touched it.
The chains are flushed and filled again, the sets ``direct4`` and ``direct6`` keep their elements.
"""

from __future__ import annotations

import ipaddress
import logging
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from cpe_mcp.kernel.numbers import MARK_LOCAL, NFT_TABLE
from cpe_mcp.policy.address_space import GLOBAL6, NOT_GLOBAL4

log = logging.getLogger(__name__)

NFT_TIMEOUT_S = 10.0


class Interception(NamedTuple):
    """What the table is to do."""

    lan: tuple[str, ...]
    """Devices whose connections are taken; nothing from elsewhere is even looked at."""
    wans: tuple[str, ...]
    """Devices of managed WANs: only what would leave by one of them is taken."""
    wan_networks: tuple[str, ...]
    """Networks directly behind the WANs, where the modem's page is: never taken."""
    concentrators: tuple[tuple[str, int], ...]
    """Known MCPs; the LAN may not connect to them, whether or not anything is taken (requirement 5.3-f)."""
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


def render(plan: Interception) -> str:
    """The transaction for ``nft -f -``. Idempotent; the first one makes the table."""
    lines = [
        f"add table inet {NFT_TABLE}",
        *(f"add set inet {NFT_TABLE} {definition}" for definition in SETS),
        *(f"add chain inet {NFT_TABLE} {chain}" for chain in ("prerouting", "intercept")),
        f"flush table inet {NFT_TABLE}",
        f"delete chain inet {NFT_TABLE} prerouting",
        f"add chain inet {NFT_TABLE} prerouting {{ type filter hook prerouting priority mangle; policy accept; }}",
        f"flush set inet {NFT_TABLE} mcp4",
        f"flush set inet {NFT_TABLE} mcp6",
        f"flush set inet {NFT_TABLE} wan4",
        f"flush set inet {NFT_TABLE} wan6",
    ]
    for address, port in plan.concentrators:
        lines.append(f"add element inet {NFT_TABLE} mcp{_version(address)} {{ {address} . {port} }}")
    for network in plan.wan_networks:
        lines.append(f"add element inet {NFT_TABLE} wan{ipaddress.ip_network(network).version} {{ {network} }}")
    lines += [f"add rule inet {NFT_TABLE} prerouting {rule}" for rule in _prerouting(plan)]
    lines += [f"add rule inet {NFT_TABLE} intercept {rule}" for rule in _intercept(plan)]
    return "\n".join(lines) + "\n"


SETS = (
    "mcp4 { type ipv4_addr . inet_service; }",
    "mcp6 { type ipv6_addr . inet_service; }",
    "wan4 { type ipv4_addr; flags interval; auto-merge; }",
    "wan6 { type ipv6_addr; flags interval; auto-merge; }",
    "direct4 { type ipv4_addr . inet_service; flags timeout; size 16384; }",
    "direct6 { type ipv6_addr . inet_service; flags timeout; size 16384; }",
)


def _prerouting(plan: Interception) -> list[str]:
    if not plan.lan:
        return []
    rules = [
        f"iifname != {_names(plan.lan)} return",
        "ip daddr . tcp dport @mcp4 drop",
        "ip6 daddr . tcp dport @mcp6 drop",
    ]
    if plan.active4 or plan.active6:
        rules += [
            # Connections that a worker has accepted; they go on while interception is being switched off.
            f"meta l4proto tcp socket transparent 1 meta mark set meta mark or {MARK_LOCAL:#x} accept",
            # A bare SYN of a new connection and nothing else: what runs directly keeps running, and so do the answers of
            # port-forwarded servers.
            "ct state new tcp flags & (fin | syn | rst | ack) == syn jump intercept",
        ]
    else:
        rules.append(f"meta l4proto tcp socket transparent 1 meta mark set meta mark or {MARK_LOCAL:#x} accept")
    return rules


def _intercept(plan: Interception) -> list[str]:
    if not plan.wans or not (plan.active4 or plan.active6):
        return []
    rules = [
        "fib daddr type { local, broadcast, anycast, multicast } return",
        "ip daddr @wan4 return",
        "ip6 daddr @wan6 return",
    ]
    if not plan.any_destination:
        rules += [f"ip daddr {{ {', '.join(NOT_GLOBAL4)} }} return", f"ip6 daddr != {GLOBAL6} return"]
    rules += ["ip daddr . tcp dport @direct4 return", "ip6 daddr . tcp dport @direct6 return"]
    if plan.pass_mptcp:
        rules.append("tcp option mptcp exists return")
    rules.append(f"fib daddr . mark oifname != {_names(plan.wans)} return")
    for active, family, protocol in ((plan.active4, "ipv4", "ip"), (plan.active6, "ipv6", "ip6")):
        if active:
            rules.append(
                f"meta nfproto {family} meta l4proto tcp tproxy {protocol} to :{plan.port}"
                f" meta mark set meta mark or {MARK_LOCAL:#x} accept"
            )
    return rules


def _names(devices: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{device}"' for device in devices) + " }"


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


class Nft:
    """Keeps the table as planned. Every call runs ``nft`` once, a few milliseconds."""

    def __init__(self) -> None:
        self._text = ""
        self._listing = ""

    def apply(self, plan: Interception, *, verify: bool) -> bool:
        """Load the table when the plan changed, or when ``verify`` shows that somebody else changed the chains.

        True: it was loaded. Raises RuntimeError with nft's own words when it refuses.
        """
        text = render(plan)
        if text == self._text and not (verify and self._list() != self._listing):
            return False
        self._run(text)
        self._text, self._listing = text, self._list()
        return True

    def add_direct(self, address: str, port: int, timeout_s: float) -> None:
        """New connections to this server are left to plain forwarding for a while (design D14)."""
        name = f"direct{_version(address)}"
        self._run(f"add element inet {NFT_TABLE} {name} {{ {address} . {port} timeout {max(1, round(timeout_s))}s }}\n")

    def remove(self) -> None:
        """Delete the table: no trace."""
        self._text = ""
        self._run(f"add table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n")

    def _list(self) -> str:
        """The rules as nft lists them, "" when the table has gone."""
        listings = []
        for chain in ("prerouting", "intercept"):
            argv = ["nft", "-s", "list", "chain", "inet", NFT_TABLE, chain]
            result = subprocess.run(argv, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False)
            if result.returncode:
                return ""
            listings.append(result.stdout)
        return "".join(listings)

    def _run(self, text: str) -> None:
        result = subprocess.run(
            ["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False
        )
        if result.returncode:
            raise RuntimeError(f"nft refused: {result.stderr.strip().splitlines()[0] if result.stderr.strip() else ''}")
