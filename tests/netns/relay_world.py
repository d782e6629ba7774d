"""Three namespaces for the relay tests: a LAN client, a router with two WANs, and the far side with concentrator and servers.

The test process is the control daemon of both workers: it sends what it likes and sees every frame.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cpe_mcp.aaa.cookie import Credential, epoch_of, is_proven, make_cookie, own_credential, pull_cookie
from cpe_mcp.control.frames import CONTROL_SOCKET, HELLO, MAX_FRAME_BYTES, pull_frame, push_frame
from cpe_mcp.paths.snapshot import ConcentratorView, Snapshot, WanView, to_wire
from cpe_mcp.relay.worker import INTERNAL_ERRORS
from cpe_mcp.settings.concentrator import LimitSettings

CLIENT4, CLIENT6 = "192.168.9.2", "2001:db8:9::2"
CONCENTRATOR = "10.9.0.1"
SERVER4, SERVER6 = "10.9.1.1", "2001:db8:c1::1"
SERVICE_PORT = 5124
INTERCEPT_PORT = 5125
CREDENTIAL = own_credential("alice", "wonderland")
COOKIE = make_cookie(CREDENTIAL, time.time())
POOL_MAX, HALF_OPEN_MAX = 12, 24
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

NFT = f"""
table inet relaytest {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "lan" return
    meta l4proto tcp socket transparent 1 meta mark set 1 accept
    ct state new tcp flags & (fin|syn|rst|ack) == syn tproxy to :{INTERCEPT_PORT} meta mark set 1 accept
  }}
}}
"""


def run(*argv: str, stdin: str | None = None) -> None:
    subprocess.run(argv, check=True, input=stdin, text=True, capture_output=True)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread is in that namespace; sockets made there stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as away:
        if _libc.setns(away.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            _libc.setns(home.fileno(), CLONE_NEWNET)


class Control:
    """A control daemon that only the test moves."""

    def __init__(self, directory: Path, on_hello: Callable[[Control], None]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.frames: list[tuple[str, Any]] = []
        self.counters: dict[str, int] = {}
        """The worker's last ones; it repeats them only when they change."""
        self.answers: Callable[[Control, str, Any], None] = lambda control, kind, payload: None
        self._on_hello = on_hello
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self.start()

    def start(self) -> None:
        path = self.directory / CONTROL_SOCKET
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def send(self, kind: str, payload: Any) -> None:
        assert self._peer is not None
        self._peer.send(push_frame(kind, payload))

    def stop(self) -> None:
        for sock in (self._listener, self._peer):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._listener = self._peer = None

    def wait(self, kind: str, condition: Callable[[Any], bool] = lambda payload: True, timeout: float = 5.0) -> Any:
        """The first such frame, past or to come."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for seen, payload in list(self.frames):
                if seen == kind and condition(payload):
                    return payload
            time.sleep(0.01)
        raise AssertionError(f"no {kind} frame; got {self.frames}")

    def wait_counter(self, name: str, value: int, timeout: float = 6.0) -> None:
        end = time.monotonic() + timeout
        while self.counters.get(name) != value:
            assert time.monotonic() < end, f"{name} did not become {value}: {self.counters}"
            time.sleep(0.02)

    def records(self) -> list[dict[str, Any]]:
        return [record for kind, rows in list(self.frames) if kind == "records" for record in rows]

    def wait_record(self, condition: Callable[[dict[str, Any]], bool] = lambda record: True) -> dict[str, Any]:
        end = time.monotonic() + 6
        while time.monotonic() < end:
            for record in self.records():
                if condition(record):
                    return record
            time.sleep(0.02)
        raise AssertionError(f"no such record among {self.records()}")

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self._peer = peer
            while True:
                try:
                    data = peer.recv(MAX_FRAME_BYTES)
                except OSError:
                    break
                if not data:
                    break
                kind, payload = pull_frame(data)
                self.frames.append((kind, payload))
                if kind == "counters":
                    self.counters = payload
                if kind == HELLO:
                    self._on_hello(self)
                else:
                    self.answers(self, kind, payload)


def cookies(name: str, key: str) -> Callable[[], bytes]:
    """Makes a new one for each connection."""
    return lambda: make_cookie(own_credential(name, key), time.time())


def is_by(cookie: bytes, credential: Credential) -> bool:
    """Whether it was made with this one, lately or not."""
    parts = pull_cookie(cookie)
    return parts is not None and is_proven(parts, credential.key, epoch_of(time.time()) >> 16 << 16 | parts.epoch)


def accept_cookie(control: Control, kind: str, payload: Any) -> None:
    """The authorization of these tests: cookies that alice has made, nobody else."""
    if kind == "authorize":
        good = is_by(payload["cookie"], CREDENTIAL)
        control.send(
            "authorized",
            {
                "id": payload["id"],
                "address": payload["address"],
                "verdict": "accept" if good else "reject",
                "subscriber": "alice" if good else "",
                "ttl_s": 60.0,
                "cookie": b"",
                "reason": "ready" if good else "not-authorized",
            },
        )


class World:
    """Namespaces, workers and their controls. ``close`` removes everything."""

    def __init__(self, directory: Path, name: str = "relay", *, bare: bool = False) -> None:
        """``bare``: without interception, policy routes and endpoints, for tests of what makes those."""
        self._bare = bare
        tag = f"cpemcp-{name}{os.getpid()}"
        self.client, self.router, self.far = (f"{tag}-{name}" for name in ("client", "router", "far"))
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        self._listeners: list[socket.socket] = []
        self.snapshot = Snapshot(
            generation=1,
            proxy=True,
            reason="ready",
            wans=(WanView("one", "w1", "10.1.0.1", "2001:db8:1::1"), WanView("two", "w2", "10.2.0.1", "2001:db8:2::1")),
            concentrators=(ConcentratorView("far", (CONCENTRATOR,), SERVICE_PORT, CREDENTIAL, True),),
            fallback="direct",
            pool_size=0,
            pool_idle_s=60.0,
            connect_timeout_s=1.0,
            reply_timeout_s=3.0,
            congestion_control="",
            lossy_congestion_control="",
        )
        self.settings: dict[str, Any] = {
            "listeners": [
                {"name": "all", "addresses": ["::"], "port": SERVICE_PORT, "device": "", "facing": "internet"}
            ],
            "connect_timeout_s": 2.0,
            "message_timeout_s": 1.0,
            "pool_idle_s": 60.0,
            "pool_max": POOL_MAX,
            "half_open_max": HALF_OPEN_MAX,
            "half_open_prefix": HALF_OPEN_MAX,
            "limits": {**dataclasses.asdict(LimitSettings()), "error_prefix_rate": 1000, "mark": 0},
            "server_mptcp": False,
            "congestion_control": "",
            "lossy_congestion_control": "",
            "logs_addresses": False,
            "accounts": False,
            "destinations": {"allow": [[bytes(16), 0]], "deny": []},
            "hairpin": False,
            "speedtest_s": 4.0,
            "public": [],
        }
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        self.up_control = Control(directory / "up", lambda control: control.send("snapshot", to_wire(self.snapshot)))
        self.far_control = Control(directory / "far", lambda control: control.send("settings", self.settings))
        self.far_control.answers = accept_cookie

    def _build(self) -> None:
        for namespace in (self.client, self.router, self.far):
            run("ip", "netns", "add", namespace)
            # Link-local addresses at once: while they are tentative, no neighbour is asked for on behalf of others.
            for name in ("all", "default"):
                run("ip", "netns", "exec", namespace, "sysctl", "-qw", f"net.ipv6.conf.{name}.accept_dad=0")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        self._veth(self.client, "lan", self.router, "lan")
        self._veth(self.router, "w1", self.far, "w1")
        self._veth(self.router, "w2", self.far, "w2")
        for namespace, device, addresses in (
            (self.client, "lan", (f"{CLIENT4}/24", f"{CLIENT6}/64")),
            (self.router, "lan", ("192.168.9.1/24", "2001:db8:9::1/64")),
            (self.router, "w1", ("10.1.0.1/24", "2001:db8:1::1/64")),
            (self.router, "w2", ("10.2.0.1/24", "2001:db8:2::1/64")),
            (self.far, "w1", ("10.1.0.2/24", "2001:db8:1::2/64")),
            (self.far, "w2", ("10.2.0.2/24", "2001:db8:2::2/64")),
            (self.far, "lo", (f"{CONCENTRATOR}/32", f"{SERVER4}/32", f"{SERVER6}/128")),
        ):
            for address in addresses:
                extra = ("nodad",) if ":" in address else ()
                run("ip", "-n", namespace, "address", "add", address, "dev", device, *extra)
        for family, gateway, near, via in (
            ("-4", "192.168.9.1", "192.168.9.0/24", "10.1.0"),
            ("-6", "2001:db8:9::1", "2001:db8:9::/64", "2001:db8:1:"),
        ):
            dot = "." if family == "-4" else ":"
            run("ip", family, "-n", self.client, "route", "add", "default", "via", gateway)
            run("ip", family, "-n", self.router, "route", "add", "default", "via", f"{via}{dot}2")
            run("ip", family, "-n", self.far, "route", "add", near, "via", f"{via}{dot}1")
            if self._bare:
                continue
            run("ip", family, "-n", self.router, "rule", "add", "fwmark", "1", "lookup", "100")
            run("ip", family, "-n", self.router, "route", "add", "local", "default", "dev", "lo", "table", "100")
        for index, device in () if self._bare else ((1, "w1"), (2, "w2")):
            run("ip", "-n", self.router, "rule", "add", "oif", device, "lookup", f"20{index}")
            run("ip", "-n", self.router, "rule", "add", "from", f"10.{index}.0.1", "lookup", f"20{index}")
            run("ip", "-n", self.router, "route", "add", "default", "via", f"10.{index}.0.2", "table", f"20{index}")
            endpoint = ("endpoint", "add", f"10.{index}.0.1", "dev", device, "subflow")
            run("ip", "-n", self.router, "mptcp", *endpoint)
        for name in ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv4.conf.all.rp_filter=0"):
            run("ip", "netns", "exec", self.router, "sysctl", "-qw", f"net.{name}")
        if not self._bare:
            run("ip", "netns", "exec", self.router, "nft", "-f", "-", stdin=NFT)

    def _veth(self, one: str, one_device: str, other: str, other_device: str) -> None:
        run("ip", "-n", one, "link", "add", one_device, "type", "veth", "peer", other_device, "netns", other)
        for namespace, device in ((one, one_device), (other, other_device)):
            run("ip", "-n", namespace, "link", "set", device, "up")

    def start(self, namespace: str, module: str, *args: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, "-m", module, *args])
        self.processes.append(process)
        return process

    def start_upstream(self) -> subprocess.Popen[bytes]:
        process = self.start(
            self.router,
            "cpe_mcp.relay.upstream_worker",
            *("--run-dir", str(self.directory / "up"), "--port", str(INTERCEPT_PORT)),
        )
        self.up_control.wait("hello", lambda hello: hello["pid"] == process.pid)
        return process

    def start_concentrator(self) -> subprocess.Popen[bytes]:
        module = "cpe_mcp.relay.concentrator_worker"
        process = self.start(self.far, module, "--run-dir", str(self.directory / "far"))
        self.far_control.wait("hello", lambda hello: hello["pid"] == process.pid)
        self.wait_listening(CONCENTRATOR, SERVICE_PORT)
        return process

    def wait_listening(self, address: str, port: int) -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with inside(self.far), contextlib.suppress(OSError):
                socket.create_connection((address, port), timeout=1).close()
                return
            time.sleep(0.02)
        raise AssertionError(f"nobody listens at {address} port {port}")

    def change(self, **fields: Any) -> None:
        """Send the upstream worker another snapshot, and wait until it must have read it."""
        self.snapshot = self.snapshot._replace(generation=self.snapshot.generation + 1, **fields)
        self.up_control.send("snapshot", to_wire(self.snapshot))
        time.sleep(0.1)

    def connect(self, address: str, port: int, timeout: float = 8.0) -> socket.socket:
        """From the LAN client."""
        with inside(self.client):
            return socket.create_connection((address, port), timeout=timeout)

    def serve(
        self, handler: Callable[[socket.socket], None], address: str = SERVER4, port: int = 0, namespace: str = ""
    ) -> int:
        """A server, on the far side if nothing else is said; every connection gets its own thread. Returns the port."""
        with inside(namespace or self.far):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.create_server((address, port), family=family, backlog=64)

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                handler(connection)

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        self._listeners.append(listener)
        return int(listener.getsockname()[1])

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for listener in self._listeners:
            # Wakes its thread, which would go on with whoever gets the number next.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for control in (getattr(self, "up_control", None), getattr(self, "far_control", None)):
            if control is not None:
                control.stop()
        for namespace in (self.client, self.router, self.far):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
        for control in (getattr(self, "up_control", None), getattr(self, "far_control", None)):
            assert control is None or not control.counters.get(INTERNAL_ERRORS), "the worker's log has a traceback"
