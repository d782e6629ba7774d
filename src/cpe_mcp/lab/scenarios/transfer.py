"""Moves bytes through a lab and notes when they arrive: sockets and curl, no judgement.

A socket belongs to the namespace in which it was made, so a thread only has to be on a host while it makes one.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from cpe_mcp.kernel.numbers import IPPROTO_MPTCP
from cpe_mcp.lab.configs import SMALL_FILE, UPLOAD_PATH
from cpe_mcp.lab.measure import Arrival, longest_gap_s, mbit, rate_mbit
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES

READ_BYTES = 65536
CONNECT_TIMEOUT_S = 5.0
STALL_S = 15.0
"""Without a byte: the connection is given up. Far above any gap that a working failover leaves."""
RAMP_S = 1.0
"""Left out of a steady rate: slow start of the slowest line (RTT 50 ms) is over by then."""
RATE_STEP_S = 0.25
"""A few round trips of the slowest line."""
HTTP_PORT = 80
SINK_PORT = 5001
CONTENT = "content"
"""The large file on the web server; downloads take a prefix of it."""
HASH_BLOCK_BYTES = 1 << 20


def connect(
    lab: Lab, host: str, address: str, port: int, *, timeout_s: float = CONNECT_TIMEOUT_S, is_mptcp: bool = False
) -> socket.socket:
    """A TCP connection, or a Multipath TCP one over IPv4, from a host of the lab. Raises OSError."""
    with lab.enter(host):
        if not is_mptcp:
            return socket.create_connection((address, port), timeout_s)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    try:
        connection.settimeout(timeout_s)
        connection.connect((address, port))
    except OSError:
        connection.close()
        raise
    return connection


class Content:
    """The large file. Raises LabError when there is no room for it, and for the upload that is stored beside it."""

    def __init__(self, lab: Lab, size: int, *, beside: int = 0) -> None:
        free = os.statvfs(lab.directory)
        room = free.f_bavail * free.f_frsize
        if room < size + beside:
            raise LabError(f"{lab.directory} has {room >> 20} MB free; this needs {(size + beside) >> 20} MB")
        self.size = size
        self.path: Path = lab.directory / "server/www" / CONTENT
        lab.serve_file(CONTENT, size)

    def sha256(self, size: int) -> str:
        """Of the first ``size`` bytes, in hex."""
        return sha256_of(self.path, size)


def sha256_of(path: Path, size: int | None = None) -> str:
    """Of a file, or of its first ``size`` bytes, in hex."""
    digest = hashlib.sha256()
    left = path.stat().st_size if size is None else size
    with open(path, "rb") as file:
        while left and (block := file.read(min(HASH_BLOCK_BYTES, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


class Received(NamedTuple):
    """What came of one download."""

    size: int
    sha256: str
    started: float
    """time.monotonic() before the handshake."""
    arrivals: list[Arrival]
    error: str
    """Why it ended before its time; "" when it did not."""

    @property
    def seconds(self) -> float:
        """From before the handshake to the last byte."""
        return self.arrivals[-1][0] - self.started if self.arrivals else 0.0

    @property
    def mbit(self) -> float:
        """Over all of it, handshake and slow start included."""
        return mbit(self.size, self.seconds)

    @property
    def steady_mbit(self) -> float:
        """Without the first RAMP_S."""
        return rate_mbit(self.arrivals, self.started + RAMP_S, self.started + max(self.seconds, RAMP_S))

    @property
    def rates_mbit(self) -> list[int]:
        """Of every RATE_STEP_S from before the handshake on: shows a line that joined late, or a window that was too small."""
        steps = int(self.seconds / RATE_STEP_S)
        starts = [self.started + step * RATE_STEP_S for step in range(steps)]
        return [round(rate_mbit(self.arrivals, start, start + RATE_STEP_S)) for start in starts]

    @property
    def gap_ms(self) -> float:
        """The longest time without a byte, once it had begun."""
        if not self.arrivals:
            return 0.0
        return 1000 * longest_gap_s(self.arrivals, self.arrivals[0][0], self.arrivals[-1][0])


class Download:
    """A download that runs in a thread of its own: the first ``size`` bytes of CONTENT, hashed as they come.

    Every read is noted: one read takes what the kernel has, so its time is when the bytes could be used.
    """

    def __init__(
        self,
        lab: Lab,
        size: int,
        *,
        address: str = ADDRESSES.server.v4,
        host: str = "client1",
        port: int = HTTP_PORT,
        is_mptcp: bool = False,
    ) -> None:
        self.size = size
        self._port = port
        self._is_mptcp = is_mptcp
        self.started = time.monotonic()
        self.arrivals: list[Arrival] = []
        self._digest = hashlib.sha256()
        self._got = 0
        self._error = ""
        self._stopped = False
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, args=(lab, host, address), daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Bytes are still to come."""
        return self._thread.is_alive()

    def stop(self) -> Received:
        """End it now; what came so far is its result."""
        self._stopped = True
        self._shut()
        return self.wait(STALL_S)

    def wait(self, timeout_s: float) -> Received:
        """Its result, at the latest after ``timeout_s``; never raises for what went wrong on the way."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._error = f"not finished after {timeout_s:.0f} s"
            self._shut()
            self._thread.join()
        return Received(self._got, self._digest.hexdigest(), self.started, self.arrivals, self._error)

    def _shut(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def _run(self, lab: Lab, host: str, address: str) -> None:
        try:
            self._connection = connect(lab, host, address, self._port, is_mptcp=self._is_mptcp)
            with self._connection:
                self._connection.settimeout(STALL_S)
                self._receive(self._connection, address)
        except (OSError, http.client.HTTPException) as error:
            if not self._stopped:
                self._error = self._error or f"{error or type(error).__name__} after {self._got} bytes"

    def _receive(self, connection: socket.socket, address: str) -> None:
        request = http.client.HTTPConnection(address)
        request.sock = connection
        request.request("GET", f"/{CONTENT}", headers={"Range": f"bytes=0-{self.size - 1}"})
        response = request.getresponse()
        if response.status != http.client.PARTIAL_CONTENT:
            raise http.client.HTTPException(f"the server answers {response.status} {response.reason}")
        while self._got < self.size:
            block = response.read1(READ_BYTES)
            if not block:
                raise http.client.HTTPException("the connection ended")
            self.arrivals.append((time.monotonic(), len(block)))
            self._digest.update(block)
            self._got += len(block)


def first_byte_ms(lab: Lab, *, tries: int, pause_s: float, address: str = ADDRESSES.server.v4) -> float:
    """Median time from before the handshake to the first byte of a small answer. Raises OSError, LabError."""
    times = []
    for _ in range(tries):
        started = time.monotonic()
        with connect(lab, "client1", address, HTTP_PORT) as connection:
            connection.sendall(f"GET /{SMALL_FILE} HTTP/1.0\r\n\r\n".encode())
            first = connection.recv(READ_BYTES)
            times.append(time.monotonic() - started)
            if not first.startswith(b"HTTP/1.1 200"):
                raise LabError(f"the server answers {first[:40]!r} instead of the small file")
            while connection.recv(READ_BYTES):
                pass
        time.sleep(pause_s)
    return round(1000 * median(times), 2)


def fetch_ms(lab: Lab, size: int, *, tries: int, pause_s: float, address: str = ADDRESSES.server.v4) -> list[float]:
    """Times of new connections that fetch ``size`` bytes each, from before the handshake to the last byte. Raises OSError,
    LabError when one did not come whole."""
    times = []
    for _ in range(tries):
        received = Download(lab, size, address=address).wait(STALL_S)
        if received.error:
            raise LabError(f"a transfer of {size} bytes: {received.error}")
        times.append(1000 * received.seconds)
        time.sleep(pause_s)
    return times


def fetch_small(lab: Lab, address: str = ADDRESSES.server.v4, *, host: str = "client1", timeout_s: int = 5) -> bool:
    """Whether a host gets a small file by curl."""
    shown = f"[{address}]" if ":" in address else address
    argv = ["curl", "-sf", "-m", str(timeout_s), "-o", "/dev/null", f"http://{shown}/{SMALL_FILE}"]
    return lab.run(host, argv, check=False).returncode == 0


class Sent(NamedTuple):
    """What came of one upload."""

    size: int
    seconds: float
    """As curl counts: from before the handshake to the server's answer, which follows when all is stored."""
    sha256: str
    """Of the file that the server stored."""

    @property
    def mbit(self) -> float:
        """Over all of it."""
        return mbit(self.size, self.seconds)


