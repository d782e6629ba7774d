"""The path manager on a real kernel: what is intercepted and what never is, and that it leaves no trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from relay_world import CLIENT4, CONCENTRATOR, INTERCEPT_PORT, SERVER4, SERVER6, SERVICE_PORT, World, inside, run

from cpe_mcp.relay.sockets import listen_transparent
from cpe_mcp.settings.router import GlobalSettings, PathsSettings, RouterSettings, WanSettings
from cpe_mcp.upstream.path_manager import PathManager

pytestmark = pytest.mark.netns

GLOBAL4 = "11.0.0.1"
"""A global address by its looks; it lives in a namespace of this test."""
Scenario = Callable[[PathManager], Awaitable[None]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "icpt", bare=True)
    try:
        run("ip", "-n", world.far, "address", "add", f"{GLOBAL4}/32", "dev", "lo")
        run("ip", "-n", world.router, "route", "add", "default", "via", "10.2.0.2", "metric", "50")
        run("ip", "-6", "-n", world.router, "route", "add", "default", "via", "2001:db8:2::2", "metric", "2000")
        yield world
    finally:
        world.close()


def settings(**general: object) -> RouterSettings:
    return RouterSettings(
        general=GlobalSettings(**{"lan": ("lan",), "intercept": "any", **general}),  # type: ignore[arg-type]
        paths=PathsSettings(tune_kernel=False),
        wans=(WanSettings(name="one", device="w1", preference=1), WanSettings(name="two", device="w2", preference=2)),
    )


def manage(world: World, scenario: Scenario, **general: object) -> None:
    """Run a path manager in the router's namespace, with the concentrator known and interception on, and the scenario."""

    logging.getLogger("cpe_mcp").setLevel(logging.DEBUG)  # a failure shows when the table was loaded

    async def body() -> None:
        manager = PathManager(settings(**general), on_change=lambda: None)
        await manager.start()
        try:
            manager.set_concentrators([(CONCENTRATOR, SERVICE_PORT)])
            manager.set_interception(True, True)
            await asyncio.sleep(0.3)
            await scenario(manager)
        finally:
            await manager.stop()

    with inside(world.router):
        asyncio.run(body())


class Taken:
    """A transparent listener that answers with the destination it was meant for."""

    def __init__(self, world: World) -> None:
        with inside(world.router):
            self._listeners = [listen_transparent(f, INTERCEPT_PORT) for f in (socket.AF_INET, socket.AF_INET6)]
        for listener in self._listeners:
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: object) -> None:
        plain = socket.socket(fileno=listener.detach())  # type: ignore[attr-defined]
        plain.setblocking(True)
        self._plain = [*getattr(self, "_plain", []), plain]
        while True:
            try:
                connection, _ = plain.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"taken {connection.getsockname()[0]}".encode())

    def close(self) -> None:
        for plain in getattr(self, "_plain", []):
            with contextlib.suppress(OSError):
                plain.shutdown(socket.SHUT_RDWR)
            plain.close()


@pytest.fixture
def taken(world: World) -> Iterator[Taken]:
    listener = Taken(world)
    yield listener
    listener.close()


def say_direct(connection: socket.socket) -> None:
    connection.sendall(b"direct")


def ask(world: World, address: str, port: int, source: str = "", timeout: float = 2) -> str:
    with (
        inside(world.client),
        socket.create_connection((address, port), timeout=timeout, source_address=(source, 0)) as client,
    ):
        return client.recv(100).decode()


async def asked(world: World, address: str, port: int) -> str:
    return await asyncio.to_thread(ask, world, address, port)


@pytest.mark.requirement("5.2.1-a")
@pytest.mark.parametrize("address", [SERVER4, SERVER6])
def test_new_connections_are_taken_with_their_destination(world: World, taken: Taken, address: str) -> None:
    port = world.serve(say_direct, address)

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, address, port) == f"taken {address}"
        manager.set_interception(True, False)
        expected = "direct" if ":" in address else f"taken {address}"
        assert await asked(world, address, port) == expected
        manager.set_interception(False, False)
        assert await asked(world, address, port) == "direct"

    manage(world, scenario)


def test_without_a_listener_everything_is_forwarded(world: World) -> None:
    port = world.serve(say_direct)

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, SERVER4, port) == "direct"

    manage(world, scenario)


