"""Tells that somebody has changed nftables: what the kernel sends to NFNLGRP_NFTABLES after each transaction."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from cpe_mcp.kernel.netlink import NETLINK_ADD_MEMBERSHIP, OVERRUN, SOL_NETLINK, pull_attributes, read_messages

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_NEWGEN = 12, 14, 15
HARMLESS = frozenset({NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_NEWGEN})
"""Elements come and go all the time, ours by themselves; NEWGEN only ends a transaction whose other messages say more."""
MESSAGE_TYPE = 0xFF
"""The high octet is the subsystem."""
NFGENMSG_BYTES = 4
NFTA_TABLE = 1
"""The table's name, in all messages about tables, chains, rules, sets and objects (linux/netfilter/nf_tables.h)."""


class NftEvents:
    """``on_change()`` for tables, chains, rules, sets and objects, whoever changed them, we ourselves included; with ``table``
    only for tables of this name, of any family, and for messages that were lost. Flushing the ruleset tells of each table."""

    def __init__(self, on_change: Callable[[], None], table: str = "") -> None:
        self._on_change = on_change
        self._table = table.encode() + bytes(1)
        self._is_of_all = not table
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Subscribe, on the running event loop. Raises OSError, without CAP_NET_ADMIN among others."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
        try:
            sock.bind((0, 0))
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        except OSError:
            sock.close()
            raise
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable, sock)

    def close(self) -> None:
        """Unsubscribe."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self, sock: socket.socket) -> None:
        if any(self._matters(kind, body) for kind, body in read_messages(sock)):
            self._on_change()

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind == OVERRUN:
            return True
        if kind & MESSAGE_TYPE in HARMLESS:
            return False
        return self._is_of_all or pull_attributes(body[NFGENMSG_BYTES:]).get(NFTA_TABLE) == self._table
