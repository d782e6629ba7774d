"""The concentrator's nftables table as text, its keeper, and the list of limits."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.concentrator import border as border_module
from cpe_mcp.concentrator import control as control_module
from cpe_mcp.concentrator.border import BorderKeeper, border_of
from cpe_mcp.concentrator.control import Control
from cpe_mcp.concentrator.limit_watch import LIMITS, LimitWatch, reached, rows
from cpe_mcp.policy.concentrator_rules import COUNTERS, removal, render
from cpe_mcp.settings import ConcentratorSettings, SettingsError, parse_concentrator

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.2-a")]

DEFAULT = ConcentratorSettings()


def test_every_set_of_the_table_is_bounded_and_forgets() -> None:
    sets = re.findall(r"^add set inet \S+ (\S+) (.*)$", render(border_of(DEFAULT)), re.M)
    assert len(sets) == 8
    for _, definition in sets:
        assert re.search(r" size \d+;", definition)
        assert re.search(r" timeout \d+s;", definition)


def test_only_the_service_ports_are_limited_and_forwarded_packets_are_not() -> None:
    settings = parse_concentrator(
        "config listener 'a'\n option port '5124'\nconfig listener 'b'\n option port '443'\n"
        "config subscriber 's'\n option key 'kkkkkkkkkkkkkkkk'\n"
    )
    text = render(border_of(settings))
    assert re.findall(r"rule inet \S+ border tcp dport (.*)", text) == [
        "{ 443, 5124 } fib daddr type local goto service"
    ]


def test_strict_sources_only_where_they_are_wanted() -> None:
    border = border_of(DEFAULT)
    assert "oif missing" not in render(border)
    assert "fib saddr . iif oif missing" in render(border._replace(strict_source=True))


def test_the_masks_of_prefixes_follow_their_lengths() -> None:
    text = render(border_of(DEFAULT)._replace(prefix_v4=32, prefix_v6=44))
    assert "update @prefixes4 { ip saddr limit" in text
    assert "update @prefixes4 { ip saddr and 255.255.240.0 limit" in render(border_of(DEFAULT)._replace(prefix_v4=20))
    assert "update @prefixes6 { ip6 saddr and ffff:ffff:fff0:0000:0000:0000:0000:0000 limit" in text
    assert "update @sources6 { ip6 saddr and ffff:ffff:ffff:ffff:0000:0000:0000:0000 limit" in text


class FakeNft:
    """Remembers what was loaded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.counts: dict[str, int] = {}
        self.error = ""
        self.shown = ""
        self.blind = 0

    def load(self, text: str) -> None:
        if self.error:
            raise RuntimeError(self.error)
        self.loaded.append(text)
        self.counts = {}
        self.shown = "" if text == removal() else text

    def listing(self, table: str) -> str:
        if self.blind > 0:
            self.blind -= 1
            raise RuntimeError("nft did not end within 10 s")
        return self.shown

    def counters(self, table: str) -> dict[str, int]:
        return self.counts


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch) -> FakeNft:
    nft = FakeNft()
    monkeypatch.setattr(border_module, "load", nft.load)
    monkeypatch.setattr(border_module, "counters", nft.counters)
    monkeypatch.setattr(border_module, "listing", nft.listing)
    return nft


def settings(text: str = "") -> ConcentratorSettings:
    return parse_concentrator(f"config limits 'limits'\n{text}")


def test_the_table_is_loaded_once_and_again_when_it_is_another(nft: FakeNft) -> None:
    keeper = BorderKeeper()
    keeper.follow(settings())
    assert nft.loaded == [], "not before the daemon serves"
    keeper.start(settings())
    keeper.follow(settings(" option error_rate '7'\n"))
    assert len(nft.loaded) == 1, "the table has no part in that"
    nft.counts = {"source": 5}
    keeper.look()
    nft.counts = {"source": 7}
    keeper.follow(settings(" option source_rate '7'\n"))
    assert len(nft.loaded) == 2
    keeper.look()
    assert keeper.dropped["source"] == 7, "what was dropped stays counted"
    nft.counts = {"source": 1}
    keeper.look()
    assert keeper.dropped["source"] == 8
    keeper.follow(settings(" option filter '0'\n"))
    assert nft.loaded[-1] == removal()
    keeper.remove()
    assert len(nft.loaded) == 3, "nothing is left to remove"