@pytest.mark.requirement("X-15")
def test_a_running_direct_connection_goes_on_when_interception_begins(world: World, taken: Taken) -> None:
    def slowly(connection: socket.socket) -> None:
        connection.sendall(b"first")
        connection.recv(10)
        connection.sendall(b"second")

    with world.connect(SERVER4, world.serve(slowly)) as client:
        assert client.recv(10) == b"first"

        async def scenario(manager: PathManager) -> None:
            client.sendall(b"go on")
            assert await asyncio.to_thread(client.recv, 10) == b"second"

        manage(world, scenario)


@pytest.mark.requirement("X-15")
def test_what_is_never_taken(world: World, taken: Taken) -> None:
    modem = world.serve(say_direct, "10.1.0.2")
    server = world.serve(say_direct)
    with inside(world.router):
        own = socket.create_server(("192.168.9.1", 0))
    threading.Thread(target=lambda: own.accept()[0].sendall(b"router"), daemon=True).start()

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, "10.1.0.2", modem) == "direct", "the modem's page"
        assert await asked(world, "192.168.9.1", own.getsockname()[1]) == "router"
        assert await asked(world, SERVER4, server) != "direct"
        manager.add_direct(SERVER4, server)
        async with asyncio.timeout(2):
            while await asked(world, SERVER4, server) != "direct":  # left to plain forwarding (D14)
                await asyncio.sleep(0.01)

    manage(world, scenario)
    own.close()


@pytest.mark.requirement("X-15")
def test_only_global_destinations_by_default(world: World, taken: Taken) -> None:
    inner, outer = world.serve(say_direct), world.serve(say_direct, GLOBAL4)

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, SERVER4, inner) == "direct"
        assert await asked(world, GLOBAL4, outer) == f"taken {GLOBAL4}"

    manage(world, scenario, intercept="global")


@pytest.mark.requirement("X-15")
def test_what_leaves_by_an_unmanaged_device_is_not_taken(world: World, taken: Taken) -> None:
    port = world.serve(say_direct)
    run("ip", "-n", world.router, "link", "add", "vpn", "type", "veth", "peer", "vpn", "netns", world.far)
    for namespace, address in ((world.router, "10.3.0.1/24"), (world.far, "10.3.0.2/24")):
        run("ip", "-n", namespace, "address", "add", address, "dev", "vpn")
        run("ip", "-n", namespace, "link", "set", "vpn", "up")
    run("ip", "-n", world.router, "route", "add", f"{SERVER4}/32", "via", "10.3.0.2")

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, SERVER4, port) == "direct"

    manage(world, scenario)


@pytest.mark.requirement("5.3-f")
def test_the_lan_cannot_reach_a_concentrators_service_port(world: World, taken: Taken) -> None:
    world.serve(say_direct, CONCENTRATOR, SERVICE_PORT)
    other = world.serve(say_direct, CONCENTRATOR)

    async def scenario(manager: PathManager) -> None:
        with pytest.raises(TimeoutError):
            await asked(world, CONCENTRATOR, SERVICE_PORT)
        manager.set_interception(False, False)
        with pytest.raises(TimeoutError):
            await asked(world, CONCENTRATOR, SERVICE_PORT)
        assert await asked(world, CONCENTRATOR, other) == "direct"

    manage(world, scenario)


GUEST = "192.168.8.2"


@pytest.fixture
def guests(world: World) -> None:
    """The client is in the guest network too, a device that is not of ``lan``; its addresses are hidden as a home's are."""
    run("ip", "-n", world.client, "link", "add", "guest", "type", "veth", "peer", "guest", "netns", world.router)
    for namespace, address in ((world.client, f"{GUEST}/24"), (world.router, "192.168.8.1/24")):
        run("ip", "-n", namespace, "address", "add", address, "dev", "guest")
        run("ip", "-n", namespace, "link", "set", "guest", "up")
    run("ip", "-n", world.client, "rule", "add", "from", GUEST, "lookup", "100")
    run("ip", "-n", world.client, "route", "add", "default", "via", "192.168.8.1", "table", "100")
    nat = "table ip nat { chain post { type nat hook postrouting priority srcnat; ip saddr 192.168.8.0/24 masquerade; }; }"
    run("ip", "netns", "exec", world.router, "nft", "-f", "-", stdin=nat)


