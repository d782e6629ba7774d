"""The network of the lab on paper: hosts, devices, addresses, and the ``ip`` lines that make them. No IO.

::

    client1 --+                 +== dsl ==  isp-dsl --+
              +-- br-lan  cpe --+                     +-- core --+-- concentrator1, concentrator2
    client2 --+                 +== lte ==  isp-lte --+          +-- radius
                                                                 +-- server

Single lines are veth pairs into a bridge, double ones emulated lines. The IPv4 addresses are private and the IPv6 ones
from the documentation prefix (RFC 3849): neither is global, so the programs under test must be told to serve them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LAN_DEVICE = "br-lan"
ACCESS_DEVICE = "access"
"""The provider's end of an emulated line."""
UPLINK_DEVICE = "eth0"
"""Of every host towards its switch, and of the providers towards the core."""
CORE = "core"
CORE_BRIDGE = "br0"
LINK_NAMES = ("dsl", "lte")
HOSTS = ("client1", "client2", "cpe", "isp-dsl", "isp-lte", "concentrator1", "concentrator2", "radius", "server")
WAN_METRICS = {"dsl": 10, "lte": 20}
"""Of the default routes of the cpe: dsl is the one that plain forwarding uses."""
TAP_QUEUE_PACKETS = 2000
"""Holds what comes while the emulator waits for a processor: the line's own queue decides about drops, not this one."""
NETNS_PREFIX = "cpemcp-"


class Both(NamedTuple):
    """The IPv4 and the IPv6 address, or prefix, of one thing."""

    v4: str
    v6: str


class Addresses(NamedTuple):
    """Every address of the lab. The cpe's two WAN addresses come by DHCP; each line has just one to give."""

    cpe: Both = Both("192.168.77.1", "2001:db8:77::1")
    client1: Both = Both("192.168.77.11", "2001:db8:77::11")
    client2: Both = Both("192.168.77.12", "2001:db8:77::12")
    cpe_dsl: Both = Both("10.11.0.100", "2001:db8:11::100")
    cpe_lte: Both = Both("10.12.0.100", "2001:db8:12::100")
    isp_dsl_access: Both = Both("10.11.0.1", "2001:db8:11::1")
    isp_lte_access: Both = Both("10.12.0.1", "2001:db8:12::1")
    isp_dsl: Both = Both("10.20.0.1", "2001:db8:20::1")
    isp_lte: Both = Both("10.20.0.2", "2001:db8:20::2")
    concentrator1: Both = Both("10.20.0.10", "2001:db8:20::10")
    concentrator2: Both = Both("10.20.0.11", "2001:db8:20::11")
    radius: Both = Both("10.20.0.20", "2001:db8:20::20")
    server: Both = Both("10.20.0.30", "2001:db8:20::30")
    lan: Both = Both("192.168.77.0/24", "2001:db8:77::/64")
    dsl: Both = Both("10.11.0.0/24", "2001:db8:11::/64")
    lte: Both = Both("10.12.0.0/24", "2001:db8:12::/64")
    core: Both = Both("10.20.0.0/24", "2001:db8:20::/64")
    translated: tuple[str, ...] = ()
    """Lines whose provider gives their IPv4 packets its own address: nobody outside knows the prefix."""

    def of(self, name: str) -> Both:
        """By host or prefix name, with its dash: ``isp-dsl``."""
        found: Both = getattr(self, name.replace("-", "_"))
        return found


ADDRESSES = Addresses()
SAME_RANGE = ADDRESSES._replace(
    lte=Both(ADDRESSES.dsl.v4, ADDRESSES.lte.v6),
    isp_lte_access=Both(ADDRESSES.isp_dsl_access.v4, ADDRESSES.isp_lte_access.v6),
    cpe_lte=Both("10.11.0.200", ADDRESSES.cpe_lte.v6),
    translated=("lte",),
)
"""Both lines with the same IPv4 prefix and gateway, as behind two modems with the same factory settings."""
NEXT_ADDRESSES = {"dsl": "10.11.0.101", "lte": "10.12.0.101"}


