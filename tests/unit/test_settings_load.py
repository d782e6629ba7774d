"""Settings files: kinds, ranges, what holds between options, and that no message shows a secret."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpe_mcp.settings import (
    ConcentratorSettings,
    RouterSettings,
    SettingsError,
    load_concentrator,
    load_router,
    mask_secrets,
    parse_concentrator,
    parse_router,
    split_host,
    warnings_of,
)
from cpe_mcp.settings.load import CONCENTRATOR_SECTIONS, ROUTER_SECTIONS
from cpe_mcp.settings.option import declared_options

pytestmark = pytest.mark.unit

HOME = """
config global 'global'
	list lan 'br-lan'
	list lan 'br-office'
	option fallback 'block'

config wan 'dsl'
	option device 'eth1'
	option rate_down_mbit '100'

config wan 'lte'
	option device 'wwan0'
	option preference '20'
	option role 'backup'
	option enabled 'off'

config concentrator 'home'
	list address '192.0.2.1'
	list address '2001:DB8::1'
	option subscriber 'alice'
	option key 'pl4nted-key'

config radius
	option enabled 'yes'
	option server '192.0.2.7:1812'
	option secret 'pl4nted-secret'
	option username 'alice@isp.example'
	option password 'pl4nted-password'
"""


def refusal(text: str, *, concentrator: bool = False) -> str:
    """The message a file is refused with."""
    with pytest.raises(SettingsError) as caught:
        (parse_concentrator if concentrator else parse_router)(text, "FILE")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_an_empty_file_is_the_defaults() -> None:
    assert parse_router("") == RouterSettings()
    assert parse_concentrator("# nothing\n") == ConcentratorSettings()


def test_a_home_router() -> None:
    settings = parse_router(HOME)
    assert settings.general.lan == ("br-lan", "br-office")
    assert settings.general.fallback == "block"
    assert [wan.name for wan in settings.wans] == ["dsl", "lte"]
    assert settings.wans[0].rate_down_mbit == 100.0
    assert (settings.wans[1].preference, settings.wans[1].role, settings.wans[1].enabled) == (20, "backup", False)
    assert settings.concentrators[0].address == ("192.0.2.1", "2001:db8::1")
    assert settings.radius.enabled
    assert settings.radius.server == ("192.0.2.7:1812",)


def test_wans_keep_the_order_of_the_file() -> None:
    names = ["zeta", "alpha", "mid"]
    text = "".join(f"config wan '{name}'\n option device 'dev_{name}'\n" for name in names)
    assert [wan.name for wan in parse_router(text).wans] == names


def test_listeners_of_the_file_replace_the_default_one() -> None:
    settings = parse_concentrator("config listener 'a'\n option port 443\n")
    assert [(listener.name, listener.port) for listener in settings.listeners] == [("a", 443)]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("0", False),
        ("off", False),
        ("No", False),
        ("false", False),
        ("1", True),
        ("on", True),
        ("yes", True),
        ("TRUE", True),
    ],
)
def test_flags(word: str, value: bool) -> None:
    assert parse_router(f"config discovery\n option dhcp {word}\n").discovery.dhcp is value


def test_an_empty_list_element_sets_the_list_to_nothing() -> None:
    assert parse_router("config global\n list lan ''\n").general.lan == ()


ROUTER_REFUSALS = [
    (
        "config wan 'lte'\n option device 'wwan0'\n option quota_gb '50 GB'\n",
        "FILE:3: section wan 'lte', option quota_gb: '50 GB' is not allowed; a number from 0 to 1000000, in GB",
    ),
    (
        "config wan 'lte'\n option device 'wwan0'\n option quota_day '0'\n",
        "FILE:3: section wan 'lte', option quota_day: '0' is not allowed; an integer from 1 to 31",
    ),
    (
        "config wan 'lte'\n option device 'wwan0'\n option quota_soft_percent '101'\n",
        "FILE:3: section wan 'lte', option quota_soft_percent: '101' is not allowed; an integer from 1 to 100, in %",
    ),
    (
        "config wan 'dsl'\n option device 'eth1'\n option preference '-3'\n",
        "FILE:3: section wan 'dsl', option preference: '-3' is not allowed; an integer from 0 to 1000",
    ),
    (
        "config global\n option workers '1.5'\n",
        "FILE:2: section global, option workers: '1.5' is not allowed; an integer from 1 to 16",
    ),
    (
        "config paths\n option busy_s 'nan'\n",
        "FILE:2: section paths, option busy_s: 'nan' is not allowed; a number from 0.1 to 60, in s",
    ),
    (
        "config paths\n option busy_s '1e1'\n",
        "FILE:2: section paths, option busy_s: '1e1' is not allowed; a number from 0.1 to 60, in s",
    ),
    (
        "config global\n option fallback ''\n",
        "FILE:2: section global, option fallback: '' is not allowed; one of direct, block",
    ),
    (
        "config global\n option enabled 'maybe'\n",
        "FILE:2: section global, option enabled: 'maybe' is not allowed; 0 or 1 (or off/on, no/yes, false/true)",
    ),
    (
        "config concentrator 'c'\n list address 'host.example'\n",
        "FILE:2: section concentrator 'c', option address: 'host.example' is not allowed; an IPv4 or IPv6 address",
    ),
    (
        "config radius\n list server '[::1]:0'\n",
        "FILE:2: section radius, option server: '[::1]:0' is not allowed; ADDRESS, IPV4:PORT or [IPV6]:PORT",
    ),
    ("config wann 'x'\n", "FILE:1: section wann 'x': no such section type; did you mean 'wan'?"),
    (
        "config wan 'x'\n option devise y\n",
        "FILE:2: section wan 'x', option devise: no such option; did you mean 'device'?",
    ),
    ("config wan 'x'\n option name y\n", "FILE:2: section wan 'x', option name: no such option"),
    (
        "config wan 'x'\n list device y\n",
        "FILE:2: section wan 'x', option device: takes one value: write option device, not list device",
    ),
    (
        "config wan 'x'\n option device y\n option device z\n",
        "FILE:3: section wan 'x', option device: is set already on line 2",
    ),
    (
        "config global\n option lan y\n option lan z\n",
        "FILE:3: section global, option lan: is set already on line 2: write list lan for each value",
    ),
    ("config wan\n option device y\n", "FILE:1: section wan: needs a name: config wan 'NAME'"),
    (
        "config wan a\n option device y\nconfig wan a\n option device z\n",
        "FILE:3: section wan 'a': name is taken on line 1",
    ),
    (
        "config paths a\nconfig paths b\n",
        "FILE:2: section paths 'b': only one section of this type is allowed, and there is one on line 1",
    ),
    ("config wan 'x'\n", "FILE:1: section wan 'x', option device: is required: the network device, for example eth1"),
    (
        "config wan a\n option device y\nconfig wan b\n option device y\n",
        "FILE:4: section wan 'b', option device: 'y' is wan 'a' already",
    ),
    (
        "config wan a\n option device br-lan\n",
        "FILE:2: section wan 'a', option device: 'br-lan' is in the list lan of section global",
    ),
    (
        "config paths\n option idle_percent 70\n",
        "FILE:2: section paths, option idle_percent: '70' is not allowed; less than busy_percent, which is 70",
    ),
    (
        "config paths\n option busy_percent 40\n",
        "FILE:1: section paths, option idle_percent: '50' is not allowed; less than busy_percent, which is 40",
    ),
    (
        "config concentrator 'c'\n",
        "FILE:1: section concentrator 'c', option address: is required: list address 'ADDRESS'",
    ),
    (
        "config concentrator 'c'\n list address 192.0.2.1\n option key k\n",
        "FILE:1: section concentrator 'c', option subscriber: is required when key is set",
    ),
    (
        "config concentrator 'c'\n list address 192.0.2.1\n option subscriber s\n",
        "FILE:1: section concentrator 'c', option key: is required when subscriber is set",
    ),
    (
        "config radius\n option enabled 1\n list server 192.0.2.1\n option secret s\n",
        "FILE:1: section radius, option username: is required when RADIUS is enabled",
    ),
]


@pytest.mark.parametrize(("text", "message"), ROUTER_REFUSALS)
def test_what_is_wrong_on_the_router_is_named(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize("code", [249, 252])
def test_dhcp4_codes_that_mean_something_else_are_refused(code: int) -> None:
    message = refusal(f"config discovery\n option dhcp4_code {code}\n")
    assert message.startswith(f"FILE:2: section discovery, option dhcp4_code: '{code}' is not allowed")
    assert parse_router("config discovery\n option dhcp4_code 250\n").discovery.dhcp4_code == 250


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config subscriber 'a'\n", "FILE:1: section subscriber 'a': needs a key or an address"),
        (
            "config subscriber 'a'\n list address 192.0.2.1/24\n",
            "FILE:2: section subscriber 'a', option address: '192.0.2.1/24' is not allowed; "
            "an IPv4 or IPv6 prefix such as 192.0.2.0/24, no bits set behind its length",
        ),
        (
            "config subscriber 'a'\n list address 192.0.2.1\nconfig subscriber 'b'\n list address 192.0.2.1/32\n",
            "FILE:4: section subscriber 'b', option address: '192.0.2.1/32' is subscriber 'a' already",
        ),
        (
            "config listener 'a'\nconfig listener 'b'\n option port 5124\n",
            "FILE:2: section listener 'b', option address: '::' port 5124 is taken by listener 'a'",
        ),
        (
            "config listener 'a'\n list address '::ffff:192.0.2.1'\nconfig listener 'b'\n list address '192.0.2.1'\n",
            "FILE:4: section listener 'b', option address: '192.0.2.1' port 5124 is taken by listener 'a'",
        ),
        (
            "config listener 'a'\n list address '0.0.0.0'\nconfig listener 'b'\n option facing 'customer'\n",
            "FILE:2: section listener 'a', option address: '0.0.0.0' port 5124 is taken by listener 'b', whose '::' takes both "
            "families",
        ),
        (
            "config radius\n option enabled 1\n list server 192.0.2.1\n",
            "FILE:1: section radius, option secret: is required when RADIUS is enabled",
        ),
    ],
)
def test_what_is_wrong_on_the_concentrator_is_named(text: str, message: str) -> None:
    assert refusal(text, concentrator=True) == message


@pytest.mark.parametrize("sections", [ROUTER_SECTIONS, CONCENTRATOR_SECTIONS])
def test_every_number_is_held_to_its_range(sections: dict[str, object]) -> None:
    """At each edge it is taken, one step beyond it is refused."""
    concentrator = sections is CONCENTRATOR_SECTIONS
    checked = 0
    for type_, kind in (CONCENTRATOR_SECTIONS if concentrator else ROUTER_SECTIONS).items():
        for name, declared in declared_options(kind.settings).items():
            if declared.kind not in ("integer", "number"):
                continue
            assert declared.low is not None
            assert declared.high is not None
            for outside in (declared.low - 1, declared.high + 1):
                text = f"config {type_} 'n'\n option {name} '{outside:.6f}'\n"
                if declared.kind == "integer":
                    text = f"config {type_} 'n'\n option {name} '{int(outside)}'\n"
                assert "is not allowed" in refusal(text, concentrator=concentrator)
            checked += 1
    assert checked > 10


SECRETS = [
    (concentrator, type_, name)
    for concentrator, sections in ((False, ROUTER_SECTIONS), (True, CONCENTRATOR_SECTIONS))
    for type_, kind in sections.items()
    for name, declared in declared_options(kind.settings).items()
    if declared.kind == "secret"
]


@pytest.mark.parametrize(("concentrator", "type_", "name"), SECRETS)
@pytest.mark.parametrize(
    "line",
    ["list {} 'pl4nted'", "option {} 'pl4nted'\n option {} 'pl4nted'", "option {} 'pl4nted", "option {} pl4nted x"],
)
def test_no_message_shows_a_secret(concentrator: bool, type_: str, name: str, line: str) -> None:
    text = f"config {type_} 'n'\n {line.format(name, name)}\n"
    assert "pl4nted" not in refusal(text, concentrator=concentrator)


def test_masked_settings_hold_everything_but_the_secrets() -> None:
    settings = parse_router(HOME)
    masked = mask_secrets(settings)
    text = json.dumps(masked)
    assert "pl4nted" not in text
    assert masked["concentrators"][0]["key"] == "********"
    assert masked["radius"]["username"] == "alice@isp.example"
    assert masked["general"]["lan"] == ["br-lan", "br-office"]
    assert mask_secrets(RouterSettings())["radius"]["secret"] == ""
    for field in dataclasses.fields(settings):
        assert field.name in masked


def test_warnings() -> None:
    assert "no wan" in warnings_of(RouterSettings())[0]
    assert "operator_network" in warnings_of(parse_router(HOME))[0], "RADIUS over UDP is not asked then"
    marked = HOME.replace(
        "config radius", "config wan 'vlan'\n option device eth9\n option operator_network 1\nconfig radius"
    )
    assert warnings_of(parse_router(marked)) == []
    assert "nobody is served" in warnings_of(ConcentratorSettings())[0]
    assert (
        "nobody is served" in warnings_of(parse_concentrator("config subscriber 'a'\n list address 192.0.2.0/24\n"))[0]
    )
    assert warnings_of(parse_concentrator("config subscriber 'a'\n option key k\n")) == []
    secret = "config global 'global'\n option cookie_secret 'sixteen octets..'\n"
    assert warnings_of(parse_concentrator(secret)) == [], "handles from RADIUS bring keys"
    customer = "config listener 'l'\n option facing customer\nconfig subscriber 'a'\n list address 192.0.2.0/24\n"
    assert warnings_of(parse_concentrator(customer)) == []


def test_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cpe-mcp"
    path.write_text(HOME)
    assert load_router(str(path)) == parse_router(HOME)
    path.write_text("config subscriber 'a'\n option key k\n")
    assert load_concentrator(str(path)).subscribers[0].key == "k"


def test_a_file_that_cannot_be_read_is_a_settings_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(SettingsError, match="missing: cannot be read: No such file"):
        load_router(missing)
    binary = tmp_path / "binary"
    binary.write_bytes(b"config \xff")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_concentrator(str(binary))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("192.0.2.1", ("192.0.2.1", 1812)),
        ("192.0.2.1:18120", ("192.0.2.1", 18120)),
        ("2001:db8::1", ("2001:db8::1", 1812)),
        ("[2001:db8::1]", ("2001:db8::1", 1812)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_split_host(text: str, host: tuple[str, int]) -> None:
    assert split_host(text, 1812) == host


@pytest.mark.parametrize(
    "text", ["", "example", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:x", "[192.0.2.1]:5", "[::1]x"]
)
def test_split_host_refuses(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of the library's messages
        split_host(text, 1812)


WORDS = [
    "config",
    "option",
    "list",
    "wan",
    "global",
    "radius",
    "device",
    "lan",
    "enabled",
    "server",
    "1",
    "-1",
    "''",
    "\n",
]


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=4)), max_size=30))
def test_any_file_is_settings_or_one_line(words: list[str]) -> None:
    message = ""
    try:
        parse_router(" ".join(words))
    except SettingsError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


RULES = """
config rule
	option name 'Work laptop'
	option action 'direct'
	list mac '00-53-00-AB-CD-EF'
	list src '192.168.1.20'

