"""The watched directory of lease files, with inotify and without."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cpe_mcp.discovery import dhcp_files
from cpe_mcp.discovery.dhcp_files import MAX_FILE_BYTES, DhcpFiles
from cpe_mcp.discovery.lease import Lease

pytestmark = pytest.mark.unit

Change = tuple[str, int, Lease | None]


@pytest.fixture(params=["inotify", "rescan"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "rescan":

        def refuse(directory: str) -> int:
            raise OSError(24, "inotify_init1")

        monkeypatch.setattr(dhcp_files, "_open_inotify", refuse)


def replace(directory: Path, name: str, text: str) -> None:
    temporary = directory / f".{name}.tmp"
    temporary.write_text(text)
    os.replace(temporary, directory / name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("watched")
def test_what_is_there_and_every_change_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "dhcp"
    directory.mkdir()
    replace(directory, "wan.v4", "opt224=04c0000201\nlease=60\n")
    told: list[Change] = []

    async def scenario() -> None:
        files = DhcpFiles(str(tmp_path), lambda *change: told.append(change), rescan_s=0.02)
        files.start()
        first = Lease(((224, "04c0000201"),), "", 60.0)
        assert told == [("wan", 4, first)]
        replace(directory, "wan.v4", "opt224=04c0000201\nlease=60\n")
        await until(lambda: told[1:] == [("wan", 4, first)])  # renewed with the same content
        replace(directory, "wan.100.v6", "passthru=\nlease=5\n")
        await until(lambda: told[2:] == [("wan.100", 6, Lease(lease_s=5.0))])
        (directory / "wan.v4").unlink()
        await until(lambda: told[3:] == [("wan", 4, None)])
        files.close()
        replace(directory, "wan.v4", "")
        await asyncio.sleep(0.05)
        assert len(told) == 4

    asyncio.run(scenario())


@pytest.mark.usefixtures("watched")
def test_a_directory_that_was_removed_is_made_and_watched_again(tmp_path: Path) -> None:
    told: list[Change] = []

    async def scenario() -> None:
        files = DhcpFiles(str(tmp_path), lambda *change: told.append(change), rescan_s=0.02)
        files.start()
        directory = tmp_path / "dhcp"
        directory.rmdir()
        await until(directory.exists)
        await asyncio.sleep(0.05)
        replace(directory, "wan.v4", "lease=5\n")
        await until(lambda: told == [("wan", 4, Lease(lease_s=5.0))])
        files.close()

    asyncio.run(scenario())


def test_what_is_no_lease_file_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "dhcp"
    directory.mkdir()
    for name in (".wan.v4.123", ".hidden.v4", "wan.v5", "wan", "a b.v4", "wan.v4\n"):
        (directory / name).write_text("lease=1\n")
    (directory / "link.v4").symlink_to("/etc/hostname")
    os.mkfifo(directory / "fifo.v4")
    (directory / "huge.v4").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (directory / "odd.v4").write_bytes(b"\xff\xfe\nlease=7\n")
    told: list[Change] = []

    async def scenario() -> None:
        files = DhcpFiles(str(tmp_path), lambda *change: told.append(change))
        files.start()
        files.close()

    asyncio.run(scenario())
    assert told == [("odd", 4, Lease(lease_s=7.0))]
    assert "huge.v4 is larger than" in caplog.text
