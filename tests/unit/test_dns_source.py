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
from cpe_mcp.discovery.dns_source import Answer, DnsSource, Resolver, Way
from cpe_mcp.policy.reasons import Reason

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.3-a")]

NAME, TARGET, GOOD = "_convert._tcp.operator.example", "mcp1.operator.example.", "192.0.2.1"
ROOT, EXAMPLE, OPERATOR = (Zone(name) for name in (".", "example.", "operator.example."))
HERE = "127.0.0.1"
MCPS = (((GOOD,), 5124),)


def zone_data() -> dict[tuple[str, str], list[dns.rrset.RRset]]:
    answers = [
        OPERATOR.signed(rows(f"{NAME}.", "SRV", f"10 60 5124 {TARGET}")),
        OPERATOR.signed(rows(TARGET, "A", GOOD)),
        ROOT.keys(),
        ROOT.vouches_for(EXAMPLE),
        EXAMPLE.keys(),
        EXAMPLE.vouches_for(OPERATOR),
        OPERATOR.keys(),
    ]
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
        return response.to_wire()


@contextlib.asynccontextmanager
async def serving(resolver: FakeResolver) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(resolver.answer(data), address)

    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(HERE, 0), family=socket.AF_INET)
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
    *,
    count: int = 1,
    between: Callable[[], None] = lambda: None,
    anchors: tuple[str, ...] = (),
    way: Way | None = None,
    dnssec: str = "validate",
) -> list[Answer]:
    """The first answers; ``between`` is called after each."""

    async def run() -> list[Answer]:
        got: list[Answer] = []
        heard = asyncio.Event()

        def on_answer(_: str, answer: Answer) -> None:
            got.append(answer)
            between()
            if len(got) == count:
                heard.set()

        async with serving(resolver) as port:
            monkeypatch.setattr(dns_source, "DNS_PORT", port)
            source = DnsSource(
                [NAME],
                servers=[HERE],
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