config rule 'video'
	option action 'proxy'
	list domain '*.Video.Example.'
	list domain 'bücher.example'
	list dest_port '443'
	list dest_port '8000-8100'
	option proto 'tcp'

config rule
	option action 'block'
	list dest '2001:db8::/32'
	list dscp 'AF41'
	list dscp '0x2e'
	option enabled '0'
"""


def test_rules_keep_their_order_and_have_one_form() -> None:
    first, second, third = parse_router(RULES).rules
    assert [rule.section for rule in (first, second, third)] == ["rule[0]", "video", "rule[2]"]
    assert [rule.label() for rule in (first, second, third)] == ["Work laptop", "video", "rule[2]"]
    assert (first.mac, first.src) == (("00:53:00:ab:cd:ef",), ("192.168.1.20/32",))
    assert second.domain == ("video.example", "xn--bcher-kva.example")
    assert second.dest_port == ("443", "8000-8100")
    assert (third.dscp, third.enabled) == ((34, 46), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "config rule\n option action 'direct'\nconfig rule 'x'\nconfig rule\n list mac '00:53'\n",
            "FILE:5: section rule[2], option mac: '00:53' is not allowed; a hardware address such as 00:53:00:12:34:56",
        ),
        (
            "config rule 'x'\n list dest_port '0'\n",
            "FILE:2: section rule 'x', option dest_port: '0' is not allowed; "
            "a port from 1 to 65535, or a range such as 8000-8100",
        ),
        (
            "config rule\n list dest_port '90-80'\n",
            "FILE:2: section rule[0], option dest_port: '90-80' is not allowed; "
            "a port from 1 to 65535, or a range such as 8000-8100",
        ),
        (
            "config rule\n list dscp 'AF99'\n",
            "FILE:2: section rule[0], option dscp: 'AF99' is not allowed; "
            "a number from 0 to 63, or a name such as EF, AF41, CS1",
        ),
        (
            "config rule\n list domain 'exa mple.com'\n",
            "FILE:2: section rule[0], option domain: 'exa mple.com' is not allowed; "
            "a domain name such as example.com or *.example.com",
        ),
        (
            "config rule\n option action 'drop'\n",
            "FILE:2: section rule[0], option action: 'drop' is not allowed; one of proxy, direct, block",
        ),
        (
            "config rule\nconfig rule\n option action 'proxy'\n list proto 'udp'\n",
            "FILE:4: section rule[1], option proto: 'udp' alone is not allowed with action 'proxy'; only TCP can be proxied",
        ),
        (
            "config dscp\n list map 'EF:64'\n",
            "FILE:2: section dscp, option map: 'EF:64' is not allowed; "
            "FROM:TO, each a number from 0 to 63 or a name such as EF, AF41, CS1",
        ),
        (
            "config dscp\n list map 'EF:0'\n list map '46:1'\n",
            "FILE:3: section dscp, option map: '46:1': 46 is written by '46:0' already",
        ),
    ],
)
def test_what_is_wrong_in_rules_is_named(text: str, message: str) -> None:
    assert refusal(text) == message


def test_log_level_is_read_at_its_old_place_and_the_new_one_wins() -> None:
    assert parse_router("config global\n option log_level debug\n").logging.level == "debug"
    both = "config logging\n option level error\nconfig global\n option log_level debug\n"
    assert parse_router(both).logging.level == "error"
    assert "FILE:2: section logging, option level: 'x'" in refusal("config global\n option log_level x\n")


@pytest.mark.requirement("5.6.2-a")
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("fastest", "'fastest' is not allowed; one of adaptive, aggregate"),
        ("single", "single:WAN"),
        ("single:cable", "'single:cable' is not allowed; enabled WANs are: dsl"),
    ],
)
def test_a_scheme_that_cannot_be(value: str, words: str) -> None:
    text = f"config wan 'dsl'\n\toption device 'eth1'\nconfig paths\n\toption scheme '{value}'\n"
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        parse_router(text)
    assert "option scheme" in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("\toption action 'proxy'\n\toption scheme 'adaptive'\n", "lowest-latency or single:WAN"),
        ("\toption action 'proxy'\n\toption scheme 'single:cable'\n", "enabled WANs are: dsl"),
        ("\toption action 'direct'\n\toption scheme 'single:dsl'\n", "is not allowed with action 'direct'"),
        ("\toption action 'block'\n\toption concentrator 'near'\n", "is not allowed with action 'block'"),
    ],
)
def test_a_rule_that_wants_what_cannot_be(lines: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        parse_router(f"config wan 'dsl'\n\toption device 'eth1'\nconfig rule\n{lines}")
    assert "rule[0], option" in str(caught.value)


def test_more_classes_than_there_are_numbers() -> None:
    rules = [f"config rule\n\toption action 'proxy'\n\toption concentrator 'c{n}'\n" for n in range(32)]
    assert len(parse_router("".join(rules[:31])).rules) == 31
    with pytest.raises(SettingsError, match=r"there are 32 different pairs .* at most 31 are possible"):
        parse_router("".join(rules))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("\tlist precedence 'carrier-pigeon'\n", "option precedence: 'carrier-pigeon' is not allowed; one of static"),
        ("\tlist precedence 'dns'\n\tlist precedence 'dns'\n", "'dns' is in the list twice"),
        ("\tlist precedence ''\n", "option precedence: is empty"),
        ("\tlist precedence 'dhcp'\n\toption dhcp_override '1'\n", "option dhcp_override: is an old way to write"),
        ("\tlist dns_name 'with space.example'\n", "a domain name such as"),
    ],
)
def test_a_discovery_that_cannot_be(lines: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        parse_router(f"config discovery\n{lines}")


@pytest.mark.requirement("X-16")
def test_an_address_proves_nothing_on_the_internet() -> None:
    listener = "config listener 'l'\n option facing internet\n option authorization "
    for value in ("cookie", "both"):
        assert parse_concentrator(listener + value).listeners[0].needs() == value
    with pytest.raises(SettingsError, match=r"authorization.*'address' is not allowed.*write cookie or both"):
        parse_concentrator(listener + "address")
    customer = "config listener 'l'\n option facing customer\n"
    assert parse_concentrator(customer).listeners[0].needs() == "address"
    assert parse_concentrator(customer + " option authorization both").listeners[0].needs() == "both"


def test_a_short_cookie_secret_is_refused_and_never_shown() -> None:
    with pytest.raises(SettingsError, match=r"cookie_secret.*too short"):
        parse_concentrator("config global 'global'\n option cookie_secret 'fifteen octets.'")
    settings = parse_concentrator("config global 'global'\n option cookie_secret 'sixteen octets..'")
    assert "sixteen" not in str(mask_secrets(settings))
