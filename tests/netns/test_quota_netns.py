"""A tiny quota, crossed by real traffic: the WAN becomes backup and then the last resort, in the kernel, and stays it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_upstream_netns
from relay_world import SERVER4, World, inside, run
from test_upstream_netns import CONFIG, Router

from cpe_mcp.kernel.mptcp import MptcpNetlink
from cpe_mcp.paths.observed import FLAG_BACKUP

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-5"), pytest.mark.requirement("5.6.1-e")]

MB = 10**6
QUOTA_MB = 40
WITH_QUOTA = (
    CONFIG.replace("option device 'w1'", f"option device 'w1'\n    option quota_gb '{QUOTA_MB / 1000}'")
    .replace("option pool_size '2'", "option pool_size '0'\n    option state_dir '@STATE@'")
    .replace("\nconfig wan 'one'", "\nconfig paths 'paths'\n    option busy_s '60'\n\nconfig wan 'one'")
)
"""WAN one begins connections, and two waits as backup whatever the load."""
DETAILS = ("name", "state", "reason", "place", "quota")


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    monkeypatch.setattr(test_upstream_netns, "CONFIG", WITH_QUOTA.replace("@STATE@", str(tmp_path / "flash")))
    world = World(tmp_path, "quot", bare=True)
    try:
        world.start_concentrator()
        router = Router(world, tmp_path)
        router.wait("Interception:  on")
        yield router
    finally:
        world.close()


def wan(router: Router, name: str = "one") -> dict[str, Any]:
    rows = json.loads(router.cli("--json", "paths").stdout or '{"wans": []}')["wans"]
    return next((row for row in rows if row["name"] == name), {"quota": {}})


def wait(router: Router, condition: Callable[[dict[str, Any]], bool], seconds: float = 10.0) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while not condition(row := wan(router)):
        assert time.monotonic() < end, {name: row.get(name) for name in DETAILS}
        time.sleep(0.1)
    return row


def endpoint(world: World) -> str:
    """What the kernel has for WAN one: ``ordinary``, ``backup``, or "" for none."""
    with inside(world.router):
        mptcp = MptcpNetlink()
    try:
        rows = [row for row in mptcp.endpoints() if row.address == "10.1.0.1"]
    finally:
        mptcp.close()
    return "" if not rows else "backup" if rows[0].flags & FLAG_BACKUP else "ordinary"


def wait_endpoint(world: World, wanted: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while endpoint(world) != wanted:
        assert time.monotonic() < end, f"{endpoint(world)!r}, not {wanted!r}"
        time.sleep(0.02)


def device_bytes(world: World) -> int:
    argv = ["ip", "-j", "-s", "-n", world.router, "link", "show", "w1"]
    (row,) = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return int(row["stats64"]["rx"]["bytes"]) + int(row["stats64"]["tx"]["bytes"])


class Server:
    """Sends as many bytes as it is asked for, again and again on one connection."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = world.serve(self._send)

    @staticmethod
    def _send(connection: socket.socket) -> None:
        while wish := connection.recv(8):
            connection.sendall(bytes(int.from_bytes(wish, "big")))

    def connect(self) -> socket.socket:
        return self.world.connect(SERVER4, self.port, timeout=15)


def fetch(connection: socket.socket, count: int) -> None:
    connection.sendall(count.to_bytes(8, "big"))
    while count:
        piece = connection.recv(min(count, 1 << 20))
        assert piece, f"the end, {count} bytes too early"
        count -= len(piece)


def first_wan(router: Router, port: int) -> str:
    return str(json.loads(router.cli("--json", "why", f"{SERVER4}:{port}").stdout)["wan"])


def used_mb(row: dict[str, Any]) -> float:
    return float(row["quota"]["used_gb"]) * 1000


