"""The Prometheus endpoint: serves :mod:`.figures` over HTTP. Needs prometheus_client, so it is imported only when it is on.

The library's server has its own thread. That one touches nothing of ours: it asks the event loop for figures, which are made
there between two events and never change again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cpe_mcp.concentrator.figures import COUNTER, PREFIX, Figures, families

log = logging.getLogger(__name__)

ANSWER_S = 2.0
"""For the event loop to make the figures. Scrapers wait 10 s by default; a loop that is later than this has a trouble, which
then shows as ``up`` 0."""
UP_DOC = "Whether the control daemon gave its figures in time; where it did not, nothing else is shown."


class MetricsServer(Collector):
    """``figures`` is called on the event loop that :meth:`follow` runs on."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures
        self._wanted: tuple[str, int] | None = None
        self._turn = asyncio.Lock()
        self._running: tuple[WSGIServer, threading.Thread] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def follow(self, address: str, port: int) -> None:
        """Serve there, and nowhere else; port 0: nowhere. Raises OSError, and serves nowhere then."""
        async with self._turn:
            wanted = (address, port) if port else None
            if wanted == self._wanted:
                return
            await self._close()
            if wanted is not None:
                self._loop = asyncio.get_running_loop()
                try:
                    # In a thread: the standard library's HTTP server looks its own name up in the DNS.
                    self._running = await asyncio.to_thread(self._open, address, port)
                except OSError as error:
                    where = f"{address} port {port} (options metrics_address, metrics_port of section global)"
                    raise OSError(error.errno, f"no metrics at {where}: {error.strerror}") from None
                log.info("metrics at %s port %d, path /metrics", address, port)
                if not ipaddress.ip_address(address).is_loopback:
                    log.warning("everybody who reaches %s port %d may read the metrics: use a firewall", address, port)
            self._wanted = wanted

    async def close(self) -> None:
        """Serve nowhere."""
        await self.follow("", 0)

    def collect(self) -> Iterator[Metric]:
        """Called by the library in a thread of its own for each scrape."""
        figures = self._ask()
        yield GaugeMetricFamily(f"{PREFIX}up", UP_DOC, value=float(figures is not None))
        for row in families(figures) if figures is not None else ():
            kind = CounterMetricFamily if row.kind == COUNTER else GaugeMetricFamily
            family = kind(row.name, row.doc, labels=row.labels)
            for labels, value in row.samples:
                family.add_metric(labels, value)
            yield family

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks for no figures."""
        return []

    def _ask(self) -> Figures | None:
        answer: Future[Figures] = Future()

        def take() -> None:
            try:
                answer.set_result(self._figures())
            except Exception as error:
                answer.set_exception(error)

        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(take)
        except RuntimeError:
            return None  # the loop is closed: the daemon ends
        try:
            return answer.result(ANSWER_S)
        except TimeoutError:
            return None

    def _open(self, address: str, port: int) -> tuple[WSGIServer, threading.Thread]:
        registry = CollectorRegistry()
        registry.register(self)
        server, thread = start_http_server(port, address, registry)
        return server, thread

    async def _close(self) -> None:
        self._wanted = None
        if self._running is not None:
            server, thread = self._running
            self._running = None
            await asyncio.to_thread(_end, server, thread)


def _end(server: WSGIServer, thread: threading.Thread) -> None:
    """Takes up to half a second: the standard library's server looks for the request to end that seldom."""
    server.shutdown()
    server.server_close()
    thread.join()
