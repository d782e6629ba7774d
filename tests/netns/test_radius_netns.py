"""The RADIUS client against a real FreeRADIUS on the loopback of a namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.aaa.radius import RadiusAnswer, RadiusClient
from cpe_mcp.aaa.tls_carrier import TlsCarrier, TlsFiles
from cpe_mcp.lab.certificates import Authority
from cpe_mcp.lab.freeradius import PROGRAM, RadiusUser, TlsListener, write_config
from cpe_mcp.lab.namespaces import create, enter, ip_batch, remove
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.settings.router import RadiusSettings, RouterSettings
from cpe_mcp.upstream.authenticator import Authenticator

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs the program freeradius"),
]

NAMESPACE = f"cpemcp-{os.getpid()}-radius"
PORT = 1812
SECRET = "an honest 'shared' secret"
ENTERPRISE = 64999
START_TIMEOUT_S = 15
WAN = WanView("dsl", "lo", "127.0.0.1", "::1")
CONCENTRATORS = ((("192.0.2.1", "2001:db8::1"), 5124), (("198.51.100.1",), 0))
STRANGE_PASSWORD = "100% \"quoted\" 'pass' \\ ${word} %{User-Name}"
KEY = bytes(range(32))
TLS_PORT = 2083
SERVER_NAME = "radius.example"
_MANY = bytes((252,)) + b"".join(bytes((192, 0, 2, n)) for n in range(1, 64))
DHCP4 = bytes((224, len(_MANY))) + _MANY + bytes((6, 4, 192, 0, 2, 53, 224, 5, 4, 198, 51, 100, 1))
DHCP6 = bytes.fromhex("fde90010 20010db8000100000000000000000001")
"""Options of the codes 224 and 65001, and one of another."""
USERS = (
    RadiusUser("alice", "wonderland", session_timeout_s=900, concentrators=CONCENTRATORS, user="line-0815"),
    RadiusUser("dora", "explorer", down_mbit=300, up_mbit=40, scheme="single:lte"),
    RadiusUser("erin", "ohmslaw", scheme="single:two"),
    RadiusUser("carol", STRANGE_PASSWORD),
    RadiusUser("frank", "frankly", key=KEY, handle=b"\0handle\xff", classes=(b"gold", b"\0\1")),
    RadiusUser("gina", "ginas", reply=(f"DHCPv4-Options = 0x{DHCP4.hex()}", f"DHCPv6-Options = 0x{DHCP6.hex()}")),
    RadiusUser("bob", "builder", accept=False, message="no contract for this line"),
)
ADDRESS_USERS = (
    RadiusUser("192.0.2.7", "ask", user="alice", session_timeout_s=60),
    RadiusUser("2001:db8::7", "ask", user="alice"),
    RadiusUser("192.0.2.8", "ask", user="dora", down_mbit=4_000_000_000, up_mbit=1),
    RadiusUser("192.0.2.66", "ask", accept=False, message="not our customer"),
)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    create([NAMESPACE])
    try:
        ip_batch(NAMESPACE, ["link set lo up"])
        yield NAMESPACE
    finally:
        remove([NAMESPACE])


@contextlib.contextmanager
def freeradius(
    namespace: str, directory: Path, port: int, *, sign_replies: bool = True, tls: TlsListener | None = None
) -> Iterator[None]:
    command = write_config(
        str(directory),
        secret=SECRET,
        clients=["127.0.0.1", "::1"],
        users=USERS,
        address_users=ADDRESS_USERS,
        enterprise=ENTERPRISE,
        listen=[("127.0.0.1", port), ("::1", port)],
        sign_replies=sign_replies,
        tls=tls,
    )
    with serving(namespace, directory, command):
        yield


@contextlib.contextmanager
def serving(namespace: str, directory: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A FreeRADIUS that answers; what it says is in the file ``output``."""
    output = directory / "output"
    with output.open("w") as file:
        server = subprocess.Popen(["ip", "netns", "exec", namespace, *command], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "Ready to process requests" not in output.read_text():
            assert server.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        yield server
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def server(namespace: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    own = authority.sign("radius", alternative=f"DNS:{SERVER_NAME}")
    tls = TlsListener("127.0.0.1", TLS_PORT, str(authority.pair.cert), str(own.cert), str(own.key))
    with freeradius(namespace, tmp_path_factory.mktemp("raddb"), PORT, tls=tls):
        yield namespace


def client(
    *servers: tuple[str, int], secret: str = SECRET, timeout_s: float = 3.0, tries: int = 2, **more: Any
) -> RadiusClient:
    return RadiusClient(
        servers or [("127.0.0.1", PORT)],
        secret.encode(),
        timeout_s=timeout_s,
        tries=tries,
        enterprise=ENTERPRISE,
        nas_identifier="cpe-mcp-test",
        **more,
    )


def ask(namespace: str, question: Callable[[], Coroutine[Any, Any, RadiusAnswer]]) -> RadiusAnswer:
    with enter(namespace):
        return asyncio.run(question())


def authenticate(namespace: str, radius: RadiusClient, username: str, password: str) -> RadiusAnswer:
    return ask(
        namespace,
        lambda: radius.authenticate(
            username=username, password=password, calling_station="00-00-5E-00-53-01", wans=[WAN]
        ),
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_accept_with_concentrators_and_session_timeout(server: str, host: str) -> None:
    radius = client((host, PORT))
    answer = authenticate(server, radius, "alice", "wonderland")
    name = f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}"
    assert answer == RadiusAnswer("accept", "", CONCENTRATORS, 900.0, name, "line-0815")
    assert radius.counters == {"requests": 1, "answers": 1}


@pytest.mark.requirement("5.6.2-a")
def test_scheme_and_caps(server: str) -> None:
    radius = client()
    answer = authenticate(server, radius, "dora", "explorer")
    assert (answer.verdict, answer.scheme, answer.down_mbit, answer.up_mbit) == ("accept", "single:lte", 300, 40)
    answer = ask(server, lambda: radius.authorize_address("192.0.2.8", password="ask"))
    assert (answer.user, answer.scheme, answer.down_mbit, answer.up_mbit) == ("dora", "", 4_000_000_000, 1)


@pytest.mark.requirement("5.6.2-a")
def test_the_authenticator_tells_the_scheme_of_the_accept_in_force(server: str) -> None:
    async def scenario() -> list[str]:
        schemes = []
        for username, password in (("dora", "explorer"), ("alice", "wonderland")):
            settings = RadiusSettings(
                enabled=True,
                server=("127.0.0.1",),
                secret=SECRET,
                username=username,
                password=password,
                enterprise=ENTERPRISE,
            )
            authenticator = Authenticator(RouterSettings(radius=settings), wans=list, on_change=lambda: None)
            schemes.append(authenticator.scheme)
            authenticator.start()
            async with asyncio.timeout(5):
                while authenticator.accept is None:
                    await asyncio.sleep(0.01)
            schemes.append(authenticator.scheme)
            await authenticator.stop()
        return schemes

    with enter(server):
        assert asyncio.run(scenario()) == ["", "single:lte", "", ""]


def test_chap(server: str) -> None:
    assert authenticate(server, client(chap=True), "carol", STRANGE_PASSWORD).verdict == "accept"
    assert authenticate(server, client(chap=True), "carol", "wrong").verdict == "reject"


@pytest.mark.requirement("Y-9")
def test_dhcp_options_that_freeradius_has_cut_into_fragments(server: str) -> None:
    """RFC 9445: more octets than one attribute holds; FreeRADIUS cuts them as RFC 6929 says."""
    answer = authenticate(server, client(dhcp_codes=(224, 65001)), "gina", "ginas")
    many = tuple(f"192.0.2.{n}" for n in range(1, 64))
    assert answer.concentrators == ((many, 0), (("198.51.100.1",), 0), (("2001:db8:1::1",), 0))


@pytest.mark.requirement("7.3-a")
def test_inside_tls(server: str, authority: Authority, tmp_path: Path) -> None:
    own = authority.sign("router-0815")
    files = TlsFiles(str(authority.pair.cert), str(own.cert), str(own.key), SERVER_NAME)
    port = ("127.0.0.1", TLS_PORT)
    radius = client(port, secret="radsec", carrier=TlsCarrier(files, timeout_s=5))
    answer = authenticate(server, radius, "frank", "frankly")
    assert (answer.verdict, answer.subscriber_key, answer.server) == ("accept", KEY, f"127.0.0.1:{TLS_PORT}")
    assert authenticate(server, radius, "bob", "builder").reason == "no contract for this line"
    stranger = Authority(tmp_path / "stranger", "Another CA").sign("intruder")
    for wrong, said in (
        (files._replace(name="other.example"), "not valid for 'other.example'"),
        (
            files._replace(cert=str(stranger.cert), key=str(stranger.key)),
            "this router's certificate?",
        ),
    ):
        radius = client(port, secret="radsec", carrier=TlsCarrier(wrong, timeout_s=5))
        answer = authenticate(server, radius, "alice", "wonderland")
        assert answer.verdict == "timeout"
        assert said in answer.reason


@pytest.mark.requirement("5.3-d")
def test_a_key_that_freeradius_has_encrypted_the_handle_and_every_class(server: str) -> None:
    answer = authenticate(server, client(), "frank", "frankly")
    assert (answer.verdict, answer.subscriber_key, answer.handle) == ("accept", KEY, b"\0handle\xff")
    assert answer.classes == (b"gold", b"\0\1")


def test_a_password_of_any_characters(server: str) -> None:
    assert authenticate(server, client(), "carol", STRANGE_PASSWORD).verdict == "accept"


def test_reject_with_the_servers_reason(server: str) -> None:
    answer = authenticate(server, client(), "bob", "builder")
    assert (answer.verdict, answer.reason, answer.concentrators) == ("reject", "no contract for this line", ())


@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("nobody", "wonderland")])
def test_reject_of_wrong_credentials(server: str, username: str, password: str) -> None:
    assert authenticate(server, client(), username, password).verdict == "reject"


