"""Endpoints as they are kept, on a kernel that refuses what Linux refuses (tests/netns/test_endpoints_netns.py)."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cpe_mcp.kernel.netlink import NetlinkError
from cpe_mcp.paths.health import DEAD, OFFLINE
from cpe_mcp.paths.observed import FLAG_BACKUP, FLAG_SUBFLOW, DeviceView, Endpoint, Observed
from cpe_mcp.paths.reconcile import RETURN_PAUSE_S, wanted_endpoints
from cpe_mcp.settings.router import RouterSettings, WanSettings
from cpe_mcp.upstream import endpoint_keeper
from cpe_mcp.upstream.endpoint_keeper import EndpointKeeper
from cpe_mcp.upstream.path_manager import PathManager

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-4")]

DSL = DeviceView("eth1", 3, True, "10.1.0.2", "2001:db8:1::2", (), "10.1.0.1", "fe80::1")
LTE = DeviceView("wwan0", 4, True, "10.2.0.2", "", (), "", None)
ENDPOINTS_MAX = 8


class Kernel:
    """Endpoints of one namespace."""

    def __init__(self) -> None:
        self.rows: dict[int, Endpoint] = {}
        self.done: list[str] = []
        self.refuses: set[str] = set()
        """Addresses whose commands fail."""

    def endpoints(self) -> list[Endpoint]:
        return list(self.rows.values())

    def limits(self) -> tuple[int, int]:
        return 8, 0

    def add(self, endpoint: Endpoint) -> None:
        self._may(endpoint.address)
        if len(self.rows) >= ENDPOINTS_MAX:
            raise NetlinkError(errno.ERANGE, "Numerical result out of range")
        if endpoint.id in self.rows:
            raise NetlinkError(errno.EBUSY, "Device or resource busy")
        if endpoint.address in {row.address for row in self.rows.values()}:
            raise NetlinkError(errno.EEXIST, "File exists")
        self.rows[endpoint.id] = endpoint
        self.done.append(f"+{endpoint.address}")

    def delete(self, number: int) -> None:
        self._may(self.rows[number].address)
        self.done.append(f"-{self.rows.pop(number).address}")

    def set_flags(self, number: int, flags: int) -> None:
        self._may(self.rows[number].address)
        self.rows[number] = self.rows[number]._replace(flags=FLAG_SUBFLOW | flags)

    def addresses(self) -> set[str]:
        return {row.address for row in self.rows.values()}

    def _may(self, address: str) -> None:
        if address in self.refuses:
            raise NetlinkError(errno.EINVAL, "Invalid argument")


class Room:
    """A keeper, its kernel, and a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = Kernel()
        self.now = 100.0
        self.indexes = {1, 3, 4}
        self.complaints: list[str] = []
        self.no_descriptors = False
        monkeypatch.setattr(endpoint_keeper, "MptcpNetlink", lambda: self.kernel)
        monkeypatch.setattr(endpoint_keeper, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(endpoint_keeper, "socket", SimpleNamespace(if_indextoname=self._name), raising=False)
        self.keeper = EndpointKeeper(self.complaints.append)

    def _name(self, index: int) -> str:
        if self.no_descriptors:
            raise OSError(errno.EMFILE, "Too many open files")
        if index not in self.indexes:
            raise OSError(errno.ENXIO, "No such device or address")
        return f"device{index}"

    def apply(self, backup: tuple[str, ...] = (), **views: DeviceView) -> None:
        """As the path manager does, every 1.5 s."""
        self.now += 1.5
        wanted = wanted_endpoints(["dsl", "lte"], views, views, backup)
        self.keeper.apply(wanted, {view.ifindex for view in views.values()})


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def test_a_second_address_of_a_line_is_added_before_the_first_one_goes(room: Room) -> None:
    room.apply(dsl=DSL, lte=LTE)
    room.kernel.done.clear()
    new = DSL._replace(address6="2001:db8:7::2")  # renumbered; the old address stays for a while
    room.apply(dsl=new, lte=LTE)
    assert room.kernel.done == ["+2001:db8:7::2", "-2001:db8:1::2"], "flows find the new one there already"
    assert not room.complaints
    room.kernel.done.clear()
    room.apply(dsl=new, lte=LTE)
    assert not room.kernel.done


@pytest.mark.parametrize("number", range(1, 9))
def test_a_foreign_endpoint_may_have_an_id_of_ours(room: Room, number: int) -> None:
    room.kernel.rows[number] = foreign = Endpoint(number, "172.16.0.1", 1, 1)
    room.apply(dsl=DSL, lte=LTE)
    assert room.kernel.addresses() == {"172.16.0.1", "10.1.0.2", "2001:db8:1::2", "10.2.0.2"}
    assert room.kernel.rows[number] == foreign
    assert not room.complaints
    room.apply(backup=("lte",), dsl=DSL, lte=LTE)
    flags = {row.address: row.flags for row in room.kernel.rows.values()}
    assert flags["10.2.0.2"] == FLAG_SUBFLOW | FLAG_BACKUP, "under the id that it got"


@pytest.mark.parametrize("refused", ["10.1.0.2", "2001:db8:1::2", "10.2.0.2"])
def test_what_the_kernel_refuses_keeps_nothing_else_from_happening(room: Room, refused: str) -> None:
    room.kernel.rows[7] = Endpoint(7, "10.2.0.99", LTE.ifindex, FLAG_SUBFLOW)  # an old address
    room.kernel.refuses = {refused}
    room.apply(dsl=DSL, lte=LTE)
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2", "10.2.0.2"} - {refused}
    assert len(room.complaints) == 1
    assert f"{refused} (id" in room.complaints[0]
    room.kernel.refuses = set()
    room.apply(dsl=DSL, lte=LTE)
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2", "10.2.0.2"}


def test_a_flag_or_a_deletion_that_is_refused_keeps_nothing_else_from_happening(room: Room) -> None:
    room.apply(dsl=DSL, lte=LTE)
    room.kernel.refuses = {"10.1.0.2"}
    room.apply(backup=("dsl", "lte"), dsl=DSL, lte=LTE)
    flags = {row.address: row.flags & FLAG_BACKUP for row in room.kernel.rows.values()}
    assert flags == {"10.1.0.2": 0, "2001:db8:1::2": FLAG_BACKUP, "10.2.0.2": FLAG_BACKUP}
    room.keeper.delete("dsl", DSL.ifindex)
    assert room.kernel.addresses() == {"10.1.0.2", "10.2.0.2"}


def test_a_table_that_is_full_has_room_after_the_old_one_has_gone(room: Room) -> None:
    room.apply(dsl=DSL)
    for number in range(20, 26):
        room.kernel.rows[number] = Endpoint(number, f"172.16.0.{number}", 1, 1)
    room.apply(dsl=DSL._replace(address4="10.1.0.3"))
    assert "10.1.0.3" in room.kernel.addresses()
    assert "10.1.0.2" not in room.kernel.addresses()
    assert not room.complaints


def test_of_two_lines_with_one_address_one_has_it_and_keeps_it(room: Room) -> None:
    """An address can be an endpoint once. Both routers behind give out 192.168.1.2, say."""
    room.apply(dsl=DSL._replace(address4="192.168.1.2"), lte=LTE._replace(address4="192.168.1.2"))
    for _ in range(3):
        assert room.kernel.done == ["+192.168.1.2", "+2001:db8:1::2"]
        room.apply(dsl=DSL._replace(address4="192.168.1.2"), lte=LTE._replace(address4="192.168.1.2"))
    assert not room.complaints


def test_who_cannot_tell_whether_a_device_is_there_deletes_nothing(room: Room) -> None:
    room.kernel.rows[3] = Endpoint(3, "10.9.0.2", 77, FLAG_SUBFLOW)
    room.no_descriptors = True
    room.apply(dsl=DSL)
    assert "10.9.0.2" in room.kernel.addresses()


def test_what_was_bound_to_a_device_that_was_made_anew_goes(room: Room) -> None:
    room.apply(dsl=DSL, lte=LTE)
    room.indexes = {1, 3, 9}
    room.apply(dsl=DSL, lte=LTE._replace(ifindex=9, address4="10.2.0.7"))
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2", "10.2.0.7"}
    assert not room.complaints


def test_and_that_of_an_earlier_run_too_and_nobody_elses(room: Room) -> None:
    room.kernel.rows[3] = Endpoint(3, "10.2.0.2", LTE.ifindex, FLAG_SUBFLOW)
    room.kernel.rows[4] = living = Endpoint(4, "10.9.0.2", 1, FLAG_SUBFLOW)
    room.kernel.rows[5] = signal = Endpoint(5, "10.9.0.3", 77, 1)
    room.indexes = {1, 3, 9}
    room.apply(dsl=DSL)
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2", living.address, signal.address}


def test_at_the_end_all_of_ours_go_also_those_of_a_device_that_is_not_seen_now(room: Room) -> None:
    room.kernel.rows[4] = Endpoint(4, "10.9.0.2", 1, FLAG_SUBFLOW)
    room.apply(dsl=DSL, lte=LTE)
    room.keeper.delete_all({DSL.ifindex})
    assert room.kernel.addresses() == {"10.9.0.2"}


def test_what_is_remembered_of_addresses_is_bounded(room: Room) -> None:
    for number in range(200):
        room.apply(dsl=DSL._replace(address6=f"2001:db8:{number:x}::2"))
    assert room.keeper.added_at("2001:db8:c7::2") == room.now
    assert len(room.keeper._added) == len(room.keeper._made) == 2
    assert room.keeper.pause_s() > 0
    room.now += RETURN_PAUSE_S
    assert room.keeper.pause_s() == 0
    assert not room.keeper._deleted


# The path manager ------------------------------------------------------------------------------------------------------


class Paths(PathManager):
    """Reconciles on what the test has seen."""

    def __init__(self, room: Room, *wans: tuple[str, str]) -> None:
        settings = tuple(WanSettings(name=name, device=device) for name, device in wans)
        super().__init__(RouterSettings(wans=settings), on_change=lambda: None)
        self._endpoints = room.keeper
        self._prober = NoProbes()  # type: ignore[assignment]
        self.devices: dict[str, DeviceView] = {}

    async def _reconcile(self) -> None:
        self._see(Observed(self.devices, frozenset(), frozenset()))
        self._apply_endpoints()

    def see(self, *views: DeviceView) -> None:
        self.devices = {view.name: view for view in views}
        self._see(Observed(self.devices, frozenset(), frozenset()))


class NoProbes:
    def drop(self, wan: str) -> None:
        pass

    def send(self, *args: Any, **options: Any) -> bool:
        return True

    def poll(self) -> None:
        pass


@pytest.fixture
def all_dead(room: Room) -> Callable[[], Paths]:
    """Two WANs, both silently dead: their endpoints are kept."""

    def make() -> Paths:
        paths = Paths(room, ("dsl", "eth1"), ("lte", "wwan0"))
        paths.see(DSL, LTE)
        for wan in paths._wans.values():
            wan.health.state = DEAD
        paths._apply_endpoints()
        assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2", "10.2.0.2"}
        return paths

    return make


def test_a_link_that_goes_takes_its_endpoints_along_even_if_the_line_was_dead(
    room: Room, all_dead: Callable[[], Paths]
) -> None:
    all_dead()._lost(LTE.ifindex, "")
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2"}


@pytest.mark.parametrize("new", [(), (LTE._replace(ifindex=9, address4="10.2.0.7"),)])
def test_a_device_that_was_made_anew_leaves_no_endpoint_of_the_old_one(
    room: Room, all_dead: Callable[[], Paths], new: tuple[DeviceView, ...]
) -> None:
    all_dead().see(DSL, *new)  # whatever events said
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2"}


def test_an_old_address_that_the_line_no_longer_shows_is_deleted_when_it_goes(
    room: Room, all_dead: Callable[[], Paths]
) -> None:
    paths = all_dead()
    paths.see(DSL._replace(address6="2001:db8:7::2"), LTE)
    paths._lost(DSL.ifindex, "2001:db8:1::2")
    assert room.kernel.addresses() == {"10.1.0.2", "10.2.0.2"}
    assert paths._wans["dsl"].health.state != OFFLINE, "it says nothing of the line"


def test_another_device_for_a_wan_leaves_no_endpoint_of_the_old_one(room: Room) -> None:
    paths = Paths(room, ("dsl", "eth1"), ("lte", "wwan0"))
    paths.see(DSL, LTE)
    paths._apply_endpoints()
    paths.devices["eth5"] = DeviceView("eth5", 5, True, "10.5.0.2", "", (), "10.5.0.1", None)
    changed = [dataclasses.replace(wan, device="eth5") if wan.name == "lte" else wan for wan in paths._settings.wans]
    room.keeper._made.clear()  # as after a start that found them there
    asyncio.run(paths.configure(dataclasses.replace(paths._settings, wans=tuple(changed))))
    assert room.kernel.addresses() == {"10.1.0.2", "2001:db8:1::2", "10.5.0.2"}
