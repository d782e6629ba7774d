"""The log of who had which address and port (RFC 6888 section 4): what is in a line, where it goes, and where it does not."""

from __future__ import annotations

import logging
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.concentrator import address_log
from cpe_mcp.concentrator.address_line import address_line
from cpe_mcp.concentrator.address_log import AddressLog
from cpe_mcp.settings import SettingsError
from cpe_mcp.settings.concentrator import AddressLogSettings
from cpe_mcp.settings.load import parse_concentrator

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.6.7-a")]

RECORD: dict[str, Any] = {
    "concentrator": "alice",
    "client": "203.0.113.5",
    "client_port": 41000,
    "outer": ["192.0.2.1", 51322, 1764201600.25, 61.5],
    "server": "198.51.100.7",
    "server_port": 443,
    "started": 1764201500.0,
    "duration_s": 162.5,
}
LINE = (
    "subscriber=alice inner=203.0.113.5#41000 outer=192.0.2.1#51322 protocol=tcp "
    "start=2025-11-27T00:00:00.250Z end=2025-11-27T00:01:01.750Z"
)


def test_a_line_has_what_is_asked_for_and_no_destination() -> None:
    assert address_line(RECORD, with_destination=False) == LINE
    assert address_line(RECORD, with_destination=True) == f"{LINE} destination=198.51.100.7#443"


def test_a_connection_that_used_no_port_of_ours_has_no_line() -> None:
    assert address_line({**RECORD, "outer": None}, with_destination=True) == ""


def test_a_name_cannot_forge_a_line() -> None:
    line = address_line({**RECORD, "concentrator": "eve outer=1.2.3.4#5\nsubscriber=mallory"}, with_destination=False)
    assert "\n" not in line
    assert line.split()[0] == "subscriber=eve%20outer%3D1.2.3.4%235%0Asubscriber%3Dmallory"


def test_it_is_off_by_default(tmp_path: Path) -> None:
    assert parse_concentrator("").address_log.enabled is False
    log = AddressLog(AddressLogSettings(file=str(tmp_path / "log")))
    log.write(RECORD)
    assert list(tmp_path.iterdir()) == []
    assert log.status()["written"] == 0


def test_the_file_is_private_and_put_aside_when_it_is_large(tmp_path: Path) -> None:
    path = tmp_path / "logs/addresses.log"
    before = os.umask(0)
    try:
        log = AddressLog(AddressLogSettings(enabled=True, file=str(path), max_mb=0.01, keep=2))
        for _ in range(300):
            log.write(RECORD)
        log.close()
    finally:
        os.umask(before)
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == ["addresses.log", "addresses.log.1", "addresses.log.2"]
    assert all(len(entry.read_bytes()) <= 10_000 for entry in path.parent.iterdir())
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text().splitlines()[-1] == LINE
    assert log.status() == {"enabled": True, "places": [str(path)], "written": 300, "failed": 0, "trouble": ""}


def test_no_other_log_has_these_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        log = AddressLog(AddressLogSettings(enabled=True, file=str(tmp_path / "log")))
        log.write(RECORD)
        log.close()
    assert caplog.text == ""


def test_a_file_that_cannot_be_written_is_complained_of_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    log = AddressLog(AddressLogSettings(enabled=True, file=str(tmp_path / "file/log")))
    for _ in range(3):
        log.write(RECORD)
    log.close()
    assert [record.message for record in caplog.records] == [
        f"the address log cannot be written: {tmp_path / 'file'}: File exists; see section address_log"
    ]
    assert log.status()["failed"] == 3
    assert log.status()["trouble"] == f"{tmp_path / 'file'}: File exists"


def test_the_system_log_gets_it_as_local0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_log, "SYSLOG", str(tmp_path / "dev-log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "dev-log"))
        receiver.settimeout(5)
        log = AddressLog(AddressLogSettings(enabled=True, file="", syslog=True, destinations=True))
        log.write(RECORD)
        text = receiver.recv(2000)
        log.close()
    facility_local0, severity_info = 16, 6
    head = f"<{facility_local0 * 8 + severity_info}>mcp-concentrator-addresses: "
    assert text.rstrip(b"\0").decode() == f"{head}{LINE} destination=198.51.100.7#443"


def test_other_settings_take_effect_at_once(tmp_path: Path) -> None:
    log = AddressLog(AddressLogSettings(enabled=True, file=str(tmp_path / "one")))
    log.write(RECORD)
    log.configure(AddressLogSettings(enabled=True, file=str(tmp_path / "two"), destinations=True))
    log.write(RECORD)
    log.configure(AddressLogSettings())
    log.write(RECORD)
    assert (tmp_path / "one").read_text() == f"{LINE}\n"
    assert (tmp_path / "two").read_text() == f"{LINE} destination=198.51.100.7#443\n"
    assert log.status()["places"] == []


def test_a_log_to_nowhere_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match=r"address_log.*option file.*is empty and syslog is off"):
        parse_concentrator("config address_log 'address_log'\n\toption enabled '1'\n\toption file ''\n")
