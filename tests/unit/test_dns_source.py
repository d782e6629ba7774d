"""Asking DNS: what a resolver on this machine is believed, the keys above a name, and a clock that is set late."""
# ruff: noqa: E402

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

for _package in ("dns", "cryptography"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"needs the Python package {_package}", allow_module_level=True)

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
from signed_zones import DAY, NOW, Zone, rows

from cpe_mcp.discovery import dns_source
from cpe_mcp.discovery.dns_source import TRIES_MAX, UNPROVEN_MAX_S, Answer, DnsFailure, DnsSource, Resolver, Way
from cpe_mcp.discovery.srv import TARGETS_MAX
from cpe_mcp.policy.reasons import Reason

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.3-a")]

NAME, TARGET, GOOD = "_convert._tcp.operator.example", "mcp1.operator.example.", "192.0.2.1"
ROOT, EXAMPLE, OPERATOR = (Zone(name) for name in (".", "example.", "operator.example."))
HERE = "127.0.0.1"
MCPS = (((GOOD,), 5124),)


Data = dict[tuple[str, str], list[dns.rrset.RRset]]


def zone_data() -> Data:
    return by_question(
        OPERATOR.signed(rows(f"{NAME}.", "SRV", f"10 60 5124 {TARGET}")),
        OPERATOR.signed(rows(TARGET, "A", GOOD)),
        ROOT.keys(),
        ROOT.vouches_for(EXAMPLE),
        EXAMPLE.keys(),
        EXAMPLE.vouches_for(OPERATOR),
        OPERATOR.keys(),
    )


def by_question(*answers: list[dns.rrset.RRset]) -> Data:
    return {(part[0].name.to_text(), dns.rdatatype.to_text(part[0].rdtype)): part for part in answers}