def next_address(link: str) -> str:
    """The IPv4 address that a line's provider gives when it gives another one; RADIUS knows it as the subscriber's too."""
    return NEXT_ADDRESSES[link]


PREFIX_LENGTHS = Both("24", "64")
LAN_HOSTS = ("client1", "client2")
CORE_HOSTS = ("isp-dsl", "isp-lte", "concentrator1", "concentrator2", "radius", "server")


def netns_name(lab: str, host: str) -> str:
    """The network namespace of a host."""
    return f"{NETNS_PREFIX}{lab}-{host}"


def netns_names(lab: str) -> list[str]:
    """All namespaces of a lab, the core switch included."""
    return [netns_name(lab, host) for host in (*HOSTS, CORE)]


def cable_lines(lab: str) -> list[str]:
    """``ip`` lines, for the first namespace, that make every veth pair with both ends already in place."""
    lines = []
    for hosts, switch in ((LAN_HOSTS, "cpe"), (CORE_HOSTS, CORE)):
        for host in hosts:
            lines.append(
                f"link add {UPLINK_DEVICE} netns {netns_name(lab, host)} type veth "
                f"peer name {host} netns {netns_name(lab, switch)}"
            )
    return lines


def switch_lines(bridge: str, ports: Sequence[str]) -> list[str]:
    """``ip`` lines of a namespace with a bridge: it forwards from the first packet on."""
    lines = [f"link add {bridge} type bridge forward_delay 0 stp_state 0", "link set lo up"]
    for port in ports:
        lines += [f"link set {port} master {bridge}", f"link set {port} up"]
    return [*lines, f"link set {bridge} up"]


def host_lines(host: str, addresses: Addresses = ADDRESSES) -> list[str]:
    """``ip`` lines of one host: addresses and routes. Emulated lines must exist already."""
    if host == "cpe":
        lines = [*switch_lines(LAN_DEVICE, LAN_HOSTS), *_address_lines(LAN_DEVICE, addresses.cpe)]
        return lines + [f"link set {name} txqueuelen {TAP_QUEUE_PACKETS} up" for name in LINK_NAMES]
    lines = ["link set lo up", f"link set {UPLINK_DEVICE} up", *_address_lines(UPLINK_DEVICE, addresses.of(host))]
    if host in LAN_HOSTS:
        return lines + _route_lines(Both("default", "default"), addresses.cpe)
    for name in LINK_NAMES:
        if host == f"isp-{name}":
            lines += [
                f"link set {ACCESS_DEVICE} txqueuelen {TAP_QUEUE_PACKETS} up",
                *_address_lines(ACCESS_DEVICE, addresses.of(f"isp-{name}-access")),
            ]
        else:
            own = addresses.of(host.removeprefix("isp-")) if host.startswith("isp-") else None
            routes = _route_lines(addresses.of(name), addresses.of(f"isp-{name}"))
            hides4 = name in addresses.translated or (own is not None and own.v4 == addresses.of(name).v4)
            lines += routes[1:] if hides4 else routes
    if not host.startswith("isp-"):
        lines += _route_lines(Both("default", "default"), addresses.isp_dsl)
    return lines


def neighbours(host: str, addresses: Addresses = ADDRESSES) -> list[str]:
    """Whom a host of the LAN or the core has to do with on its own link; the cpe's lines are not links of this kind."""
    if host in LAN_HOSTS:
        return [*addresses.cpe]
    if host == "cpe" or host.startswith("isp-"):
        return []
    return [*addresses.isp_dsl, *addresses.isp_lte, *(addresses.server if host.startswith("concentrator") else ())]


def _address_lines(device: str, addresses: Both) -> list[str]:
    return [
        f"address add {address}/{length} dev {device}{nodad}"
        for address, length, nodad in zip(addresses, PREFIX_LENGTHS, ("", " nodad"), strict=True)
    ]


def _route_lines(prefixes: Both, gateways: Both) -> list[str]:
    return [f"route add {prefix} via {gateway}" for prefix, gateway in zip(prefixes, gateways, strict=True)]
