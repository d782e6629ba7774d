"""``cpe-mcpd`` and ``cpe-mcp`` as a user starts them, in the router's namespace of a small world."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import CONCENTRATOR, COOKIE, INTERCEPT_PORT, SERVER4, SERVICE_PORT, World, run

pytestmark = pytest.mark.netns

CONFIG = f"""
config global 'global'
    option run_dir '@RUN@'
    option intercept 'any'
    option congestion_control '@CC@'
    option pool_size '2'
    option metrics_s '@METRICS@'
    list lan 'lan'

config wan 'one'
    option device 'w1'

config wan 'two'
    option device 'w2'
    option preference '20'

config concentrator 'mine'
    list address '{CONCENTRATOR}'
    option port '{SERVICE_PORT}'
    option subscriber 'alice'
    option key 'wonderland'
"""


class Router:
    """The daemon, a worker, and the command line."""

    def __init__(
        self, world: World, directory: Path, *, extra: str = "", metrics_s: str = "0", congestion_control: str = ""
    ) -> None:
        self.world = world
        self.run_dir = directory / "run"
        self.config = directory / "cpe-mcp"
        self.log = directory / "log"
        config = CONFIG.replace("@RUN@", str(self.run_dir)).replace("@METRICS@", metrics_s)
        self.config.write_text(config.replace("@CC@", congestion_control) + extra)
        run("ip", "-n", world.router, "route", "add", "default", "via", "10.2.0.2", "metric", "50")
        self.daemon = self.start("cpe_mcp.upstream.daemon", "--config", str(self.config), "--foreground")
        self.worker = self.start_worker()

    def start(self, module: str, *args: str) -> subprocess.Popen[bytes]:
        argv = ["ip", "netns", "exec", self.world.router, sys.executable, "-m", module, *args]
        with self.log.open("ab") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        self.world.processes.append(process)
        return process

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self.start(
            "cpe_mcp.relay.upstream_worker", "--run-dir", str(self.run_dir), "--port", str(INTERCEPT_PORT)
        )

    def restart_worker(self) -> None:
        self.worker.terminate()
        self.worker.wait(5)
        self.worker = self.start_worker()

    def cli(self, *args: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cpe_mcp.cli.main", "--run-dir", str(self.run_dir), *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)

    def wait(self, word: str = "proxying") -> str:
        end = time.monotonic() + 8
        while word not in (shown := self.cli("status").stdout):
            assert time.monotonic() < end, shown + self.log.read_text()
            time.sleep(0.1)
        return shown


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    world = World(tmp_path, "upst", bare=True)
    try:
        world.start_concentrator()
        yield Router(world, tmp_path)
    finally:
        world.close()


def say_hello(connection: socket.socket) -> None:
    connection.sendall(b"hello")


def fetch(world: World, port: int) -> bytes:
    with world.connect(SERVER4, port, timeout=5) as client:
        return client.recv(100)


@pytest.mark.requirement("5.2.1-a")
@pytest.mark.requirement("X-16")
def test_settings_alone_make_it_work_and_its_end_leaves_no_trace(router: Router) -> None:
    world = router.world
    port = world.serve(say_hello)
    router.wait("Interception:  on")
    assert fetch(world, port) == b"hello"
    end = time.monotonic() + 4
    while not (rows := json.loads(router.cli("--json", "flows", "--finished").stdout)["flows"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (rows[0]["action"], rows[0]["concentrator"], rows[0]["wan"]) == ("proxy", "mine", "one")
    assert "proxy by mine, first over one" in router.cli("why", f"{SERVER4}:{port}").stdout
    end = time.monotonic() + 3  # the worker tells of its warm connections once a second
    while (checked := router.cli("check")).returncode:
        assert time.monotonic() < end, checked.stdout
        time.sleep(0.1)
    for secret in ("wonderland", COOKIE.hex()):
        assert secret not in router.cli("--json", "status").stdout + router.log.read_text()
    router.daemon.terminate()
    assert router.daemon.wait(8) == 0
    for command in ("nft list ruleset", "ip mptcp endpoint", "ip rule list lookup 5101"):
        argv = ["ip", "netns", "exec", world.router, *command.split()]
        assert subprocess.run(argv, capture_output=True, text=True, check=False).stdout == "", command
    assert fetch(world, port) == b"hello"
    assert router.cli("status").returncode == 3


def test_a_killed_daemon_is_taken_up_by_the_next_one(router: Router) -> None:
    port = router.world.serve(say_hello)
    router.wait("Interception:  on")
    router.daemon.kill()
    router.daemon.wait()
    assert fetch(router.world, port) == b"hello", "the worker goes on alone"
    router.start("cpe_mcp.upstream.daemon", "--config", str(router.config))
    router.wait("Interception:  on")
    assert fetch(router.world, port) == b"hello"


def test_reload(router: Router) -> None:
    router.wait()
    text = router.config.read_text()
    router.config.write_text(text.replace("option preference '20'", "option preference 'twenty'"))
    refused = router.cli("reload")
    assert refused.returncode == 1
    assert "twenty" in refused.stderr
    router.daemon.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    router.wait("proxying")
    router.config.write_text(text.replace("list lan 'lan'", "list lan 'lan'\n    option enabled '0'"))
    assert router.cli("reload").returncode == 0
    assert "switched off in the settings" in router.wait("switched off")


def test_without_a_concentrator_everything_is_forwarded_and_the_reason_shown(router: Router) -> None:
    port = router.world.serve(say_hello)
    router.wait("Interception:  on")
    concentrator = router.world.processes[0]
    concentrator.kill()
    concentrator.wait()
    router.world.processes.remove(concentrator)
    end = time.monotonic() + 10
    answers = set()
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            answers.add(fetch(router.world, port))
        status = json.loads(router.cli("--json", "status").stdout)
        if not status["proxy"]:
            break
        time.sleep(0.2)
    assert status["reason"] in ("concentrator-unreachable", "no-concentrator", "no-wan"), status["reason"]
    assert fetch(router.world, port) == b"hello"
    assert answers == {b"hello"}


def test_wrong_settings_stop_it_with_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "cpe-mcp"
    wrong.write_text("config global 'global'\n    option workers 'many'\n")
    argv = [sys.executable, "-m", "cpe_mcp.upstream.daemon", "--config", str(wrong)]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    for word in ("cpe-mcp", "global", "workers", "many", "1 to 16"):
        assert word in result.stderr
