"""The count survives restarts, reboots, devices made anew and damaged files, and flash is written once an hour at most."""

from __future__ import annotations

import asyncio
import calendar
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.policy.quota import Day
from cpe_mcp.settings import parse_router
from cpe_mcp.upstream import quota_file, quota_keeper
from cpe_mcp.upstream.quota_file import Entry, Saved
from cpe_mcp.upstream.quota_keeper import FLASH_RETRY_S, FLASH_S, RAM_S, QuotaKeeper

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-5")]

MB = 10**6
NOON = float(calendar.timegm((2026, 11, 25, 12, 0, 0)))
CONFIG = """
config global 'global'
    option run_dir '{directory}/run'
    option state_dir '{directory}/flash'

config wan 'dsl'
    option device 'eth1'

config wan 'lte'
    option device 'lo'
    option quota_gb '0.1'
    option quota_day '1'
"""


class Router:
    """Keepers one after another, on one pair of directories, with a clock and counters in the test's hands."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.monkeypatch = monkeypatch
        self.text = CONFIG.format(directory=directory)
        self.now = 1000.0
        self.wall = NOON
        self.counters: dict[str, tuple[int, int]] = {"lo": (0, 0), "eth1": (5 * MB, 0)}
        self.writes: list[tuple[float, str]] = []
        self.boot("first")
        write = quota_file.write

        def noted(path: str, saved: Saved) -> None:
            self.writes.append((self.now, Path(path).parent.name))
            write(path, saved)

        monkeypatch.setattr(quota_file, "write", noted)
        self.start()

    @property
    def flash(self) -> Path:
        return self.directory / "flash/quota.json"

    @property
    def ram(self) -> Path:
        return self.directory / "run/quota.json"

    def boot(self, name: str) -> None:
        self.monkeypatch.setattr(quota_keeper, "boot_id", lambda: name)

    def start(self) -> None:
        self.keeper = QuotaKeeper(parse_router(self.text), clock=lambda: self.wall, monotonic=lambda: self.now)
        self.keeper.start()

    async def restart(self, *, reboot: str = "", stop: bool = True) -> None:
        if stop:
            await self.keeper.stop()
        if reboot:
            self.boot(reboot)
            self.ram.unlink(missing_ok=True)
            self.now, self.counters = 5.0, {"lo": (0, 0), "eth1": (0, 0)}
        self.start()

    async def move(self, count: int, *, after_s: float = 1.0) -> None:
        """Bytes pass, half of them down."""
        self.now += after_s
        self.wall += after_s
        received, sent = self.counters["lo"]
        self.counters["lo"] = (received + count // 2, sent + count - count // 2)
        self.keeper.observe(self.counters)
        while self.keeper._flashing is not None:
            await asyncio.sleep(0.001)

    def used_mb(self) -> float:
        return round(float(self.keeper.report("lte")["used_gb"]) * 1000, 6)

    def flash_writes(self) -> list[float]:
        return [at for at, where in self.writes if where == "flash"]


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Router:
    monkeypatch.setenv("TZ", "UTC0")
    return Router(tmp_path, monkeypatch)


def run(body: Callable[[], Any]) -> None:
    asyncio.run(body())


def test_bytes_of_both_directions_are_counted_from_the_first_look_on(router: Router) -> None:
    router.counters["lo"] = (700 * MB, 300 * MB)

    async def body() -> None:
        await router.move(0)
        assert router.used_mb() == 0, "what was there before the quota is nobody's business"
        await router.move(30 * MB)
        await router.move(20 * MB)

    run(body)
    assert router.keeper.report("lte") == {
        "used_gb": 0.05,
        "limit_gb": 0.1,
        "percent": 50.0,
        "soft_percent": 80,
        "state": "within",
        "text": "not used up",
        "resets_on": "2026-12-01",
    }
    assert router.keeper.report("dsl")["limit_gb"] == 0
    assert router.keeper.state("dsl") == "within"


def test_steps_are_logged_once_and_end_with_the_period(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = []

    async def body() -> None:
        for count in (0, 79, 1, 1, 18, 1, 50):
            await router.move(count * MB)
            seen.append(router.keeper.state("lte"))
        assert router.keeper.report("lte")["percent"] == 150
        await router.move(5 * MB, after_s=7 * 86400)
        assert router.keeper.state("lte") == "within"
        assert router.used_mb() == 5
        assert router.keeper.report("lte")["resets_on"] == "2027-01-01"

    run(body)
    assert seen == ["within", "within", "soft", "soft", "soft", "over", "over"]
    assert [record.message for record in caplog.records] == [
        "wan lte: its quota is nearly used up: only as backup (0.080 of 0.1 GB)",
        "wan lte: its quota is used up: last resort (0.100 of 0.1 GB)",
        "wan lte: its quota is not used up (0.005 of 0.1 GB)",
    ]


def test_the_day_is_that_of_the_routers_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC-9")  # Tokyo
    time.tzset()
    try:
        router = Router(tmp_path, monkeypatch)
        router.wall = float(calendar.timegm((2026, 11, 30, 14, 59, 0)))
        run(lambda: router.move(0))
        assert router.keeper.report("lte")["resets_on"] == "2026-12-01"
        router.wall += 120
        assert router.keeper.report("lte")["resets_on"] == "2027-01-01"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "killed"])
def test_a_restart_of_the_daemon_loses_nothing(router: Router, stop: bool) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(10 * MB, after_s=RAM_S)
        await router.move(3 * MB)  # after the last write to RAM
        await router.restart(stop=stop)
        router.counters["lo"] = (router.counters["lo"][0] + 2 * MB, router.counters["lo"][1])  # with nobody looking
        await router.move(1 * MB)

    run(body)
    assert router.used_mb() == 16


def test_a_reboot_loses_an_hour_at_most(router: Router) -> None:
    async def body() -> None:
        await router.move(0)
        for _ in range(150):
            await router.move(MB // 2, after_s=60)
        await router.restart(reboot="second")
        router.counters["lo"] = (MB, MB)  # before the daemon was there
        await router.move(0)

    run(body)
    hours = [second - first for first, second in zip(router.flash_writes(), router.flash_writes()[1:], strict=False)]
    assert hours
    assert min(hours) >= FLASH_S
    assert 75 + 2 - 30 <= router.used_mb() < 77, "30 MB an hour; those since the boot count"


def test_flash_is_not_written_more_often_by_restarts_and_reboots(router: Router) -> None:
    async def body() -> None:
        await router.move(MB)
        for n in range(20):
            await router.move(MB, after_s=100)
            await router.restart(reboot=f"boot {n}" if n % 2 else "")
        assert len(router.flash_writes()) == 1
        await router.move(MB, after_s=FLASH_S)
        assert len(router.flash_writes()) == 2

    run(body)


def test_flash_is_not_written_while_nothing_moves_nor_without_a_quota(router: Router) -> None:
    async def body() -> None:
        for _ in range(30):
            await router.move(0, after_s=FLASH_S)
        assert len(router.flash_writes()) == 1
        router.text = router.text.replace("option quota_gb", "#option quota_gb")
        router.flash.unlink()
        router.ram.unlink()
        await router.restart(stop=False)
        for _ in range(3):
            await router.move(MB, after_s=FLASH_S)
        await router.keeper.stop()

    run(body)
    assert not router.flash.exists()


def test_a_device_that_is_made_anew_begins_with_zero(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(10 * MB)
        monkeypatch.setattr(quota_keeper, "device_index", lambda device: 99)
        router.counters["lo"] = (2 * MB, 0)
        await router.move(0)
        assert router.used_mb() == 12
        await router.restart()
        monkeypatch.setattr(quota_keeper, "device_index", lambda device: 100)
        router.counters["lo"] = (3 * MB, 0)  # more than before, and all of it new
        await router.move(0)
        assert router.used_mb() == 15

    run(body)


def test_a_counter_of_32_bits_goes_round(router: Router) -> None:
    router.counters["lo"] = (2**32 - MB, 7)

    async def body() -> None:
        await router.move(0)
        router.counters["lo"] = (2 * MB, 7)
        await router.move(0)

    run(body)
    assert router.used_mb() == 3


def test_a_device_that_is_away_keeps_its_count(router: Router) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(10 * MB)
        await router.restart()
        counters = router.counters.pop("lo")
        router.keeper.observe(router.counters)
        assert router.used_mb() == 10
        router.keeper.correct("lte", 0.02)
        assert router.used_mb() == 20
        router.counters["lo"] = counters
        await router.move(MB)
        assert router.used_mb() == 21

    run(body)


def test_boots_in_1970_and_the_clock_is_set_later(router: Router) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(90 * MB)
        await router.keeper.stop()
        await router.move(0, after_s=FLASH_S)
        await router.restart(reboot="second")
        router.wall = 60.0
        await router.move(MB)
        assert (router.used_mb(), router.keeper.state("lte")) == (91, "soft")
        assert router.keeper.report("lte")["resets_on"] == ""
        router.wall = NOON + 7200
        await router.move(MB)
        assert (router.used_mb(), router.keeper.state("lte")) == (92, "soft")

    run(body)


def test_correction_is_on_flash_at_once(router: Router) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(99 * MB)
        assert router.keeper.state("lte") == "soft"
        router.keeper.correct("lte", 0.0123)
        assert (router.used_mb(), router.keeper.state("lte")) == (12.3, "within")
        while router.keeper._flashing is not None:
            await asyncio.sleep(0.001)
        await router.restart(reboot="second", stop=False)
        assert router.used_mb() == 12.3
        for name in ("dsl", "nonsense"):
            with pytest.raises(ValueError, match="is no WAN with a quota; there are: lte"):
                router.keeper.correct(name, 1.0)

    run(body)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'{"boot": "first", "written_s": 0}',
        b'{"boot": "first", "written_s": 0, "wans": {"lte": {"periods": {"2026-11-01": -5}, "device": "lo", "ifindex": 1, '
        b'"received": 0, "sent": 0}}}',
        b'{"boot": "first", "written_s": 0, "wans": {"lte": {"periods": {"2026-11-31": 5}, "device": "lo", "ifindex": 1, '
        b'"received": 0, "sent": 0}}}',
        b"[" * 100_000,
    ],
    ids=["empty", "no text", "cut", "a list", "no wans", "negative", "no day", "deep"],
)
def test_a_damaged_file_is_put_aside(router: Router, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(10 * MB)
        await router.keeper.stop()
        router.flash.write_bytes(content)
        router.ram.write_bytes(content)
        await router.restart(stop=False)
        await router.move(MB)

    run(body)
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 2, lines
    assert str(router.flash) in lines[0]
    assert "cpe-mcp quota WAN --used GB" in lines[0]
    assert "\n" not in lines[0]
    assert Path(f"{router.flash}.broken").read_bytes() == content
    assert router.used_mb() == 0
    assert json.loads(router.flash.read_text())["wans"]["lte"]["periods"] == {"2026-11-01": 0}


def test_the_file_in_ram_is_damaged_and_that_on_flash_is_not(router: Router) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(10 * MB, after_s=FLASH_S)
        await router.keeper.stop()
        router.ram.write_bytes(b"nonsense")
        await router.restart(stop=False)
        await router.move(MB)

    run(body)
    assert router.used_mb() == 11


def test_flash_that_cannot_be_written_is_said_once_and_tried_again(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    directory = router.flash.parent
    directory.write_text("a file in its place")

    async def body() -> None:
        for _ in range(3):
            await router.move(MB, after_s=FLASH_RETRY_S)
        assert len([record for record in caplog.records if str(directory) in record.message]) >= 1
        directory.unlink()
        await router.move(MB, after_s=FLASH_RETRY_S)

    run(body)
    lines = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert len(lines) == 1, lines
    assert router.flash.exists()


def test_other_settings_keep_what_was_counted(router: Router) -> None:
    async def body() -> None:
        await router.move(0)
        await router.move(50 * MB)
        router.keeper.configure(parse_router(router.text.replace("quota_gb '0.1'", "quota_gb '0.06'")))
        await router.move(0)
        assert router.keeper.state("lte") == "soft"
        router.keeper.configure(parse_router(router.text.replace("option quota_gb", "#option quota_gb")))
        await router.move(MB)
        assert router.keeper.state("lte") == "within"
        router.keeper.configure(parse_router(router.text))
        await router.move(MB)
        assert router.used_mb() == 52

    run(body)


def test_the_file_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "there/quota.json")
    one = Saved("boot", 1.0, {"lte": Entry({Day(2026, 11, 1): 5}, "wwan0", 7, 3, 2)})
    quota_file.write(path, one)
    assert quota_file.read(path) == one

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        quota_file.write(path, one._replace(boot="other"))
    assert quota_file.read(path) == one
    assert os.listdir(tmp_path / "there") == ["quota.json"]


@pytest.mark.requirement("X-1")
def test_removal_leaves_nothing_of_it(tmp_path: Path) -> None:
    for name in ("quota.json", "quota.json.new", "quota.json.broken"):
        (tmp_path / "flash").mkdir(exist_ok=True)
        (tmp_path / "flash" / name).write_text("{}")
    quota_file.remove(str(tmp_path / "flash"))
    assert not (tmp_path / "flash").exists()
    (tmp_path / "flash").mkdir()
    (tmp_path / "flash/of-somebody-else").write_text("")
    quota_file.remove(str(tmp_path / "flash"))
    assert os.listdir(tmp_path / "flash") == ["of-somebody-else"]
