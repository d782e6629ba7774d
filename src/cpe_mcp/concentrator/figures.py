"""What a concentrator has counted, as metric families by name. Pure: serving them is :mod:`.metrics`'s business.

Names and units follow Prometheus' conventions: base units, ``_total`` for what only grows (the client library adds it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PREFIX = "mcp_concentrator_"
BYTES_PER_MBIT = 125_000
COUNTER, GAUGE = "counter", "gauge"
ACCEPTED_PREFIX = "accepted:"
"""Of a worker's counter, before the listener's name."""
ERROR_PREFIX = "error:"
"""Of a worker's counter, before the code of a Convert Error (RFC 8803 section 4.2.8)."""


class SubscriberTotals(NamedTuple):
    """What one subscriber's finished flows add up to."""

    name: str
    flows: int
    bytes_up: int
    bytes_down: int
    cap_mbit: tuple[float, float] = (0.0, 0.0)
    """Down and up; 0: none."""


class Figures(NamedTuple):
    """Everything at one moment; nothing of it changes later, so that any thread may read it."""

    version: str
    kernel: str
    uptime_s: float
    workers: int
    """Relay workers that are connected now."""
    worker_restarts: int
    counters: Mapping[str, int]
    """Of all workers, added up; those that have gone included, but for what is only true now."""
    limits: Mapping[str, int]
    """How often each limit was reached, by name (:mod:`.limit_watch`)."""
    refusals: Mapping[str, int]
    """Finished connections that were refused, by reason."""
    cookies: Mapping[str, int]
    """Cookies by outcome: :attr:`cpe_mcp.concentrator.cookie_checker.CookieChecker.counters`."""
    cookies_remembered: int
    handles: Mapping[str, int]
    """:meth:`cpe_mcp.concentrator.handles.HandleSessions.counts`."""
    radius_enabled: bool
    radius: Mapping[str, int]
    """:attr:`cpe_mcp.aaa.radius.RadiusClient.counters`."""
    authorizations: Mapping[str, int]
    """:meth:`cpe_mcp.concentrator.authorizer.Authorizer.counts`."""
    asking: int
    """Addresses about which RADIUS is asked now."""
    table: Mapping[str, Any]
    """:meth:`cpe_mcp.concentrator.border.BorderKeeper.table_row`."""
    filters: Mapping[str, int]
    """Addresses that have each filter."""
    address_log: tuple[int, int]
    """Lines written, and those that could not be written everywhere."""
    accounting: Mapping[str, Any]
    """:meth:`cpe_mcp.concentrator.accounting.Accounting.status`."""
    dynamic: Mapping[str, int]
    """:attr:`cpe_mcp.aaa.dynamic_packets.DynamicAuthorization.counters`."""
    ident: Mapping[str, int]
    """Questions by what came of them (:mod:`.ident`)."""
    subscribers: Sequence[SubscriberTotals]
    """Empty unless the settings want them: they say who used how much (requirement 7.1-a)."""


class Family(NamedTuple):
    """One metric: every sample of it."""

    name: str
    kind: str
    """:data:`COUNTER` or :data:`GAUGE`."""
    doc: str
    labels: tuple[str, ...]
    samples: tuple[tuple[tuple[str, ...], float], ...]
    """Values of the labels, and the sample's value."""