class FakeResolver:
    """A resolver on the loopback: answers from a table, with these flags; asks nobody itself."""

    def __init__(self, flags: int = 0) -> None:
        self.data = zone_data()
        self.flags = flags
        self.asked: list[tuple[str, str]] = []

    def answer(self, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        key = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(key)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA | (self.flags if query.flags & dns.flags.AD else 0)
        response.answer = self.data.get(key, [])
        return response.to_wire(max_size=65535)


@contextlib.asynccontextmanager
async def serving(resolver: FakeResolver, address: str = HERE, port: int = 0) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(resolver.answer(data), address)

    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(address, port), family=socket.AF_INET)
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The time of day; ``clock(t)`` sets it."""
    shown = [NOW]
    monkeypatch.setattr(dns_source, "time", types.SimpleNamespace(time=lambda: shown[0]))

    def set_clock(value: float) -> None:
        shown[0] = value

    return set_clock


def answers_of(
    resolver: FakeResolver,
    monkeypatch: pytest.MonkeyPatch,
    *others: FakeResolver,
    count: int = 1,
    between: Callable[[], None] = lambda: None,
    anchors: tuple[str, ...] = (),
    way: Way | None = None,
    dnssec: str = "validate",
) -> list[Answer]:
    """The first answers; ``between`` is called after each. ``others`` are the resolvers after the first one."""

    async def run() -> list[Answer]:
        got: list[Answer] = []
        heard = asyncio.Event()

        def on_answer(_: str, answer: Answer) -> None:
            got.append(answer)
            between()
            if len(got) == count:
                heard.set()

        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(serving(resolver))
            for number, other in enumerate(others):
                await stack.enter_async_context(serving(other, address_of(number + 1), port))
            monkeypatch.setattr(dns_source, "DNS_PORT", port)
            source = DnsSource(
                [NAME],
                servers=[address_of(number) for number in range(len(others) + 1)],
                ways=lambda: [],
                on_answer=on_answer,
                on_failure=lambda _, why: pytest.fail(why),
                dnssec=dnssec,
                anchors=anchors or [ROOT.anchor()],
            )
            if way is not None:
                monkeypatch.setattr(source, "_askable", lambda: iter([(Resolver(HERE), way)]))
            source.start()
            try:
                async with asyncio.timeout(20):
                    await heard.wait()
            finally:
                await source.stop()
        return got

    return asyncio.run(run())


def address_of(number: int) -> str:
    return f"127.0.0.{number + 1}"


@pytest.mark.usefixtures("clock")
def test_the_keys_above_a_name_are_asked_for_and_prove_it(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = FakeResolver()
    (answer,) = answers_of(resolver, monkeypatch)
    assert (answer.mcps, answer.dnssec, answer.valid_s) == (MCPS, Reason.DNSSEC_VALID, DAY)
    assert len(resolver.asked) == len(set(resolver.asked)), "each once"


@pytest.mark.usefixtures("clock")
def test_no_key_above_the_anchor_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = FakeResolver()
    (answer,) = answers_of(resolver, monkeypatch, anchors=(OPERATOR.anchor(),))
    assert answer.dnssec == Reason.DNSSEC_VALID
    assert [key for key in resolver.asked if key[1] in ("DS", "DNSKEY")] == [("operator.example.", "DNSKEY")]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("missing", ["SRV", "A", "DS", "DNSKEY"])
def test_an_answer_whose_signatures_were_stripped_counts_as_unsigned(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = FakeResolver()
    for key, part in list(resolver.data.items()):
        if key[1] == missing:
            resolver.data[key] = part[:1]
    (answer,) = answers_of(resolver, monkeypatch)
    assert (answer.mcps, answer.dnssec) == (MCPS, Reason.DNSSEC_UNSIGNED)


def test_a_clock_that_is_set_has_the_signatures_checked_again(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_source, "CLOCK_LOOK_S", 0.05)
    clock(0.0)
    before, after = answers_of(FakeResolver(), monkeypatch, count=2, between=lambda: clock(NOW))
    assert (before.dnssec, after.dnssec) == (Reason.DNSSEC_CLOCK, Reason.DNSSEC_VALID)


def test_other_names_are_asked_for_and_those_before_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_source, "TTL_MIN_S", 0.05)
    resolver = FakeResolver()
    resolver.data = {key: list(part[:1]) for key, part in resolver.data.items()}
    for part in resolver.data.values():
        part[0].ttl = 0
    other = f"other.{NAME}"
    resolver.data[f"{other}.", "SRV"] = [rows(f"{other}.", "SRV", f"1 1 5125 {TARGET}")]
    got: list[str] = []

    async def run() -> None:
        async with serving(resolver) as port, asyncio.timeout(10):
            monkeypatch.setattr(dns_source, "DNS_PORT", port)
            source = DnsSource(
                [NAME], servers=[HERE], ways=lambda: [], on_answer=lambda n, _: got.append(n), on_failure=print
            )
            source.start()
            while got.count(NAME) < 2:
                await asyncio.sleep(0.01)
            source.set_names([other])
            got.clear()
            while other not in got:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            await source.stop()

    asyncio.run(run())
    assert set(got) == {other}


class TestResolver:
    """Option dnssec 'resolver'."""

    def test_one_on_this_machine_is_believed_when_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for flags, reason in ((int(dns.flags.AD), Reason.DNSSEC_VALID), (0, Reason.DNSSEC_UNSIGNED)):
            (answer,) = answers_of(FakeResolver(flags), monkeypatch, dnssec="resolver")
            assert (answer.mcps, answer.dnssec) == (MCPS, reason)

    def test_one_elsewhere_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        way = Way("wan", "lo", HERE, "")
        (answer,) = answers_of(FakeResolver(int(dns.flags.AD)), monkeypatch, dnssec="resolver", way=way)
        assert answer.dnssec == Reason.DNSSEC_UNSIGNED

    def test_nor_is_its_word_where_this_package_checks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        resolver = FakeResolver(int(dns.flags.AD))
        resolver.data = {key: part[:1] for key, part in resolver.data.items()}
        (answer,) = answers_of(resolver, monkeypatch)
        assert answer.dnssec == Reason.DNSSEC_UNSIGNED


@pytest.mark.parametrize("output", ["", "not JSON"])
def test_a_checking_process_that_fails_proves_nothing(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_source, "COMMAND", ("/bin/echo", output))
    (answer,) = answers_of(FakeResolver(), monkeypatch)
    assert answer.dnssec == Reason.DNSSEC_FAILED


@pytest.mark.usefixtures("clock")
def test_the_best_of_many_targets_are_looked_up_and_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names sort the other way round."""
    count = 2 * TARGETS_MAX
    targets = [f"mcp{number:02}.operator.example." for number in range(count)]
    srv = rows(f"{NAME}.", "SRV", *(f"{count - number} 0 5124 {target}" for number, target in enumerate(targets)))
    addresses = [OPERATOR.signed(rows(target, "A", f"192.0.2.{number}")) for number, target in enumerate(targets)]
    resolver = FakeResolver()
    resolver.data |= by_question(OPERATOR.signed(srv), *addresses)
    (answer,) = answers_of(resolver, monkeypatch)
    best = range(count - 1, count - 1 - TARGETS_MAX, -1)
    assert answer.dnssec == Reason.DNSSEC_VALID
    assert answer.mcps == tuple(((f"192.0.2.{number}",), 5124) for number in best)


def test_a_name_too_long_for_dns_fails_and_says_where_it_comes_from() -> None:
    name = f"_convert._tcp.{'.'.join(['a' * 60] * 4)}.example"
    failures: list[str] = []

    async def run() -> None:
        heard = asyncio.Event()

        def failed(_: str, why: str) -> None:
            failures.append(why)
            heard.set()

        source = DnsSource([name], servers=[HERE], ways=lambda: [], on_answer=print, on_failure=failed)
        source.start()
        async with asyncio.timeout(5):
            await heard.wait()
        await source.stop()

    asyncio.run(run())
    assert "dns_name" in failures[0]
    assert "dhcp4_name_code" in failures[0]


