"""Configuration of the programs in the lab, as text. No IO.

Nothing of the machine's own /etc is used; every path is inside the lab's state directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from cpe_mcp.lab.plan import (
    ACCESS_DEVICE,
    ADDRESSES,
    LAN_DEVICE,
    LINK_NAMES,
    UPLINK_DEVICE,
    WAN_METRICS,
    Addresses,
    Both,
)

PORT_FORWARD_PORT = 8080
"""On the cpe's WAN side, forwarded to the same port of client2."""
NFT_TABLE = "lab_router"
"""Family inet, in the cpe: what firewall4 would do. Chains input, forward, prerouting, postrouting."""
STRIP_TABLE = "lab_strip"
"""Family inet, in an access network that strips MPTCP."""
LEASE_S = 600
UPLOAD_PATH = "/upload/"
SMALL_FILE = "small"
SMALL_FILE_BYTES = 1000
"""Fits one segment: for times to first byte."""

Section = tuple[str, str, Mapping[str, object]]
"""UCI: type, name, options. A list or tuple is a UCI list, True and False are 1 and 0."""


def uci_text(sections: Sequence[Section]) -> str:
    """A UCI file. Raises ValueError for a value that has a quote or a line end: the lab needs none."""
    lines = []
    for kind, name, options in sections:
        lines.append(f"config {kind} '{name}'")
        for option, value in options.items():
            if isinstance(value, list | tuple):
                lines += [f"\tlist {option} '{_uci_value(item)}'" for item in value]
            else:
                lines.append(f"\toption {option} '{_uci_value(value)}'")
        lines.append("")
    return "\n".join(lines)


def _uci_value(value: object) -> str:
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if "'" in text or "\n" in text:
        raise ValueError(f"{text!r} cannot be written as a UCI value")
    return text


def router_settings(
    *,
    run_dir: str,
    congestion_control: str,
    codes: tuple[int, int],
    radius_secret: str,
    subscriber: str,
    password: str,
    given: Mapping[str, Mapping[str, Any]],
) -> str:
    """``/etc/config/cpe-mcp`` of the cpe: the lab's own values, and over them those given.

    ``given``: section type (``global``, ``paths``, ``discovery``, ``radius``, ``ident``, ``logging``) -> options, and ``wan``,
    ``concentrator`` and ``rule`` -> section name -> options. The lab's addresses are not global, so any destination is taken.
    """
    wans: dict[str, dict[str, object]] = {
        name: {"device": name, "preference": metric, "operator_network": True} for name, metric in WAN_METRICS.items()
    }
    for name, options in given.get("wan", {}).items():
        wans[name] = {**wans.get(name, {}), **options}
    own: dict[str, dict[str, object]] = {
        "global": {"intercept": "any", "run_dir": run_dir, "congestion_control": congestion_control},
        "paths": {},
        "discovery": {"dhcp4_code": codes[0], "dhcp6_code": codes[1]},
        "radius": {
            "enabled": True,
            "server": [ADDRESSES.radius.v4],
            "secret": radius_secret,
            "username": subscriber,
            "password": password,
        },
        "ident": {},
        "logging": {},
    }
    return uci_text(
        [(kind, kind, {**options, **given.get(kind, {})}) for kind, options in own.items()]
        + [("wan", name, options) for name, options in wans.items()]
        + [(kind, name, options) for kind in ("concentrator", "rule") for name, options in given.get(kind, {}).items()]
    )


def concentrator_settings(
    *,
    run_dir: str,
    congestion_control: str,
    radius_secret: str,
    address_password: str,
    given: Mapping[str, Mapping[str, Any]],
) -> str:
    """``/etc/config/mcp-concentrator``: it faces customers, asks RADIUS about source addresses, and may reach the core
    network, whose addresses are not global.

    ``given``: section type (``global``, ``listener``, ``destinations``, ``radius``, ``limits``, ``ident``, ``dynamic``) ->
    options, and ``subscriber`` -> section name -> options.
    """
    own: dict[str, dict[str, object]] = {
        "global": {"run_dir": run_dir, "congestion_control": congestion_control},
        "listener": {"facing": "customer"},
        "destinations": {"allow": list(ADDRESSES.core)},
        "limits": {},
        "radius": {
            "enabled": True,
            "server": [ADDRESSES.radius.v4],
            "secret": radius_secret,
            "password": address_password,
        },
        "ident": {},
        "dynamic": {},
    }
    return uci_text(
        [(kind, kind, {**options, **given.get(kind, {})}) for kind, options in own.items()]
        + [("subscriber", name, options) for name, options in given.get("subscriber", {}).items()]
    )


