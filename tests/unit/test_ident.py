"""Ident (RFC 1413): its lines, what the concentrator asks and remembers, and to whom the router answers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from test_concentrator_authorization import ACCEPT, Desk, run, settle

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.cookie import make_cookie, own_credential
from cpe_mcp.aaa.ident import (
    HIDDEN_USER,
    INVALID_PORT,
    NO_USER,
    UNKNOWN_ERROR,
    Answer,
    IdentError,
    Ports,
    answer_error,
    answer_user,
    fits,
    pull_answer,
    pull_question,
    question,
)
from cpe_mcp.aaa.ident_client import NONSENSE, REFUSED, SILENT, Connection, ask
from cpe_mcp.concentrator import ident as desk_module
from cpe_mcp.concentrator.ident import BUSY, FAILED_S, PASSING_S, IdentDesk
from cpe_mcp.paths.observed import Subflow
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings import SettingsError, parse_concentrator, parse_router
from cpe_mcp.settings.concentrator import IdentSettings
from cpe_mcp.upstream.ident import IdentResponder

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-c")]

PORTS = Ports(theirs=40000, ours=5124)


def test_both_ends_understand_each_other() -> None:
    assert pull_question(question(PORTS)) == PORTS
    assert pull_answer(answer_user(PORTS, "line-7"), PORTS) == Answer("line-7", "")
    assert pull_answer(answer_error(PORTS, NO_USER), PORTS) == Answer("", NO_USER)


@pytest.mark.parametrize(
    ("line", "answer"),
    [  # RFC 1413 section 6 has the first two
        (b"6193, 23 : USERID : UNIX : stjohns\r\n", Answer("stjohns", "")),
        (b"6195, 23 : ERROR : NO-USER\r\n", Answer("", "NO-USER")),
        (b"6193,23:USERID:OTHER,UTF-8:a:b", Answer("a:b", "")),
    ],
)
def test_answers_of_others(line: bytes, answer: Answer) -> None:
    assert pull_answer(line, pull_question(line.split(b":")[0])) == answer


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"40000, 5124\r\n",
        b"40001, 5124 : USERID : OTHER : mallory\r\n",
        b"40000, 5124 : USERID : OTHER : \r\n",
        b"40000, 5124 : USERID : OTHER\r\n",
        b"40000, 5124 : HELLO : OTHER : x\r\n",
        b"40000, 5124 : USERID : OTHER : \x1b[2Jx\r\n",
        b"40000, 5124 : USERID : OTHER : \xff\r\n",
        b"40000, 5124 : USERID : OTHER : " + b"x" * 513,
    ],
)
def test_nonsense_is_no_answer(line: bytes) -> None:
    with pytest.raises(IdentError):
        pull_answer(line, PORTS)


@pytest.mark.parametrize("line", [b"", b"1", b"0, 1", b"65536, 1", b"1, 2, 3", b"-1, 2", b"a, b", b"1 2"])
def test_nonsense_is_no_question(line: bytes) -> None:
    with pytest.raises(IdentError):
        pull_question(line)


def test_a_user_that_cannot_be_told_is_refused_in_the_settings() -> None:
    assert fits("line-7")
    for text in ("", " x", "x ", "\x07", "x" * 513):
        assert not fits(text)
    with pytest.raises(SettingsError, match="section ident 'ident', option user"):
        parse_router("config ident 'ident'\n option user ' x'\n")


def test_it_is_off_at_both_ends() -> None:
    assert parse_concentrator("").ident.mode == "off"
    assert not parse_router("").ident.enabled


# The question ---------------------------------------------------------------------------------------------------------


async def answered_by(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Answer:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await ask(Connection("127.0.0.2", 5124, "127.0.0.1", 40000), timeout_s=0.3, port=port)
    finally:
        server.close()


def test_the_question_comes_from_the_address_that_the_connection_came_to() -> None:
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((writer.get_extra_info("peername")[0], await reader.readline()))
        writer.write(answer_user(PORTS, "line-7"))

    assert asyncio.run(answered_by(serve)) == Answer("line-7", "")
    assert seen == [("127.0.0.2", b"40000, 5124\r\n")]


@pytest.mark.parametrize(("line", "error"), [(b"hello\r\n", NONSENSE), (b"x" * 5000, NONSENSE), (b"", SILENT)])
def test_who_answers_nonsense_or_nothing_told_nothing(line: bytes, error: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        await reader.read()  # until it goes

    assert asyncio.run(answered_by(serve)) == Answer("", error)


def test_a_closed_port_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = Connection("127.0.0.1", 5124, "127.0.0.1", 40000)
        assert asyncio.run(ask(where, timeout_s=0.3, port=unused.getsockname()[1])) == Answer("", REFUSED)


def test_a_port_that_opens_a_moment_later_is_found_open() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer_user(PORTS, "line-7"))

    async def main() -> Answer:
        with socket.socket() as late:
            late.bind(("127.0.0.1", 0))
            where = Connection("127.0.0.1", 5124, "127.0.0.1", 40000)
            task = asyncio.ensure_future(ask(where, timeout_s=5, port=late.getsockname()[1]))
            await asyncio.sleep(0.15)
            server = await asyncio.start_server(serve, sock=late)
            answer = await task
            server.close()
            return answer

    assert asyncio.run(main()) == Answer("line-7", "")


# What the concentrator makes of it ------------------------------------------------------------------------------------


class FakeAsk:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Connection, asyncio.Future[Answer]]] = []

    async def __call__(self, connection: Connection, *, timeout_s: float) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.asked.append((connection, future))
        return await future


class IdentifyingDesk:
    """A control, RADIUS and Ident of paper."""

    def __init__(self, desk: Desk, mode: str) -> None:
        self.desk = desk
        self.ask = FakeAsk()
        self.now = 0.0
        desk.control._ident = IdentDesk(IdentSettings(mode=mode), ask=self.ask, now=lambda: self.now)
        self.questions = 0

    async def comes(self, address: str, *, cookie: bytes = b"", port: int = 40000) -> int:
        self.questions += 1
        frame = {"id": self.questions, "address": address, "listener": "customers", "cookie": cookie}
        frame |= {"port": port, "local": ["192.0.2.1", 5124]}
        self.desk.control._frame(self.desk.workers[0], "authorize", frame)  # type: ignore[arg-type]
        await settle()
        return self.questions

    async def told(self, user: str, error: str = "", number: int = -1) -> None:
        self.ask.asked[number][1].set_result(Answer(user, error))
        await settle()

    def answers(self) -> list[tuple[int, str, str]]:
        return self.desk.workers[0].answers()


def scenario(mode: str, work: Callable[[IdentifyingDesk], Awaitable[None]], directory: Path) -> None:
    async def main(desk: Desk) -> None:
        await work(IdentifyingDesk(desk, mode))

    run(directory, main)


def test_only_the_first_connection_of_an_accepted_address_is_asked_about(tmp_path: Path) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        await desk.comes("10.0.0.7")
        assert desk.ask.asked == [], "RADIUS has not accepted it yet"
        await desk.desk.answer(0, ACCEPT)
        await desk.comes("10.0.0.7", port=40001)
        await desk.told("line-7")
        await desk.comes("10.0.0.7", port=40002)
        assert [row[0] for row in desk.ask.asked] == [Connection("192.0.2.1", 5124, "10.0.0.7", 40000)]
        await desk.comes("10.0.0.8")
        await desk.desk.answer(1, RadiusAnswer("reject", ""))
        assert len(desk.ask.asked) == 1, "nobody knocks at a stranger's door"
        desk.now = IdentSettings().remember_s + 1
        await desk.comes("10.0.0.7")
        assert len(desk.ask.asked) == 2

    scenario("inform", work, tmp_path)


def test_information_delays_nobody_and_decides_nothing(tmp_path: Path) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        number = await desk.comes("10.0.0.7")
        await desk.desk.answer(0, ACCEPT)
        assert desk.answers() == [(number, "accept", "ready")]
        await desk.told("mallory")
        await desk.comes("10.0.0.7")
        assert [row[1] for row in desk.answers()] == ["accept", "accept"]
        (row,) = desk.desk.control._ident.status()["addresses"]
        assert (row["address"], row["user"]) == ("10.0.0.7", "mallory")

    scenario("inform", work, tmp_path)


@pytest.mark.parametrize(
    ("user", "error", "verdict", "reason"),
    [
        ("line-7", "", "accept", Reason.READY),
        ("mallory", "", "reject", Reason.IDENT_FAILED),
        ("", NO_USER, "reject", Reason.IDENT_FAILED),
        ("", HIDDEN_USER, "reject", Reason.IDENT_FAILED),
        ("", SILENT, "later", Reason.IDENT_SILENT),
        ("", REFUSED, "later", Reason.IDENT_SILENT),
        ("", NONSENSE, "later", Reason.IDENT_SILENT),
    ],
)
def test_where_it_is_required_only_the_subscribers_name_lets_in(
    user: str, error: str, verdict: str, reason: str, tmp_path: Path
) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        await desk.comes("10.0.0.7")
        await desk.desk.answer(0, ACCEPT)
        await desk.comes("10.0.0.7", port=40001)
        assert desk.answers() == [], "both wait for the one answer"
        await desk.told(user, error)
        assert desk.answers() == [(1, verdict, reason), (2, verdict, reason)]
        await desk.comes("10.0.0.7")
        assert desk.answers()[-1] == (3, verdict, reason), "at once"
        assert len(desk.ask.asked) == 1

    scenario("require", work, tmp_path)


def test_after_a_packet_was_lost_it_is_asked_again_soon_and_seldom_of_who_never_answers(tmp_path: Path) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        await desk.comes("10.0.0.7")
        await desk.desk.answer(0, ACCEPT)
        pauses = []
        for _ in range(5):
            await desk.told("", SILENT)
            asked, before = len(desk.ask.asked), desk.now
            while len(desk.ask.asked) == asked:
                desk.now += 1
                await desk.comes("10.0.0.7")
            pauses.append(desk.now - before)
        assert pauses == [PASSING_S, 2 * PASSING_S, 4 * PASSING_S, 8 * PASSING_S, FAILED_S]
        await desk.told("line-7")
        assert desk.answers()[-1] == (desk.questions, "accept", Reason.READY)
        assert {row[1] for row in desk.answers()[:-1]} == {"later"}, "nobody was sent away"

    scenario("require", work, tmp_path)


def test_when_too_many_are_asked_at_once_others_come_again_and_are_not_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart all routers come at once, and one that is refused leaves the concentrator alone for a minute."""
    monkeypatch.setattr(desk_module, "ASKING_MAX", 1)

    async def work(desk: IdentifyingDesk) -> None:
        for number, address in enumerate(("10.0.0.7", "10.0.0.8")):
            await desk.comes(address)
            await desk.desk.answer(number, ACCEPT._replace(user=f"line-{number}"))
        assert desk.answers() == [(2, "later", Reason.IDENT_SILENT)]
        await desk.told("line-0")
        await desk.comes("10.0.0.8")
        await desk.told("line-1")
        assert desk.answers()[1:] == [(1, "accept", Reason.READY), (3, "accept", Reason.READY)]

    scenario("require", work, tmp_path)


