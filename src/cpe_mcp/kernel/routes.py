"""Links, addresses, routes and rules through pyroute2: one look at all of it, and the changes a plan asks for.

pyroute2's plain interface behaves the same in 0.7.9 and 0.9.x only outside a running event loop (0.9 has one of its own
inside), so :class:`RouteKernel` lives in one thread and its callers wait for that thread.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

from cpe_mcp.kernel.light_pyroute2 import load
from cpe_mcp.kernel.numbers import MARK_MASK, RULE_LOCAL, RULE_WAN_BASE, TABLE_LOCAL, TABLE_WAN_BASE
from cpe_mcp.paths.observed import DeviceView, Observed, Route, Rule
from cpe_mcp.paths.reconcile import RoutePlan

log = logging.getLogger(__name__)

IPRoute, NetlinkError = load()

FAMILY = {socket.AF_INET: 4, socket.AF_INET6: 6}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
TABLE_MAIN = 254
MAX_WANS = 4
"""Two endpoints each, and the kernel has eight."""
OUR_TABLES = frozenset({TABLE_LOCAL, *range(TABLE_WAN_BASE, TABLE_WAN_BASE + MAX_WANS)})
OUR_PREFERENCES = frozenset({RULE_LOCAL, *range(RULE_WAN_BASE, RULE_WAN_BASE + 2 * MAX_WANS)})
IFF_UP, IFF_RUNNING = 0x1, 0x40
ADDRESS_UNFIT = 0x01 | 0x20 | 0x40
"""IFA_F_TEMPORARY, _DEPRECATED, _TENTATIVE: not for a subflow that is to last."""
SCOPE_UNIVERSE = 0
RTN_UNICAST, RTN_LOCAL = 1, 2
RTM_F_CLONED = 0x200


class RouteKernel:
    """The routing state of the namespace it was made in. Not for use inside a running event loop."""

    def __init__(self) -> None:
        self._iproute = IPRoute()

    def close(self) -> None:
        """Give the socket back."""
        self._iproute.close()

    def observe(self, names: Iterable[str]) -> Observed:
        """One look: devices of these names, and routes and rules of ours."""
        names = set(names)
        index_name: dict[int, str] = {}
        devices: dict[str, DeviceView] = {}
        for link in self._iproute.get_links():
            name = link.get_attr("IFLA_IFNAME")
            index_name[link["index"]] = name
            if name in names:
                is_up = link["flags"] & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING
                devices[name] = DeviceView(name, link["index"], is_up)
        for row in self._iproute.get_addr():
            device = devices.get(index_name.get(row["index"], ""))
            if device is not None:
                devices[device.name] = _with_address(device, row)
        routes: set[Route] = set()
        for family in AF.values():
            for row in self._iproute.get_routes(family=family):
                self._sort_route(row, index_name, devices, routes)
        rules: set[Rule] = set()
        for family in AF.values():
            for row in self._iproute.get_rules(family=family):
                rule = _rule(row)
                if rule.preference in OUR_PREFERENCES:
                    rules.add(rule)
        return Observed(devices, frozenset(routes), frozenset(rules))

    def apply(self, plan: RoutePlan) -> list[str]:
        """Carry out a plan. Returns what the kernel refused, one line each; the next round tries again."""
        problems: list[str] = []
        for rule in plan.delete_rules:
            self._do(problems, rule, lambda rule=rule: self._rule("del", rule))  # type: ignore[misc]
        for route in plan.delete_routes:
            self._do(problems, route, lambda route=route: self._route("del", route))  # type: ignore[misc]
        for route in plan.add_routes:
            self._do(problems, route, lambda route=route: self._route("replace", route))  # type: ignore[misc]
        for rule in plan.add_rules:
            self._do(problems, rule, lambda rule=rule: self._rule("add", rule))  # type: ignore[misc]
        return problems

    def _sort_route(
        self, row: Any, index_name: dict[int, str], devices: dict[str, DeviceView], routes: set[Route]
    ) -> None:
        table = row.get_attr("RTA_TABLE") or row["table"]
        device_name = index_name.get(row.get_attr("RTA_OIF") or 0, "")
        family = FAMILY[row["family"]]
        if row["flags"] & RTM_F_CLONED or not device_name:
            return
        destination = f"{row.get_attr('RTA_DST')}/{row['dst_len']}" if row["dst_len"] else "default"
        gateway = row.get_attr("RTA_GATEWAY") or ""
        if table in OUR_TABLES:
            source = (row.get_attr("RTA_PREFSRC") or "") if family == 4 else ""
            routes.add(Route(table, family, destination, gateway, device_name, source))
        elif table == TABLE_MAIN and row["type"] == RTN_UNICAST and device_name in devices:
            device = devices[device_name]
            if destination == "default":
                # Dumps come by metric, so the first default route of a device is its preferred one.
                if family == 4 and device.gateway4 is None:
                    devices[device_name] = device._replace(gateway4=gateway)
                elif family == 6 and device.gateway6 is None:
                    devices[device_name] = device._replace(gateway6=gateway)
            elif not gateway and not ipaddress.ip_network(destination).is_link_local:
                devices[device_name] = device._replace(networks=tuple(sorted({*device.networks, destination})))

    def _route(self, command: str, route: Route) -> None:
        is_local = route.table == TABLE_LOCAL
        request: dict[str, Any] = {
            "family": AF[route.family],
            "dst": "default" if route.destination == "default" else route.destination,
            "table": route.table,
            "oif": self._index(route.device),
            "type": "local" if is_local else "unicast",
        }
        if is_local:
            request["scope"] = 254  # host
        elif not route.gateway:
            request["scope"] = 253 if route.family == 4 else 0  # link
        if route.gateway:
            request["gateway"] = route.gateway
        if route.source:
            request["prefsrc"] = route.source
        self._iproute.route(command, **request)

    def _rule(self, command: str, rule: Rule) -> None:
        request: dict[str, Any] = {"family": AF[rule.family], "priority": rule.preference, "table": rule.table}
        if rule.source:
            request.update(src=rule.source, src_len=32 if rule.family == 4 else 128)
        if rule.device:
            request["oifname"] = rule.device
        if rule.mark:
            request.update(fwmark=rule.mark, fwmask=MARK_MASK)
        self._iproute.rule(command, **request)

    def _index(self, device: str) -> int:
        return socket.if_nametoindex(device)

    def _do(self, problems: list[str], subject: Route | Rule, action: Callable[[], None]) -> None:
        try:
            action()
        except (NetlinkError, OSError) as error:
            problems.append(f"{subject}: {error}")


def _with_address(device: DeviceView, row: Any) -> DeviceView:
    """The device with this address, if it is the first fit one of its family."""
    text = row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS")
    flags = row.get_attr("IFA_FLAGS") or row["flags"]
    if not text or row["scope"] != SCOPE_UNIVERSE or flags & ADDRESS_UNFIT:
        return device
    if row["family"] == socket.AF_INET:
        return device if device.address4 else device._replace(address4=text)
    return device if device.address6 else device._replace(address6=text)


def _rule(row: Any) -> Rule:
    return Rule(
        FAMILY[row["family"]],
        row.get_attr("FRA_PRIORITY") or 0,
        row.get_attr("FRA_TABLE") or row["table"],
        row.get_attr("FRA_SRC") or "",
        row.get_attr("FRA_OIFNAME") or "",
        row.get_attr("FRA_FWMARK") or 0,
    )
