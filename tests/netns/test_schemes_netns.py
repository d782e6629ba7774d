"""Distribution schemes in a real kernel: who carries a running download, what the endpoints are, what an absent WAN costs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import SERVER4, World, run
from test_radius_netns import ENTERPRISE, PORT, SECRET, freeradius
from test_upstream_netns import Router

from cpe_mcp.control.ask import ask as control_ask
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.lab.freeradius import PROGRAM

pytestmark = [pytest.mark.netns, pytest.mark.requirement("5.6.2-a"), pytest.mark.requirement("X-4")]

MBIT = 40
"""Of each line: below what one core relays, so that the lines decide."""
DEVICES = ("w1", "w2")
SETTLE_S = 1.0
WATCH_S = 1.0
PLACES_TIMEOUT_S = 8.0
BLOCK = bytes(range(256)) * 256


def shape(namespace: str, device: str) -> None:
    run("tc", "-n", namespace, *f"qdisc add dev {device} root tbf rate {MBIT}mbit burst 40kb latency 50ms".split())


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    world = World(tmp_path, "schm", bare=True)
    try:
        for device in DEVICES:
            shape(world.far, device)
            shape(world.router, device)
        world.settings["congestion_control"] = "cubic"
        world.start_concentrator()
        router = Router(world, tmp_path, congestion_control="cubic")
        router.wait("one, two")
        router.wait("Interception:  on")
        yield router
    finally:
        world.close()


def configure(router: Router, scheme: str, *, metered: str = "") -> None:
    """Another scheme, and a WAN that is metered; as a user does it: change the file, reload."""
    text = router.config.read_text().split("\nconfig paths")[0].replace("\n    option metered '1'", "")
    if metered:
        text = text.replace(f"config wan '{metered}'", f"config wan '{metered}'\n    option metered '1'")
    router.config.write_text(f"{text}\nconfig paths 'paths'\n    option scheme '{scheme}'\n")
    control_ask(str(router.run_dir / API_SOCKET), "reload", {})


def paths(router: Router) -> dict[str, Any]:
    answer: dict[str, Any] = control_ask(str(router.run_dir / API_SOCKET), "paths", {})
    return answer


def places(router: Router) -> dict[str, str]:
    return {row["name"]: row["place"] for row in paths(router)["wans"]}


def await_places(router: Router, **wanted: str) -> None:
    end = time.monotonic() + PLACES_TIMEOUT_S
    while (now := places(router)) != wanted:
        assert time.monotonic() < end, f"{now} instead of {wanted}\n{router.log.read_text()}"
        time.sleep(0.05)


def endpoints(router: Router) -> dict[str, str]:
    """Device -> flags of the IPv4 endpoints."""
    argv = ["ip", "-n", router.world.router, "mptcp", "endpoint", "show"]
    rows = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    for row in rows:
        words = row.split()
        if "." in words[0]:
            found[words[words.index("dev") + 1]] = "backup" if "backup" in words else "subflow"
    return found


def received(router: Router) -> dict[str, int]:
    argv = ["ip", "-n", router.world.router, "-j", "-s", "link"]
    rows = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return {row["ifname"]: row["stats64"]["rx"]["bytes"] for row in rows if row["ifname"] in DEVICES}


def shares(router: Router) -> tuple[float, float]:
    """Of what came in a second, once things have settled."""
    time.sleep(SETTLE_S)
    before = received(router)
    time.sleep(WATCH_S)
    after = received(router)
    grown = [after[device] - before[device] for device in DEVICES]
    assert sum(grown) > 0.5 * WATCH_S * MBIT * 125_000, "the download runs"
    return grown[0] / sum(grown), grown[1] / sum(grown)


class Download:
    """One connection of the LAN client that takes what comes and looks at it."""

    def __init__(self, world: World, port: int) -> None:
        self.count = 0
        self.error = ""
        self._is_over = False
        self._socket = world.connect(SERVER4, port)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while not self._is_over:
                data = self._socket.recv(1 << 16)
                at = self.count % 256
                if not data or data != BLOCK[at : at + len(data)] + BLOCK[: max(0, at + len(data) - len(BLOCK))]:
                    self.error = "the end" if not data else f"other bytes after {self.count}"
                    return
                self.count += len(data)
        except OSError as error:
            self.error = str(error)

    def end(self) -> None:
        assert not self.error
        before = self.count
        time.sleep(0.5)
        assert self.count > before, "it still runs"
        self._is_over = True
        self._thread.join(5)
        self._socket.close()


def pour(connection: socket.socket) -> None:
    while True:
        connection.sendall(BLOCK)


def test_the_far_scheduler_obeys_every_scheme_on_a_running_download(router: Router) -> None:
    download = Download(router.world, router.world.serve(pour))
    configure(router, "primary-backup")
    await_places(router, one="carrying", two="backup")
    assert endpoints(router) == {"w1": "subflow", "w2": "backup"}
    assert shares(router)[1] < 0.01
    configure(router, "aggregate")
    await_places(router, one="carrying", two="carrying")
    assert endpoints(router) == {"w1": "subflow", "w2": "subflow"}
    assert min(shares(router)) > 0.3
    configure(router, "single:two")
    await_places(router, one="absent", two="carrying")
    assert endpoints(router) == {"w2": "subflow"}
    assert shares(router)[0] < 0.01
    configure(router, "overflow", metered="one")
    await_places(router, one="carrying", two="carrying")
    assert min(shares(router)) > 0.3, "the unmetered line is full"
    configure(router, "primary-backup", metered="two")
    await_places(router, one="carrying", two="absent")
    assert endpoints(router) == {"w1": "subflow"}
    assert shares(router)[1] < 0.01
    shown = router.cli("paths").stdout
    assert "primary-backup: the best WAN carries, the others wait for its failure" in shown
    assert "absent" in shown
    download.end()


def test_a_running_download_moves_to_a_wan_that_was_absent(router: Router) -> None:
    configure(router, "primary-backup", metered="two")
    await_places(router, one="carrying", two="absent")
    download = Download(router.world, router.world.serve(pour))
    assert shares(router)[1] < 0.01
    run("ip", "-n", router.world.router, "link", "set", "w1", "down")
    await_places(router, one="", two="carrying")
    assert shares(router)[1] > 0.99
    run("ip", "-n", router.world.router, "link", "set", "w1", "up")
    run("ip", "-n", router.world.router, "route", "add", "default", "via", "10.1.0.2")
    await_places(router, one="carrying", two="absent")
    assert shares(router)[1] < 0.01, "long flows go back to the line that costs nothing"
    download.end()


def test_the_pool_joins_no_metered_wan(router: Router) -> None:
    configure(router, "overflow", metered="two")
    await_places(router, one="carrying", two="absent")
    router.restart_worker()
    router.wait("2 warm connections ready")
    argv = ["ss", "-N", router.world.router, "-tn", "state", "established"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert listed.count("10.1.0.1]") == 2, listed
    assert "10.2.0.1" not in listed


RADIUS_SECTION = f"""
config radius 'radius'
    option enabled '1'
    list server '127.0.0.1'
    option secret "{SECRET}"
    option enterprise '{ENTERPRISE}'
    option username '@USER@'
    option password '@PASSWORD@'