@pytest.mark.requirement("5.3-d")
@pytest.mark.parametrize(
    ("address", "password", "verdict", "user"),
    [
        ("192.0.2.7", "ask", "accept", "alice"),
        ("2001:db8:0:0::7", "ask", "accept", "alice"),
        ("192.0.2.66", "ask", "reject", ""),
        ("192.0.2.99", "ask", "reject", ""),
        ("192.0.2.7", "guessed", "reject", ""),
    ],
)
def test_source_addresses(server: str, address: str, password: str, verdict: str, user: str) -> None:
    answer = ask(server, lambda: client().authorize_address(address, password=password))
    assert (answer.verdict, answer.user) == (verdict, user)


def test_a_wrong_secret_is_no_answer_and_no_reject(server: str) -> None:
    radius = client(secret="another secret", timeout_s=0.5, tries=1)
    answer = authenticate(server, radius, "alice", "wonderland")
    assert (answer.verdict, answer.reason) == (
        "timeout",
        f"127.0.0.1:{PORT} did not answer: is it running, does it know this client and the same secret?",
    )


def test_no_server(server: str) -> None:
    started = time.monotonic()
    answer = authenticate(server, client(("127.0.0.1", 1), ("127.0.0.2", PORT)), "alice", "wonderland")
    assert answer.verdict == "timeout"
    assert answer.reason.count("is unreachable (Connection refused)") == 2
    assert time.monotonic() - started < 2, "a closed port costs no timeout"