def test_a_lost_syn_leaves_time_for_the_second_one() -> None:
    """Linux sends it again after 1 s (RFC 6298 section 2.1); the answer takes a round trip, of a satellite line 0.6 s."""
    assert IdentSettings().timeout_s >= 1.0 + 2 * 0.6


def test_a_routers_own_words_are_shown_and_not_counted_by_name() -> None:
    async def main() -> IdentDesk:
        fake = FakeAsk()
        desk = IdentDesk(IdentSettings(mode="inform"), ask=fake, now=lambda: 0.0)
        words = [*(f"user{number}@home" for number in range(40)), NO_USER, HIDDEN_USER, INVALID_PORT, UNKNOWN_ERROR]
        for number, word in enumerate(words):
            desk.follow(Connection("192.0.2.1", 5124, f"10.0.0.{number}", 40000))
            await settle()
            fake.asked[-1][1].set_result(Answer("", word))
            await settle()
        return desk

    desk = asyncio.run(main())
    assert desk.counters == {"other": 40, NO_USER: 1, HIDDEN_USER: 1, INVALID_PORT: 1, UNKNOWN_ERROR: 1}
    assert {row["error"] for row in desk.status()["addresses"]} >= {"user0@home", NO_USER}


def test_who_is_disconnected_while_ident_is_asked_is_not_let_in(tmp_path: Path) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        await desk.comes("10.0.0.7")
        await desk.desk.answer(0, ACCEPT)
        desk.desk.control.authorizer.withdraw("10.0.0.7")
        await desk.told("line-7")
        assert desk.answers() == []
        await desk.desk.answer(1, RadiusAnswer("reject", ""))
        assert desk.answers() == [(1, "reject", "not-authorized")]

    scenario("require", work, tmp_path)