def test_without_nft_a_concentrator_serves_and_says_so(nft: FakeNft, caplog: pytest.LogCaptureFixture) -> None:
    nft.error = "nft refused: no"
    keeper = BorderKeeper()
    keeper.start(settings())
    assert not keeper.is_on
    assert "option filter" in caplog.text


def test_what_could_not_be_loaded_is_tried_again_when_the_settings_are_read_again(nft: FakeNft) -> None:
    nft.error = "nft refused: no"
    keeper = BorderKeeper()
    keeper.start(settings())
    assert keeper.table_row() == {"wanted": True, "in_place": False, "disturbed": 0}
    nft.error = ""
    keeper.follow(settings())
    assert keeper.is_on
    assert keeper.table_row()["in_place"]
    assert len(nft.loaded) == 1


@pytest.mark.parametrize("shown", ["", "table inet mcp_concentrator { with a rule of somebody else's }"])
def test_a_table_that_is_not_there_as_it_was_loaded_is_when_the_settings_are_read_again(
    nft: FakeNft, shown: str
) -> None:
    keeper = BorderKeeper()
    keeper.start(settings())
    nft.shown = shown
    keeper.follow(settings())
    assert nft.loaded[1:] == [nft.loaded[0]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def flush(nft: FakeNft, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes the table away, and the kernel tells of it."""
    told: list[Callable[[], None]] = []

    class Events:
        def __init__(self, on_change: Callable[[], None], table: str) -> None:
            assert table == "mcp_concentrator"
            told.append(on_change)

        def start(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(border_module, "NftEvents", Events)

    def now() -> None:
        nft.shown = ""
        told[0]()

    return now


@contextlib.asynccontextmanager
async def kept(keeper: BorderKeeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.keep())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def test_a_table_that_somebody_takes_away_is_put_back_and_counted(
    nft: FakeNft, flush: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    keeper = BorderKeeper()
    keeper.start(settings())

    async def serve() -> None:
        async with kept(keeper):
            nft.counts = {"source": 5}
            keeper.look()
            for number in (1, 2):
                flush()
                await until(lambda number=number: keeper.disturbed == number)  # type: ignore[misc]
                assert nft.loaded[-1] == nft.loaded[0]
            nft.counts = {"source": 2}
            keeper.look()

    asyncio.run(serve())
    assert len(nft.loaded) == 3
    assert keeper.is_on
    assert keeper.dropped["source"] == 7
    assert keeper.table_row() == {"wanted": True, "in_place": True, "disturbed": 2}
    assert caplog.text.count("taken away or changed the nftables table inet mcp_concentrator; it is put back") == 2


def test_while_a_table_cannot_be_put_back_the_status_says_so_and_it_is_tried_again(
    nft: FakeNft, flush: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(border_module, "RETRY_S", 0.01)
    monkeypatch.setattr(border_module, "PAUSE_S", 0.01)
    monkeypatch.setattr(border_module, "PAUSE_MAX_S", 0.01)
    keeper = BorderKeeper()
    keeper.start(settings())

    async def serve() -> None:
        async with kept(keeper):
            nft.error = "nft refused: no"
            flush()
            await until(lambda: not keeper.is_on)
            assert keeper.table_row() == {"wanted": True, "in_place": False, "disturbed": 1}
            await asyncio.sleep(0.1)
            nft.error = ""
            await until(lambda: keeper.is_on)

    asyncio.run(serve())
    assert keeper.table_row() == {"wanted": True, "in_place": True, "disturbed": 1}
    assert caplog.text.count("cannot be put back: nft refused: no") == 1, "each trouble once"


def test_a_look_at_the_table_that_fails_is_repeated(
    nft: FakeNft, flush: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(border_module, "PAUSE_S", 0.01)
    keeper = BorderKeeper()
    keeper.start(settings())

    async def serve() -> None:
        async with kept(keeper):
            nft.blind = 2
            flush()
            await until(lambda: keeper.disturbed == 1)

    asyncio.run(serve())
    assert keeper.is_on
    assert caplog.text.count("cannot be looked at: nft did not end within 10 s") == 2


def test_where_the_kernel_does_not_tell_the_table_is_looked_at(
    nft: FakeNft, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(events: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("cpe_mcp.kernel.nft_events.NftEvents.start", refuse)
    monkeypatch.setattr(border_module, "RETRY_S", 0.01)
    keeper = BorderKeeper()
    keeper.start(settings())

    async def serve() -> None:
        async with kept(keeper):
            await asyncio.sleep(0.05)
            nft.shown = ""
            await until(lambda: keeper.disturbed == 1)

    asyncio.run(serve())
    assert nft.loaded[1:] == [nft.loaded[0]]
    assert "the kernel does not tell of changes in nftables" in caplog.text


def test_two_who_both_want_the_table_do_not_keep_each_other_busy(
    nft: FakeNft, flush: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(border_module, "PAUSE_S", 0.02)
    keeper = BorderKeeper()
    keeper.start(settings())

    async def serve() -> None:
        async with kept(keeper):
            for _ in range(100):
                flush()
                await asyncio.sleep(0.005)

    asyncio.run(serve())
    assert 2 <= keeper.disturbed <= 6, "the pauses double: 0.04, 0.08, 0.16, 0.32 s"


def test_a_concentrator_says_in_its_log_and_status_what_was_reached(
    nft: FakeNft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control_module, "UPKEEP_S", 0.01)
    text = f"config global 'global'\n option run_dir '{tmp_path}'\n"

    async def serve() -> dict[str, Any]:
        control = Control(parse_concentrator(text), border=BorderKeeper())
        control.start()
        nft.counts = {"strangers": 77}
        try:
            for _ in range(200):
                if "limit reached" in caplog.text:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            status = await control.status({})
            assert control.figures(worker_restarts=0).limits["strangers"] == 77
        finally:
            control.stop()
        return status

    status = asyncio.run(serve())
    lines = [record.getMessage() for record in caplog.records if "limit reached" in record.getMessage()]
    assert lines == [
        "limit reached: 77 handshakes dropped: too many from addresses of no subscriber (section limits, option stranger_rate)"
    ]
    assert status["limits"]["filter"] is True
    assert {row["name"]: row["count"] for row in status["limits"]["reached"]}["strangers"] == 77
    assert nft.loaded[-1] == removal()


def test_nftables_is_left_alone_where_nobody_asked_for_it(nft: FakeNft, tmp_path: Path) -> None:
    async def serve() -> bool:
        control = Control(parse_concentrator(f"config global 'global'\n option run_dir '{tmp_path}'\n"))
        control.start()
        try:
            status = await control.status({})
            return bool(status["limits"]["filter"])
        finally:
            control.stop()

    assert asyncio.run(serve()) is False
    assert nft.loaded == []


def test_every_limit_has_its_option_value_and_count() -> None:
    counts = reached({"limit:errors": 3, "errors": 9}, dict.fromkeys(COUNTERS, 0) | {"source": 4})
    found = {row["name"]: row for row in rows(DEFAULT, counts)}
    assert set(COUNTERS) < set(found)
    assert (found["errors"]["count"], found["source"]["count"], found["half_open"]["count"]) == (3, 4, 0)
    assert (found["source"]["option"], found["source"]["value"], found["source"]["unit"]) == (
        "limits.source_rate",
        500,
        "1/s",
    )


def test_an_attack_does_not_fill_the_log_and_nothing_of_it_is_lost() -> None:
    watch = LimitWatch()
    lines: list[str] = []
    for second in range(0, 121, 10):
        lines += watch.news({row.name: 100 * second for row in LIMITS}, float(second))
    mine = [line for line in lines if "option error_rate)" in line]
    assert [int(line.split()[0]) for line in mine] == [1000, 6000]
    assert len(lines) == 2 * len(LIMITS)
    assert len(watch.news({row.name: 12_000 for row in LIMITS}, 500.0)) == len(LIMITS), "the rest"
    assert watch.news({row.name: 12_000 for row in LIMITS}, 1000.0) == []


@pytest.mark.requirement("5.3-e")
def test_listeners_for_customers_are_shut_over_the_devices_of_the_internet() -> None:
    settings = parse_concentrator(
        "config interface 'access'\n option device 'eth0'\n option facing 'customer'\n"
        "config interface 'uplink'\n option device 'eth1'\n"
        "config listener 'home'\n option facing 'customer'\n list address '192.0.2.1'\n list address '2001:db8::1'\n"
        "config listener 'roaming'\n option port '5125'\n"
    )
    text = render(border_of(settings))
    assert re.findall(r"sides (iifname .*) counter name side", text) == [
        'iifname "eth1" ip daddr 192.0.2.1 tcp dport 5124',
        'iifname "eth1" ip6 daddr 2001:db8::1 tcp dport 5124',
    ]
    assert text.index("jump sides") < text.index("goto service")


@pytest.mark.requirement("5.3-e")
def test_of_listeners_at_one_port_that_counts_which_the_kernel_would_choose() -> None:
    settings = parse_concentrator(
        "config interface 'access'\n option device 'eth0'\n option facing 'customer'\n"
        "config interface 'uplink'\n option device 'eth1'\n"
        "config listener 'home'\n option facing 'customer'\n"
        "config listener 'roaming'\n list address '192.0.2.1'\n"
        "config listener 'uplink'\n option device 'eth1'\n"
    )
    text = render(border_of(settings))
    refused = "counter name side reject with tcp reset"
    assert re.findall(r"^add rule inet \S+ sides (.*)$", text, re.M) == [
        'iifname "eth0" ip daddr 192.0.2.1 tcp dport 5124 return',
        'iifname "eth0" tcp dport 5124 return',
        'iifname "eth1" ip daddr 192.0.2.1 tcp dport 5124 return',
        'iifname "eth1" tcp dport 5124 return',
        f'iifname "eth1" tcp dport 5124 {refused}',
    ]


@pytest.mark.requirement("5.3-e")
def test_a_listeners_rule_is_about_the_packets_that_it_would_take() -> None:
    settings = parse_concentrator(
        "config interface 'uplink'\n option device 'eth1'\n"
        "config listener 'home'\n option facing 'customer'\n list address '::ffff:192.0.2.1'\n"
        "config listener 'roaming'\n list address '0.0.0.0'\n option device 'eth1'\n"
        "config listener 'rest'\n option facing 'customer'\n"
    )
    listeners = tuple(
        dataclasses.replace(row, address=("::ffff:192.0.2.1",)) if row.name == "home" else row
        for row in settings.listeners
    )
    refused = "counter name side reject with tcp reset"
    for wanted in (settings, dataclasses.replace(settings, listeners=listeners)):
        assert re.findall(r"^add rule inet \S+ sides (.*)$", render(border_of(wanted)), re.M) == [
            f'iifname "eth1" ip daddr 192.0.2.1 tcp dport 5124 {refused}',
            'iifname "eth1" meta nfproto ipv4 tcp dport 5124 return',
            f'iifname "eth1" tcp dport 5124 {refused}',
        ]


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("config interface 'a'\n option facing 'customer'\n", "option device.*is required"),
        (
            "config interface 'a'\n option device 'x'\nconfig interface 'b'\n option device 'x'\n",
            "is interface 'a' already",
        ),
        (
            "config interface 'a'\n option device 'x'\nconfig limits 'limits'\n option filter '0'\n",
            "set filter of section",
        ),
    ],
)
def test_sides_that_cannot_be_held_are_a_mistake(section: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse_concentrator(section)