def put(lab: Lab, content: Content, size: int, *, timeout_s: float) -> Sent:
    """The first ``size`` bytes of the content from client1 to the web server by curl. Raises LabError."""
    name = f"from-client1-{size}"
    url = f"http://{ADDRESSES.server.v4}{UPLOAD_PATH}{name}"
    shell = (
        f"head -c {size} {content.path} | "
        f"curl -sS -m {timeout_s:.0f} -T - -o /dev/null "
        f'-w \'{{"code": %{{http_code}}, "seconds": %{{time_total}}}}\' {url}'
    )
    done = lab.run("client1", ["sh", "-c", shell], check=False, timeout=timeout_s + CONNECT_TIMEOUT_S)
    answer = json.loads(done.stdout or '{"code": 0, "seconds": 0}')
    if done.returncode or answer["code"] not in (http.client.CREATED, http.client.NO_CONTENT):
        raise LabError(f"curl: {done.stderr.strip() or 'the server answers'} (code {answer['code']})")
    stored = lab.uploaded(name)
    try:
        return Sent(stored.stat().st_size, answer["seconds"], sha256_of(stored))
    finally:
        stored.unlink()


def plain_upload_mbit(lab: Lab, seconds: float) -> float:
    """Steady rate of one TCP connection from client1 to the server that sends for ``seconds``, as the server sees it."""
    with sink(lab) as arrivals:
        started = time.monotonic()
        with connect(lab, "client1", ADDRESSES.server.v4, SINK_PORT) as connection:
            block = bytes(READ_BYTES)
            while time.monotonic() < started + seconds:
                connection.sendall(block)
            ended = time.monotonic()
    return rate_mbit(arrivals, started + RAMP_S, ended)