def test_whom_radius_does_not_name_may_be_called_anything(tmp_path: Path) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        await desk.comes("10.0.0.7")
        await desk.desk.answer(0, ACCEPT._replace(user=""))
        await desk.told("somebody")
        assert desk.answers() == [(1, "accept", "ready")]

    scenario("require", work, tmp_path)


@pytest.mark.requirement("5.3-d")
def test_a_cookie_never_waits_for_ident(tmp_path: Path) -> None:
    async def work(desk: IdentifyingDesk) -> None:
        control = desk.desk.control
        key = "wonderland-and-back"
        table = (
            f"config listener 'customers'\n option facing 'customer'\nconfig subscriber 'carl'\n option key '{key}'\n"
        )
        control._use(parse_concentrator(table))
        await desk.comes("198.51.100.1", cookie=make_cookie(own_credential("carl", key), time.time()))
        assert desk.answers() == [(1, "accept", "ready")]

    scenario("require", work, tmp_path)


def test_what_is_remembered_and_asked_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "REMEMBERED_MAX", 5)
    monkeypatch.setattr(desk_module, "ASKING_MAX", 2)

    async def main() -> None:
        fake = FakeAsk()
        desk = IdentDesk(IdentSettings(mode="inform"), ask=fake, now=lambda: 0.0)
        for number in range(3):
            desk.follow(Connection("192.0.2.1", 5124, f"10.0.0.{number}", 40000))
        await settle()
        assert len(fake.asked) == 2
        assert desk.counters[BUSY] == 1
        for number in range(9):
            for _, future in fake.asked:
                if not future.done():
                    future.set_result(Answer("", f"ERROR-{number}"))
            await settle()
            desk.follow(Connection("192.0.2.1", 5124, f"10.0.1.{number}", 40000))
            await settle()
        assert desk.status()["remembered"] == 5
        desk.close()

    asyncio.run(main())


