"""``cpe-mcpd`` itself on OpenWrt's ubus: each method through rpcd's public object, and events of a line that comes and goes.

The daemon runs in a network namespace of its own, with a WAN that is one end of a veth pair.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import Program, Rpcd, Ubusd, wait_for

from cpe_mcp.bus.events import PATH
from cpe_mcp.bus.service import CLIENT_VARIABLE, OWN, PYTHON_UBUS, SOCKET_VARIABLE
from cpe_mcp.bus.wire import Status
from cpe_mcp.paths.health import OFFLINE, UP

pytestmark = pytest.mark.netns

CONFIG = """config global 'global'
	option run_dir '{run}'
	option state_dir '{run}/flash'
config wan 'one'
	option device 'wan0'
	option quota_gb '2'
"""
"""Without a concentrator nobody is asked whether the line works, and it has the benefit of the doubt."""
START_S = 15.0
LINE = """ip link add wan0 type veth peer name isp0
ip addr add 198.51.100.2/24 dev wan0
ip link set lo up
ip link set isp0 up
ip link set wan0 up
ip route add default via 198.51.100.1 dev wan0
"""
METHODS: list[tuple[str, dict[str, Any], str]] = [
    ("status", {}, "wans"),
    ("paths", {}, "wans"),
    ("history", {}, "interval_s"),
    ("flows", {"limit": 10, "filter": "x"}, "flows"),
    ("records", {"limit": 10, "filter": "x"}, "flows"),
    ("concentrators", {}, "concentrators"),
    ("check", {}, "stages"),
    ("why", {"dest": "192.0.2.1", "port": 443}, "action"),
    ("speedtest", {"action": "status"}, "state"),
    ("drop", {"id": "0:1"}, "dropped"),
    ("quota", {"wan": "one"}, "quotas"),
    ("support", {}, "report"),
    ("reload", {}, "changed"),
]


class Router:
    """The daemon, its namespace and its bus."""

    def __init__(self, ubusd: Ubusd, folder: Path, kind: str) -> None:
        self.ubusd = ubusd
        self.name = f"cpe-mcp-bus-{os.getpid()}"
        config = folder / "cpe-mcp"
        config.write_text(CONFIG.format(run=folder / "run"))
        self._settings = [f"{SOCKET_VARIABLE}={ubusd.socket}", f"{CLIENT_VARIABLE}={kind}"]
        self.daemon = Program(
            [
                *("ip", "netns", "exec", self.name, "env", *self._settings),
                *(sys.executable, "-m", "cpe_mcp.upstream.daemon", "--config", str(config)),
            ],
            log=folder / "daemon.log",
        )

    def start(self) -> None:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.run(*LINE.splitlines())
        self.daemon.start()
        wait_for(lambda: self.ubusd.has("cpe-mcp.daemon"), "the daemon's object", START_S)

    def run(self, *lines: str) -> None:
        for line in lines:
            subprocess.run(["ip", "netns", "exec", self.name, *line.split()], check=True)

    def stop(self) -> None:
        self.daemon.stop()
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@pytest.fixture(params=[OWN, PYTHON_UBUS])
def router(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Router]:
    if request.param == PYTHON_UBUS and importlib.util.find_spec("ubus") is None:
        pytest.skip("needs python-ubus")
    ubusd = Ubusd(tmp_path)
    ubusd.start()
    router = Router(ubusd, tmp_path, request.param)
    try:
        router.start()
        yield router
    finally:
        router.stop()
        ubusd.stop()
        print(router.daemon.log_text())


@pytest.mark.requirement("X-2")
def test_every_method_of_the_contract(router: Router, tmp_path: Path) -> None:
    rpcd = Rpcd(router.ubusd, tmp_path)
    rpcd.start()
    try:
        for method, args, field in METHODS:
            assert field in router.ubusd.call("cpe-mcp", method, args), method
        status, printed = router.ubusd.refusal("cpe-mcp", "flows", {"limit": 0})
        assert status == Status.INVALID_ARGUMENT
        assert "limit is a number" in json.loads(printed)["text"]
        router.daemon.stop()
        assert router.ubusd.refusal("cpe-mcp", "status")[0] == Status.CONNECTION_FAILED
    finally:
        rpcd.stop()


def test_a_line_that_goes_and_comes_is_an_event(router: Router, tmp_path: Path) -> None:
    log = tmp_path / "events"
    listener = router.ubusd.listener("cpe-mcp.*", log=log)
    listener.start()

    def heard(state: str) -> bool:
        rows = [json.loads(line) for line in listener.log_text().splitlines() if line.endswith("}")]
        return any(row.get(PATH, {}).get("wan") == "one" and row[PATH]["state"] == state for row in rows)

    def paths() -> dict[str, Any]:
        reply = router.ubusd.call("cpe-mcp.daemon", "paths", {"args": {}})["reply"]
        return dict(reply["wans"][0])

    try:
        wait_for(lambda: paths()["usable"], "the WAN", START_S)
        time.sleep(0.3)  # for the listener to have registered
        router.run("ip link set isp0 down")
        wait_for(lambda: heard(OFFLINE), "the event of the line that goes", START_S)
        assert not paths()["usable"]
        router.run("ip link set isp0 up", "ip route replace default via 198.51.100.1 dev wan0")
        wait_for(lambda: heard(UP), "the event of the line that comes", START_S)
    finally:
        listener.stop()
        print(log.read_text())


@pytest.mark.requirement("X-5")
def test_a_quota_that_is_used_up_is_an_event_and_each_step_of_it(router: Router, tmp_path: Path) -> None:
    listener = router.ubusd.listener("cpe-mcp.*", log=tmp_path / "events")
    listener.start()
    rpcd = Rpcd(router.ubusd, tmp_path)
    rpcd.start()

    def heard() -> list[tuple[str, str]]:
        rows = [json.loads(line) for line in listener.log_text().splitlines() if line.endswith("}")]
        return [(row[PATH]["state"], row[PATH]["reason"]) for row in rows if PATH in row]

    def shown() -> dict[str, Any]:
        (row,) = router.ubusd.call("cpe-mcp", "paths")["wans"]
        return dict(row)

    try:
        wait_for(lambda: shown()["usable"], "the WAN", START_S)
        time.sleep(0.5)  # for the listener to have registered
        before = len(heard())

        def news(count: int) -> list[tuple[str, str]]:
            wait_for(lambda: len(heard()) >= before + count, f"event {count}", START_S)
            return heard()[before:]

        events = [(UP, "wan-quota-soft"), ("out of quota", "wan-out-of-quota"), (UP, "wan-up")]
        for count, used in enumerate(("1.7", "2.5", "0"), 1):
            (row,) = router.ubusd.call("cpe-mcp", "quota", {"wan": "one", "used_gb": used})["quotas"]
            assert row["used_gb"] == pytest.approx(float(used), abs=0.001)
            assert news(count) == events[:count]
            assert (shown()["state"], shown()["reason"]) == events[count - 1]
            assert shown()["quota"].items() >= {"limit_gb": 2, "soft_percent": 80, "state": row["state"]}.items()
        status, printed = router.ubusd.refusal("cpe-mcp", "quota", {"wan": "one", "used_gb": "much"})
        assert status == Status.INVALID_ARGUMENT
        assert "used_gb is a number of gigabytes" in json.loads(printed)["text"]
    finally:
        rpcd.stop()
        listener.stop()
