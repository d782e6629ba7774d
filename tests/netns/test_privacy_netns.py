"""Everything about subscribers that a concentrator knows is planted, and then looked for in everything that leaves it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import radclient
from relay_world import CONCENTRATOR, SERVICE_PORT, World, inside, run
from test_concentrator_netns import SUCCESS, Concentrator
from test_radius_netns import ENTERPRISE, serving

from cpe_mcp.aaa.cookie import Credential, make_cookie, make_handle, own_credential
from cpe_mcp.convert import Client
from cpe_mcp.lab.freeradius import PROGRAM, RadiusUser, write_config
from cpe_mcp.relay.sockets import pack16

pytestmark = [
    pytest.mark.netns,
    pytest.mark.requirement("7.1-a"),
    pytest.mark.skipif(
        shutil.which(PROGRAM) is None or shutil.which(radclient.PROGRAM) is None,
        reason="needs the programs freeradius, radclient",
    ),
]

KEY, COOKIE_SECRET = "planted-key-of-a-subscriber", "planted-secret-of-all-concentrators"
RADIUS_SECRET, RADIUS_PASSWORD, PUSH_SECRET = (
    "planted-secret-of-radius",
    "planted-password-of-radius",
    "planted-secret-of-coa",
)
BY_KEY, BY_ADDRESS, BY_HANDLE = "planted_key_name", "planted_line_name", "planted_handle_name"
IDENT_USER = "planted_ident_user"
SOURCE, DESTINATION = "10.1.0.177", "10.2.0.199"
CUSTOMERS = 5999
METRICS_PORT = 9464
HANDED = make_handle(BY_HANDLE, COOKIE_SECRET.encode(), time.time() + 3600)
OWN = own_credential(BY_KEY, KEY)
SECRETS = [
    *(KEY, COOKIE_SECRET, RADIUS_SECRET, RADIUS_PASSWORD, PUSH_SECRET),
    *(bytes(octets).hex() for octets in (OWN.key, HANDED.key, HANDED.handle)),
    *(repr(bytes(octets))[2:-1] for octets in (OWN.key, HANDED.key, HANDED.handle)),
]
PEOPLE = [BY_KEY, BY_ADDRESS, BY_HANDLE, IDENT_USER, SOURCE]
CONFIG = f"""
config global 'global'
    option run_dir '@RUN@'
    option congestion_control ''
    option log_level 'debug'
    option cookie_secret '{COOKIE_SECRET}'
    option metrics_address '{CONCENTRATOR}'
    option metrics_port '{METRICS_PORT}'

config listener 'internet'
    option port '{SERVICE_PORT}'

config listener 'customers'
    option port '{CUSTOMERS}'
    option facing 'customer'

config destinations 'destinations'
    list allow '10.2.0.0/24'

config subscriber '{BY_KEY}'
    option key '{KEY}'

config radius 'radius'
    option enabled '1'
    list server '127.0.0.1'
    option secret '{RADIUS_SECRET}'
    option password '{RADIUS_PASSWORD}'
    option enterprise '{ENTERPRISE}'
    option accounting '1'

config dynamic 'dynamic'
    option enabled '1'

config dynamic_client 'aaa'
    list address '127.0.0.1'
    option secret '{PUSH_SECRET}'

config ident 'ident'
    option mode 'inform'

config address_log 'address_log'
    option enabled '1'
    option file '@LOG@'
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "priv", bare=True)
    try:
        run("ip", "-n", world.router, "address", "add", f"{SOURCE}/24", "dev", "w1")
        run("ip", "-n", world.router, "address", "add", f"{DESTINATION}/24", "dev", "w2")
        yield world
    finally:
        world.close()


def asked(world: World, service: int, port: int, credential: Credential | None = None) -> bytes:
    """What comes back when SOURCE asks for a port of DESTINATION."""
    cookie = make_cookie(credential, time.time()) if credential is not None else b""
    answer = bytearray()
    with (
        inside(world.router),
        socket.create_connection((CONCENTRATOR, service), timeout=6, source_address=(SOURCE, 0)) as sock,
    ):
        sock.sendall(Client(cookie).connect(pack16(socket.AF_INET, DESTINATION), port))
        with contextlib.suppress(OSError):
            while piece := sock.recv(2000):
                answer += piece
    return bytes(answer)


