"""What netifd says, heard over a bus that may be restarted, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bus_broker import Broker

from cpe_mcp.bus import client
from cpe_mcp.bus.interface import ObjectMethod
from cpe_mcp.bus.service import BusService
from cpe_mcp.paths.interfaces import OBJECT, InterfaceView, device_warning, pull_dump, pull_interface
from cpe_mcp.upstream.netifd_watch import NetifdWatch

pytestmark = pytest.mark.unit

UP = {"interface": "wan", "up": True, "pending": False, "l3_device": "pppoe-wan", "device": "eth1", "errors": []}
DOWN = {
    "interface": "wan",
    "up": False,
    "pending": False,
    "errors": [{"subsystem": "interface", "code": "NO_DEVICE"}, {"subsystem": "pppoe", "code": "AUTH_FAILED"}],
}
WAN_UP = InterfaceView("wan", True, False, "pppoe-wan", ())


class Netifd:
    """The object, and the events, on a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.row: dict[str, Any] = UP

    async def start(self) -> None:
        self.bus = await client.connect(self._path)
        await self.bus.add(OBJECT, {"dump": ObjectMethod(self._dump, {})})

    async def event(self, action: str) -> None:
        await self.bus.send(OBJECT, {"action": action, "interface": "wan"})

    async def _dump(self, args: dict[str, Any]) -> Mapping[str, Any]:
        return {"interface": [self.row, {"interface": "lan", "up": True, "l3_device": "br-lan"}]}


class World:
    """A broker, netifd, and the watch on a service as the daemon has it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "ubus.sock")
        self.broker = Broker(self.path)
        self.netifd = Netifd(self.path)
        self.told: list[Mapping[str, InterfaceView]] = []
        self.watch = NetifdWatch(self.told.append)
        self.service = BusService({}, socket_path=self.path, connect=client.connect)
        self.service.on_connected = self.watch.attach

    async def until(self, condition: Callable[[Mapping[str, InterfaceView]], bool]) -> Mapping[str, InterfaceView]:
        async with asyncio.timeout(5):
            while not self.told or not condition(self.told[-1]):
                await asyncio.sleep(0.01)
        return self.told[-1]


def run(tmp_path: Path, course: Callable[[World], Awaitable[None]], *, with_netifd: bool = True) -> None:
    async def main() -> None:
        world = World(tmp_path)
        await world.broker.start()
        if with_netifd:
            await world.netifd.start()
        world.service.start()
        try:
            await course(world)
        finally:
            world.watch.close()
            await world.service.stop()
            await world.broker.stop()

    asyncio.run(main())


def test_everything_is_known_after_connecting(tmp_path: Path) -> None:
    async def course(world: World) -> None:
        views = await world.until(lambda views: "wan" in views)
        assert views["wan"] == WAN_UP
        assert views["lan"].device == "br-lan"

    run(tmp_path, course)


def test_ifdown_and_ifup_are_passed_on(tmp_path: Path) -> None:
    async def course(world: World) -> None:
        await world.until(lambda views: "wan" in views)
        world.netifd.row = DOWN
        await world.netifd.event("ifdown")
        views = await world.until(lambda views: bool(views["wan"].errors))
        assert views["wan"].why_down() == "interface wan is down: NO_DEVICE, AUTH_FAILED"
        world.netifd.row = UP
        await world.netifd.event("ifup")
        assert (await world.until(lambda views: views["wan"].is_up))["wan"] == WAN_UP

    run(tmp_path, course)


def test_a_restart_of_ubusd_and_one_of_netifd_are_survived(tmp_path: Path) -> None:
    async def course(world: World) -> None:
        await world.until(lambda views: "wan" in views)
        await world.broker.stop()
        Path(world.path).unlink(missing_ok=True)
        await world.broker.start()
        world.netifd.row = {**UP, "l3_device": "eth1"}
        await asyncio.sleep(1.5)  # the service is there first, so that netifd appears later
        await world.netifd.start()
        await world.until(lambda views: "wan" in views and views["wan"].device == "eth1")
        world.netifd.row = DOWN
        await world.netifd.event("ifdown")
        await world.until(lambda views: not views["wan"].is_up)

    run(tmp_path, course)


def test_without_netifd_nothing_is_told(tmp_path: Path) -> None:
    async def course(world: World) -> None:
        await asyncio.sleep(0.2)
        assert not world.told
        await world.netifd.start()
        await world.until(lambda views: "wan" in views)

    run(tmp_path, course, with_netifd=False)


@pytest.mark.parametrize(
    "row",
    [None, [], "wan", {}, {"interface": 3}, {"interface": "wan", "errors": "x", "l3_device": 5}],
)
def test_words_of_another_shape_do_no_harm(row: object) -> None:
    assert pull_interface(row) in (None, InterfaceView("wan", False, False, "", ()))
    assert set(pull_dump({"interface": [row]})) <= {"wan"}
    assert pull_dump({"interface": row}) == {}


def test_a_wan_with_another_device_than_its_interface_is_warned_of_by_option() -> None:
    warning = device_warning("dsl", "eth1", WAN_UP)
    for word in ("option device", "'dsl'", "'eth1'", "interface wan", "pppoe-wan"):
        assert word in warning
    assert device_warning("dsl", "pppoe-wan", WAN_UP) == ""
    assert device_warning("dsl", "eth1", None) == ""
    assert device_warning("dsl", "eth1", WAN_UP._replace(is_up=False)) == ""
