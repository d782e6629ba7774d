"""``cpe-mcp`` against a daemon that says what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.cli.main import main
from cpe_mcp.control.api import ApiServer
from cpe_mcp.control.ask import ApiError
from cpe_mcp.control.frames import API_SOCKET

pytestmark = pytest.mark.unit

FLOW = {
    "client": "192.168.1.2",
    "client_port": 4000,
    "server": "192.0.2.80",
    "server_port": 443,
    "action": "proxy",
    "reason": "pooled",
    "concentrator": "mine",
    "wan": "dsl",
    "bytes_down": 5_000_000,
    "bytes_up": 1000,
    "duration_s": 3.0,
    "end": "",
    "pooled": True,
    "first_byte_ms": 21.0,
}


@contextlib.contextmanager
def daemon(directory: Path, answers: dict[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    """Serves the answers in a thread; gives the questions that came."""
    asked: list[tuple[str, Any]] = []
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    def method(name: str) -> Any:
        async def answer(args: Any) -> Any:
            asked.append((name, dict(args)))
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return answer

    server = ApiServer(str(directory / API_SOCKET), {name: method(name) for name in answers})

    def serve() -> None:
        loop.run_until_complete(server.start())
        ready.set()
        loop.run_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait(5)
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(server.close())
        loop.close()


def test_without_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(tmp_path), "status"]) == 3
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "not running" in error
    assert "/etc/init.d/cpe-mcp start" in error


@pytest.mark.parametrize("order", ["before", "after"])
def test_json_is_the_daemons_own_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], order: str) -> None:
    """Options are taken before the command and after it."""
    options = ["--json", "--run-dir", str(tmp_path)]
    rows: dict[str, Any] = {"concentrators": [], "sources": []}
    with daemon(tmp_path, {"concentrators": rows}):
        main([*options, "concentrators"] if order == "before" else ["concentrators", *options])
    assert json.loads(capsys.readouterr().out) == rows


def test_flows_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, {"flows": {"flows": [FLOW], "silent_workers": 0}}) as asked:
        assert main(["--run-dir", str(tmp_path), "flows", "--limit", "5"]) == 0
    assert asked == [("flows", {"limit": 5})]
    shown = capsys.readouterr().out
    assert "192.168.1.2:4000" in shown
    assert "192.0.2.80:443" in shown
    assert "mine" in shown


def test_what_the_daemon_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, {"reload": ApiError("section wan 'dsl': no device")}):
        assert main(["--run-dir", str(tmp_path), "reload"]) == 1
    assert capsys.readouterr().err == "cpe-mcp: section wan 'dsl': no device\n"


@pytest.mark.parametrize("destination", ["", "192.0.2.1:99999", "192.0.2.1:http", "[2001:db8::1"])
def test_destinations_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], destination: str) -> None:
    with daemon(tmp_path, {"why": {}}):
        assert main(["--run-dir", str(tmp_path), "why", destination]) == 2
    assert capsys.readouterr().err.startswith("cpe-mcp: ")


def test_usage() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nonsense"])
    assert stop.value.code == 2


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    flows = [FLOW] * 1000  # printed, more than a pipe holds
    with daemon(tmp_path, {"flows": {"flows": flows, "silent_workers": 0}}):
        command = [sys.executable, "-m", "cpe_mcp.cli.main", "--json", "--run-dir", str(tmp_path), "flows"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "{\n", process.stderr.read()
            process.stdout.close()
            assert process.stderr.read() == ""
