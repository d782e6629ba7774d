"""Desired = f(settings, observed, health); the difference to what is there is applied, nothing else (design D3).

Everything here is a value: the same functions run at start, on every event and on a slow timer, and a second run right
after the first finds nothing to do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from cpe_mcp.kernel.numbers import MARK_LOCAL, RULE_LOCAL, RULE_WAN_BASE, TABLE_LOCAL, TABLE_WAN_BASE
from cpe_mcp.paths.observed import FLAG_BACKUP, FLAG_SUBFLOW, DeviceView, Endpoint, Observed, Route, Rule

FAMILIES = (4, 6)
RETURN_PAUSE_S = 0.3
"""Never add an endpoint earlier than this after it was deleted: without a pause a busy sender sometimes does not get the
line back (9 of 76 tries on Linux 6.18, 0 of 76 with 0.1 s)."""


def carrying(usable: Iterable[str], silent: Iterable[str]) -> frozenset[str]:
    """WANs that are to have endpoints: the usable ones; when there is none, those that are merely ``silent``.

    Deleting the last endpoint moves no flow anywhere. Left alone, TCP revives it within 1 s of a short outage, and flows
    outlive one of more than net.mptcp.close_timeout (60 s).
    """
    return frozenset(usable) or frozenset(silent)


SPARE_IDS = range(9, 256)
"""For an endpoint whose own id is taken: by somebody else's, by one that the kernel made itself (implicit), or by the old
address of its line. The kernel answers EBUSY for an id in use (6.18). Which id an endpoint has matters to nobody."""


class EndpointPlan(NamedTuple):
    """What the MPTCP endpoints should be."""

    add: tuple[Endpoint, ...]
    delete: tuple[Endpoint, ...]
    change: tuple[Endpoint, ...]
    """Flags only."""


def endpoint_id(number: int, family: int) -> int:
    """Of WAN ``number`` (order of the settings) and family, from 1 to 8: what it gets when that id is free."""
    return 1 + 2 * number + (family == 6)


def wanted_endpoints(
    order: Sequence[str], devices: Mapping[str, DeviceView], alive: Iterable[str], backup: Iterable[str]
) -> dict[int, Endpoint]:
    """Endpoints by id. ``order``: WAN names as in the settings; ``devices``, ``alive`` and ``backup`` by WAN name."""
    alive, backup = set(alive), set(backup)
    wanted: dict[int, Endpoint] = {}
    for number, name in enumerate(order):
        device = devices.get(name)
        if device is None or name not in alive:
            continue
        for family in FAMILIES:
            if device.address(family) and device.gateway(family) is not None:
                flags = FLAG_SUBFLOW | (FLAG_BACKUP if name in backup else 0)
                key = endpoint_id(number, family)
                wanted[key] = Endpoint(key, device.address(family), device.ifindex, flags)
    return wanted


def plan_endpoints(
    wanted: Mapping[int, Endpoint],
    actual: Sequence[Endpoint],
    ours: Iterable[int],
    deleted: Mapping[str, float],
    now: float,
    *,
    made: Collection[tuple[str, int]] = (),
    vanished: Collection[int] = (),
) -> EndpointPlan:
    """The difference. ``ours``: device indexes of managed WANs; endpoints elsewhere are somebody else's and stay.

    ``deleted``: when an address was last deleted; one that is too fresh is left for the next round. ``made``: address and
    device index of what we have added ourselves, and ``vanished``: device indexes that no longer exist. A WAN's device may
    be made anew under its old name (PPPoE, USB), and what was bound to the old one is of use to nobody.
    """
    ours = set(ours)
    flag_mask = FLAG_SUBFLOW | FLAG_BACKUP
    delete, change = [], []
    present: set[str] = set()
    by_place = {(endpoint.address, endpoint.device_index): endpoint for endpoint in wanted.values()}
    by_address: dict[str, Endpoint] = {}
    for endpoint in wanted.values():
        by_address.setdefault(endpoint.address, endpoint)  # an address is endpoint once: of the first WAN that has it
    for there in actual:
        want = by_place.get((there.address, there.device_index))
        if want is not None and there.flags & FLAG_SUBFLOW:
            present.add(there.address)
            if there.flags & flag_mask != want.flags & flag_mask:
                change.append(want._replace(id=there.id))
        elif (
            there.device_index in ours
            or there.address in by_address
            or (there.address, there.device_index) in made
            or (there.device_index in vanished and there.flags & FLAG_SUBFLOW)
        ):
            delete.append(there)
    missing = [
        want
        for want in by_address.values()
        if want.address not in present
        and want.address not in {gone.address for gone in delete}
        and now - deleted.get(want.address, float("-inf")) >= RETURN_PAUSE_S
    ]
    return EndpointPlan(tuple(_with_free_ids(missing, {there.id for there in actual})), tuple(delete), tuple(change))


def _with_free_ids(missing: Iterable[Endpoint], taken: set[int]) -> Iterable[Endpoint]:
    """What is to be added, with ids that the kernel takes: ids of what is about to be deleted count as taken, since adding
    comes first. One that finds none waits for the next round."""
    spare = (number for number in SPARE_IDS if number not in taken)
    for want in missing:
        number = want.id if want.id not in taken else next(spare, None)
        if number is not None:
            yield want._replace(id=number)


def wanted_routes(order: Sequence[str], devices: Mapping[str, DeviceView]) -> frozenset[Route]:
    """A table per WAN, connected networks and default, and the one that delivers marked packets locally.

    Whether a WAN is healthy does not matter here: probes need its table to find out.
    """
    routes = {Route(TABLE_LOCAL, family, "default", "", "lo", "") for family in FAMILIES}
    for number, name in enumerate(order):
        device = devices.get(name)
        if device is None or not device.is_up:
            continue
        table = TABLE_WAN_BASE + number
        for network in device.networks:
            version = ipaddress.ip_network(network).version
            if device.address(version):
                routes.add(Route(table, version, network, "", device.name, _source(device, version)))
        for family in FAMILIES:
            gateway = device.gateway(family)
            if gateway is not None and device.address(family):
                routes.add(Route(table, family, "default", gateway, device.name, _source(device, family)))
    return frozenset(routes)


def _source(device: DeviceView, family: int) -> str:
    """Only IPv4: an IPv6 route with a preferred source is refused while that address is still tentative."""
    return device.address4 if family == 4 else ""


def wanted_rules(order: Sequence[str], devices: Mapping[str, DeviceView]) -> frozenset[Rule]:
    """``from`` for bound sockets and replies, ``oif`` for a SYN whose source is not chosen yet, the mark for tproxy."""
    rules = {Rule(family, RULE_LOCAL, TABLE_LOCAL, "", "", MARK_LOCAL) for family in FAMILIES}
    for number, name in enumerate(order):
        device = devices.get(name)
        if device is None:
            continue
        for family in FAMILIES:
            table, preference = TABLE_WAN_BASE + number, RULE_WAN_BASE + 2 * number
            if device.address(family):
                rules.add(Rule(family, preference, table, device.address(family), "", 0))
                rules.add(Rule(family, preference + 1, table, "", device.name, 0))
    return frozenset(rules)


class RoutePlan(NamedTuple):
    """What to change, in this order: rules off, routes off, routes on, rules on."""

    delete_rules: tuple[Rule, ...]
    delete_routes: tuple[Route, ...]
    add_routes: tuple[Route, ...]
    add_rules: tuple[Rule, ...]

    def is_empty(self) -> bool:
        """Nothing to do."""
        return not any(self)


def plan_routes(routes: frozenset[Route], rules: frozenset[Rule], observed: Observed) -> RoutePlan:
    """The difference. Connected networks come before defaults, whose gateway must be reachable in the same table."""
    return RoutePlan(
        tuple(sorted(observed.rules - rules)),
        tuple(sorted(observed.routes - routes)),
        tuple(sorted(routes - observed.routes, key=lambda route: (route.destination == "default", route))),
        tuple(sorted(rules - observed.rules)),
    )