class TestSeveralResolvers:
    """One that strips or forges does not have the last word."""

    EVIL = "203.0.113.66"

    def _stripped(self) -> Data:
        return {key: part[:1] for key, part in zone_data().items()}

    def _bogus(self) -> Data:
        data = zone_data()
        data[TARGET, "A"] = [rows(TARGET, "A", self.EVIL), data[TARGET, "A"][1]]
        return data

    def _old(self) -> Data:
        return zone_data() | by_question(
            OPERATOR.signed(rows(TARGET, "A", self.EVIL), begins=NOW - 9 * DAY, ends=NOW - 1)
        )

    def _future(self) -> Data:
        return zone_data() | by_question(
            OPERATOR.signed(rows(TARGET, "A", self.EVIL), begins=NOW + DAY, ends=NOW + 9 * DAY)
        )

    def _nothing(self) -> Data:
        return {}

    def _nowhere(self) -> Data:
        return zone_data() | by_question([rows(TARGET, "A", HERE)])

    @pytest.mark.usefixtures("clock")
    @pytest.mark.parametrize("forged", ["_stripped", "_bogus", "_old", "_future", "_nothing", "_nowhere"])
    def test_the_next_one_proves_what_the_first_one_hides(self, forged: str, monkeypatch: pytest.MonkeyPatch) -> None:
        liar = FakeResolver()
        liar.data = getattr(self, forged)()
        (answer,) = answers_of(liar, monkeypatch, FakeResolver())
        assert (answer.mcps, answer.dnssec) == (MCPS, Reason.DNSSEC_VALID)

    @pytest.mark.usefixtures("clock")
    def test_it_ends_after_some_with_the_first_ones_reason_and_what_each_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        liars = [FakeResolver() for _ in range(TRIES_MAX + 2)]
        for liar in liars:
            liar.data = self._stripped()
        liars[0].data = self._bogus()
        (answer,) = answers_of(liars[0], monkeypatch, *liars[1:])
        assert (answer.mcps, answer.dnssec) == ((((self.EVIL,), 5124),), Reason.DNSSEC_BOGUS)
        assert [bool(liar.asked) for liar in liars] == TRIES_MAX * [True] + 2 * [False]
        assert [part.split(":")[0] for part in answer.detail.split("; ")] == [address_of(n) for n in range(TRIES_MAX)]
        assert "is wrong" in answer.detail.split("; ")[0]
        assert all(part.endswith(f"{NAME} is not signed") for part in answer.detail.split("; ")[1:])

    @pytest.mark.usefixtures("clock")
    def test_a_forged_answer_does_not_hold_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        liar = FakeResolver()
        liar.data = self._stripped()
        for part in liar.data.values():
            part[0].ttl = 10**6
        (answer,) = answers_of(liar, monkeypatch)
        assert answer.ttl_s == UNPROVEN_MAX_S

    @pytest.mark.usefixtures("clock")
    def test_without_signatures_wanted_the_first_answer_is_the_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = FakeResolver(), FakeResolver()
        first.data = self._stripped()
        (answer,) = answers_of(first, monkeypatch, second, dnssec="off")
        assert (answer.dnssec, second.asked) == (Reason.DNSSEC_OFF, [])

    def test_who_lies_on_one_line_with_many_resolvers_leaves_room_for_the_other_line(self) -> None:
        dsl, lte = Way("dsl", "eth1", "192.0.2.7", ""), Way("lte", "wwan0", "198.51.100.7", "")
        liars = [Resolver(f"192.0.2.{number}", "dsl") for number in range(50, 60)]
        asked: list[str] = []

        async def run() -> None:
            source = DnsSource(
                [NAME], servers=[], ways=lambda: [dsl, lte], on_answer=print, on_failure=print, dnssec="validate"
            )
            honest = Resolver("198.51.100.53", "lte")
            places = [*((liar, dsl) for liar in liars), (honest, lte)]

            async def exchange(query: dns.message.Message, address: str, _: Way) -> tuple[dns.message.Message, bytes]:
                asked.append(address)
                raise TimeoutError

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(source, "_askable", lambda: iter(places))
                patch.setattr(dns_source, "_exchange", exchange)
                with pytest.raises(DnsFailure):
                    await source._lookup(NAME, "SRV", [(liars[0], dsl)])

        asyncio.run(run())
        assert asked[0] == "198.51.100.53"
        assert asked[-1] == liars[0].address
        assert len(asked) == len(liars) + 1

    def test_an_answer_that_proves_nothing_is_asked_for_again_when_a_wan_comes_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other line's resolver may be an honest one."""
        resolver = FakeResolver()
        resolver.data = self._stripped()
        got: list[str] = []

        async def run() -> None:
            async with serving(resolver) as port, asyncio.timeout(10):
                monkeypatch.setattr(dns_source, "DNS_PORT", port)
                source = DnsSource(
                    [NAME],
                    servers=[HERE],
                    ways=lambda: [],
                    on_answer=lambda _, answer: got.append(answer.dnssec),
                    on_failure=print,
                    dnssec="validate",
                )
                source.start()
                while len(got) < 1:
                    await asyncio.sleep(0.01)
                source.hurry()
                while len(got) < 2:
                    await asyncio.sleep(0.01)
                await source.stop()

        asyncio.run(run())
        assert got == 2 * [Reason.DNSSEC_UNSIGNED]
