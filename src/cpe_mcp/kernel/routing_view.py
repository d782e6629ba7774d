"""What routing does, read by netlink for questions and reports: the way to one address, and all rules. Changes nothing."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import NamedTuple

from cpe_mcp.kernel.netlink import Netlink, NetlinkError, pull_attributes, push_attribute

NETLINK_ROUTE = 0
RTM_GETROUTE, RTM_GETRULE = 26, 34
ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg, and struct fib_rule_hdr, which is shaped like it."""
RTA_DST, RTA_OIF = 1, 4
RTN_UNICAST, RTN_LOCAL = 1, 2
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 1, 2, 3, 6, 10, 15, 16, 17
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Way(NamedTuple):
    """Where a packet to an address goes."""

    device: str
    """"" where there is no route."""
    is_own: bool
    """The address is one of this machine's own."""


class RuleView(NamedTuple):
    """One policy rule, as ``ip rule`` shows it."""

    family: int
    preference: int
    table: int
    selector: str
    """"all", or what it asks for: source, destination, devices, mark."""

    def text(self) -> str:
        """One line."""
        return f"IPv{self.family} {self.preference}: {self.selector} lookup {self.table}"


def way_to(address: str) -> Way:
    """The route this machine would choose, as nft's ``fib daddr`` does. Raises OSError where netlink cannot be asked."""
    packed = ipaddress.ip_address(address).packed
    family = FAMILIES[4 if len(packed) == 4 else 6]
    header = ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    netlink = Netlink(NETLINK_ROUTE)
    try:
        answer = netlink.request(RTM_GETROUTE, header + push_attribute(RTA_DST, packed))[0]
    except NetlinkError as error:
        if error.errno in NO_ROUTE:
            return Way("", False)
        raise
    finally:
        netlink.close()
    kind = ROUTE.unpack_from(answer)[7]
    row = pull_attributes(answer[ROUTE.size :])
    if kind not in (RTN_UNICAST, RTN_LOCAL) or RTA_OIF not in row:
        return Way("", False)
    (index,) = struct.unpack("=I", row[RTA_OIF])
    try:
        return Way(socket.if_indextoname(index), kind == RTN_LOCAL)
    except OSError:
        return Way("", False)  # it has just gone


def rules() -> list[RuleView]:
    """All policy rules of both families. Raises OSError."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        return [
            _pull_rule(version, answer)
            for version, family in FAMILIES.items()
            for answer in netlink.request(RTM_GETRULE, ROUTE.pack(family, *[0] * 8), dump=True)
        ]
    finally:
        netlink.close()


def _pull_rule(version: int, message: bytes) -> RuleView:
    _, destination_bits, source_bits, _, table, *_ = ROUTE.unpack_from(message)
    row = pull_attributes(message[ROUTE.size :])

    def number(kind: int, default: int = 0) -> int:
        return int(struct.unpack("=I", row[kind])[0]) if kind in row else default

    words = []
    for word, kind, bits in (("from", FRA_SRC, source_bits), ("to", FRA_DST, destination_bits)):
        if kind in row:
            words.append(f"{word} {ipaddress.ip_address(row[kind])}/{bits}")
    for word, kind in (("iif", FRA_IIFNAME), ("oif", FRA_OIFNAME)):
        if kind in row:
            words.append(f"{word} {row[kind].rstrip(bytes(1)).decode(errors='replace')}")
    if FRA_FWMARK in row:
        words.append(f"fwmark {number(FRA_FWMARK):#x}/{number(FRA_FWMASK, 0xFFFFFFFF):#x}")
    return RuleView(version, number(FRA_PRIORITY), number(FRA_TABLE, table), " ".join(words) or "all")