def dhcp4_option_hex(mcps: Sequence[Sequence[str]]) -> str:
    """The DHCPv4 option's value, bytes in hex with colons: for each MCP the length of its list, then its addresses."""
    value = b""
    for addresses in mcps:
        packed = b"".join(IPv4Address(address).packed for address in addresses)
        value += bytes([len(packed)]) + packed
    return value.hex(":")


def dhcp6_option_hex(mcp: Sequence[str]) -> str:
    """The DHCPv6 option's value: the addresses of one MCP."""
    return b"".join(IPv6Address(address).packed for address in mcp).hex(":")


def dnsmasq_conf(
    link: str,
    directory: str,
    *,
    dhcp4_option: tuple[int, str] | None,
    dhcp6_option: tuple[int, str] | None,
    address: Both | None = None,
    domain: tuple[int, str] | None = None,
) -> str:
    """The provider's DHCP server and router advertisements. An option is its code and its value in hex with colons.
    ``address`` is what it has to give; ``domain`` is the code of an option and the domain in it.

    dnsmasq 2.90 sends one instance of a DHCPv6 option however often it is configured (seen on the wire), so the lab's
    DHCPv6 server announces one MCP. No ping before an offer: it would take 3 s.
    """
    address = address or ADDRESSES.of(f"cpe-{link}")
    lines = [
        "port=0",
        "user=root",
        "no-ping",
        "dhcp-authoritative",
        "enable-ra",
        f"interface={ACCESS_DEVICE}",
        "except-interface=lo",
        "bind-interfaces",
        f"dhcp-leasefile={directory}/leases",
        f"dhcp-range={address.v4},{address.v4},255.255.255.0,{LEASE_S}",
        f"dhcp-range={address.v6},{address.v6},64,{LEASE_S}",
    ]
    if dhcp4_option:
        lines.append(f"dhcp-option-force={dhcp4_option[0]},{dhcp4_option[1]}")
    if domain:
        lines.append(f"dhcp-option-force={domain[0]},{domain[1]}")
    if dhcp6_option:
        lines.append(f"dhcp-option=option6:{dhcp6_option[0]},{dhcp6_option[1]}")
    return "\n".join(lines) + "\n"


def udhcpc_script(link: str, hook_directory: str, bound_mark: str) -> str:
    """What netifd's dhcp.script does for one interface: address, default route, then the hooks of udhcpc.user.d.

    ``bound_mark``: a file that is there while the interface has its address and the hooks have run.
    """
    return f"""#!/bin/sh
# made by the lab; $1 is the event of udhcpc
case "$1" in
deconfig)
	rm -f "{bound_mark}"
	ip -4 address flush dev "$interface"
	;;
bound|renew)
	for old in $(ip -4 -o address show dev "$interface" | sed -n 's/.* inet \\([^ ]*\\) .*/\\1/p'); do
		[ "$old" = "$ip/$mask" ] || ip -4 address del "$old" dev "$interface"
	done
	ip -4 address replace "$ip/$mask" broadcast "$broadcast" dev "$interface"
	for gateway in $router; do
		ip -4 route replace default via "$gateway" dev "$interface" metric {WAN_METRICS[link]} proto static
		break
	done
	;;
esac
for hook in {hook_directory}/*; do
	[ -f "$hook" ] && (. "$hook" "$@")
done
case "$1" in bound|renew) : >"{bound_mark}" ;; esac
exit 0
"""


def dhclient_conf(code: int) -> str:
    """A DHCPv6 client that asks for the option and shows its bytes."""
    return f"""option dhcp6.mcp code {code} = array of unsigned integer 8;
request dhcp6.name-servers, dhcp6.mcp;
"""