def families(figures: Figures) -> list[Family]:
    """All of them, in the order of the manual's page. One without samples is left out."""
    counters = figures.counters
    found = [
        _one(GAUGE, "uptime_seconds", "Since the control daemon started.", figures.uptime_s),
        Family(
            f"{PREFIX}build",
            GAUGE,
            "Always 1; the labels say what runs.",
            ("version", "kernel"),
            (((figures.version, figures.kernel), 1.0),),
        ),
        _one(GAUGE, "workers", "Relay workers that are connected.", figures.workers),
        _one(COUNTER, "worker_restarts", "Relay workers that ended and were started again.", figures.worker_restarts),
        _by_label("connections_accepted", "Connections taken, by listener.", "listener", ACCEPTED_PREFIX, counters),
        _one(
            COUNTER,
            "connections_authorized",
            "Connections whose subscriber was accepted.",
            counters.get("authorized", 0),
        ),
        Family(
            f"{PREFIX}connections_refused",
            COUNTER,
            "Connections that were answered and not served, by reason.",
            ("reason",),
            tuple(((reason,), float(count)) for reason, count in sorted(figures.refusals.items())),
        ),
        Family(
            f"{PREFIX}cookies",
            COUNTER,
            "Convert Cookies by what came of them: taken, or the reason why not.",
            ("outcome",),
            tuple(((outcome,), float(count)) for outcome, count in sorted(figures.cookies.items())),
        ),
        _one(GAUGE, "cookies_remembered", "Cookies that are known as used.", figures.cookies_remembered),
        Family(
            f"{PREFIX}handles",
            GAUGE,
            "Subscribers known by a handle that holds, and those whose handles a Disconnect-Request has ended.",
            ("state",),
            tuple(((state,), float(count)) for state, count in sorted(figures.handles.items())),
        ),
        Family(
            f"{PREFIX}connections_dropped",
            COUNTER,
            "Connections reset at accept, unread, because descriptors are out.",
            ("cause",),
            ((("descriptors",), float(counters.get("refused_no_descriptors", 0))),),
        ),
        Family(
            f"{PREFIX}limit_reached",
            COUNTER,
            "What was dropped, reset or refused because a limit was reached, by limit.",
            ("limit",),
            tuple(((name,), float(count)) for name, count in figures.limits.items()),
        ),
        Family(
            f"{PREFIX}filter_addresses",
            GAUGE,
            "Source addresses that have a filter of RADIUS now, by filter.",
            ("filter",),
            tuple(((name,), float(count)) for name, count in figures.filters.items()),
        ),
        Family(
            f"{PREFIX}table_in_place",
            GAUGE,
            "1 while the nftables table that the settings want is in the kernel.",
            (),
            (((), float(figures.table["in_place"])),) if figures.table["wanted"] else (),
        ),
        _one(
            COUNTER,
            "table_disturbed",
            "How often somebody took the nftables table away, or changed it.",
            figures.table["disturbed"],
        ),
        _by_label("convert_errors", "Convert Error TLVs sent, by code (RFC 8803).", "code", ERROR_PREFIX, counters),
        _one(GAUGE, "half_open", "Connections that are not authenticated yet.", counters.get("half_open", 0)),
        _one(GAUGE, "warm_connections", "Authenticated connections that wait for a flow.", counters.get("waiting", 0)),
        _one(GAUGE, "flows_live", "Flows that carry bytes now.", counters.get("relaying", 0)),
        _one(
            GAUGE,
            "directions_held_back",
            "Directions of flows and speed tests that wait for their subscriber's cap now.",
            counters.get("held_back", 0),
        ),
        _one(
            GAUGE,
            "accounting_sessions",
            "Subscribers whose accounting session is open.",
            figures.accounting["sessions"],
        ),
        _one(COUNTER, "accounting_sent", "Accounting records that a server has taken.", figures.accounting["sent"]),
        _one(GAUGE, "accounting_waiting", "Accounting records that wait for a server.", figures.accounting["waiting"]),
        _one(COUNTER, "accounting_lost", "Accounting records for which there was no room.", figures.accounting["lost"]),
        _one(COUNTER, "address_log_lines", "Lines for the address log.", figures.address_log[0]),
        _one(
            COUNTER,
            "address_log_failures",
            "Lines that could not be written everywhere they should.",
            figures.address_log[1],
        ),
        _one(COUNTER, "flows", "Flows that were carried and are over.", counters.get("action_proxy", 0)),
        _one(
            COUNTER,
            "flows_plain_tcp",
            "Flows that are carried over plain TCP, because Multipath TCP was lost on the way.",
            counters.get("plain_tcp", 0),
        ),
        _one(
            COUNTER,
            "flows_lossy",
            "Flows that got the congestion control for lossy lines (congestion_control auto).",
            counters.get("robust", 0),
        ),
        Family(
            f"{PREFIX}bytes",
            COUNTER,
            "Bytes carried, those of live flows included.",
            ("direction",),
            ((("up",), float(counters.get("bytes_up", 0))), (("down",), float(counters.get("bytes_down", 0)))),
        ),
        Family(
            f"{PREFIX}authorizations",
            COUNTER,
            "How a worker came to know who a connection belongs to: remembered, or asked of the control daemon.",
            ("source",),
            (
                (("cache",), float(counters.get("verdict_cached", 0))),
                (("control",), float(counters.get("verdict_asked", 0))),
            ),
        ),
    ]
    if figures.radius_enabled:
        found.append(
            Family(
                f"{PREFIX}radius_packets",
                COUNTER,
                "RADIUS requests and retransmissions sent, answers taken, and datagrams ignored by kind.",
                ("kind",),
                tuple(((kind,), float(count)) for kind, count in sorted(figures.radius.items())),
            )
        )
        found.append(_one(GAUGE, "radius_asking", "Addresses about which RADIUS is asked now.", figures.asking))
        found.append(
            Family(
                f"{PREFIX}radius_addresses",
                GAUGE,
                "Addresses that are remembered, by what RADIUS said of them.",
                ("state",),
                tuple(((state,), float(count)) for state, count in sorted(figures.authorizations.items())),
            )
        )
    found.append(
        Family(
            f"{PREFIX}dynamic_requests",
            COUNTER,
            "CoA- and Disconnect-Requests by answer, retransmissions of them, and datagrams discarded by kind.",
            ("result",),
            tuple(((kind,), float(count)) for kind, count in sorted(figures.dynamic.items())),
        )
    )
    found.append(
        Family(
            f"{PREFIX}ident_questions",
            COUNTER,
            "Ident questions to routers by what came of them.",
            ("result",),
            tuple(((kind,), float(count)) for kind, count in sorted(figures.ident.items())),
        )
    )
    found += _by_subscriber(figures.subscribers)
    return [family for family in found if family.samples]


