"""Rules by a user's hands: the settings file, ``cpe-mcp reload``, and a download that does not notice."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import CLIENT4, SERVER4, World
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
