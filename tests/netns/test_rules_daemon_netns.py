"""Rules by a user's hands: the settings file, ``cpe-mcp reload``, and a download that does not notice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import CLIENT4, INTERCEPT_PORT, SERVER4, SERVER6, World
from test_upstream_netns import Router, fetch, say_hello

pytestmark = pytest.mark.netns

PIECE = os.urandom(16384)
PIECES = 200
PAUSE_S = 0.02


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    world = World(tmp_path, "ruled", bare=True)
    try:
        world.start_concentrator()
        yield Router(world, tmp_path)
    finally:
        world.close()


class Download:
    """Slow enough to live through everything."""

    def __init__(self, world: World) -> None:
        def pour(connection: socket.socket) -> None:
            for _ in range(PIECES):
                connection.sendall(PIECE)
                time.sleep(PAUSE_S)

        self._client = world.connect(SERVER4, world.serve(pour))
        self._digest = hashlib.sha256()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._client:
            while data := self._client.recv(65536):
                self._digest.update(data)

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def is_whole(self) -> bool:
        self._thread.join(PIECES * PAUSE_S * 5 + 10)
        return not self._thread.is_alive() and self._digest.digest() == hashlib.sha256(PIECE * PIECES).digest()


@pytest.mark.requirement("X-7")
@pytest.mark.requirement("X-12")
def test_a_download_runs_on_while_rules_come_and_go(router: Router) -> None:
    world, base = router.world, router.config.read_text()
    port = world.serve(say_hello)
    router.wait("Interception:  on")
    download = Download(world)

    def reload(*sections: str) -> None:
        router.config.write_text(base + "\n".join(sections))
        result = router.cli("reload")
        assert result.returncode == 0, result.stderr
        assert download.is_running()

    def why() -> tuple[str, str]:
        answer = json.loads(router.cli("--json", "why", f"{SERVER4}:{port}").stdout)
        return answer["action"], answer["rule"]["name"]

    assert why() == ("proxy", "")
    reload(f"config rule\n option action direct\n option name Shop\n list dest {SERVER4}\n")
    assert fetch(world, port) == b"hello"
    assert why() == ("direct", "Shop")
    reload(
        f"config rule 'closed'\n option action block\n list dest_port {port}\n", "config quic\n option policy reject\n"
    )
    with pytest.raises(ConnectionRefusedError):
        fetch(world, port)
    assert why() == ("block", "closed")
    reload(f"config rule\n list src {CLIENT4}\n", "config dscp\n option mode off\n")
    assert fetch(world, port) == b"hello"
    reload("config logging\n option flows 1\n option mask 0\n")
    assert fetch(world, port) == b"hello"
    assert why() == ("proxy", "")
    assert download.is_whole(), "the download was cut or damaged"

    end = time.monotonic() + 5
    while f"client={CLIENT4}#" not in router.log.read_text():
        assert time.monotonic() < end, "no line for an ended connection"
        time.sleep(0.1)
    while len(records := json.loads(router.cli("--json", "flows", "--finished").stdout)["flows"]) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    sizes = {row["bytes_down"]: row["action"] for row in records}
    assert sizes == {len(PIECE) * PIECES: "proxy", len(b"hello"): "proxy"}, "the rest never reached a worker"


def test_a_refused_rule_changes_nothing(router: Router) -> None:
    world, base = router.world, router.config.read_text()
    port = world.serve(say_hello)
    router.wait("Interception:  on")
    router.config.write_text(base + "config rule\nconfig rule\n list dest 10.0.0.1/8\n")
    refused = router.cli("reload")
    assert refused.returncode == 1
    assert "section rule[1], option dest: '10.0.0.1/8' is not allowed" in refused.stderr
    assert fetch(world, port) == b"hello"


@pytest.mark.requirement("Y-2")
def test_the_table_follows_the_port_of_the_workers(router: Router) -> None:
    """A daemon that comes back alone finds other settings than its workers were started with."""
    world = router.world
    port = world.serve(say_hello)
    router.wait("Interception:  on")
    text = router.config.read_text()
    router.config.write_text(text.replace("option pool_size '2'", f"option intercept_port '{INTERCEPT_PORT + 7}'"))
    assert "intercept_port" in router.cli("reload").stdout
    assert "/etc/init.d/cpe-mcp reload starts them" in router.wait("Interception:  on")
    router.daemon.kill()
    router.daemon.wait()
    router.start("cpe_mcp.upstream.daemon", "--config", str(router.config))
    router.wait("Interception:  on")
    assert fetch(world, port) == b"hello"
    end = time.monotonic() + 5
    while not (records := json.loads(router.cli("--json", "flows", "--finished").stdout)["flows"]):
        assert time.monotonic() < end, "it was forwarded past the worker"
        time.sleep(0.1)
    assert records[0]["action"] == "proxy"


@pytest.mark.requirement("X-7")
@pytest.mark.parametrize("server", [SERVER4, SERVER6])
def test_what_a_rule_protects_never_goes_direct(router: Router, server: str) -> None:
    """Design D4: everything fails open but this, whoever is missing: the concentrator or the worker."""
    world = router.world
    protected, other = world.serve(say_hello, server), world.serve(say_hello, server)
    rule = f"config rule 'safe'\n option action proxy\n option fallback block\n list dest_port {protected}\n"
    router.config.write_text(router.config.read_text() + rule)
    router.wait("Interception:  on")
    assert router.cli("reload").returncode == 0

    def get(port: int) -> bytes:
        """What the server says; nothing when the connection is refused or reset."""
        with contextlib.suppress(ConnectionError), world.connect(server, port, timeout=8) as client:
            return client.recv(100)
        return b""

    assert get(protected) == b"hello"
    assert get(other) == b"hello"
    concentrator = world.processes.pop(0)
    concentrator.kill()
    concentrator.wait()
    end = time.monotonic() + 12
    while json.loads(router.cli("--json", "status").stdout)["proxy"]:
        assert get(protected) == b"", "before the daemon knows, the worker has to say no"
        assert time.monotonic() < end
    assert get(protected) == b"", "then the table does"
    assert get(other) == b"hello"
    (answer,) = json.loads(router.cli("--json", "why", f"[{server}]:{protected}").stdout)["answers"]
    assert (answer["action"], answer["rule"]["name"]) == ("block", "safe")
    router.worker.kill()
    router.worker.wait()
    for _ in range(20):
        assert get(protected) == b"", "and it goes on to"
        time.sleep(0.02)
    assert get(other) == b"hello"
