"""Numbers this project claims in the kernel's shared number spaces, in one place so that a clash can be seen and mended.

Packet marks: mwan3 uses 0x3f00, pbr 0x00ff0000, fw4 none; the top bits are free on a stock system.
Routing tables and rule preferences: mwan3 uses tables and rules 1-63 and 1001-3254, pbr from 256 and 30000 on.
"""

MARK_LOCAL = 0x4000_0000
"""Delivered to a relay worker instead of being forwarded (tproxy)."""
MARK_MASK = 0x4000_0000
MARK_CLASS = 0x8000_0000
"""With MARK_LOCAL: to a worker, as a connection of the class whose number is in MARK_CLASS_NUMBER."""
MARK_CLASS_SHIFT = 24
MARK_CLASS_NUMBER = 0x3F00_0000
CLASSES_MAX = 64
"""As many numbers as fit, 0 included: the class of every connection that no rule gives another one."""
MARK_DSCP_SHIFT = 24
MARK_DSCP_MASK = 0x3F00_0000
"""DSCP of a connection to the concentrator, on its socket: what IP_TOS cannot set on IPv6 subflows, nft does by this."""
MARK_SUBSCRIBER = 0x0000_8000
"""On a concentrator's connections whose subscriber was accepted, all subflows: nft knows their addresses by it."""
TABLE_LOCAL = 5100
"""Routing table with one local default route: where marked packets look."""
TABLE_WAN_BASE = 5101
"""First of the per-WAN tables; WAN number n (order of the settings) uses TABLE_WAN_BASE + n."""
RULE_LOCAL = 510
"""Preference of the rule mark -> TABLE_LOCAL."""
RULE_WAN_BASE = 520
"""Preferences of the per-WAN rules: RULE_WAN_BASE + 2n for ``from``, + 2n + 1 for ``oif``."""
NFT_TABLE = "cpe_mcp"
"""Family inet. Everything of ours in nftables is in this table, so that deleting it leaves no trace."""
CONCENTRATOR_TABLE = "mcp_concentrator"
"""The same of a concentrator, family inet."""
IPPROTO_MPTCP = 262
SOL_MPTCP = 284


def class_address(version: int, number: int) -> str:
    """Where the workers listen, on the same port, for connections of this class: tproxy tells them apart by address. "" for
    class 0, which comes to the wildcard.

    Nothing else has these: loopback, and a part of the discard-only prefix (RFC 6666), which a transparent socket may bind.
    """
    if number == 0:
        return ""
    return f"127.0.0.{number + 1}" if version == 4 else f"100::{number + 1:x}"
