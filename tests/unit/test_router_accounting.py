"""A router's accounting: sessions of WANs and the one in total, as RADIUS and the lines come and go."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import Any, cast

import pytest
from pyrad.packet import AcctPacket

from cpe_mcp.aaa.accounting import ADMIN_RESET, LOST_CARRIER, OFF, SESSION_TIMEOUT, START, STOP, Record
from cpe_mcp.aaa.accounting import ON as ACCOUNTING_ON
from cpe_mcp.aaa.answer import ACCEPT, RadiusAnswer
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.router import RadiusSettings
from cpe_mcp.upstream.accounting import Accounting
from cpe_mcp.upstream.authenticator import AccountingIds, Authenticator

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-13")]

DSL = WanView("dsl", "eth1", "192.0.2.7", "")
LTE = WanView("lte", "wwan0", "", "2001:db8::7")
ON = RadiusSettings(enabled=True, accounting=True, server=("192.0.2.20:1812",), secret="s3cret", username="alice")
WAIT_S = 4.0
GOLD = RadiusAnswer(ACCEPT, "", classes=(b"gold",))


class World:
    """A router of paper: what its authenticator, its lines and their counters say."""

    def __init__(self, settings: RadiusSettings = ON) -> None:
        self.accept: RadiusAnswer | None = None
        self.reason = ""
        self.up = [DSL, LTE]
        self.carried = {"dsl": (1000, 2000), "lte": (10, 20)}
        self.accounting = Accounting(
            settings,
            radius=lambda: cast("Authenticator", self),
            wans=lambda: self.up,
            carried=lambda: self.carried,
        )

    def status(self) -> dict[str, Any]:
        return {"reason": self.reason}

    def ways(self) -> list[WanView]:
        return []

    def news(self) -> list[Record]:
        """Records since the last call."""
        self.accounting.look()
        client = self.accounting._client
        found = []
        while client is not None and (first := client.spool.first()) is not None:
            found.append(first[1])
            client.spool.done(first[0])
        return found


def test_nothing_is_told_before_radius_accepts_or_without_the_option() -> None:
    assert World().news() == []
    for settings in (RadiusSettings(), dataclasses.replace(ON, accounting=False)):
        world = World(settings)
        world.accept = GOLD
        assert world.news() == []
        assert not world.accounting.status()["enabled"]


def test_a_session_for_each_wan_joined_by_the_total() -> None:
    world = World()
    assert world.accounting.ids() == AccountingIds()
    world.accept = GOLD
    total, dsl, lte = world.news()
    assert world.accounting.ids() == ((total.session_id, dsl.session_id, lte.session_id), total.session_id)
    assert {row.status for row in (total, dsl, lte)} == {START}
    assert [row.who.port for row in (total, dsl, lte)] == ["", "dsl", "lte"]
    assert len({total.session_id, dsl.session_id, lte.session_id}) == 3
    assert {row.multi_session_id for row in (total, dsl, lte)} == {total.session_id}
    assert (dsl.who.user, dsl.who.classes, dsl.who.addresses) == ("alice", (b"gold",), ("192.0.2.7",))
    assert world.news() == []


def test_bytes_count_from_the_start_and_the_total_keeps_those_of_a_wan_that_went() -> None:
    world = World()
    world.accept = GOLD
    world.news()
    world.carried = {"dsl": (1100, 2200), "lte": (13, 24)}
    world.up = [LTE]
    (gone,) = world.news()
    assert (gone.status, gone.cause, gone.who.port) == (STOP, LOST_CARRIER, "dsl")
    assert gone.usage[:2] == (100, 200)
    world.up = [DSL, LTE]
    (again,) = world.news()
    assert (again.status, again.who.port) == (START, "dsl")
    assert again.session_id != gone.session_id
    assert again.multi_session_id == gone.multi_session_id
    world.carried = {"dsl": (1101, 2202), "lte": (14, 25)}
    world.accept, world.reason = None, Reason.NOT_AUTHORIZED
    *wans, total = world.news()
    assert {row.who.port: row.usage[:2] for row in wans} == {"dsl": (1, 2), "lte": (4, 5)}
    assert (total.usage[:2], total.usage.links) == ((105, 207), 2)
    assert {row.cause for row in (*wans, total)} == {ADMIN_RESET}


def test_an_accept_that_ran_out_is_a_session_timeout_and_the_next_one_begins_at_nothing() -> None:
    world = World()
    world.accept = GOLD
    first = world.news()[0].session_id
    world.carried = {"dsl": (5000, 5000), "lte": (5000, 5000)}
    world.accept, world.reason = None, Reason.AUTH_TIMEOUT
    assert {(row.status, row.cause) for row in world.news()} == {(STOP, SESSION_TIMEOUT)}
    world.accept = GOLD
    assert world.news()[0].session_id != first
    world.accept = None
    assert world.news()[-1].usage[:2] == (0, 0)


def test_other_settings_keep_what_waits() -> None:
    world = World()
    world.accept = GOLD
    world.accounting.look()
    assert world.accounting.status()["waiting"] == 3
    world.accounting.configure(
        RadiusSettings(enabled=True, accounting=True, server=("192.0.2.21",), secret="s3cret", username="alice")
    )
    assert world.accounting.status()["waiting"] == 3
    world.accounting.configure(RadiusSettings())
    assert world.accounting.status() == {
        "enabled": False, "sessions": 0, "sent": 0, "waiting": 0, "lost": 0, "trouble": "", "trouble_words": []
    }  # fmt: skip


def test_an_option_taken_away_ends_all_at_the_server() -> None:
    taken: list[tuple[int, int]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)

            async def serve() -> None:
                while True:
                    data, peer = await loop.sock_recvfrom(sock, 4096)
                    request = AcctPacket(packet=data, secret=b"s3cret")
                    cause = request.get(49, [bytes(4)])[0]
                    taken.append((int.from_bytes(request[40][0], "big"), int.from_bytes(cause, "big")))
                    await loop.sock_sendto(sock, request.CreateReply().ReplyPacket(), peer)

            async def wait(count: int) -> None:
                async with asyncio.timeout(WAIT_S):
                    while len(taken) < count:
                        await asyncio.sleep(0.01)

            serving = asyncio.create_task(serve())
            world = World(
                dataclasses.replace(ON, server=("127.0.0.1",), accounting_port=sock.getsockname()[1], timeout_s=0.2)
            )
            world.accept = GOLD
            world.accounting.start()
            await wait(4)
            world.accounting.configure(RadiusSettings())
            assert not world.accounting.status()["enabled"]
            await wait(8)
            await world.accounting.stop()
            serving.cancel()

    asyncio.run(main())
    assert [status for status, _ in taken[:4]] == [ACCOUNTING_ON, START, START, START]
    assert taken[4:] == [(STOP, ADMIN_RESET)] * 3 + [(OFF, 0)]