# The router's answer --------------------------------------------------------------------------------------------------


class FakeDump:
    """One connection of ours, from 127.0.0.1 port 40000 to port 5124 of 127.0.0.2."""

    def read(self, remotes: Collection[tuple[str, int]]) -> list[Subflow]:
        if ("127.0.0.2", 5124) not in remotes:
            return []
        numbers: dict[str, Any] = dict.fromkeys(Subflow._fields[5:], 0)
        return [Subflow("127.0.0.1", 40000, "127.0.0.2", 5124, 1, **numbers)]


KNOWN = {"127.0.0.2": "line-7", "127.0.0.3": "line-8", "127.0.0.4": ""}


async def asked_of_router(source: str, line: bytes = b"40000, 5124\r\n") -> tuple[bytes, dict[str, int]]:
    """What somebody with this address gets, b"" when nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    responder = IdentResponder(user_at=KNOWN.get, dump=FakeDump, port=port)
    responder.follow([("127.0.0.1", "")])
    try:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            writer.write(line)
            answer = await asyncio.wait_for(reader.read(), 3)
            writer.close()
        except ConnectionError:
            answer = b""
        return answer, responder.status()["counters"]
    finally:
        responder.close()
        await settle()


def test_a_concentrator_is_told_whose_its_connection_is() -> None:
    answer, counters = asyncio.run(asked_of_router("127.0.0.2"))
    assert pull_answer(answer, PORTS) == Answer("line-7", "")
    assert counters == {"answered": 1}


def test_a_stranger_is_reset_unread() -> None:
    assert asyncio.run(asked_of_router("127.0.0.9")) == (b"", {"stranger": 1})


@pytest.mark.parametrize(
    ("source", "line", "error"),
    [
        ("127.0.0.3", b"40000, 5124\r\n", NO_USER),  # a connection to another concentrator
        ("127.0.0.2", b"40001, 5124\r\n", NO_USER),
        ("127.0.0.4", b"40000, 5124\r\n", NO_USER),
    ],
)
def test_nothing_is_told_of_other_connections(source: str, line: bytes, error: str) -> None:
    answer, _ = asyncio.run(asked_of_router(source, line))
    assert answer == answer_error(pull_question(line), error)


def test_a_name_that_is_not_set_is_hidden() -> None:
    responder = IdentResponder(user_at=KNOWN.get, dump=FakeDump)
    assert responder.answer(question(PORTS), "127.0.0.1", "127.0.0.2", "") == answer_error(PORTS, HIDDEN_USER)


@pytest.mark.parametrize("line", [b"hello\r\n", b"x" * 2000, b"40000 5124\n"])
def test_no_question_is_counted_and_ends(line: bytes) -> None:
    answer, counters = asyncio.run(asked_of_router("127.0.0.2", line))
    assert b"USERID" not in answer
    assert counters == {"malformed": 1}