def _one(kind: str, name: str, doc: str, value: float) -> Family:
    return Family(PREFIX + name, kind, doc, (), (((), float(value)),))


def _by_label(name: str, doc: str, label: str, prefix: str, counters: Mapping[str, int]) -> Family:
    """A counter whose label is the rest of the worker's counters' names."""
    rows = {key[len(prefix) :]: count for key, count in counters.items() if key.startswith(prefix)}
    return Family(PREFIX + name, COUNTER, doc, (label,), tuple(((key,), float(rows[key])) for key in sorted(rows)))


def _by_subscriber(subscribers: Sequence[SubscriberTotals]) -> list[Family]:
    return [
        Family(
            f"{PREFIX}subscriber_cap_bytes_per_second",
            GAUGE,
            "Most that all connections of a subscriber get together; nothing for one without a cap.",
            ("subscriber", "direction"),
            tuple(
                ((row.name, direction), mbit * BYTES_PER_MBIT)
                for row in subscribers
                for direction, mbit in zip(("down", "up"), row.cap_mbit, strict=True)
                if mbit
            ),
        ),
        Family(
            f"{PREFIX}subscriber_flows",
            COUNTER,
            "Flows of a subscriber that are over.",
            ("subscriber",),
            tuple(((row.name,), float(row.flows)) for row in subscribers),
        ),
        Family(
            f"{PREFIX}subscriber_bytes",
            COUNTER,
            "Bytes of a subscriber's flows that are over.",
            ("subscriber", "direction"),
            tuple(
                sample
                for row in subscribers
                for sample in (((row.name, "up"), float(row.bytes_up)), ((row.name, "down"), float(row.bytes_down)))
            ),
        ),
    ]