def awaited(what: str, found: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def tell(connection: socket.socket) -> None:
    """As the Ident responder of a router."""
    ports = connection.recv(100).decode().strip()
    connection.sendall(f"{ports} : USERID : UNIX : {IDENT_USER}\r\n".encode())


@pytest.mark.requirement("5.6.7-a")
def test_nothing_of_the_subscriber_leaves_but_what_the_address_log_is_to_say(world: World, tmp_path: Path) -> None:
    """Log at level debug, metrics, the processes' arguments, files and sockets that others reach: no people and no secrets.
    What root asks for names people, but neither secrets nor, of what is over, destinations."""
    log = tmp_path / "logs/addresses.log"
    concentrator = Concentrator(world, tmp_path, CONFIG.replace("@LOG@", str(log)))
    concentrator.config.chmod(0o600)
    concentrator.wait()
    port = world.serve(lambda connection: connection.sendall(b"hello"), DESTINATION, 0, world.router)
    world.serve(tell, SOURCE, 113, world.router)
    command = write_config(
        str(tmp_path / "raddb"),
        secret=RADIUS_SECRET,
        clients=["127.0.0.1"],
        address_users=[
            RadiusUser(
                SOURCE,
                RADIUS_PASSWORD,
                user=BY_ADDRESS,
                message=f"Welcome, {BY_ADDRESS}",
                reply=("Filter-Id = 'planted-filter'", "CPE-MCP-Down-Mbit = 50"),
            )
        ],
        enterprise=ENTERPRISE,
        listen=[("127.0.0.1", 1812)],
        accounting=[("127.0.0.1", 1813)],
    )

    def push(kind: str, user: str, *attributes: str, secret: str = PUSH_SECRET, tries: int = 3) -> str:
        meant = ('NAS-Identifier = "mcp-concentrator"', f'User-Name = "{user}"')
        place = (world.far, tmp_path / "raddb", "127.0.0.1:3799")
        return radclient.send(*place, kind, *meant, *attributes, secret=secret, tries=tries)

    with serving(world.far, tmp_path / "raddb", command):
        assert asked(world, CUSTOMERS, port) == SUCCESS + b"hello"
        assert asked(world, SERVICE_PORT, port, OWN) == SUCCESS + b"hello"
        assert asked(world, SERVICE_PORT, port, HANDED) == SUCCESS + b"hello"
        assert asked(world, SERVICE_PORT, 9, HANDED) == bytes.fromhex("01022263 1e016000"), "nobody is there"
        assert asked(world, SERVICE_PORT, port, own_credential(BY_KEY, "another-key-altogether"))[4:] == bytes.fromhex(
            "1e012000"
        )
        assert "Unsupported-Attribute" in push("coa", BY_KEY, 'Filter-Id = "gold"')
        assert "Unsupported-Attribute" in push("coa", BY_HANDLE, 'Filter-Id = "gold"')
        assert push("coa", BY_HANDLE, "CPE-MCP-Down-Mbit = 5", secret="guessed", tries=1) == ""
        assert "CoA-ACK" in push("coa", BY_ADDRESS, "CPE-MCP-Down-Mbit = 7")
        assert "Disconnect-ACK" in push("disconnect", BY_HANDLE)
        awaited("every connection that used a port of ours is logged", lambda: len(_lines(log)) == 4)
        awaited("accounting", lambda: concentrator.ask()["accounting"]["sent"] >= 3)
        awaited("Ident", lambda: IDENT_USER in str(concentrator.ask()["ident"]))
        concentrator.process.send_signal(signal.SIGHUP)
        awaited("settings read again", lambda: "settings read again" in concentrator.log.read_text())
        with inside(world.router):
            url = f"http://{CONCENTRATOR}:{METRICS_PORT}/metrics"
            metrics = urllib.request.urlopen(url, timeout=5).read().decode()
        status = concentrator.ask()
        open_to_others = {"the log": concentrator.log.read_text(), "metrics": metrics}
        for pid in [concentrator.process.pid, *(row["pid"] for row in status["workers"])]:
            for part in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{part}").read_bytes().decode(errors="replace")
                open_to_others[f"{part} of process {pid}"] = text
        open_to_others |= _reachable(concentrator.run_dir) | _reachable(log.parent)
        open_to_root = {
            "status": str(status),
            "flows": str(concentrator.ask("flows")),
            "the address log": log.read_text(),
        }
        concentrator.process.terminate()  # while the server takes the end of the accounting
        concentrator.process.wait(5)

    assert {word["subscriber"] for word in _lines(log)} == {BY_KEY, BY_ADDRESS, BY_HANDLE}
    assert {word["inner"].partition("#")[0] for word in _lines(log)} == {SOURCE}
    assert BY_HANDLE in open_to_root["status"], "it is the real one"
    assert "planted-filter" in open_to_others["the log"]
    assert "10.1.0.x" in open_to_others["the log"]
    places = (f"#{port} ", f":{port} ", f"port {port}")
    found = [(where, word) for where, text in open_to_others.items() for word in (*SECRETS, *PEOPLE) if word in text]
    found += [(where, word) for where, text in open_to_root.items() for word in SECRETS if word in text]
    found += [
        (where, word)
        for where, text in (open_to_others | open_to_root).items()
        for word in (DESTINATION, *places)
        if word in text
    ]
    assert found == []


def _lines(path: Path) -> list[dict[str, str]]:
    """Of the address log."""
    if not path.exists():
        return []
    return [dict(word.split("=", 1) for word in line.split()) for line in path.read_text().splitlines()]


def _reachable(directory: Path) -> dict[str, str]:
    """What users other than the daemon's find below: of files the content, of a socket that it is there."""
    others = stat.S_IRWXG | stat.S_IRWXO
    found = {}
    for path in (directory, *directory.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISSOCK(mode) and mode & others:
            found[f"the socket {path}"] = BY_KEY
        elif stat.S_ISREG(mode) and mode & others:
            found[str(path)] = path.read_text(errors="replace")
    return found
