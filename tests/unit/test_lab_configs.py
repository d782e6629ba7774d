"""What the lab writes for programs: option bytes, our own settings, addresses that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest

from cpe_mcp.lab import configs
from cpe_mcp.lab.plan import ADDRESSES, HOSTS, cable_lines, host_lines, netns_name, netns_names
from cpe_mcp.settings.load import parse_concentrator, parse_router

pytestmark = pytest.mark.unit


def router(**given: Mapping[str, object]) -> str:
    return configs.router_settings(
        run_dir="/run/x",
        congestion_control="cubic",
        codes=(230, 65002),
        radius_secret="s",
        subscriber="alice",
        password="p",
        given=given,
    )


def concentrator(**given: Mapping[str, object]) -> str:
    return configs.concentrator_settings(
        run_dir="/run/y", congestion_control="cubic", radius_secret="s", address_password="p", given=given
    )


def test_dhcp4_option_is_the_layout_of_rfc_7291() -> None:
    value = configs.dhcp4_option_hex([["192.0.2.1", "192.0.2.2"], ["198.51.100.1"]])
    assert value.replace(":", "") == "08c0000201c000020204c6336401"


def test_dhcp6_option_is_the_addresses_of_one_mcp() -> None:
    value = configs.dhcp6_option_hex(["2001:db8::1", "2001:db8::2"])
    assert value.replace(":", "") == "20010db8000000000000000000000001" + "20010db8000000000000000000000002"


def test_router_settings_are_valid_and_the_labs() -> None:
    settings = parse_router(router())
    assert settings.general.intercept == "any"
    assert settings.general.congestion_control == "cubic"
    assert (settings.discovery.dhcp4_code, settings.discovery.dhcp6_code) == (230, 65002)
    assert settings.radius.enabled
    assert settings.radius.server == (ADDRESSES.radius.v4,)
    assert [(wan.name, wan.device) for wan in settings.wans] == [("dsl", "dsl"), ("lte", "lte")]
    assert settings.wans[0].preference < settings.wans[1].preference


def test_given_router_options_win_and_others_stay() -> None:
    given: dict[str, Mapping[str, object]] = {
        "global": {"pool_size": 0},
        "wan": {"lte": {"role": "backup"}},
        "concentrator": {"one": {"address": ["192.0.2.1", "2001:db8::1"]}},
        "rule": {"games": {"action": "proxy", "dest_port": ["27015"], "concentrator": "gaming"}},
    }
    text = router(**given)
    settings = parse_router(text)
    assert settings.general.pool_size == 0
    assert settings.general.intercept == "any"
    assert [(wan.device, wan.role) for wan in settings.wans] == [("dsl", "normal"), ("lte", "backup")]
    assert settings.concentrators[0].address == ("192.0.2.1", "2001:db8::1")
    assert [(rule.label(), rule.concentrator) for rule in settings.rules] == [("games", "gaming")]


def test_concentrator_settings_are_valid_and_the_labs() -> None:
    text = concentrator(subscriber={"bob": {"key": "0123456789abcdef"}}, radius={"enabled": False})
    settings = parse_concentrator(text)
    assert settings.listeners[0].facing == "customer"
    assert settings.destinations.allow == tuple(ADDRESSES.core)
    assert not settings.radius.enabled
    assert [subscriber.name for subscriber in settings.subscribers] == ["bob"]


def test_a_value_that_would_break_the_file_is_refused() -> None:
    with pytest.raises(ValueError, match="UCI"):
        router(radius={"secret": "it's"})


def test_addresses_are_in_their_networks_and_unique() -> None:
    networks = {
        "lan": ("cpe", "client1", "client2"),
        "dsl": ("cpe-dsl", "isp-dsl-access"),
        "lte": ("cpe-lte", "isp-lte-access"),
        "core": ("isp-dsl", "isp-lte", "concentrator1", "concentrator2", "radius", "server"),
    }
    seen = set()
    for network, names in networks.items():
        for name in names:
            for address, prefix in zip(ADDRESSES.of(name), ADDRESSES.of(network), strict=True):
                assert ip_address(address) in ip_network(prefix)
                seen.add(address)
    assert len(seen) == 2 * sum(map(len, networks.values()))


def test_every_host_has_a_cable_and_a_default_route() -> None:
    cables = "\n".join(cable_lines("lab"))
    for host in HOSTS:
        assert netns_name("lab", host) in netns_names("lab")
        assert host == "cpe" or f" netns {netns_name('lab', host)} " in cables
        if host != "cpe" and not host.startswith("isp-"):
            assert sum(line.startswith("route add default") for line in host_lines(host)) == 2
