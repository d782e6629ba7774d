"""One contract for both ubus implementations, on every pair of client and bus that this machine has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bus_broker import Broker
from programs import Ubusd

from cpe_mcp.bus import client, python_ubus
from cpe_mcp.bus.blob import INT32, TABLE, push_table
from cpe_mcp.bus.events import PATH
from cpe_mcp.bus.interface import Bus, BusError, ObjectMethod
from cpe_mcp.bus.service import OBJECT, PYTHON_UBUS, BusService, Connect
from cpe_mcp.bus.wire import Attr, MessageType, Status, push_message, push_number, push_string
from cpe_mcp.control.ask import ApiError

PAIRS = [("own", "broker"), ("own", "ubusd"), (PYTHON_UBUS, "ubusd")]
BACK_S = 5.0
"""Issue: the object is back within five seconds of a restart of ubusd."""

Test = Callable[["World"], Awaitable[None]]


class World:
    """A bus that can be restarted, the implementation under test, and an own client to ask with."""

    def __init__(self, kind: str, server: str, folder: Path) -> None:
        self.kind = kind
        self.connect: Connect = python_ubus.connect if kind == PYTHON_UBUS else client.connect
        self.path = str(folder / "ubus.sock")
        self._broker = Broker(self.path) if server == "broker" else None
        self._ubusd = Ubusd(folder) if server == "ubusd" else None

    async def start(self) -> None:
        if self._broker is not None:
            await self._broker.start()
        if self._ubusd is not None:
            await asyncio.to_thread(self._ubusd.start)

    async def stop(self) -> None:
        if self._broker is not None:
            await self._broker.stop()
        if self._ubusd is not None:
            await asyncio.to_thread(self._ubusd.stop)
        Path(self.path).unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """A connection of the implementation under test."""
        bus = await self.connect(self.path)
        try:
            yield bus
        finally:
            await bus.close()

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Bus]:
        """Somebody else on the bus."""
        bus = await client.connect(self.path)
        try:
            yield bus
        finally:
            await bus.close()

    async def ask(self, method: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Call the daemon's object, waiting for it."""
        async with asyncio.timeout(BACK_S):
            while True:
                with contextlib.suppress(OSError, BusError):
                    async with self.caller() as caller:
                        return await caller.call(OBJECT, method, args)
                await asyncio.sleep(0.05)


@pytest.fixture(params=PAIRS, ids=" x ".join)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    kind, server = request.param
    if kind == PYTHON_UBUS and importlib.util.find_spec("ubus") is None:
        pytest.skip("needs python-ubus")
    if server == "ubusd" and shutil.which("ubusd") is None:
        pytest.skip("needs the program ubusd")
    return World(kind, server, tmp_path)


def with_bus(test: Test) -> Callable[[World], None]:
    """Run a test in an event loop, with the bus up."""

    @functools.wraps(test)
    def run(world: World) -> None:
        async def main() -> None:
            await world.start()
            try:
                async with asyncio.timeout(30):
                    await test(world)
            finally:
                await world.stop()

        asyncio.run(main())

    del run.__wrapped__  # pytest must see this one's signature
    return run


async def echo(args: dict[str, Any]) -> Mapping[str, Any]:
    return {"got": args}


async def fail(args: dict[str, Any]) -> Mapping[str, Any]:
    raise ValueError("on purpose")


METHODS = {"echo": ObjectMethod(echo, {"args": TABLE}), "fail": ObjectMethod(fail, {"args": TABLE})}
VALUES = {
    "text": "Gr\u00fc\u00dfe",
    "number": -7,
    "large": 2**40,
    "part": 0.25,
    "on": True,
    "none": None,
    "rows": [{"a": 1}, {"b": []}, "x", 3],
    "empty": {},
}


@with_bus
async def test_values_travel_there_and_back(world: World) -> None:
    async with world.bus() as bus, world.caller() as caller:
        await bus.add("cpe-mcp.test", METHODS)
        assert await caller.call("cpe-mcp.test", "echo", {"args": VALUES}) == {"got": {"args": VALUES}}


@with_bus
async def test_errors_have_ubus_own_words(world: World) -> None:
    async with world.bus() as bus, world.caller() as caller:
        await bus.add("cpe-mcp.test", METHODS)
        for name, method, status in (
            ("cpe-mcp.test", "fail", Status.UNKNOWN_ERROR),
            ("cpe-mcp.test", "missing", Status.METHOD_NOT_FOUND),
            ("cpe-mcp.nowhere", "echo", Status.NOT_FOUND),
        ):
            with pytest.raises(BusError) as caught:
                await caller.call(name, method, {"args": {}})
            assert caught.value.status == status, method
        assert await caller.call("cpe-mcp.test", "echo", {"args": {}}) == {"got": {"args": {}}}  # still there


