"""Several concentrators: which one a connection uses, and what happens when they die and return. All real: the daemon, its
worker, and two concentrators in a namespace each behind the far side."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import (
    INTERCEPT_PORT,
    SERVER4,
    SERVICE_PORT,
    Control,
    World,
    accept_cookie,
    inside,
    run,
)

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-6"), pytest.mark.requirement("5.1-a")]

needs_dns = pytest.mark.skipif(
    shutil.which("dnsmasq") is None or importlib.util.find_spec("dns") is None, reason="needs dnsmasq and dnspython"
)

ADDRESSES = {"near": "10.9.3.1", "far": "10.9.4.1"}
CONFIG = """
config global 'global'
    option run_dir '{run}'
    option intercept 'any'
    option pool_size '{pool}'

    list lan 'lan'

config wan 'one'
    option device 'w1'

config wan 'two'
    option device 'w2'
    option preference '20'
"""
CONCENTRATOR = """
config concentrator '{name}'
    list address '{address}'
    option port '{port}'
    option subscriber 'alice'
    option key 'wonderland'
{more}
"""
PACE_S = 0.01
"""Between two connections: a home does not open as many in a second as a concentrator takes for an attack (500)."""
SLOW_S = 1.5
"""More than any connection may take while somebody is alive: a handshake that is hedged twice, with room for a busy machine."""


class Concentrators:
    """Two of them, each in a namespace of its own that is routed to through the far side."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.namespaces: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.controls: dict[str, Control] = {}
        self.directory = directory
        for number, (name, address) in enumerate(ADDRESSES.items(), 3):
            namespace = self.namespaces[name] = f"{world.far}-{name}"
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", world.far, "link", "add", name, "type", "veth", "peer", "wire", "netns", namespace)
            for where, device, near in (
                (world.far, name, f"10.8.{number}.1/24"),
                (namespace, "wire", f"10.8.{number}.2/24"),
            ):
                run("ip", "-n", where, "link", "set", device, "up")
                run("ip", "-n", where, "address", "add", near, "dev", device)
            run("ip", "-n", namespace, "address", "add", f"{address}/32", "dev", "lo")
            run("ip", "-n", namespace, "route", "add", "default", "via", f"10.8.{number}.1")
            run("ip", "-n", world.far, "route", "add", f"{address}/32", "via", f"10.8.{number}.2")
            self.controls[name] = Control(directory / name, lambda control: control.send("settings", world.settings))
            self.controls[name].answers = accept_cookie
        run("ip", "netns", "exec", world.far, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def start(self, name: str) -> None:
        module = "cpe_mcp.relay.concentrator_worker"
        process = self.world.start(self.namespaces[name], module, "--run-dir", str(self.directory / name))
        self.controls[name].wait("hello", lambda hello: hello["pid"] == process.pid)
        self.processes[name] = process
        end = time.monotonic() + 5
        while True:
            with inside(self.world.far), contextlib.suppress(OSError):
                socket.create_connection((ADDRESSES[name], SERVICE_PORT), timeout=1).close()
                return
            assert time.monotonic() < end
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        """Its processes die: the kernel refuses."""
        process = self.processes[name]
        process.kill()
        process.wait()
        self.world.processes.remove(process)

    def silence(self, name: str, on: bool = True) -> None:
        """Nothing comes back, nothing is refused."""
        ruleset = 'table ip silence { chain c { type filter hook input priority 0; iifname "wire" drop; }; }'
        run("ip", "netns", "exec", self.namespaces[name], "nft", ruleset if on else "delete table ip silence")

    def close(self) -> None:
        for control in self.controls.values():
            control.stop()
        for namespace in self.namespaces.values():
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


class Home:
    """The router with its daemon and worker, and a LAN client."""

    def __init__(self, world: World, concentrators: Concentrators, directory: Path) -> None:
        self.world = world
        self.concentrators = concentrators
        self.directory = directory
        self.log = directory / "log"
        self.port = world.serve(lambda connection: connection.sendall(connection.recv(100)))
        self.hello_port = world.serve(lambda connection: connection.sendall(b"hello"))

    def start(self, *, pool: int = 2, more: dict[str, str] | None = None, extra: str = "", static: bool = True) -> None:
        more = more or {}
        text = CONFIG.format(run=self.directory / "run", pool=pool)
        for name, address in ADDRESSES.items() if static else ():
            text += CONCENTRATOR.format(name=name, address=address, port=SERVICE_PORT, more=more.get(name, ""))
        config = self.directory / "cpe-mcp"
        config.write_text(text + extra)
        run("ip", "-n", self.world.router, "route", "add", "default", "via", "10.2.0.2", "metric", "50")
        self.process("cpe_mcp.upstream.daemon", "--config", str(config), "--foreground")
        arguments = ("--run-dir", str(self.directory / "run"), "--port", str(INTERCEPT_PORT))
        self.process("cpe_mcp.relay.upstream_worker", *arguments)

    def process(self, module: str, *args: str) -> None:
        argv = ["ip", "netns", "exec", self.world.router, sys.executable, "-m", module, *args]
        with self.log.open("ab") as log:
            self.world.processes.append(subprocess.Popen(argv, stdout=log, stderr=log))

    def ask(self, *args: str) -> Any:
        argv = [sys.executable, "-m", "cpe_mcp.cli.main", "--run-dir", str(self.directory / "run"), "--json", *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        return json.loads(done.stdout) if done.stdout else {}

    def wait(self, condition: Any, timeout_s: float = 10.0) -> Any:
        """Until ``condition(status)`` holds."""
        end = time.monotonic() + timeout_s
        while True:
            status = self.ask("status")
            if status and condition(status):
                return status
            assert time.monotonic() < end, f"{json.dumps(status, indent=1)}\n{self.log.read_text()}"
            time.sleep(0.1)

    def wait_taken(self, first: str = "near") -> None:
        self.wait(lambda s: s["interception"]["on"] and s["pool"]["ready"] and _usable(s)[:1] == [first])

    def exchange(self, data: bytes = b"GET / HTTP/1.0\r\n\r\n") -> float:
        """One connection; returns what it took, s."""
        started = time.monotonic()
        with self.world.connect(SERVER4, self.port) as client:
            client.sendall(data)
            assert client.recv(100) == data
        return time.monotonic() - started

    def used(self) -> dict[str, Any]:
        """The record of a connection that has just been made."""
        known = {row["id"] for row in self.ask("flows", "--finished")["flows"]}
        self.exchange()
        end = time.monotonic() + 5
        while True:
            new = [row for row in self.ask("flows", "--finished")["flows"] if row["id"] not in known]
            if new:
                assert isinstance(new[0], dict)
                return new[0]
            assert time.monotonic() < end
            time.sleep(0.1)


def _usable(status: dict[str, Any]) -> list[str]:
    return [row["name"] for row in status["concentrators"] if row["usable"]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    world = World(tmp_path, "conc", bare=True)
    concentrators = None
    try:
        concentrators = Concentrators(world, tmp_path)
        for name in ADDRESSES:
            concentrators.start(name)
        yield Home(world, concentrators, tmp_path)
    finally:
        if concentrators is not None:
            concentrators.close()
        world.close()


def test_one_dies_the_next_takes_over_and_it_is_used_again_when_it_is_back(home: Home) -> None:
    home.start()
    home.wait_taken()
    assert home.used()["concentrator"] == "near"
    home.concentrators.kill("near")
    assert home.exchange() < SLOW_S
    home.wait(lambda s: _usable(s) == ["far"], 3.0)
    assert home.used()["concentrator"] == "far"
    home.concentrators.start("near")
    home.wait_taken()
    assert home.used()["concentrator"] == "near"


@pytest.mark.parametrize("pool", [0, 3])
def test_one_falls_silent_and_no_connection_waits_for_it(home: Home, pool: int) -> None:
    home.start(pool=pool)
    if pool:
        home.wait_taken()
    else:
        home.wait(lambda s: s["interception"]["on"])
    home.concentrators.silence("near")
    silent = time.monotonic()
    while time.monotonic() < silent + 3.0:
        assert home.exchange() < SLOW_S
        with home.world.connect(SERVER4, home.hello_port) as client:
            assert client.recv(10) == b"hello"
        time.sleep(PACE_S)
    status = home.wait(lambda s: _usable(s) == ["far"], 3.0)
    health = status["concentrators"][0]["health"]
    assert health["state"] == "dead"
    assert {row["name"] for row in health["wans"] if not row["answers"]} == {"one", "two"}
    assert all(wan["usable"] for wan in status["wans"]), home.log.read_text()
    assert home.used()["concentrator"] == "far"
    home.concentrators.silence("near", False)
    home.wait(lambda s: _usable(s) == ["near", "far"], 12.0)


def test_all_die_the_lan_goes_on_without_them_and_they_return(home: Home) -> None:
    home.start()
    home.wait_taken()
    for name in ADDRESSES:
        home.concentrators.kill(name)
    assert home.exchange() < SLOW_S
    status = home.wait(lambda s: not s["interception"]["on"], 4.0)
    assert status["reason"] == "concentrator-unreachable"
    assert home.exchange() < SLOW_S
    for name in ADDRESSES:
        home.concentrators.start(name)
    home.wait_taken()
    assert home.used()["concentrator"] == "near"


@pytest.mark.requirement("5.6.3-b")
@pytest.mark.requirement("5.6.2-a")
def test_a_rule_sends_some_to_another_concentrator_and_binds_them_to_one_wan(home: Home) -> None:
    rule = f"""
config rule
    option action 'proxy'
    list dest_port '{home.port}'
    option concentrator 'gaming'
    option scheme 'single:two'
"""
    home.start(more={"near": "    list service_class 'gaming'"}, extra=rule)
    home.wait(lambda s: s["interception"]["on"] and s["pool"]["ready"])
    record = home.used()
    assert (record["concentrator"], record["wan"], record["action"]) == ("near", "two", "proxy")
    assert (record["scheme"], record["scheme_reason"], record["fallback"]) == ("single:two", "scheme-bound", "")
    assert (record["mptcp"], record["pooled"]) == (False, False)
    assert set(record["bytes_by_wan"]) == {"two"}
    why = home.ask("why", f"{SERVER4}:{home.port}")
    assert (why["concentrator"], why["wan"], why["scheme"]) == ("near", "two", "single:two")
    with home.world.connect(SERVER4, home.hello_port) as client:
        assert client.recv(10) == b"hello"
    others = [row for row in home.ask("flows", "--finished")["flows"] if row["server_port"] == home.hello_port]
    assert [row["concentrator"] for row in others] in ([], ["far"]), "what no rule is about went to a dedicated one"
    # The dedicated one dies: the list serves, and the answer says why.
    home.concentrators.kill("near")
    assert home.exchange() < SLOW_S
    home.wait(lambda s: "near" not in _usable(s), 4.0)
    assert home.used()["concentrator"] == "far"
    assert "choice-unusable" in {row["reason"] for row in home.ask("why", f"{SERVER4}:{home.port}")["reasons"]}
    # And its WAN.
    run("ip", "-n", home.world.router, "link", "set", "w2", "down")
    home.wait(lambda s: not next(wan for wan in s["wans"] if wan["name"] == "two")["usable"], 4.0)
    record = home.used()
    assert (record["wan"], record["scheme_reason"], record["mptcp"]) == ("one", "scheme-wan-unusable", True)


NAME = "_mptcp-convert._tcp.example.net"
RESOLVER = "10.9.5.53"


@contextlib.contextmanager
def dnsmasq(world: World, *records: str) -> Iterator[None]:
    """A resolver on the far side that serves these records."""
    argv = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
    ]
    argv += ["--except-interface=lo", f"--listen-address={RESOLVER}", "--user=root", "--pid-file=", "--local-ttl=1"]
    argv += [f"--{record}" for record in records]
    process = subprocess.Popen(["ip", "netns", "exec", world.far, *argv])
    try:
        time.sleep(0.3)
        assert process.poll() is None
        yield
    finally:
        process.terminate()
        process.wait()


RECORDS = (
    f"srv-host={NAME},near.example.net,{SERVICE_PORT},10,5",
    f"srv-host={NAME},far.example.net,{SERVICE_PORT},20,5",
    f"address=/near.example.net/{ADDRESSES['near']}",
    f"address=/far.example.net/{ADDRESSES['far']}",
    "address=/near.example.net/2001:db8:77::1",
)


@needs_dns
def test_concentrators_from_dns_alone(home: Home) -> None:
    """Nothing but a name is set."""
    world = home.world
    run("ip", "-n", world.far, "address", "add", f"{RESOLVER}/32", "dev", "lo")
    discovery = f"config discovery\n    list dns_name '{NAME}'\n    list dns_server '{RESOLVER}'\n"
    discovery += "    list trust_alone 'dns'\n"
    with dnsmasq(world, *RECORDS):
        home.start(static=False, extra=discovery, pool=0)
        first, second = f"dns:{NAME}#1", f"dns:{NAME}#2"
        status = home.wait(lambda s: _usable(s) == [first, second])
    row, other = status["concentrators"]
    assert (row["addresses"], row["port"], row["source"]) == (
        [ADDRESSES["near"], "2001:db8:77::1"],
        SERVICE_PORT,
        "dns",
    )
    assert other["addresses"] == [ADDRESSES["far"]]
    (source,) = status["sources"]
    assert (source["source"], source["interface"], source["used"]) == ("dns", NAME, True)


@needs_dns
def test_dns_is_asked_over_whichever_wan_answers_and_a_failure_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpe_mcp.discovery import dns_source

    for name in ("TTL_MIN_S", "RETRY_S", "TRY_S"):
        monkeypatch.setattr(dns_source, name, 0.3)
    world = home.world
    run("ip", "-n", world.far, "address", "add", f"{RESOLVER}/32", "dev", "lo")
    for number in (1, 2):  # what the path manager does otherwise
        run("ip", "-n", world.router, "route", "add", "default", "via", f"10.{number}.0.2", "table", f"20{number}")
        run("ip", "-n", world.router, "rule", "add", "oif", f"w{number}", "lookup", f"20{number}")
    ways = [dns_source.Way("one", "w1", "10.1.0.1", ""), dns_source.Way("two", "w2", "10.2.0.1", "")]
    answers: list[Any] = []
    failures: list[str] = []

    async def until(condition: Any) -> None:
        async with asyncio.timeout(8):
            while not condition():
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        source = dns_source.DnsSource(
            [NAME],
            servers=[RESOLVER],
            ways=lambda: ways,
            on_answer=lambda name, answer: answers.append(answer),
            on_failure=lambda name, why: failures.append(why),
        )
        source.start()
        try:
            with dnsmasq(world, *RECORDS):
                await until(lambda: answers)
                # The first WAN goes dark: the second one is asked.
                dark = "table ip dark { chain c { type filter hook output priority 0; oifname w1 drop; }; }"
                run("ip", "netns", "exec", world.router, "nft", dark)
                answers.clear()
                await until(lambda: answers)
                assert not failures
                run("ip", "netns", "exec", world.router, "nft", "delete table ip dark")
            answers.clear()
            failures.clear()  # nobody listens any more
            await until(lambda: failures)
            assert RESOLVER in failures[0]
            with dnsmasq(world, *RECORDS[1:]):
                answers.clear()
                await until(lambda: answers)
            assert answers[-1][0] == (((ADDRESSES["far"],), SERVICE_PORT),)
        finally:
            await source.stop()

    with inside(world.router):
        asyncio.run(scenario())
