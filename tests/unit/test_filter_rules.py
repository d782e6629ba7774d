"""Filters of RADIUS as nftables sets: settings, rules as text, and who has which."""

from __future__ import annotations

import re

import pytest

from cpe_mcp.concentrator import border as border_module
from cpe_mcp.concentrator.border import BorderKeeper, border_of
from cpe_mcp.concentrator.filters import FilterError
from cpe_mcp.policy.concentrator_rules import removal, render
from cpe_mcp.settings import ConcentratorSettings, SettingsError, parse_concentrator

pytestmark = pytest.mark.unit

KEYED = "config subscriber 's'\n option key 'kkkkkkkkkkkkkkkk'\n"
SIDES = "config interface 'access'\n option device 'eth1'\n option facing 'customer'\n"
FILTERS = (
    "config filter 'gold'\n option mark '16'\nconfig filter 'quiet'\n list rule 'tcp dport 25 drop'\n"
    " list rule 'udp dport 53 limit rate over 10/second drop'\n"
)
UNLIMITED = "config limits 'limits'\n option filter '0'\n"


def settings(*texts: str) -> ConcentratorSettings:
    return parse_concentrator(KEYED + "".join(texts))


def chain(text: str, name: str) -> list[str]:
    return re.findall(rf"^add rule inet \S+ {name} (.*)$", text, re.M)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config filter 'gold'\n", "needs a mark or a rule"),
        ("config filter 'gold'\n option mark '32769'\n", "0x8001 has bit 0x8000 in it"),
        ("config filter 'gold'\n list rule 'drop; flush ruleset'\n", "must be one rule of nftables"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        settings(text)


class FakeNft:
    """Remembers what was loaded; refuses as often as it is told to."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.errors: list[Exception] = []
        self.shown = ""

    def load(self, text: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.loaded.append(text)
        if text.startswith(removal()):
            self.shown = text.removeprefix(removal())

    def listing(self, table: str) -> str:
        return self.shown


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch) -> FakeNft:
    nft = FakeNft()
    monkeypatch.setattr(border_module, "load", nft.load)
    monkeypatch.setattr(border_module, "counters", lambda table: {})
    monkeypatch.setattr(border_module, "listing", nft.listing)
    return nft


def test_without_filters_and_limits_there_is_no_table() -> None:
    assert render(border_of(settings(UNLIMITED))) == ""


@pytest.mark.requirement("5.3-b")
def test_a_filter_is_a_set_per_family_and_its_rules() -> None:
    text = render(border_of(settings(FILTERS, UNLIMITED)))
    assert re.findall(r"^add set inet \S+ (.*)$", text, re.M) == [
        "filter4_gold { type ipv4_addr; }",
        "filter6_gold { type ipv6_addr; }",
        "filter4_quiet { type ipv4_addr; }",
        "filter6_quiet { type ipv6_addr; }",
    ]
    assert chain(text, "filters")[::2] == [
        "ip saddr @filter4_gold jump filter_gold",
        "ip saddr @filter4_quiet jump filter_quiet",
    ]
    assert chain(text, "filter_gold") == ["meta mark set meta mark or 0x10"]
    assert chain(text, "filter_quiet")[0] == "tcp dport 25 drop"
    assert "chain border" not in text


@pytest.mark.requirement("5.3-b")
def test_sets_follow_sessions_and_survive_a_reload(nft: FakeNft) -> None:
    keeper = BorderKeeper()
    keeper.start(settings(FILTERS))
    assert keeper.knows("gold")
    assert not keeper.knows("gol")
    keeper.apply({"::ffff:192.0.2.1": ("gold", "quiet"), "2001:db8::1": ("gold",)})
    table = "element inet mcp_concentrator"
    assert nft.loaded[-1].splitlines() == [
        f"add {table} filter4_gold {{ 192.0.2.1 }}",
        f"add {table} filter4_quiet {{ 192.0.2.1 }}",
        f"add {table} filter6_gold {{ 2001:db8::1 }}",
    ]
    keeper.apply({"2001:db8::1": ("gold",)})
    assert len(nft.loaded) == 2, "nothing is another"
    keeper.apply({"::ffff:192.0.2.1": ("quiet",)})
    assert nft.loaded[-1].splitlines() == [
        f"add {table} filter4_gold {{ 192.0.2.1 }}",
        f"delete {table} filter4_gold {{ 192.0.2.1 }}",
        f"add {table} filter4_quiet {{ 192.0.2.1 }}",
        f"delete {table} filter4_quiet {{ 192.0.2.1 }}",
        f"add {table} filter4_quiet {{ 192.0.2.1 }}",
    ]
    assert [(row["name"], row["addresses"]) for row in keeper.filter_rows()] == [("gold", 1), ("quiet", 1)]
    keeper.follow(settings(FILTERS.partition("config filter 'quiet'")[0]))
    assert nft.loaded[-1].endswith(f"add {table} filter6_gold {{ 2001:db8::1 }}\n")
    assert f"add {table} filter4_quiet" not in nft.loaded[-1]
    keeper.remove()
    assert nft.loaded[-1] == removal()


@pytest.mark.requirement("5.3-b")
def test_a_flushed_ruleset_is_put_back_and_a_filter_that_cannot_be_is_told(nft: FakeNft) -> None:
    keeper = BorderKeeper()
    keeper.start(settings(FILTERS))
    nft.errors, nft.shown = [RuntimeError("nft refused: No such file or directory")], ""
    keeper.apply({"192.0.2.1": ("gold",)})
    assert nft.loaded[-1].startswith(removal())
    assert nft.loaded[-1].endswith("filter4_gold { 192.0.2.1 }\n")
    assert keeper.disturbed == 1
    nft.shown = ""
    keeper.follow(settings(FILTERS))
    assert nft.loaded[-1].startswith(removal())
    assert nft.loaded[-1].endswith("filter4_gold { 192.0.2.1 }\n"), "at SIGHUP too"
    nft.errors = [RuntimeError("nft refused: Operation not permitted")] * 2
    with pytest.raises(FilterError, match="CAP_NET_ADMIN"):
        keeper.apply({"192.0.2.2": ("gold",)})
    line = len(render(border_of(settings(FILTERS))).splitlines()) + 1
    nft.errors = [RuntimeError(f"nft refused: /dev/stdin:{line}:1-2: Error: no room")] * 2
    with pytest.raises(FilterError) as error:
        keeper.apply({"192.0.2.77": ("gold",)})
    assert "no room, in: add element" in str(error.value)
    assert "192.0.2.x" in str(error.value)
    assert "192.0.2.77" not in str(error.value), "who it was about is in no log line"
    with pytest.raises(FilterError, match="no section filter 'lead'"):
        keeper.apply({"192.0.2.2": ("lead",)})
    assert keeper.filter_rows()[0]["addresses"] == 1


@pytest.mark.parametrize("wanted", [SIDES, FILTERS])
def test_without_its_table_a_concentrator_that_counts_on_it_does_not_start(nft: FakeNft, wanted: str) -> None:
    keeper = BorderKeeper()
    nft.errors = [FileNotFoundError(2, "No such file or directory", "nft")]
    with pytest.raises(SettingsError, match="interface and filter need their nftables table: the program nft is not"):
        keeper.start(settings(wanted))
    assert not keeper.is_on
    nft.errors = [RuntimeError("nft refused: /dev/stdin:3:1-2: Error: syntax error")]
    with pytest.raises(SettingsError, match=r"syntax error, in: add table inet mcp_concentrator"):
        keeper.start(settings(wanted))
    keeper.follow(settings(wanted))
    assert keeper.is_on