def dhclient_script(link: str, code: int, bound_mark: str) -> str:
    """What odhcp6c and netifd do for one interface: the address, and the options as odhcp6c's PASSTHRU has them.

    The lease file says ``passthru=`` hex of TLVs (option code and length in two octets each) and ``lease=`` seconds.
    ``bound_mark`` as for :func:`udhcpc_script`.
    """
    return f"""#!/bin/sh
# made by the lab; $reason is the event of dhclient -6
lease="$CPE_MCP_RUN_DIR/dhcp/{link}.v6"
case "$reason" in
BOUND6|RENEW6|REBIND6)
	ip -6 address replace "$new_ip6_address/128" dev "$interface" nodad \\
		valid_lft "$new_max_life" preferred_lft "$new_preferred_life"
	passthru=
	if [ -n "$new_dhcp6_mcp" ]; then
		set -- $new_dhcp6_mcp
		passthru=$(printf '%04x%04x' {code} $#; printf '%02x' "$@")
	fi
	mkdir -p "${{lease%/*}}"
	{{
		echo "passthru=$passthru"
		echo "lease=$new_max_life"
		read -r uptime rest </proc/uptime
		echo "uptime=${{uptime%.*}}"
	}} >"$lease.new" && mv "$lease.new" "$lease" && : >"{bound_mark}"
	;;
EXPIRE6|RELEASE6|STOP6)
	rm -f "{bound_mark}"
	[ -n "$old_ip6_address" ] && ip -6 address del "$old_ip6_address/128" dev "$interface"
	rm -f "$lease"
	;;
esac
exit 0
"""


def router_nft() -> str:
    """The cpe's own firewall, as a stock router has it: nothing comes in from a WAN except what was asked for and the
    port forward; both families are masqueraded."""
    wans = ", ".join(f'"{name}"' for name in LINK_NAMES)
    return f"""table inet {NFT_TABLE} {{
	chain input {{
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iifname {{ lo, "{LAN_DEVICE}" }} accept
		meta l4proto {{ icmp, icmpv6 }} accept
		udp dport {{ 68, 546 }} accept
		tcp flags syn reject with tcp reset
	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "{LAN_DEVICE}" accept
		ct status dnat accept
		reject
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat;
		iifname {{ {wans} }} meta nfproto ipv4 tcp dport {PORT_FORWARD_PORT} dnat ip to {ADDRESSES.client2.v4}
		iifname {{ {wans} }} meta nfproto ipv6 tcp dport {PORT_FORWARD_PORT} dnat ip6 to {ADDRESSES.client2.v6}
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat;
		oifname {{ {wans} }} masquerade
	}}
}}
"""


def provider_nft(link: str, addresses: Addresses = ADDRESSES) -> str:
    """An access network takes only packets with a source address of its own (BCP 38): wrong source routing shows."""
    prefix = addresses.of(link)
    translate = ""
    if link in addresses.translated:
        translate = f"""
	chain postrouting {{
		type nat hook postrouting priority srcnat;
		oifname "{UPLINK_DEVICE}" meta nfproto ipv4 masquerade
	}}"""
    return f"""table inet lab_provider {{
	chain prerouting {{
		type filter hook prerouting priority raw;
		iifname "{ACCESS_DEVICE}" ip saddr != {{ {prefix.v4}, 0.0.0.0 }} counter drop
		iifname "{ACCESS_DEVICE}" ip6 saddr != {{ {prefix.v6}, fe80::/10, :: }} counter drop
	}}{translate}
}}
"""


def strip_mptcp_nft() -> str:
    """A middlebox in an access network that replaces every MPTCP option by padding, both ways."""
    return f"""table inet {STRIP_TABLE} {{
	chain prerouting {{
		type filter hook prerouting priority raw;
		tcp option mptcp exists counter reset tcp option mptcp
	}}
}}
"""


def nginx_conf(directory: str) -> str:
    """The web server: files of ``www``, and PUT into UPLOAD_PATH, where they can be read back."""
    return f"""user root;
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
	access_log off;
	default_type application/octet-stream;
	sendfile on;
	client_max_body_size 0;
	client_body_temp_path {directory}/body;
	proxy_temp_path {directory}/proxy;
	fastcgi_temp_path {directory}/fastcgi;
	scgi_temp_path {directory}/scgi;
	uwsgi_temp_path {directory}/uwsgi;
	server {{
		listen 80 backlog=4096;
		listen [::]:80 backlog=4096;
		root {directory}/www;
		location {UPLOAD_PATH} {{
			dav_methods PUT DELETE;
		}}
	}}
}}
"""
