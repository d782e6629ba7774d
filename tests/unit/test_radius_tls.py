"""RADIUS over TLS (RFC 6614) against a TLS server of the test on loopback; certificates are made by openssl."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.dictionary import Dictionary
from pyrad.packet import AuthPacket

from cpe_mcp.aaa.dictionary import dictionary_text
from cpe_mcp.aaa.radius import RadiusAnswer, RadiusClient
from cpe_mcp.aaa.tls_carrier import TLS_SECRET, TlsCarrier, TlsFiles
from cpe_mcp.aaa.tls_child import TlsFailure, split
from cpe_mcp.lab.certificates import FUTURE, PROGRAM, Authority, Pair

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs the program openssl"),
]

ENTERPRISE = 64999
NAME = "radius.example"
EXPIRED = "20210101000000Z"
Make = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "stranger", "Another CA")


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.sign(NAME, alternative=f"DNS:{NAME}")


@pytest.fixture(scope="module")
def files(authority: Authority) -> TlsFiles:
    own = authority.sign("router-0815")
    return TlsFiles(str(authority.pair.cert), str(own.cert), str(own.key), NAME)


class Server:
    """Takes connections one by one and answers one request in each; ``heard`` is what came inside TLS."""

    def __init__(self, pair: Pair, ca: Path, make: Make) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.cert, pair.key)
        self._context.load_verify_locations(ca)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._make = make
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard: list[bytes] = []
        self.peers: list[Any] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            try:
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    self.peers.append(tls.getpeercert())
                    request = tls.recv(4096)
                    if not request:
                        continue
                    self.heard.append(request)
                    answer = self._make(request)
                    tls.sendall(answer[:3])
                    tls.sendall(answer[3:])
            except OSError:
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


def parse(data: bytes) -> Any:
    return AuthPacket(packet=data, secret=TLS_SECRET, dict=Dictionary(io.StringIO(dictionary_text(ENTERPRISE))))


def accept(data: bytes, *, signed: bool = True) -> bytes:
    reply = parse(data).CreateReply(message_authenticator=signed, Reply_Message="welcome")
    raw: bytes = reply.ReplyPacket()
    return raw


@pytest.fixture
def serve(authority: Authority) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(pair: Pair, make: Make = accept) -> Server:
        servers.append(Server(pair, authority.pair.cert, make))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(port: int, files: TlsFiles, timeout_s: float = 5) -> tuple[RadiusAnswer, dict[str, int]]:
    radius = RadiusClient(
        [("127.0.0.1", port)],
        TLS_SECRET,
        timeout_s=timeout_s,
        tries=1,
        enterprise=ENTERPRISE,
        nas_identifier="test-nas",
        carrier=TlsCarrier(files, timeout_s=timeout_s),
    )
    return asyncio.run(radius.authenticate(username="alice", password="wonderland")), dict(radius.counters)


def test_an_accept_inside_tls(serve: Callable[..., Server], server_pair: Pair, files: TlsFiles) -> None:
    server = serve(server_pair)
    answer, counters = ask(server.port, files)
    assert (answer.verdict, answer.reason, answer.server) == ("accept", "welcome", f"127.0.0.1:{server.port}")
    assert counters == {"requests": 1, "answers": 1}
    assert parse(server.heard[0]).PwDecrypt(parse(server.heard[0])[2][0]) == "wonderland"
    assert (("commonName", "router-0815"),) in server.peers[0]["subject"], "the router proves itself too"


def test_without_message_authenticator_it_is_good_inside_tls_and_a_forged_one_is_not(
    serve: Callable[..., Server], server_pair: Pair, files: TlsFiles
) -> None:
    assert ask(serve(server_pair, lambda data: accept(data, signed=False)).port, files)[0].verdict == "accept"
    answer, counters = ask(serve(server_pair, lambda data: accept(data)[:-1] + b"!").port, files)
    assert (answer.verdict, counters) == ("timeout", {"requests": 1, "forged": 1})


@pytest.mark.requirement("7.3-a")
def test_a_server_with_a_certificate_of_another_authority_is_told_nothing(
    serve: Callable[..., Server], stranger: Authority, files: TlsFiles
) -> None:
    server = serve(stranger.sign(NAME, alternative=f"DNS:{NAME}"))
    answer, _ = ask(server.port, files)
    assert answer.verdict == "timeout"
    assert "its certificate is not accepted: unable to get local issuer certificate" in answer.reason
    assert server.heard == []


@pytest.mark.requirement("7.3-a")
@pytest.mark.parametrize("wanted", ["other.example", ""])
def test_a_server_of_another_name_is_told_nothing(
    serve: Callable[..., Server], server_pair: Pair, files: TlsFiles, wanted: str
) -> None:
    """Any customer's certificate comes from the same authority; "" wants the address that is asked."""
    server = serve(server_pair)
    answer, _ = ask(server.port, files._replace(name=wanted))
    assert answer.verdict == "timeout"
    assert "its certificate is not accepted" in answer.reason
    assert f"not valid for '{wanted or '127.0.0.1'}'" in answer.reason
    assert server.heard == []


def test_a_certificate_for_the_address_needs_no_name(
    serve: Callable[..., Server], authority: Authority, files: TlsFiles
) -> None:
    server = serve(authority.sign("by-address", alternative="IP:127.0.0.1"))
    assert ask(server.port, files._replace(name=""))[0].verdict == "accept"


