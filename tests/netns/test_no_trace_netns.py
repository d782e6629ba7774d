"""Removal after a crash: what a killed daemon left in the kernel and in its directories is taken back."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from relay_world import World, inside
from test_interception_netns import settings
from test_interception_netns import world as world  # noqa: PLC0414 # fixture

from cpe_mcp.upstream.no_trace import main
from cpe_mcp.upstream.path_manager import PathManager

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-1")]

KERNEL = ("nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all", "ip mptcp endpoint")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings like those the daemon ran with."""
    file = tmp_path / "cpe-mcp"
    file.write_text(
        f"config global 'global'\n\toption run_dir '{tmp_path}/run'\n\toption state_dir '{tmp_path}/flash'\n"
        f"config dns 'dns'\n\toption confdir '{tmp_path}/dnsmasq.d'\n\toption restart ''\n"
        "config wan 'one'\n\toption device 'w1'\nconfig wan 'two'\n\toption device 'w2'\n"
    )
    (tmp_path / "run/dhcp").mkdir(parents=True)
    (tmp_path / "flash").mkdir()
    (tmp_path / "flash/quota.json").write_text("{}")
    (tmp_path / "dnsmasq.d").mkdir()
    return file


def kernel() -> dict[str, list[str]]:
    return {
        command: sorted(subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout.splitlines())
        for command in KERNEL
    }


def test_nothing_of_a_killed_daemon_is_left(world: World, config: Path) -> None:
    async def start() -> None:
        manager = PathManager(settings(), on_change=lambda: None)
        await manager.start()
        manager.set_concentrators([("10.9.0.9", 5124)])
        manager.set_interception(True, True)
        await asyncio.sleep(0.3)
        manager._held.pop_all()  # what stop() would give back stays

    with inside(world.router):
        before = kernel()
        asyncio.run(start())
        left = kernel()
        assert all(left[command] != before[command] for command in KERNEL), "there is something to take back"
        assert main(str(config)) == 0
        assert kernel() == before
    assert not (config.parent / "run").exists()
    assert not (config.parent / "flash").exists()
    assert (config.parent / "dnsmasq.d").exists(), "dnsmasq's own"


def test_a_second_time_there_is_nothing_to_do(world: World, config: Path) -> None:
    with inside(world.router):
        before = kernel()
        assert main(str(config)) == 0
        assert main(str(config)) == 0
        assert kernel() == before
