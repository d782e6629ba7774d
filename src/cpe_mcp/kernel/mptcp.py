"""The kernel's MPTCP path manager over generic netlink: endpoints, flags, limits, events.

pyroute2 knows endpoints and limits only; changing flags (backup) and events are missing there. Family ``mptcp_pm`` version 1,
Linux 5.6 and later; SET_FLAGS by id 5.12.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from cpe_mcp.kernel.netlink import NLA_F_NESTED, Netlink, pull_attributes, push_attribute
from cpe_mcp.paths.observed import Endpoint

NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_MCAST_GROUPS = 1, 2, 7
CTRL_ATTR_MCAST_GRP_NAME, CTRL_ATTR_MCAST_GRP_ID = 1, 2
ADD_ADDR, DEL_ADDR, GET_ADDR, FLUSH_ADDRS, SET_LIMITS, GET_LIMITS, SET_FLAGS = range(1, 8)
ATTR_ADDR, ATTR_RCV_ADD_ADDRS, ATTR_SUBFLOWS = 1, 2, 3
ADDR_FAMILY, ADDR_ID, ADDR_ADDR4, ADDR_ADDR6, ADDR_PORT, ADDR_FLAGS, ADDR_IF_IDX = range(1, 8)


class MptcpNetlink:
    """The path manager of the current network namespace. Raises OSError where the kernel has no MPTCP."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_GENERIC)
        name = push_attribute(CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0")
        answer = self._netlink.request(GENL_ID_CTRL, bytes([CTRL_CMD_GETFAMILY, 1, 0, 0]) + name)
        family = pull_attributes(answer[0][4:])
        (self._family,) = struct.unpack("=H", family[CTRL_ATTR_FAMILY_ID])
        self.groups: dict[str, int] = {}
        """Multicast groups by name: ``mptcp_pm_events``."""
        for group in pull_attributes(family[CTRL_ATTR_MCAST_GROUPS]).values():
            row = pull_attributes(group)
            (number,) = struct.unpack("=I", row[CTRL_ATTR_MCAST_GRP_ID])
            self.groups[row[CTRL_ATTR_MCAST_GRP_NAME].rstrip(b"\0").decode()] = number

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    def endpoints(self) -> list[Endpoint]:
        """All endpoints, foreign ones included."""
        found = []
        for answer in self._netlink.request(self._family, bytes([GET_ADDR, 1, 0, 0]), dump=True):
            row = pull_attributes(pull_attributes(answer[4:])[ATTR_ADDR])
            family = socket.AF_INET if ADDR_ADDR4 in row else socket.AF_INET6
            address = socket.inet_ntop(family, row[ADDR_ADDR4 if ADDR_ADDR4 in row else ADDR_ADDR6])
            (index,) = struct.unpack("=i", row[ADDR_IF_IDX]) if ADDR_IF_IDX in row else (0,)
            (flags,) = struct.unpack("=I", row[ADDR_FLAGS]) if ADDR_FLAGS in row else (0,)
            found.append(Endpoint(row[ADDR_ID][0], address, index, flags))
        return found

    def add(self, endpoint: Endpoint) -> None:
        """Add one; running connections that lack it join over it at once. Raises NetlinkError."""
        packed = ipaddress.ip_address(endpoint.address).packed
        family, kind = (socket.AF_INET, ADDR_ADDR4) if len(packed) == 4 else (socket.AF_INET6, ADDR_ADDR6)
        row = push_attribute(ADDR_FAMILY, struct.pack("=H", family)) + push_attribute(kind, packed)
        row += push_attribute(ADDR_ID, bytes([endpoint.id]))
        row += push_attribute(ADDR_FLAGS, struct.pack("=I", endpoint.flags))
        row += push_attribute(ADDR_IF_IDX, struct.pack("=i", endpoint.device_index))
        self._command(ADD_ADDR, row)

    def delete(self, number: int) -> None:
        """Delete one by id; its subflows end and the peer is told at once (REMOVE_ADDR)."""
        self._command(DEL_ADDR, push_attribute(ADDR_ID, bytes([number])))

    def set_flags(self, number: int, flags: int) -> None:
        """Change backup or fullmesh of one; the peer is told by MP_PRIO."""
        row = push_attribute(ADDR_ID, bytes([number])) + push_attribute(ADDR_FLAGS, struct.pack("=I", flags))
        self._command(SET_FLAGS, row)

    def limits(self) -> tuple[int, int]:
        """``(subflows, add_addr_accepted)``"""
        row = pull_attributes(self._netlink.request(self._family, bytes([GET_LIMITS, 1, 0, 0]))[0][4:])
        return struct.unpack("=I", row[ATTR_SUBFLOWS])[0], struct.unpack("=I", row[ATTR_RCV_ADD_ADDRS])[0]

    def set_limits(self, *, subflows: int, add_addr_accepted: int) -> None:
        """Additional subflows per connection, and addresses accepted from a peer; 8 each at most."""
        payload = push_attribute(ATTR_RCV_ADD_ADDRS, struct.pack("=I", add_addr_accepted))
        payload += push_attribute(ATTR_SUBFLOWS, struct.pack("=I", subflows))
        self._netlink.request(self._family, bytes([SET_LIMITS, 1, 0, 0]) + payload)

    def _command(self, command: int, row: bytes) -> None:
        payload = push_attribute(ATTR_ADDR | NLA_F_NESTED, row)
        self._netlink.request(self._family, bytes([command, 1, 0, 0]) + payload)