@contextlib.contextmanager
def sink(lab: Lab) -> Iterator[list[Arrival]]:
    """A server that takes one connection and notes what arrives; after the ``with`` the list is complete."""
    arrivals: list[Arrival] = []
    with lab.enter("server"):
        listener = socket.create_server((ADDRESSES.server.v4, SINK_PORT))

    def take() -> None:
        with contextlib.suppress(OSError), listener:
            listener.settimeout(STALL_S)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(STALL_S)
                buffer = bytearray(READ_BYTES)
                while size := connection.recv_into(buffer):
                    arrivals.append((time.monotonic(), size))

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield arrivals
    finally:
        thread.join(STALL_S)


class _Greeting(socketserver.BaseRequestHandler):
    """Says at once how it sees the client, then gives back what it hears, until the client ends."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.sendall(f"SSH-2.0-lab {self.client_address[0]}\r\n".encode())
            while heard := self.request.recv(READ_BYTES):
                self.request.sendall(heard)


class _GreetingServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextlib.contextmanager
def greeting_server(lab: Lab, host: str, address: str, port: int) -> Iterator[None]:
    """A server that speaks first, as SSH does, on a host of the lab. Its greeting ends with the client's address."""
    with lab.enter(host):
        server = _GreetingServer((address, port), _Greeting)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


class Talk:
    """A conversation with a greeting server. Raises OSError when it cannot be had."""

    def __init__(self, lab: Lab, host: str, address: str, port: int) -> None:
        started = time.monotonic()
        self._connection = connect(lab, host, address, port)
        self._lines = self._connection.makefile("rb")
        greeting = self._line()
        self.greeting_ms = round(1000 * (time.monotonic() - started), 1)
        """From before the handshake to the whole greeting."""
        self.seen_as = greeting.split()[-1].decode()
        """Our address as the server sees it."""

    def say(self) -> None:
        """Send a line. Raises OSError."""
        self._connection.sendall(b"still there?\r\n")

    def hear(self, timeout_s: float) -> None:
        """Wait for that line to come back. Raises OSError."""
        self._connection.settimeout(timeout_s)
        self._line()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._connection.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> bytes:
        line = self._lines.readline(READ_BYTES)
        if not line.endswith(b"\n"):
            raise ConnectionError("the server hung up")
        return line


def answers(talk: Talk, timeout_s: float) -> bool:
    """Whether a conversation still works."""
    try:
        talk.say()
        talk.hear(timeout_s)
    except OSError:
        return False
    return True
