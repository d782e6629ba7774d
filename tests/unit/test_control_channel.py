"""The seqpacket channel between control daemon and workers, and the question socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.control import ask as module
from cpe_mcp.control.api import ApiServer
from cpe_mcp.control.ask import ApiError, ask
from cpe_mcp.control.frames import MAX_FRAME_BYTES, FrameError, pull_frame, push_frame
from cpe_mcp.control.server import ControlServer, Worker
from cpe_mcp.control.worker_end import QUEUE_MAX, RECONNECT_S, WorkerEnd

pytestmark = pytest.mark.unit

HELLO = push_frame("hello", {"role": "upstream", "index": 3, "pid": 77})


class Daemon:
    """A control server that remembers."""

    def __init__(self, path: Path) -> None:
        self.hellos: list[Worker] = []
        self.frames: list[tuple[str, Any]] = []
        self.gone = 0
        self.server = ControlServer(
            str(path),
            on_hello=self.hellos.append,
            on_frame=lambda worker, kind, payload: self.frames.append((kind, payload)),
            on_gone=self._gone,
        )
        self.server.start()

    def _gone(self, worker: Worker) -> None:
        self.gone += 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0.01)


def test_frames_round_trip_and_garbage_is_an_error() -> None:
    payload = {"cookie": b"\0\1", "name": "dsl", "list": [1, 2.5, None]}
    assert pull_frame(push_frame("snapshot", payload)) == ("snapshot", payload)
    for garbage in (b"", b"\xc1", b"hello", push_frame("x", 1)[:-1], b"\x93\x01\x02\x03", b"\x92\x01\x02"):
        with pytest.raises(FrameError):
            pull_frame(garbage)
    with pytest.raises(FrameError, match="limit"):
        push_frame("records", bytes(MAX_FRAME_BYTES))


def test_hello_and_both_ways(tmp_path: Path) -> None:
    async def body() -> None:
        daemon = Daemon(tmp_path / "run" / "control.sock")
        end = WorkerEnd(str(tmp_path / "run" / "control.sock"), HELLO)
        assert end.tick(0.0)
        await settle()
        assert [(worker.index, worker.pid) for worker in daemon.hellos] == [(3, 77)]
        end.send("counters", {"flows": 1})
        daemon.server.broadcast("snapshot", {"generation": 9})
        await settle()
        assert daemon.frames == [("counters", {"flows": 1})]
        assert end.receive() == [("snapshot", {"generation": 9})]
        end.close()
        await settle()
        assert daemon.gone == 1
        daemon.server.close()
        assert not (tmp_path / "run" / "control.sock").exists()

    asyncio.run(body())


def test_a_worker_outlives_its_daemon_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def body() -> None:
        end = WorkerEnd(str(path), HELLO)
        assert not end.tick(0.0)
        end.send("records", ["kept"], keep=True)
        end.send("counters", {"dropped": 1})
        assert not end.tick(RECONNECT_S / 2), "too early to try again"
        daemon = Daemon(path)
        assert end.tick(RECONNECT_S)
        await settle()
        assert daemon.frames == [("records", ["kept"])]
        daemon.server.close()
        await settle()
        assert end.receive() == []
        assert end.fileno() == -1
        second = Daemon(path)
        assert end.tick(10.0)
        await settle()
        assert len(second.hellos) == 1
        second.server.close()

    asyncio.run(body())


def test_the_queue_is_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    async def body() -> None:
        end = WorkerEnd(str(tmp_path / "control.sock"), HELLO)
        for number in range(QUEUE_MAX + 10):
            end.send("records", [number], keep=True)
        daemon = Daemon(tmp_path / "control.sock")
        end.tick(0.0)
        for step in range(20):
            await settle()
            end.tick(1.0 + step)
        numbers = [payload[0] for kind, payload in daemon.frames]
        assert numbers == list(range(10, QUEUE_MAX + 10))
        daemon.server.close()

    asyncio.run(body())


def test_one_worker_that_talks_nonsense_disturbs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def body() -> None:
        daemon = Daemon(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as odd:
            odd.connect(str(path))
            odd.send(b"not a frame")
            await settle()
            end = WorkerEnd(str(path), HELLO)
            end.tick(0.0)
            await settle()
            assert len(daemon.hellos) == 1
        daemon.server.close()

    asyncio.run(body())


def test_questions_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api.sock"

    async def double(args: Mapping[str, Any]) -> Any:
        if "number" not in args:
            raise ApiError("number is missing")
        return args["number"] * 2

    async def body() -> None:
        server = ApiServer(str(path), {"double": double})
        await server.start()
        assert await asyncio.to_thread(ask, str(path), "double", {"number": 21}) == 42
        with pytest.raises(ApiError, match="number is missing"):
            await asyncio.to_thread(ask, str(path), "double")
        with pytest.raises(ApiError, match="no such method; there are double"):
            await asyncio.to_thread(ask, str(path), "triple")
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 8)
        with pytest.raises(ApiError, match="longer than 8 octets"):
            await asyncio.to_thread(ask, str(path), "double", {"number": 21})
        assert "error" in await server.answer(b"garbage")
        assert "error" in await server.answer(b'["method"]')
        await server.close()

    asyncio.run(body())
    with pytest.raises(OSError):  # noqa: PT011
        ask(str(path), "double")