def test_a_quota_is_crossed_by_traffic_and_survives(router: Router) -> None:
    world = router.world
    server = Server(world)
    wait_endpoint(world, "ordinary")
    assert first_wan(router, server.port) == "one"

    with server.connect() as running:
        fetch(running, 20 * MB)
        row = wait(router, lambda row: used_mb(row) >= 20)
        assert (row["state"], row["reason"], row["quota"]["state"]) == ("up", "wan-up", "within")
        assert row["metered"], "a quota makes it so"
        assert row["quota"]["percent"] < 80
        assert endpoint(world) == "ordinary"

        # The soft step: the peer is told by MP_PRIO, which is what the flag of the endpoint does, and the flow goes on.
        fetch(running, 14 * MB)
        wait_endpoint(world, "backup")
        time.sleep(0.5)  # the switch takes up to 0.35 s
        counted = device_bytes(world)
        fetch(running, 5 * MB)
        moved = device_bytes(world) - counted
        assert endpoint(world) == "backup", "it stays joined for a moment"
        assert moved < MB, "the sender has obeyed"
        row = wait(router, lambda row: row["quota"]["state"] == "soft")
        assert row["reason"] == "wan-quota-soft"
        assert row["usable"]
        assert first_wan(router, server.port) == "two"
        wait_endpoint(world, "")  # a metered WAN that is not needed has no subflow at all
        before = used_mb(wan(router))
        fetch(running, 10 * MB)
        assert used_mb(wan(router)) - before < 1, "and nothing of it over this WAN any more"

    # The reserve: the other line fails, and this one carries as if nothing were.
    run("ip", "-n", world.router, "link", "set", "w2", "down")
    wait_endpoint(world, "ordinary")
    row = wait(router, lambda row: row["place"] == "carrying")
    assert row["quota"]["state"] == "soft"
    wait(router, lambda row: first_wan(router, server.port) == "one")
    with server.connect() as running:
        fetch(running, 10 * MB)
        row = wait(router, lambda row: row["state"] == "out of quota")
        assert row["reason"] == "wan-out-of-quota"
        assert row["quota"]["percent"] >= 100
        assert row["place"] == "carrying", "the last resort, while it is the only one"
        fetch(running, MB)

    bring_up_two(world)
    wait(router, lambda row: row["place"] == "absent", 15)
    wait_endpoint(world, "")
    assert first_wan(router, server.port) == "two"
    log = router.log.read_text()
    assert "wan one: its quota is nearly used up: only as backup" in log
    assert "wan one: its quota is used up: last resort" in log

    used = used_mb(wan(router))
    survives(router, used)
    corrected(router, used)


def bring_up_two(world: World) -> None:
    run("ip", "-n", world.router, "link", "set", "w2", "up")
    with contextlib.suppress(subprocess.CalledProcessError):  # IPv6 loses its address with the link
        run("ip", "-n", world.router, "address", "add", "2001:db8:2::1/64", "dev", "w2", "nodad")
    run("ip", "-n", world.router, "route", "replace", "default", "via", "10.2.0.2", "metric", "50")


def survives(router: Router, used: float) -> None:
    """A restart, a kill, and a boot with an empty directory in RAM."""
    flash = router.run_dir.parent / "flash/quota.json"
    for how in ("stopped", "killed", "rebooted"):
        if how == "killed":
            router.daemon.kill()
        else:
            router.daemon.terminate()
        router.daemon.wait(10)
        if how == "rebooted":
            shutil.rmtree(router.run_dir)
        router.daemon = router.start("cpe_mcp.upstream.daemon", "--config", str(router.config))
        row = wait(router, lambda row: row.get("state") == "out of quota")
        assert used <= used_mb(row) < used + 1, how
        wait(router, lambda row: row["place"] == "absent")
        assert endpoint(router.world) == ""
    assert flash.exists()
    assert flash.stat().st_mtime < time.time() - 5, "written at the start, and not again before the hour is over"


def corrected(router: Router, used: float) -> None:
    wrong = router.cli("quota", "two", "--used", "1")
    assert wrong.returncode == 1
    assert "'two' is no WAN with a quota; there are: one" in wrong.stderr
    assert router.cli("quota", "one", "--used", "many").returncode == 1
    shown = router.cli("quota", "one", "--used", "0.001")
    assert "0.001 of 0.04 GB (2 %)" in shown.stdout
    wait_endpoint(router.world, "ordinary")
    row = wait(router, lambda row: row["place"] == "carrying")
    assert (row["state"], row["quota"]["state"]) == ("up", "within")
    saved = json.loads((router.run_dir.parent / "flash/quota.json").read_text())
    assert list(saved["wans"]["one"]["periods"].values())[-1] < used * MB
