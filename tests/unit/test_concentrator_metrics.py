"""The Prometheus endpoint as a scraper sees it: real HTTP on loopback, read by the library's own parser."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")  # an extra of the package

from prometheus_client.parser import text_string_to_metric_families

from cpe_mcp.concentrator.control import Control
from cpe_mcp.concentrator.figures import Figures
from cpe_mcp.concentrator.metrics import MetricsServer
from cpe_mcp.control.frames import CONTROL_SOCKET, COUNTERS, HELLO, RECORDS, push_frame
from cpe_mcp.settings import ConcentratorSettings, parse_concentrator

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-14")]

LOOPBACK = "127.0.0.1"
Samples = dict[tuple[str, tuple[str, ...]], float]


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as sock:
        return int(sock.getsockname()[1])


def scrape(port: int, address: str = LOOPBACK) -> Samples:
    """``(name, label values in order of the labels) -> value``; what is no valid exposition raises."""
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=5) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        text = response.read().decode()
    return {
        (
            sample.name.removeprefix("mcp_concentrator_"),
            tuple(text for _, text in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class FakeWorker:
    """The channel of a relay worker, moved by the test."""

    def __init__(self, run_dir: Path, pid: int) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(str(run_dir / CONTROL_SOCKET))
        self.send(HELLO, {"role": "concentrator", "index": 0, "pid": pid})

    def send(self, kind: str, payload: object) -> None:
        self.sock.send(push_frame(kind, payload))


@pytest.fixture
def settings(tmp_path: Path) -> ConcentratorSettings:
    return parse_concentrator(f"config global 'global'\n\toption run_dir '{tmp_path}'\n")


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_a_scrape_shows_what_workers_said(settings: ConcentratorSettings, tmp_path: Path) -> None:
    async def main() -> None:
        control = Control(settings)
        control.start()
        metrics = MetricsServer(lambda: control.figures(worker_restarts=4))
        port = free_port()
        await metrics.follow(LOOPBACK, port)
        worker = FakeWorker(tmp_path, 4711)
        worker.send(COUNTERS, {"accepted:internet": 3, "error:32": 1, "relaying": 2, "bytes_down": 12345})
        record = {
            "concentrator": "alice",
            "action": "block",
            "reason": "destination-refused",
            "bytes_up": 0,
            "bytes_down": 0,
        }
        worker.send(RECORDS, [record])
        await until(lambda: bool(control.refusals))
        seen = await asyncio.to_thread(scrape, port)
        assert seen["up", ()] == 1
        assert seen["workers", ()] == 1
        assert seen["worker_restarts_total", ()] == 4
        assert seen["connections_accepted_total", ("internet",)] == 3
        assert seen["convert_errors_total", ("32",)] == 1
        assert seen["connections_refused_total", ("destination-refused",)] == 1
        assert seen["flows_live", ()] == 2
        assert seen["bytes_total", ("down",)] == 12345
        assert not [name for name, _ in seen if "subscriber" in name], "who used how much is nobody's business"
        await metrics.close()
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(scrape, port)
        worker.sock.close()
        control.stop()

    asyncio.run(main())


@pytest.mark.requirement("7.1-a")
def test_subscribers_show_only_when_the_settings_want_them(tmp_path: Path) -> None:
    text = f"config global 'global'\n\toption run_dir '{tmp_path}'\n\toption metrics_subscribers '@'\n"

    async def main() -> None:
        control = Control(parse_concentrator(text.replace("@", "1")))
        control.subscribers["alice"] = {"flows": 2, "bytes_up": 30, "bytes_down": 40}
        metrics = MetricsServer(lambda: control.figures(worker_restarts=0))
        port = free_port()
        await metrics.follow(LOOPBACK, port)
        seen = await asyncio.to_thread(scrape, port)
        assert seen["subscriber_flows_total", ("alice",)] == 2
        assert seen["subscriber_bytes_total", ("up", "alice")] == 30
        control.configure(parse_concentrator(text.replace("@", "0")))
        seen = await asyncio.to_thread(scrape, port)
        assert not [name for name, _ in seen if "subscriber" in name]
        await metrics.close()

    asyncio.run(main())


def test_counters_outlive_their_worker_and_are_not_counted_twice(
    settings: ConcentratorSettings, tmp_path: Path
) -> None:
    counters = {"flows": 5, "bytes_up": 100, "relaying": 3, "live": 3, "waiting": 2, "half_open": 1, "verdicts": 4}

    async def main() -> None:
        control = Control(settings)
        control.start()

        def figures() -> Figures:
            return control.figures(worker_restarts=0)

        async def connect(pid: int) -> FakeWorker:
            worker = FakeWorker(tmp_path, pid)
            worker.send(COUNTERS, counters)
            await until(lambda: any(row.pid == pid and row.counters for row in control.server.workers))
            return worker

        for pid in (1, 1, 2):  # the same process twice: its channel broke
            worker = await connect(pid)
            assert figures().counters["relaying"] == 3
            worker.sock.close()
            await until(lambda: not control.server.workers)
        left = figures().counters
        assert left == {"flows": 10, "bytes_up": 200}
        for pid in range(3, 73):
            (await connect(pid)).sock.close()
            await until(lambda: not control.server.workers)
        assert figures().counters["flows"] == 5 * 72
        assert len(control._gone) <= 66, "workers that have gone are not remembered for ever"
        control.stop()

    asyncio.run(main())


def test_a_loop_that_is_stuck_shows_as_up_0(settings: ConcentratorSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpe_mcp.concentrator.metrics.ANSWER_S", 0.2)

    async def main() -> None:
        control = Control(settings)
        metrics = MetricsServer(lambda: control.figures(worker_restarts=0))
        port = free_port()
        await metrics.follow(LOOPBACK, port)
        asking = asyncio.create_task(asyncio.to_thread(scrape, port))
        await asyncio.sleep(0)
        time.sleep(0.8)
        assert await asking == {("up", ()): 0}
        assert (await asyncio.to_thread(scrape, port))["up", ()] == 1, "and comes back"
        await metrics.close()

    asyncio.run(main())


def test_it_moves_when_the_settings_do(settings: ConcentratorSettings, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        control = Control(settings)
        metrics = MetricsServer(lambda: control.figures(worker_restarts=0))
        first, second = free_port(), free_port()
        await metrics.follow(LOOPBACK, first)
        await metrics.follow(LOOPBACK, first)
        await metrics.follow(LOOPBACK, second)
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(scrape, first)
        assert (await asyncio.to_thread(scrape, second))["up", ()] == 1
        with (
            socket.create_server((LOOPBACK, 0)) as taken,
            pytest.raises(OSError, match=r"127\.0\.0\.1 port \d+ \(options metrics_address, metrics_port") as error,
        ):
            await metrics.follow(LOOPBACK, taken.getsockname()[1])
        assert len(str(error.value).splitlines()) == 1
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(scrape, second)
        await metrics.follow(LOOPBACK, second)
        assert (await asyncio.to_thread(scrape, second))["up", ()] == 1
        caplog.clear()
        await metrics.follow("0.0.0.0", second)
        assert "use a firewall" in caplog.text
        await metrics.close()
        await metrics.close()

    asyncio.run(main())


def test_both_families(settings: ConcentratorSettings) -> None:
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("needs IPv6")

    async def main() -> None:
        control = Control(settings)
        metrics = MetricsServer(lambda: control.figures(worker_restarts=0))
        port = free_port()
        await metrics.follow("::1", port)
        assert (await asyncio.to_thread(scrape, port, "[::1]"))["up", ()] == 1
        await metrics.close()

    asyncio.run(main())
