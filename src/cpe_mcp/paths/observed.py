"""What the kernel shows of links, addresses, routes and rules, and what we want there: plain values, compared as sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Route(NamedTuple):
    """One route in a table of ours."""

    table: int
    family: int
    """4 or 6."""
    destination: str
    """Prefix, or ``default``."""
    gateway: str
    """"" for a directly connected network or a point-to-point line."""
    device: str
    source: str
    """Preferred source address, "" where the kernel may choose."""


class Rule(NamedTuple):
    """One routing rule of ours."""

    family: int
    preference: int
    table: int
    source: str
    """``from`` this address, "" for any."""
    device: str
    """``oif`` this device, "" for any."""
    mark: int
    """0 for none; compared under :data:`cpe_mcp.kernel.numbers.MARK_MASK`."""


FLAG_SUBFLOW, FLAG_BACKUP = 2, 4
"""MPTCP_PM_ADDR_FLAG_*: join from this address; use it only when no other subflow is left."""


class Endpoint(NamedTuple):
    """One address the kernel's MPTCP path manager may use."""

    id: int
    """1 to 255; the kernel keeps at most eight endpoints per namespace."""
    address: str
    device_index: int
    flags: int


class DeviceView(NamedTuple):
    """One network device as the kernel shows it."""

    name: str
    ifindex: int
    is_up: bool
    """Administratively up and with carrier."""
    address4: str = ""
    address6: str = ""
    """A global one that is neither tentative nor deprecated nor temporary."""
    networks: tuple[str, ...] = ()
    """Directly connected prefixes of both families."""
    gateway4: str | None = None
    """Of the default route in the main table, "" for one without a gateway, None without a default route."""
    gateway6: str | None = None

    def address(self, family: int) -> str:
        """By family, 4 or 6."""
        return self.address4 if family == 4 else self.address6

    def gateway(self, family: int) -> str | None:
        """By family, 4 or 6."""
        return self.gateway4 if family == 4 else self.gateway6

    def is_ready(self) -> bool:
        """Whether it has an address with a default route, in any family."""
        return any(self.address(family) and self.gateway(family) is not None for family in (4, 6))

    def without(self, address: str) -> DeviceView:
        """The same after an address has gone."""
        return self._replace(
            address4="" if address == self.address4 else self.address4,
            address6="" if address == self.address6 else self.address6,
        )


TCP_ESTABLISHED = 1
"""include/net/tcp_states.h"""


class Subflow(NamedTuple):
    """One subflow now."""

    local: str
    """Local address, IPv4 as such even on an IPv6 socket."""
    local_port: int
    remote: str
    remote_port: int
    state: int
    """TCP state number, such as TCP_ESTABLISHED."""
    retransmits: int
    """Timeouts in a row, 0 when the last segment was acknowledged."""
    unacked: int
    """Segments under way."""
    last_data_sent_ms: int
    last_ack_ms: int
    """Since the last acknowledgement."""
    rtt_ms: float
    """Smoothed, the queue of the line included."""
    rttvar_ms: float
    bytes_acked: int
    bytes_received: int
    segments_in: int
    received_rtt_ms: float = 0.0
    """From an acknowledgement sent to the data that it set free, by timestamps: the round trip as a receiver knows it, with
    the queue of the line. 0 while it is not known."""
    token: int = 0
    """Local token of its MPTCP connection; 0 for a plain TCP socket."""
    is_fallback: bool = False
    """MPTCP was asked for, and the handshake came back without it."""

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What names the subflow."""
        return (self.local, self.local_port, self.remote, self.remote_port)


EVENT_CREATED, EVENT_ESTABLISHED, EVENT_CLOSED = 1, 2, 3
EVENT_SUB_ESTABLISHED, EVENT_SUB_CLOSED, EVENT_SUB_PRIORITY = 10, 11, 13
"""MPTCP_EVENT_*: kinds of :class:`MptcpEvent`."""


class MptcpEvent(NamedTuple):
    """What the kernel tells of one MPTCP connection or subflow; fields that it left out are 0 or ""."""

    kind: int
    """EVENT_*, or a newer one."""
    token: int
    """Local token of the connection."""
    local: str = ""
    """Local address, IPv4 as such even on an IPv6 socket."""
    local_port: int = 0
    remote: str = ""
    remote_port: int = 0
    is_backup: bool = False
    error: int = 0
    """errno of a subflow that was closed: 104 reset, 110 timed out; 0 closed in peace."""
    reset_reason: int = 0
    """Of an MP_TCPRST that came with it (RFC 8684 section 3.6)."""
    is_server: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the kernel."""

    devices: dict[str, DeviceView]
    routes: frozenset[Route]
    """Those in tables of ours."""
    rules: frozenset[Rule]
    """Those with preferences of ours."""