def test_a_server_without_route(server: str) -> None:
    answer = authenticate(server, client(("192.0.2.250", PORT)), "alice", "wonderland")
    assert (answer.verdict, answer.reason) == ("timeout", f"192.0.2.250:{PORT} is unreachable (Network is unreachable)")


def test_failover_to_the_second_server(server: str) -> None:
    radius = client(("127.0.0.1", 1), ("127.0.0.1", PORT))
    answer = authenticate(server, radius, "alice", "wonderland")
    assert (answer.verdict, answer.server) == ("accept", f"127.0.0.1:{PORT}")
    assert radius.counters == {"requests": 2, "answers": 1}


@pytest.mark.requirement("7.3-a")
def test_an_accept_that_is_not_signed_is_refused(namespace: str, tmp_path: Path) -> None:
    """As servers from before CVE-2024-3596 answer: right Response Authenticator, no Message-Authenticator."""
    port = PORT + 1
    with freeradius(namespace, tmp_path / "raddb", port, sign_replies=False):
        radius = client(("127.0.0.1", port), timeout_s=0.5, tries=1)
        answer = authenticate(namespace, radius, "alice", "wonderland")
    if answer.verdict == "accept":
        pytest.skip("this FreeRADIUS signs every answer; tests/unit/test_radius.py shows the refusal")
    assert answer.verdict == "timeout"
    assert "answers without Message-Authenticator" in answer.reason
    assert radius.counters == {"requests": 1, "unsigned": 1}