@pytest.mark.requirement("7.3-a")
def test_an_expired_server_is_told_nothing(serve: Callable[..., Server], authority: Authority, files: TlsFiles) -> None:
    server = serve(authority.sign("expired", alternative=f"DNS:{NAME}", ends=EXPIRED))
    answer, _ = ask(server.port, files)
    assert "its certificate has expired" in answer.reason
    assert server.heard == []


def test_a_router_whose_clock_is_years_behind_is_not_locked_out(
    serve: Callable[..., Server], authority: Authority, files: TlsFiles
) -> None:
    """The same to it as a certificate that begins in years."""
    server = serve(authority.sign("tomorrow", alternative=f"DNS:{NAME}", begins=FUTURE))
    assert ask(server.port, files)[0].verdict == "accept"


def test_a_router_without_a_certificate_of_the_authority_is_told_what_may_be_wrong(
    serve: Callable[..., Server], server_pair: Pair, stranger: Authority, files: TlsFiles
) -> None:
    own = stranger.sign("intruder")
    answer, _ = ask(serve(server_pair).port, files._replace(cert=str(own.cert), key=str(own.key)))
    assert answer.verdict == "timeout"
    assert "certificate?" in answer.reason


def test_a_key_that_others_may_read_is_not_used(
    serve: Callable[..., Server], server_pair: Pair, files: TlsFiles, tmp_path: Path
) -> None:
    key = tmp_path / "router.key"
    shutil.copy(files.key, key)
    key.chmod(0o644)
    server = serve(server_pair)
    answer, _ = ask(server.port, files._replace(key=str(key)))
    assert f"radius.tls_key {key} may be read by others: chmod 600 {key}" in answer.reason
    assert server.peers == []
    key.chmod(0o600)
    assert ask(server.port, files._replace(key=str(key)))[0].verdict == "accept"


@pytest.mark.parametrize("field", ["ca", "cert", "key"])
def test_files_that_are_not_there_or_nonsense_are_named(
    serve: Callable[..., Server], server_pair: Pair, files: TlsFiles, tmp_path: Path, field: str
) -> None:
    server = serve(server_pair)
    answer, _ = ask(server.port, files._replace(**{field: str(tmp_path / "none")}))
    assert f"radius.tls_{field} {tmp_path}/none cannot be read (No such file or directory)" in answer.reason
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    nonsense.chmod(0o600)
    answer, _ = ask(server.port, files._replace(**{field: str(nonsense)}))
    assert f"radius.tls_{field} {nonsense}" in answer.reason


@pytest.mark.parametrize(
    "answer", [b"", b"\2\1\0\0", b"\2\1\xff\xff" + b"x" * 100, b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
def test_garbage_inside_tls(serve: Callable[..., Server], server_pair: Pair, files: TlsFiles, answer: bytes) -> None:
    got, _ = ask(serve(server_pair, lambda data: answer).port, files)
    assert got.verdict == "timeout"
    assert "closed the connection" in got.reason or "no RADIUS packet" in got.reason


def test_a_server_that_takes_the_connection_and_is_silent(files: TlsFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer, _ = ask(listener.getsockname()[1], files, timeout_s=0.3)
    assert "is unreachable (it did not answer in time)" in answer.reason


def test_a_closed_port(files: TlsFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert ask(port, files)[0].reason == f"127.0.0.1:{port} is unreachable (Connection refused)"


def test_no_secret_is_an_argument_and_the_daemon_stays_without_openssl(
    serve: Callable[..., Server], server_pair: Pair, files: TlsFiles
) -> None:
    """As cpe-mcpd is started (upstream.start), with the arguments of every process in between looked at."""
    lines: list[str] = []

    def look(data: bytes) -> bytes:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return accept(data)

    server = serve(server_pair, look)
    program = f"""
import sys
from cpe_mcp.upstream.start import leave_out_openssl
leave_out_openssl()
import asyncio, os
from cpe_mcp.settings.router import RadiusSettings, RouterSettings
from cpe_mcp.upstream.authenticator import Authenticator
async def main():
    settings = RouterSettings(radius=RadiusSettings(
        enabled=True, server=("127.0.0.1:{server.port}",), transport="tls", username="alice",
        password=os.environ["PASSWORD"], tls_ca={files.ca!r}, tls_cert={files.cert!r}, tls_key={files.key!r},
        tls_name="{NAME}", enterprise={ENTERPRISE}, timeout_s=5.0))
    changed = asyncio.Event()
    authenticator = Authenticator(settings, wans=list, on_change=lambda: authenticator.accept and changed.set())
    authenticator.start()
    async with asyncio.timeout(10):
        await changed.wait()
    print(authenticator.status()["text"], sys.modules.get("ssl"), sys.modules.get("_ssl"))
    await authenticator.stop()
asyncio.run(main())
"""
    environment = {**os.environ, "PASSWORD": "planted-password"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=environment, check=False
    )
    assert done.stdout == "accepted None None\n", done.stderr
    assert any("cpe_mcp.aaa.tls_child" in line for line in lines)
    assert not [line for line in lines if "planted-password" in line]
    assert not [line for line in lines if "PRIVATE KEY" in line]


@given(st.binary(max_size=100))
def test_a_row_of_packets_is_taken_apart_or_refused(data: bytes) -> None:
    try:
        packets = split(data)
    except TlsFailure:
        return
    assert b"".join(packets) == data
    assert all(len(packet) >= 20 for packet in packets)