@pytest.mark.requirement("5.3-f")
@pytest.mark.parametrize("lan", [("lan",), ()])
def test_guests_cannot_reach_a_concentrators_service_port_either(
    world: World, guests: None, lan: tuple[str, ...]
) -> None:
    """Whoever comes from behind this router has the line's address there, by which a concentrator may know a subscriber."""
    world.serve(say_direct, CONCENTRATOR, SERVICE_PORT)
    other = world.serve(say_direct, CONCENTRATOR)

    async def scenario(manager: PathManager) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(ask, world, CONCENTRATOR, SERVICE_PORT, GUEST, 0.5)
        assert await asyncio.to_thread(ask, world, CONCENTRATOR, other, GUEST) == "direct"

    assert ask(world, CONCENTRATOR, SERVICE_PORT, GUEST) == "direct", "as long as nobody keeps them away"
    manage(world, scenario, lan=lan)


@pytest.mark.requirement("5.6.1-d")
@pytest.mark.requirement("5.2.2.1-b")
@pytest.mark.parametrize(("setting", "answer"), [("proxy", f"taken {SERVER4}"), ("pass", "direct")])
def test_connections_that_ask_for_mptcp_themselves(world: World, taken: Taken, setting: str, answer: str) -> None:
    port = world.serve(say_direct)

    def ask_by_mptcp() -> str:
        with inside(world.client), socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as client:
            client.settimeout(2)
            client.connect((SERVER4, port))
            return client.recv(100).decode()

    async def scenario(manager: PathManager) -> None:
        assert await asyncio.to_thread(ask_by_mptcp) == answer
        assert await asked(world, SERVER4, port) == f"taken {SERVER4}"

    manage(world, scenario, mptcp_syn=setting)


def show(world: World) -> str:
    """Everything a path manager might leave behind."""
    commands = (
        "ip rule",
        "ip -6 rule",
        "ip route show table all type unicast",
        "ip -6 route show table all type unicast",
        "ip route show table 5100",
        "ip mptcp endpoint",
        "nft list ruleset",
    )
    texts = []
    for command in commands:
        argv = ["ip", "netns", "exec", world.router, *command.split()]
        texts.append(subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
    return "\n".join(texts)


@pytest.mark.requirement("X-1")
def test_no_trace_is_left(world: World) -> None:
    before = show(world)

    async def scenario(manager: PathManager) -> None:
        assert await asyncio.to_thread(show, world) != before

    manage(world, scenario)
    assert show(world) == before


@pytest.mark.requirement("Y-2")
def test_what_others_flush_is_restored_within_two_seconds(world: World, taken: Taken) -> None:
    port = world.serve(say_direct)

    async def scenario(manager: PathManager) -> None:
        whole = await asyncio.to_thread(show, world)
        for command in (
            "nft flush ruleset",
            "ip mptcp endpoint flush",
            "ip rule del pref 522",
            "ip route flush table 5101",
        ):
            await asyncio.to_thread(run, "ip", "netns", "exec", world.router, *command.split())
            end = time.monotonic() + 2
            while await asyncio.to_thread(show, world) != whole:
                assert time.monotonic() < end, command
                await asyncio.sleep(0.05)
        assert await asked(world, SERVER4, port) == f"taken {SERVER4}"

    manage(world, scenario)


@pytest.mark.requirement("Y-2")
def test_endpoints_follow_link_and_address(world: World) -> None:
    def endpoints() -> set[str]:
        argv = ["ip", "-n", world.router, "mptcp", "endpoint"]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        return {line.split()[0] for line in lines if ":" not in line.split()[0]}

    async def until(wanted: set[str]) -> None:
        end = time.monotonic() + 3
        while endpoints() != wanted:
            assert time.monotonic() < end, (endpoints(), wanted)
            await asyncio.sleep(0.01)

    async def scenario(manager: PathManager) -> None:
        await until({"10.1.0.1", "10.2.0.1"})
        run("ip", "-n", world.router, "link", "set", "w2", "down")
        await until({"10.1.0.1"})
        run("ip", "-n", world.router, "link", "set", "w2", "up")
        run("ip", "-n", world.router, "route", "add", "default", "via", "10.2.0.2", "metric", "50")
        await until({"10.1.0.1", "10.2.0.1"})
        run("ip", "-n", world.router, "address", "delete", "10.1.0.1/24", "dev", "w1")
        await until({"10.2.0.1"})
        assert [wan.name for wan in manager.wans() if wan.address4] == ["two"]
        assert CLIENT4 not in endpoints()

    manage(world, scenario)
