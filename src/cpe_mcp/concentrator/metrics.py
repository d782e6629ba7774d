"""The Prometheus endpoint: serves :mod:`.figures` over HTTP. Needs prometheus_client, so it is imported only when it is on.

The server has threads of its own. They touch nothing of ours: they ask the event loop for figures, which are made there
between two events and never change again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cpe_mcp.concentrator.figures import COUNTER, PREFIX, Figures, families

log = logging.getLogger(__name__)

ANSWER_S = 2.0
"""For the event loop to make the figures. Scrapers wait 10 s by default; a loop that is later than this has a trouble, which
then shows as ``up`` 0."""
REQUEST_S = 10.0
"""For a scraper to send its request: one that only connects must not hold a thread for ever."""
UP_DOC = "Whether the control daemon gave its figures in time; where it did not, nothing else is shown."


class MetricsServer(Collector):
    """``figures`` is called on the event loop that :meth:`follow` runs on."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures
        self._wanted: tuple[str, int] | None = None
        self._turn = asyncio.Lock()
        self._running: tuple[_Server, threading.Thread] | None = None
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
                    self._running = self._open(address, port)
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

    def _open(self, address: str, port: int) -> tuple[_Server, threading.Thread]:
        registry = CollectorRegistry()
        registry.register(self)
        server = _Server(address, port)
        server.set_app(make_wsgi_app(registry))
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        return server, thread

    async def _close(self) -> None:
        self._wanted = None
        if self._running is not None:
            server, thread = self._running
            self._running = None
            await asyncio.to_thread(_end, server, thread)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Each scrape has a thread. The library's own server asks the DNS what it is called, and that may take its time."""

    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of :class:`http.server.HTTPServer`."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that went away, mostly. What fails in our own code is told by the library's handler."""
        log.debug("a scrape by %s failed", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    """Says nothing of every scrape in the log, and does not wait for one that never asks."""

    timeout = REQUEST_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _end(server: _Server, thread: threading.Thread) -> None:
    """Takes up to half a second: the standard library's server looks for the request to end that seldom."""
    server.shutdown()
    server.server_close()
    thread.join()
