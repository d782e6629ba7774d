"""The object cpe-mcp as OpenWrt's own programs see it: ubusd, rpcd with our plugin, ``ubus call`` and ``ubus listen``."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from programs import PLUGIN, Program, Rpcd, Ubusd, find, wait_for

from cpe_mcp.bus import client, python_ubus
from cpe_mcp.bus.events import AUTH, PATH
from cpe_mcp.bus.service import PYTHON_UBUS, BusService
from cpe_mcp.bus.wire import Status
from cpe_mcp.control.ask import ApiError

SESSION = {"ubus_rpc_session": "0123456789abcdef0123456789abcdef"}
BACK_S = 5.0


class Daemon:
    """A bus service with methods like the daemon's, in an event loop of its own thread."""

    def __init__(self, ubusd: Ubusd, kind: str) -> None:
        self._ubusd = ubusd
        self._connect = python_ubus.connect if kind == PYTHON_UBUS else client.connect
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._service: BusService | None = None

    def start(self) -> None:
        async def start() -> BusService:
            service = BusService(
                {
                    "status": self._status,
                    "flows": self._flows,
                    "why": self._why,
                    "reload": self._reload,
                    "records": self._records,
                },
                socket_path=str(self._ubusd.socket),
                connect=self._connect,
            )
            service.start()
            return service

        self._service = asyncio.run_coroutine_threadsafe(start(), self._loop).result(5)
        wait_for(lambda: self._ubusd.has("cpe-mcp.daemon"), "the daemon's object")

    def stop(self) -> None:
        if self._service is not None:
            asyncio.run_coroutine_threadsafe(self._service.stop(), self._loop).result(5)
            self._service = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def send(self, event: str, data: Mapping[str, Any]) -> None:
        assert self._service is not None
        self._loop.call_soon_threadsafe(self._service.send, event, data)

    def turn_s(self) -> float:
        """How long the event loop takes for one turn now."""
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(5)
        return time.monotonic() - began

    async def _status(self, args: Mapping[str, Any]) -> dict[str, Any]:
        return {"version": "1", "args": args, "wans": [{"name": "dsl", "rtt_ms": 12.5, "bytes": 2**40}], "until": None}

    async def _flows(self, args: Mapping[str, Any]) -> dict[str, Any]:
        rows = [{"id": f"0:{n}", "client": "192.168.1.2", "text": "x" * 400} for n in range(int(args["limit"]))]
        return {"args": args, "flows": rows, "silent_workers": 0}

    async def _why(self, args: Mapping[str, Any]) -> dict[str, Any]:
        if not args.get("dest"):
            raise ApiError("dest is missing: an address or a name")
        return {"args": args}

    async def _reload(self, args: Mapping[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError

    async def _records(self, args: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.8)
        return {"flows": []}


@pytest.fixture
def ubusd(tmp_path: Path) -> Iterator[Ubusd]:
    ubusd = Ubusd(tmp_path)
    ubusd.start()
    yield ubusd
    ubusd.stop()


@pytest.fixture
def rpcd(ubusd: Ubusd, tmp_path: Path) -> Iterator[Rpcd]:
    rpcd = Rpcd(ubusd, tmp_path)
    rpcd.start()
    yield rpcd
    rpcd.stop()
    print(rpcd.log_text())


@pytest.fixture(params=["own", PYTHON_UBUS])
def daemon(request: pytest.FixtureRequest, ubusd: Ubusd) -> Iterator[Daemon]:
    if request.param == PYTHON_UBUS and importlib.util.find_spec("ubus") is None:
        pytest.skip("needs python-ubus")
    daemon = Daemon(ubusd, request.param)
    daemon.start()
    yield daemon
    daemon.close()


@pytest.mark.requirement("X-2")
def test_status_from_the_command_line_and_from_luci(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon) -> None:
    expected: dict[str, Any] = {
        "version": "1",
        "args": {},
        "wans": [{"name": "dsl", "rtt_ms": 12.5, "bytes": 2**40}],
        "until": None,
    }
    assert ubusd.call("cpe-mcp", "status") == expected
    assert ubusd.call("cpe-mcp", "status", SESSION) == expected


def test_arguments_arrive_and_are_optional(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon) -> None:
    assert ubusd.call("cpe-mcp", "why", {"dest": "example.org"}) == {"args": {"dest": "example.org"}}
    full = {"dest": "2001:db8::1", "port": 443, "client": "192.168.1.7"}
    assert ubusd.call("cpe-mcp", "why", {**full, **SESSION}) == {"args": full}


@pytest.mark.parametrize(
    ("method", "args", "status", "text"),
    [
        ("why", {"port": 443}, Status.INVALID_ARGUMENT, "dest is missing"),
        ("reload", {}, Status.UNKNOWN_ERROR, "a fault in the daemon"),
        ("history", {}, Status.METHOD_NOT_FOUND, "no method history"),
    ],
)
def test_errors_have_a_code_and_a_text(
    ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon, method: str, args: dict[str, Any], status: int, text: str
) -> None:
    got, printed = ubusd.refusal("cpe-mcp", method, args)
    assert got == status
    assert text in json.loads(printed)["text"]


@pytest.mark.parametrize("args", [{"port": "https"}, {"nonsense": 1}, {"dest": 5}])
def test_rpcd_itself_refuses_wrong_types_and_unknown_names(ubusd: Ubusd, rpcd: Rpcd, args: dict[str, Any]) -> None:
    assert ubusd.refusal("cpe-mcp", "why", args) == (Status.INVALID_ARGUMENT, "")


def test_unknown_method(ubusd: Ubusd, rpcd: Rpcd) -> None:
    assert ubusd.refusal("cpe-mcp", "nonsense") == (Status.METHOD_NOT_FOUND, "")


def test_a_daemon_that_is_down_is_told_from_everything_else(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon) -> None:
    ubusd.call("cpe-mcp", "status")
    daemon.stop()
    status, printed = ubusd.refusal("cpe-mcp", "status")
    assert status == Status.CONNECTION_FAILED
    assert json.loads(printed)["error"] == "not-running"
    daemon.start()
    assert ubusd.call("cpe-mcp", "status")["version"] == "1"


def test_half_a_megabyte(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon) -> None:
    reply = ubusd.call("cpe-mcp", "flows", {"limit": 1000})
    assert len(reply["flows"]) == 1000
    assert len(json.dumps(reply)) > 450_000
    status, printed = ubusd.refusal("cpe-mcp", "flows", {"limit": 2500})
    assert status == Status.INVALID_ARGUMENT
    assert json.loads(printed)["error"] == "too-long"
    assert ubusd.call("cpe-mcp", "status")["version"] == "1"


def test_rpcd_serves_others_while_one_answer_takes_its_time(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon) -> None:
    slow = threading.Thread(target=lambda: ubusd.call("cpe-mcp", "records"))
    slow.start()
    time.sleep(0.1)
    began = time.monotonic()
    assert ubusd.ubus("call", "session", "list").returncode == 0  # an object of rpcd's own
    assert time.monotonic() - began < 0.5
    slow.join()


@pytest.mark.requirement("X-2")
def test_back_within_five_seconds_of_a_restart_of_ubusd(ubusd: Ubusd, daemon: Daemon) -> None:
    for _ in range(3):
        ubusd.stop()
        ubusd.start()
        began = time.monotonic()
        wait_for(lambda: ubusd.has("cpe-mcp.daemon"), "the daemon's object", BACK_S)
        assert ubusd.call("cpe-mcp.daemon", "status", {"args": {}})["reply"]["version"] == "1"
        assert time.monotonic() - began < BACK_S


def test_after_a_restart_of_ubusd_and_rpcd_the_public_object_works(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon) -> None:
    ubusd.stop()
    rpcd.stop()  # by itself it sleeps on, and does not come back to the new bus
    ubusd.start()
    rpcd.start()
    wait_for(lambda: ubusd.ubus("call", "cpe-mcp", "status").returncode == 0, "status", BACK_S)


def test_events_reach_ubus_listen(ubusd: Ubusd, daemon: Daemon, tmp_path: Path) -> None:
    log = tmp_path / "events"
    listener = ubusd.listener("cpe-mcp.*", log=log)
    listener.start()
    data = {"wan": "dsl", "state": "down", "reason": "wan-silent", "text": "nothing comes back"}

    def both_arrived() -> bool:
        daemon.send(AUTH, {"state": "accepted"})
        daemon.send(PATH, data)
        return AUTH in listener.log_text() and PATH in listener.log_text()

    try:
        wait_for(both_arrived, "events")
    finally:
        listener.stop()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {PATH: data} in rows


def test_an_ubusd_that_hangs_stops_nothing(ubusd: Ubusd, daemon: Daemon) -> None:
    assert ubusd.process is not None
    pid = ubusd.process.pid
    later = Program(["sh", "-c", f"sleep 1.5; kill -CONT {pid}"])
    later.start()  # not from here: this process may hang with it
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    daemon.send(PATH, {"wan": "dsl"})
    turns = []
    while time.monotonic() - began < 1.0:
        turns.append(daemon.turn_s())
        time.sleep(0.02)
    assert max(turns) < 0.5
    later.wait()
    assert ubusd.call("cpe-mcp.daemon", "status", {"args": {}})["reply"]["version"] == "1"


def test_signatures_are_published(ubusd: Ubusd, rpcd: Rpcd) -> None:
    listed = ubusd.ubus("-v", "list", "cpe-mcp").stdout
    methods = dict(re.findall(r'^\t"?(\w+)"?:(\{.*\})', listed, re.MULTILINE))
    assert set(methods) == {
        *("status", "paths", "history", "flows", "records", "concentrators"),
        *("check", "why", "speedtest", "drop", "quota", "support", "reload"),
    }
    assert json.loads(methods["why"]).items() >= {"dest": "String", "port": "Integer", "client": "String"}.items()
    assert json.loads(methods["flows"]) == {"limit": "Integer", "filter": "String"}


def test_plugin_is_not_writable_for_others() -> None:
    assert PLUGIN.stat().st_mode & 0o002 == 0  # rpcd ignores it then


def test_through_the_web_server_as_luci_asks(ubusd: Ubusd, rpcd: Rpcd, daemon: Daemon, tmp_path: Path) -> None:
    """uhttpd adds the session to the arguments, and hands on the error's table beside its status."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [find("uhttpd"), "-f", "-h", str(tmp_path), "-p", address, "-u", "/ubus", "-U", str(ubusd.socket)]
    uhttpd = Program(command, log=tmp_path / "uhttpd.log")
    session = ubusd.call("session", "create", {"timeout": 60})["ubus_rpc_session"]
    ubusd.ubus(
        "call",
        "session",
        "grant",
        json.dumps({"ubus_rpc_session": session, "scope": "ubus", "objects": [["cpe-mcp", "*"]]}),
    )

    def ask(method: str, args: dict[str, Any]) -> Any:
        params = [session, "cpe-mcp", method, args]
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "call", "params": params}).encode()
        with urllib.request.urlopen(f"http://{address}/ubus", body, timeout=10) as reply:
            return json.load(reply)

    def listens() -> bool:
        with socket.socket() as probe:
            host, _, port = address.partition(":")
            return probe.connect_ex((host, int(port))) == 0

    uhttpd.start()
    try:
        wait_for(listens, "uhttpd")
        assert ask("why", {"dest": "example.org"})["result"] == [0, {"args": {"dest": "example.org"}}]
        assert ask("why", {})["result"] == [
            Status.INVALID_ARGUMENT,
            {"error": "refused", "text": "dest is missing: an address or a name"},
        ]
        assert len(ask("flows", {"limit": 1000})["result"][1]["flows"]) == 1000
        daemon.stop()
        status, reply = ask("status", {})["result"]
        assert (status, reply["error"]) == (Status.CONNECTION_FAILED, "not-running")
    finally:
        uhttpd.stop()
        print(uhttpd.log_text())