@with_bus
async def test_a_name_is_given_once(world: World) -> None:
    async with world.bus() as bus, world.caller() as other:
        await bus.add("cpe-mcp.test", METHODS)
        with pytest.raises(BusError, match="INVALID_ARGUMENT"):
            await other.add("cpe-mcp.test", METHODS)
        await other.add("cpe-mcp.other", METHODS)
        with pytest.raises(BusError, match=r"publishing cpe-mcp\.other"):
            await bus.add("cpe-mcp.other", METHODS)


async def refusal(call: Awaitable[Any]) -> int:
    """Why a call that must fail does."""
    with pytest.raises(BusError) as caught:
        await call
    return caught.value.status


@with_bus
async def test_a_closed_connection_takes_its_object_along(world: World) -> None:
    async with world.caller() as caller:
        async with world.bus() as bus:
            await bus.add("cpe-mcp.test", METHODS)
            await caller.call("cpe-mcp.test", "echo", {"args": {}})
        # A call that overtakes the end of the connection is passed on to nobody, and ubusd does not answer for him.
        async with asyncio.timeout(BACK_S):
            status: int = Status.TIMEOUT
            while status == Status.TIMEOUT:
                status = await refusal(caller.call("cpe-mcp.test", "echo", {"args": {}}, timeout_s=0.2))
        assert status == Status.NOT_FOUND


@with_bus
async def test_calls_of_the_implementation(world: World) -> None:
    async with world.bus() as bus, world.caller() as other:
        await other.add("cpe-mcp.other", METHODS)
        assert await bus.call("cpe-mcp.other", "echo", {"args": VALUES}) == {"got": {"args": VALUES}}
        with pytest.raises(BusError, match="NOT_FOUND"):
            await bus.call("cpe-mcp.nowhere", "echo", {})


@with_bus
async def test_a_call_that_is_not_answered_times_out(world: World) -> None:
    async def sleep(args: dict[str, Any]) -> Mapping[str, Any]:
        await asyncio.sleep(5)
        return {}

    async with world.bus() as bus, world.caller() as other:
        await other.add("cpe-mcp.other", {"sleep": ObjectMethod(sleep, {})})
        with pytest.raises(BusError) as caught:
            await bus.call("cpe-mcp.other", "sleep", {}, timeout_s=0.2)
        assert caught.value.status == Status.TIMEOUT


@with_bus
async def test_events_go_to_those_who_listen_and_not_back(world: World) -> None:
    heard: list[tuple[str, str, dict[str, Any]]] = []

    async with world.bus() as bus, world.caller() as other:
        await bus.listen("cpe-mcp.*", lambda name, data: heard.append(("bus", name, data)))
        await other.listen("cpe-mcp.test", lambda name, data: heard.append(("other", name, data)))
        await bus.send("cpe-mcp.test", VALUES)
        await bus.send("cpe-mcp.more", {})
        await other.send("cpe-mcp.more", {"n": 1})
        async with asyncio.timeout(2):
            while len(heard) < 2:
                await asyncio.sleep(0.01)
    assert sorted(heard, key=lambda row: row[0]) == [
        ("bus", "cpe-mcp.more", {"n": 1}),
        ("other", "cpe-mcp.test", VALUES),
    ]


async def notify(bus: client.OwnBus, number: int, method: str, data: Mapping[str, Any]) -> None:
    """What an object tells its subscribers; netifd waits for no answer."""
    attrs = [
        (Attr.OBJID, push_number(number)),
        (Attr.METHOD, push_string(method)),
        (Attr.DATA, push_table(data)),
        (Attr.NO_REPLY, b"\1"),
    ]
    await bus._write(push_message(MessageType.NOTIFY, 999, number, attrs))


@with_bus
async def test_subscribers_hear_what_an_object_tells(world: World) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    added: list[str] = []
    other = await client.connect(world.path)
    async with world.bus() as bus:
        with pytest.raises(BusError, match="NOT_FOUND"):
            await bus.subscribe("cpe-mcp.other", lambda name, data: None)
        await bus.listen("ubus.object.add", lambda name, data: added.append(str(data["path"])))
        await other.add("cpe-mcp.other", METHODS)
        number = next(iter(other._objects))
        await bus.subscribe("cpe-mcp.other", lambda name, data: heard.append((name, data)))
        await notify(other, number, "interface.update", VALUES)
        async with asyncio.timeout(2):
            while not heard or not added:
                await asyncio.sleep(0.01)
        await other.close()
    assert heard == [("interface.update", VALUES)]
    assert added == ["cpe-mcp.other"]


@with_bus
async def test_half_a_megabyte(world: World) -> None:
    rows = [{"n": n, "text": "x" * 400} for n in range(1100)]

    async def many(args: dict[str, Any]) -> Mapping[str, Any]:
        return {"rows": rows}

    async with world.bus() as bus, world.caller() as caller:
        await bus.add("cpe-mcp.test", {"many": ObjectMethod(many, {"args": TABLE})})
        assert (await caller.call("cpe-mcp.test", "many", {"args": {}}))["rows"] == rows