"""


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs the program freeradius")
@pytest.mark.parametrize(
    ("user", "password", "wanted"),
    [
        ("erin", "ohmslaw", {"one": "absent", "two": "carrying"}),
        ("dora", "explorer", {"one": "carrying", "two": "backup"}),
    ],
    ids=["a-wan", "no-such-wan"],
)
def test_radius_orders_the_scheme_of_a_subscriber(
    tmp_path: Path, user: str, password: str, wanted: dict[str, str]
) -> None:
    world = World(tmp_path, "schr", bare=True)
    try:
        world.start_concentrator()
        run("ip", "-n", world.router, "link", "set", "lo", "up")
        with freeradius(world.router, tmp_path / "radius", PORT):
            section = RADIUS_SECTION.replace("@USER@", user).replace("@PASSWORD@", password)
            router = Router(world, tmp_path, extra=section)
            router.wait("Interception:  on")
            await_places(router, **wanted)
            scheme = paths(router)["scheme"]["name"]
            ordered = "single:lte, and there is no such WAN here" in router.log.read_text()
            assert (scheme, ordered) == (("adaptive", True) if user == "dora" else ("single:two", False))
    finally:
        world.close()


def test_a_scheme_of_the_scheme_in_the_file_names_what_is_wrong(router: Router) -> None:
    with pytest.raises(Exception, match=r"option scheme: 'single:three' is not allowed; enabled WANs are: one, two"):
        configure(router, "single:three")
    assert places(router)["one"] == "carrying", "the settings before stay in force"
