"""The settings-and-paths snapshot: all that a relay worker knows about the world.

The control daemon builds a new one whenever something changed and sends it whole; a worker never merges two. Plain
tuples, no dataclass: the workers import this module, and ``dataclasses`` alone would cost each of them 3 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cpe_mcp.aaa.cookie import Credential


class WanView(NamedTuple):
    """One WAN that may carry a first subflow, as a worker sees it."""

    name: str
    """UCI section name, the WAN's name everywhere."""
    device: str
    """Network device the first subflow is bound to (SO_BINDTODEVICE)."""
    address4: str
    """Source address of the first subflow towards an IPv4 concentrator, "" when the WAN has none."""
    address6: str
    """The same towards an IPv6 concentrator."""
    base_rtt_ms: float = 0.0
    """Smallest round trip of late, without the queue; 0 while nothing is known."""
    tier: int = 0
    """Of :mod:`cpe_mcp.paths.scheme`: one of a higher tier is for the time when those of a lower one have failed."""


class ConcentratorView(NamedTuple):
    """One concentrator that is worth connecting to now."""

    name: str
    """UCI section name, or ``dhcp4:wan#1`` and the like: where it came from."""
    addresses: tuple[str, ...]
    """Addresses of this one concentrator in the order they are tried, IPv4 or IPv6 text."""
    port: int
    credential: Credential
    """What cookies for it are made of (RFC 8803 section 4.2.7), one for each connection."""
    reaches_ipv6: bool
    """Proven to reach IPv6 servers; IPv6 is intercepted only then (design D14)."""
    foreign: bool = False
    """Another make of converter: a warm connection to it says nothing before it has a flow (design D2)."""
    service_class: tuple[str, ...] = ()
    """Serves only flows whose rule names one of these classes, or itself; empty: serves all others."""


class ClassView(NamedTuple):
    """A class of connections: what the user's rules say of some, and how the workers tell them from others."""

    number: int = 0
    """From 0 to 63. Odd: strict, so that a strict one is never taken for another while rules change."""
    strict: bool = False
    """Never direct (a rule with fallback block)."""
    scheme: str = ""
    """``lowest-latency`` or ``single:WAN``: each flow is bound to one WAN (design D3); "" for the scheme of all."""
    concentrator: str = ""
    """Name or service class of the concentrator that is asked first; "" for the first of the list."""


ORDINARY = ClassView()
"""Every connection that no rule gives another class."""


class Snapshot(NamedTuple):
    """What a worker needs to decide and to connect. Lists are in order of preference, best first."""

    generation: int
    """Grows by one with each snapshot of one control daemon's life; for logs only."""
    proxy: bool
    """False: every flow goes direct (no authorization, no concentrator, switched off)."""
    reason: str
    """Why ``proxy`` is what it is: a value of :class:`cpe_mcp.policy.reasons.Reason`."""
    wans: tuple[WanView, ...]
    """Usable WANs; the first one takes first subflows (design D5)."""
    concentrators: tuple[ConcentratorView, ...]
    """Usable concentrators; the first one takes new flows."""
    fallback: str
    """``direct`` or ``block``: what an accepted flow gets when no concentrator serves it (design D4)."""
    pool_size: int
    """Warm connections a worker keeps ready; 0 switches the pool off (design D2)."""
    pool_idle_s: float
    """Age at which a warm connection is replaced. Below the concentrator's own limit."""
    connect_timeout_s: float
    """For the concentrator to answer the handshake of a new connection."""
    reply_timeout_s: float
    """For the Convert reply, counted from the Connect TLV; the server's handshake is in it."""
    congestion_control: str
    """TCP congestion control of connections to the concentrator; "" leaves the kernel's default."""
    lossy_congestion_control: str
    """What one of them is changed to when its lines lose packets; "": none is."""
    scheme: str = "adaptive"
    """What distributes the bytes over the WANs; flows carry it in their records."""
    scheme_reason: str = ""
    """Why the WANs have their places now: a value of :class:`cpe_mcp.policy.reasons.Reason`."""
    other_wans: tuple[WanView, ...] = ()
    """Healthy WANs that take no first subflow under the scheme: only what a rule binds to one of them uses it."""
    classes: tuple[ClassView, ...] = ()
    """Those that rules make, ORDINARY not included."""
    dscp: tuple[int, ...] = ()
    """What each DSCP of a LAN client's SYN becomes on its flow: 64 values; empty: all become 0, and nothing is looked at."""


EMPTY = Snapshot(
    generation=0,
    proxy=False,
    reason="starting",
    wans=(),
    concentrators=(),
    fallback="direct",
    pool_size=0,
    pool_idle_s=0.0,
    connect_timeout_s=3.0,
    reply_timeout_s=10.0,
    congestion_control="",
    lossy_congestion_control="",
)
"""What a worker believes before the control daemon has spoken: everything direct."""


def to_wire(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as msgpack takes it."""
    wire = snapshot._asdict()
    wire["wans"] = [wan._asdict() for wan in snapshot.wans]
    wire["other_wans"] = [wan._asdict() for wan in snapshot.other_wans]
    wire["concentrators"] = [
        concentrator._asdict() | {"credential": concentrator.credential._asdict()}
        for concentrator in snapshot.concentrators
    ]
    wire["classes"] = [row._asdict() for row in snapshot.classes]
    return wire


def from_wire(wire: Mapping[str, Any]) -> Snapshot:
    """The reverse of :func:`to_wire`. Raises TypeError or KeyError on a shape that is not one."""
    fields = dict(wire)
    fields["wans"] = tuple(WanView(**wan) for wan in fields["wans"])
    fields["other_wans"] = tuple(WanView(**wan) for wan in fields.get("other_wans", ()))
    fields["concentrators"] = tuple(
        ConcentratorView(
            **{
                **row,
                "addresses": tuple(_texts(row["addresses"])),
                "credential": Credential(**row["credential"]),
                "service_class": tuple(_texts(row.get("service_class", ()))),
            }
        )
        for row in fields["concentrators"]
    )
    fields["classes"] = tuple(ClassView(**row) for row in fields.get("classes", ()))
    fields["dscp"] = tuple(fields.get("dscp", ()))
    return Snapshot(**fields)


def _texts(values: Sequence[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"a list of texts is wanted, not {values!r}")
    return list(values)
