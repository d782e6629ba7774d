"""Accounting: sessions, what waits, and what is sent, with times as arguments and a server of paper."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyrad.packet import AcctPacket

from cpe_mcp.aaa import accounting_client
from cpe_mcp.aaa.accounting import (
    ADMIN_RESET,
    IDLE_TIMEOUT,
    INTERIM,
    MIN_INTERIM_S,
    OFF,
    ON,
    START,
    STOP,
    Record,
    Sessions,
    Spool,
    Usage,
    Who,
)
from cpe_mcp.aaa.accounting_client import AccountingClient
from cpe_mcp.aaa.carriers import UdpCarrier
from cpe_mcp.concentrator.accounting import LAST_WORDS_S, Accounting
from cpe_mcp.settings import SettingsError
from cpe_mcp.settings.concentrator import RadiusSettings

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-13")]

SECRET = b"accounting-secret"
WAIT_S = 4.0
ALICE, BOB = Who("alice", (b"one", b"two"), ("192.0.2.7",)), Who("bob", interim_s=300)


def told(interim_s: float = 600.0) -> tuple[Sessions, list[Record]]:
    records: list[Record] = []
    return Sessions("boot", interim_s=interim_s, tell=records.append), records


def test_a_session_has_a_start_interims_and_a_stop() -> None:
    sessions, records = told()
    sessions.begin(100.0, "a", ALICE)
    sessions.used(300.0, "a", Usage(10, 20, 2))
    sessions.tick(699.0)
    sessions.tick(700.0)
    sessions.used(800.0, "a", Usage(2**33, 30, 1))
    sessions.end(900.0, "a", ADMIN_RESET)
    assert [(row.status, row.at, row.seconds, row.usage, row.cause) for row in records] == [
        (START, 100.0, 0.0, Usage(), 0),
        (INTERIM, 700.0, 600.0, Usage(10, 20, 2), 0),
        (STOP, 900.0, 800.0, Usage(2**33, 30, 1), ADMIN_RESET),
    ]
    assert {row.session_id for row in records} == {"boot-1"}
    assert {row.who for row in records} == {ALICE}
    assert len(sessions) == 0


def test_a_session_that_goes_on_begins_once_and_one_that_is_over_ends_once() -> None:
    sessions, records = told()
    sessions.begin(0.0, "a", ALICE)
    sessions.begin(5.0, "a", ALICE)
    sessions.end(9.0, "a", ADMIN_RESET)
    sessions.end(9.0, "a", ADMIN_RESET)
    sessions.used(10.0, "a", Usage(1, 1))
    sessions.begin(11.0, "a", ALICE)
    assert [(row.status, row.session_id) for row in records] == [(START, "boot-1"), (STOP, "boot-1"), (START, "boot-2")]


def test_the_accept_says_how_often_within_bounds() -> None:
    sessions, records = told(interim_s=0)
    sessions.begin(0.0, "a", ALICE)
    sessions.begin(0.0, "b", BOB)
    sessions.begin(0.0, "c", BOB._replace(interim_s=1.0))
    for second in range(0, 301, 10):
        sessions.tick(float(second))
    interims = [row.session_id for row in records if row.status == INTERIM]
    counts = {who: interims.count(who) for who in ("boot-1", "boot-2", "boot-3")}
    assert counts == {"boot-1": 0, "boot-2": 1, "boot-3": 300 // MIN_INTERIM_S}


def test_who_is_silent_for_long_has_gone() -> None:
    sessions, records = told()
    sessions.begin(0.0, "a", ALICE)
    sessions.used(50.0, "a", Usage(1, 1))
    sessions.used(90.0, "a", Usage(1, 1))  # nothing new
    sessions.tick(149.0, idle_s=100)
    assert [row.status for row in records] == [START]
    sessions.tick(150.0, idle_s=100)
    assert [(row.status, row.cause) for row in records[1:]] == [(STOP, IDLE_TIMEOUT)]


def record(status: int, session: str = "s", at: float = 0.0) -> Record:
    return Record(status, at, session, session)


def waiting(spool: Spool) -> list[tuple[int, str]]:
    rows = []
    while (first := spool.first()) is not None:
        rows.append((first[1].status, first[1].session_id))
        spool.done(first[0])
    return rows


def test_a_later_record_of_a_session_makes_its_interim_unnecessary() -> None:
    spool = Spool()
    for row in (record(START), record(INTERIM), record(INTERIM, "t"), record(INTERIM), record(STOP)):
        spool.add(row)
    assert waiting(spool) == [(START, "s"), (INTERIM, "t"), (STOP, "s")]
    assert spool.lost == 0


def test_when_there_is_no_room_stops_go_last() -> None:
    spool = Spool(limit=3)
    for row in (record(START, "a"), record(STOP, "b"), record(INTERIM, "c"), record(STOP, "d")):
        spool.add(row)
    assert spool.lost == 1
    spool.add(record(STOP, "e"))
    spool.add(record(STOP, "f"))
    assert waiting(spool) == [(STOP, "d"), (STOP, "e"), (STOP, "f")]
    assert spool.lost == 3


class Server:
    """Answers as told: ``answer(request packet, raw request)`` gives the datagram, b"" for none."""

    def __init__(self, answer: Callable[[Any, bytes], bytes]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]
        self.answer = answer
        self.requests: list[Any] = []

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, peer = await loop.sock_recvfrom(self.sock, 4096)
            request = AcctPacket(packet=data, secret=SECRET)
            assert request.VerifyAcctRequest()
            assert request.message_authenticator
            assert request.verify_message_authenticator()
            self.requests.append(request)
            reply = self.answer(request, data)
            if reply:
                await loop.sock_sendto(self.sock, reply, peer)


def right(request: Any, _: bytes) -> bytes:
    return bytes(request.CreateReply().ReplyPacket())


def forged(request: Any, _: bytes) -> bytes:
    """As somebody on the way would who does not know the secret."""
    head = bytes((5, request.id, 0, 20))
    return head + hashlib.md5(head + request.authenticator + b"a guess").digest()


def silent(_: Any, __: bytes) -> bytes:
    return b""


def run(server: Server, records: list[Record], until: Callable[[AccountingClient], bool]) -> AccountingClient:
    return run_several([server], records, until)


def client_of(servers: list[Server]) -> AccountingClient:
    return AccountingClient(
        [("127.0.0.1", server.port) for server in servers],
        SECRET,
        nas_identifier="nas",
        carrier=UdpCarrier(timeout_s=0.1, tries=1),
    )


def run_several(
    servers: list[Server], records: list[Record], until: Callable[[AccountingClient], bool]
) -> AccountingClient:
    async def main() -> AccountingClient:
        client = client_of(servers)
        serving = [asyncio.create_task(server.serve()) for server in servers]
        client.start()
        for row in records:
            client.tell(row)
        end = time.monotonic() + WAIT_S
        while not until(client) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        client.abandon()
        for task in serving:
            task.cancel()
        return client

    try:
        return asyncio.run(main())
    finally:
        for server in servers:
            server.sock.close()


def number(request: Any, code: int) -> int:
    return int.from_bytes(request[code][0], "big")


def test_what_a_stop_says() -> None:
    server = Server(right)
    now = time.monotonic()
    stop = Record(STOP, now - 5, "boot-1", "boot-0", ALICE, Usage(2**32 + 7, 3 * 2**32 + 9, 2), 65.5, ADMIN_RESET)
    client = run(server, [stop], lambda client: client.counters["sent"] == 1)
    (request,) = server.requests
    assert client.status() == {"sent": 1, "waiting": 0, "lost": 0, "trouble": ""}
    codes = {40: STOP, 42: 7, 52: 1, 43: 9, 53: 3, 46: 65, 49: ADMIN_RESET, 51: 2, 45: 1}
    assert {code: number(request, code) for code in codes} == codes
    assert number(request, 41) in (5, 6)
    assert abs(number(request, 55) - (time.time() - 5)) < 3
    assert request[1] == [b"alice"]
    assert request[25] == [b"one", b"two"]
    assert (request[44], request[50], request[32]) == ([b"boot-1"], [b"boot-0"], [b"nas"])
    assert request[8] == [bytes((192, 0, 2, 7))]


def test_records_wait_for_a_server_that_is_away_and_come_in_order_with_their_delay() -> None:
    asked = 0

    def away_at_first(request: Any, raw: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return right(request, raw) if asked > 1 else b""

    server = Server(away_at_first)
    now = time.monotonic()
    rows = [Record(ON, now), record(START, "a", now), record(STOP, "a", now)]
    client = run(server, rows, lambda client: client.counters["sent"] == 3)
    assert client.counters["sent"] == 3
    assert [number(request, 40) for request in server.requests] == [ON, ON, START, STOP]
    first, again = server.requests[:2]
    assert (number(first, 41), number(again, 41)) == (0, 1)
    assert first.authenticator != again.authenticator
    assert client.trouble == ""


def test_at_the_end_a_server_that_is_back_gets_what_waits_however_long_the_pause_was_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounting_client, "AGAIN_MIN_S", 30.0)
    is_back = False

    def away(request: Any, raw: bytes) -> bytes:
        return right(request, raw) if is_back else b""

    server = Server(away)

    async def main() -> AccountingClient:
        nonlocal is_back
        serving = asyncio.create_task(server.serve())
        client = client_of([server])
        client.start()
        client.tell(record(STOP, "a", time.monotonic()))
        async with asyncio.timeout(WAIT_S):
            while not client.trouble:
                await asyncio.sleep(0.01)
        is_back = True
        await client.stop(WAIT_S)
        serving.cancel()
        return client

    try:
        assert asyncio.run(main()).counters["sent"] == 1, "before stop ended"
    finally:
        server.sock.close()


def test_a_forged_answer_is_none() -> None:
    server = Server(forged)
    client = run(server, [Record(ON, time.monotonic())], lambda client: bool(client.trouble))
    assert client.counters["forged"] == 1
    assert client.counters["sent"] == 0
    assert len(client.spool) == 1
    (trouble,) = client.troubles
    assert trouble["code"] == "server-silent"
    assert client.trouble == f"{trouble['args'][0]} did not answer"


def test_a_server_that_is_silent_delays_one_record_and_not_each() -> None:
    dead, alive = Server(silent), Server(right)
    rows = [record(START, f"s{number}", time.monotonic()) for number in range(20)]
    client = run_several([dead, alive], rows, lambda client: client.counters["sent"] == 20)
    assert client.counters["sent"] == 20
    assert len(dead.requests) == 1
    assert [row[44] for row in alive.requests] == [[f"s{number}".encode()] for number in range(20)]


@pytest.mark.parametrize(
    "who",
    [Who("a" * 300), Who("alice", tuple(bytes(200) for _ in range(30)))],
    ids=["attribute", "packet"],
)
def test_a_record_that_fits_no_packet_is_lost_and_those_behind_it_are_not(who: Who) -> None:
    server = Server(right)
    now = time.monotonic()
    rows = [record(START, "a", now)._replace(who=who), record(START, "b", now)]
    client = run(server, rows, lambda client: client.counters["sent"] == 1)
    assert client.status() == {"sent": 1, "waiting": 0, "lost": 1, "trouble": ""}
    assert [row[44] for row in server.requests] == [[b"b"]]


def test_other_settings_of_a_concentrator_lose_nothing_and_an_option_taken_away_ends_all() -> None:
    server = Server(right)

    async def main() -> None:
        serving = asyncio.create_task(server.serve())
        on = RadiusSettings(
            accounting=True,
            server=("127.0.0.1",),
            secret=SECRET.decode(),
            accounting_port=server.port,
            timeout_s=0.1,
        )
        accounting = Accounting(RadiusSettings())
        accounting.start()

        async def taken(count: int) -> None:
            async with asyncio.timeout(WAIT_S):
                while len(server.requests) < count:
                    await asyncio.sleep(0.01)

        accounting.configure(on)
        accounting.seen("alice")
        await taken(2)
        with pytest.raises(SettingsError, match="option server"):
            accounting.configure(dataclasses.replace(on, server=("no address",)))
        accounting.configure(dataclasses.replace(on, interim_s=60))
        assert accounting.session_id("alice")
        accounting.used({"alice": (7, 9, 1)})
        accounting.configure(RadiusSettings())
        assert not accounting.is_on
        await taken(4)
        await accounting.stop()
        serving.cancel()

    try:
        asyncio.run(main())
    finally:
        server.sock.close()
    on, start, stop, off = server.requests
    assert [number(row, 40) for row in (on, start, stop, off)] == [ON, START, STOP, OFF]
    assert stop[44] == start[44]
    assert (number(stop, 42), number(stop, 43), number(stop, 49)) == (7, 9, ADMIN_RESET)


def test_what_workers_still_report_of_a_session_that_aaa_ended_is_in_its_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins no session of its own; a new connection does."""
    accounting = Accounting(RadiusSettings(accounting=True, server=("127.0.0.1",), secret=SECRET.decode()))
    told: list[Record] = []
    assert accounting._client is not None
    monkeypatch.setattr(accounting._client, "tell", told.append)
    accounting.seen("alice")
    accounting.ended("alice", ADMIN_RESET)
    accounting.tick()
    accounting.used({"alice": (7, 9, 1)})
    assert [row.status for row in told] == [START]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LAST_WORDS_S)
    accounting.tick()
    assert [(row.status, row.cause, row.usage[:2]) for row in told[1:]] == [(STOP, ADMIN_RESET, (7, 9))]
    assert told[1].at <= now, "it is of then, whenever it is told"
    assert told[1].seconds == told[1].at - told[0].at
    accounting.seen("bob")
    accounting.ended("bob", ADMIN_RESET)
    accounting.seen("bob")
    assert [row.status for row in told[2:]] == [START, STOP, START]