@with_bus
async def test_the_event_loop_goes_on_while_a_method_takes_its_time(world: World) -> None:
    turns = 0

    async def slow(args: dict[str, Any]) -> Mapping[str, Any]:
        await asyncio.sleep(0.3)
        return {"turns": turns}

    async with world.bus() as bus, world.caller() as caller:
        await bus.add("cpe-mcp.test", {"slow": ObjectMethod(slow, {"args": TABLE})})
        call = asyncio.create_task(caller.call("cpe-mcp.test", "slow", {"args": {}}))
        while not call.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert (await call)["turns"] > 20


@with_bus
async def test_the_loss_of_the_bus_is_noticed(world: World) -> None:
    async with world.bus() as bus:
        await bus.add("cpe-mcp.test", METHODS)
        await world.stop()
        async with asyncio.timeout(2):
            await bus.wait_lost()
        with pytest.raises(BusError):
            await bus.send("cpe-mcp.test", {})
    with pytest.raises(OSError, match=r"ubus\.sock|No such file"):
        await world.connect(world.path)


@with_bus
async def test_other_arguments_than_those_of_the_signature(world: World) -> None:
    """LuCI's web server adds an argument to every call, people leave arguments out: the own client takes both, while
    python-ubus refuses them, which is why the private object has one form of arguments only."""
    session = {"ubus_rpc_session": "00000000000000000000000000000000", "limit": "text"}
    async with world.bus() as bus, world.caller() as caller:
        await bus.add("cpe-mcp.test", {"echo": ObjectMethod(echo, {"limit": INT32})})
        for args in ({}, session):
            if world.kind == PYTHON_UBUS:
                with pytest.raises(BusError, match="INVALID_ARGUMENT"):
                    await caller.call("cpe-mcp.test", "echo", args)
            else:
                assert await caller.call("cpe-mcp.test", "echo", args) == {"got": args}


@with_bus
async def test_exit_codes_of_children_stay_ours(world: World) -> None:
    """libubox's loop would reap every child of the process."""
    async with world.bus() as bus, world.caller() as caller:
        await bus.add("cpe-mcp.test", METHODS)
        child = subprocess.Popen(["sh", "-c", "exit 7"])
        await asyncio.sleep(0.2)
        await caller.call("cpe-mcp.test", "echo", {"args": {}})
        await bus.send("cpe-mcp.test", {})
        assert child.wait() == 7


# The service on top ----------------------------------------------------------------------------------------------------


async def why(args: Mapping[str, Any]) -> dict[str, Any]:
    if "dest" not in args:
        raise ApiError("dest is missing: an address or a name")
    if args["dest"] == "fault":
        raise KeyError("fault")
    if args["dest"] == "everything":
        return {"rows": ["x" * 1000] * 1100}
    return {"dest": args["dest"], "part": float("nan"), "pair": (1, 2), "text": "a\0b"}


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[BusService]:
    service = BusService({"why": why}, socket_path=world.path, connect=world.connect)
    service.start()
    try:
        yield service
    finally:
        await service.stop()


@with_bus
async def test_service_answers_and_refuses(world: World) -> None:
    async with running(world):
        good = {"dest": "x", "part": None, "pair": [1, 2], "text": "a\ufffdb"}
        assert await world.ask("why", {"args": {"dest": "x"}}) == {"reply": good}
        assert await world.ask("why", {"args": {}}) == {
            "error": "refused",
            "text": "dest is missing: an address or a name",
        }
        assert (await world.ask("why", {"args": {"dest": "fault"}}))["error"] == "failed"
        long = await world.ask("why", {"args": {"dest": "everything"}})
        assert long["error"] == "too-long"
        assert "smaller limit" in long["text"]


@pytest.mark.requirement("X-2")
@with_bus
async def test_service_is_back_after_a_restart_of_the_bus(world: World) -> None:
    async with running(world) as service:
        await world.ask("why", {"args": {"dest": "x"}})
        for _ in range(2):
            await world.stop()
            service.send(PATH, {"wan": "lost with the bus"})
            await asyncio.sleep(0.3)
            await world.start()
            assert "reply" in await world.ask("why", {"args": {"dest": "x"}})  # within BACK_S


@with_bus
async def test_service_tells_events(world: World) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    async with running(world) as service, world.caller() as other:
        await world.ask("why", {"args": {"dest": "x"}})
        await other.listen("cpe-mcp.*", lambda name, data: heard.append((name, data)))
        service.send(PATH, {"wan": "dsl", "state": "down"})
        async with asyncio.timeout(2):
            while not heard:
                await asyncio.sleep(0.01)
    assert heard == [(PATH, {"wan": "dsl", "state": "down"})]


def test_service_without_a_bus_is_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        service = BusService({"why": why}, socket_path=str(tmp_path / "none.sock"), connect=client.connect)
        service.start()
        for _ in range(100):
            service.send(PATH, {})
        await asyncio.sleep(0.2)
        await service.stop()

    with caplog.at_level("INFO"):
        asyncio.run(main())
    assert [record.message for record in caplog.records if record.name.startswith("cpe_mcp")] == [
        f"no ubus at {tmp_path}/none.sock: [Errno 2] No such file or directory"
    ]
