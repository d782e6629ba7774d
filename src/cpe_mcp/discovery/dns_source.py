"""Concentrators from DNS: asks for the SRV records of the configured names and for their targets' addresses, over the WANs.

dnspython makes and reads the messages; it is loaded with the first question only. A question goes to one resolver over one
WAN at a time, best first, and waits in a task of its own: nothing else ever waits for it. Answers are proven by their
signatures in a process of its own (:mod:`.dnssec_process`); here is collected what that needs, the keys of the zones above.
Where nothing is proven the next resolver is asked: whoever strips or forges must not have the last word.
What to make of the answers is in :mod:`.srv` and :mod:`.candidates`.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import json
import logging
import random
import re
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cpe_mcp.discovery.srv import TARGETS_MAX, Srv, mcps_of, ordered
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.router import DNSSEC_OFF, DNSSEC_RESOLVER, DNSSEC_VALIDATE, ROOT_ANCHORS

if TYPE_CHECKING:
    import dns.message

log = logging.getLogger(__name__)

DNS_PORT = 53
TRY_S = 2.0
"""For one resolver over one WAN; ordinary resolvers of operating systems wait 5 s, but have no second line to try."""
TTL_MIN_S, TTL_MAX_S = 30.0, 86400.0
"""An answer is asked for again when its TTL ends; not more often than a failed one (RFC 8767 section 5), and once a day."""
RETRY_S, RETRY_MAX_S = 5.0, 300.0
"""After a failure; doubles."""
STALE_S = 86400.0
"""How long the last good answer is kept while no resolver answers (RFC 8767 section 5: one to three days)."""
PAYLOAD_BYTES = 1232
"""EDNS: fits into any path's MTU (DNS flag day 2020)."""
COMMAND = (sys.executable, "-m", "cpe_mcp.discovery.dnssec_process")
PROVE_S = 60.0
"""For Python and its cryptography to start on a slow router, and to check a dozen signatures."""
PROVE_TTL_S = 300.0
"""Shortest pause between two such checks of one name, whatever its TTL."""
TRIES_MAX = 4
"""Resolvers, or ways to one, that are asked in turn until one's answer is proven: two lines name four of them at most."""
UNPROVEN_MAX_S = 3600.0
"""Longest pause before the next question while nothing is proven: a forged answer may say that it holds for ever."""
UNPROVEN = frozenset({Reason.DNSSEC_UNSIGNED, Reason.DNSSEC_BOGUS, Reason.DNSSEC_EXPIRED, Reason.DNSSEC_CLOCK})
"""Verdicts on what a resolver said, which another one may say better. A forged signature may begin in the future too."""
ZONES_MAX = 12
"""Zones whose keys are asked for, from the anchor down; names have seldom more than five."""
CLOCK_LOOK_S, CLOCK_STEP_S = 30.0, 60.0
"""A clock that was set (a router has none of its own) is noticed so soon, and counts from this difference on: signatures are
checked again."""
RESOLV_FILES = ("/tmp/resolv.conf.d/resolv.conf.auto", "/tmp/resolv.conf.auto", "/etc/resolv.conf")
"""netifd's list of what the access networks' DHCP named, with the interface in a comment; then the system's own."""


class Way(NamedTuple):
    """One WAN that may carry a question."""

    interface: str
    """netifd's name."""
    device: str
    address4: str
    address6: str


class Resolver(NamedTuple):
    """Whom to ask."""

    address: str
    interface: str = ""
    """By whose DHCP it was named: asked over that WAN only, since access networks serve their own. "": over any."""


Place = tuple[Resolver, Way | None]
"""Whom to ask, over which WAN; None for one on this machine."""


class Answer(NamedTuple):
    """What came of asking for one name."""

    mcps: tuple[tuple[tuple[str, ...], int], ...]
    ttl_s: float
    dnssec: str = Reason.DNSSEC_OFF
    """A value of Reason: what came of the signatures."""
    detail: str = ""
    """More on that, for people."""
    valid_s: float = float("inf")
    """Until the first signature ends."""


class Found(NamedTuple):
    """What one question brought."""

    records: list[Any]
    ttl_s: float
    wire: bytes
    signers: frozenset[str]
    """The zones that signed something in it."""
    is_vouched_for: bool
    """By a resolver on this machine, which says that it has checked the signatures (AD, RFC 4035 section 3.2.3)."""
    place: Place
    """Who answered."""


class DnsFailure(Exception):
    """No answer, or none that means anything. One line for people."""


class DnsSource:
    """Keeps asking for ``names``. ``on_answer(name, answer)`` and ``on_failure(name, why)`` are called on the event loop;
    ``ways()`` gives the WANs in use, best first. ``dnssec`` and ``anchors`` are the options of section discovery."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        servers: Sequence[str],
        ways: Callable[[], Sequence[Way]],
        on_answer: Callable[[str, Answer], None],
        on_failure: Callable[[str, str], None],
        dnssec: str = DNSSEC_OFF,
        anchors: Sequence[str] = ROOT_ANCHORS,
        resolv_files: Sequence[str] = RESOLV_FILES,
    ) -> None:
        self._names = tuple(names)
        self._servers = tuple(servers)
        self._ways = ways
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._dnssec = dnssec
        self._anchors = tuple(anchors)
        self._anchored = tuple(_absolute(text.split()[0]) for text in anchors)
        self._resolv_files = tuple(resolv_files)
        # One draw in this process's life: the order changes when the records do, not with every question.
        self._seed = random.SystemRandom().random()
        self._hurried: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to ask."""
        self.set_names(self._names)

    def set_names(self, names: Sequence[str]) -> None:
        """Ask for these from now on, and no longer for others."""
        for name in self._tasks.keys() - set(names):
            task = self._tasks.pop(name)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()
        for name in names:
            if name not in self._tasks:
                self._hurried[name] = asyncio.Event()
                self._tasks[name] = asyncio.get_running_loop().create_task(self._keep(name))
        self._hurried = {name: self._hurried[name] for name in names}

    async def stop(self) -> None:
        """Ask no more."""
        self.set_names(())
        await asyncio.gather(*self._ending, return_exceptions=True)

    def hurry(self) -> None:
        """A WAN came up: whoever waits to try again tries now."""
        for event in self._hurried.values():
            event.set()

    async def _keep(self, name: str) -> None:
        pause_s, hurried = RETRY_S, self._hurried[name]
        while True:
            hurried.clear()
            clock = _clock()
            try:
                answer = await self._ask(name)
            except DnsFailure as failure:
                self._on_failure(name, str(failure))
                wait_s, pause_s = pause_s, min(RETRY_MAX_S, 2 * pause_s)
                may_hurry = True
            else:
                self._on_answer(name, answer)
                wait_s, pause_s, may_hurry = answer.ttl_s, RETRY_S, answer.dnssec in UNPROVEN
            await self._pause(hurried, wait_s, clock, may_hurry=may_hurry)

    async def _pause(self, hurried: asyncio.Event, wait_s: float, clock: float, *, may_hurry: bool) -> None:
        """So long, or until it is hurried, or until somebody has set the clock."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while loop.time() < end:
            try:
                async with asyncio.timeout_at(min(end, loop.time() + CLOCK_LOOK_S)):
                    await hurried.wait()
            except TimeoutError:
                if self._dnssec == DNSSEC_VALIDATE and abs(_clock() - clock) > CLOCK_STEP_S:
                    return
                continue
            hurried.clear()
            if may_hurry:
                return

    async def _ask(self, name: str) -> Answer:
        """The first answer that is proven, where signatures are wanted; when none is, the first one that came, with what is
        wrong with each. Raises DnsFailure."""
        asked: list[Place] = []
        unproven: Answer | None = None
        failure: DnsFailure | None = None
        problems: list[str] = []
        while len(asked) < TRIES_MAX:
            try:
                found = await self._lookup(name, "SRV", asked)
            except DnsFailure as error:
                failure = failure or error
                break
            if found.place in asked:
                break
            try:
                answer = await self._answer(name, found, tuple(asked))
            except DnsFailure as error:
                if self._dnssec == DNSSEC_OFF:
                    raise
                failure, problem = failure or error, str(error)
            else:
                if answer.dnssec not in UNPROVEN:
                    return answer
                if unproven is not None and unproven.dnssec == answer.dnssec == Reason.DNSSEC_CLOCK:
                    break  # it is not the resolver
                unproven, problem = unproven or answer, answer.detail
            asked.append(found.place)
            problems.append(f"{_where(found.place)}: {problem}")
        if unproven is None:
            raise failure or DnsFailure(f"no answer for {name}")
        return unproven._replace(detail="; ".join(problems), ttl_s=min(UNPROVEN_MAX_S, unproven.ttl_s))

    async def _answer(self, name: str, srv: Found, avoid: Collection[Place]) -> Answer:
        """What these SRV records come to. ``avoid``: who was asked before, and proved nothing. Raises DnsFailure."""
        looked_up, ttl_s = [srv], srv.ttl_s
        chosen = self._ordered(Srv(row.priority, row.weight, row.port, row.target.to_text()) for row in srv.records)
        addresses: dict[str, list[str]] = {}
        problem = f"the targets of {name} have no address"
        for target in list(dict.fromkeys(row.target for row in chosen))[:TARGETS_MAX]:
            for kind in ("A", "AAAA"):
                try:
                    found = await self._lookup(target, kind, avoid, srv.place)
                except DnsFailure as failure:
                    problem, ttl_s = str(failure), TTL_MIN_S  # one family of one target: go on with the rest, ask soon
                    continue
                if found.records:
                    looked_up.append(found)
                    addresses.setdefault(target, []).extend(row.address for row in found.records)
                    ttl_s = min(ttl_s, found.ttl_s)
        mcps = mcps_of(chosen, addresses)
        if chosen and not mcps:
            raise DnsFailure(problem)
        answer = Answer(mcps, min(TTL_MAX_S, max(TTL_MIN_S, ttl_s)))
        if self._dnssec == DNSSEC_OFF:
            return answer
        if self._dnssec == DNSSEC_RESOLVER:
            if all(found.is_vouched_for for found in looked_up):
                return answer._replace(dnssec=Reason.DNSSEC_VALID)
            detail = "the resolver on this router does not say that it has checked it"
        elif chosen and srv.signers:
            return await self._proven(name, answer, looked_up, avoid)
        else:
            detail = f"{name} is not signed" if chosen else f"it says that {name} has no records"
        return answer._replace(dnssec=Reason.DNSSEC_UNSIGNED, detail=detail, ttl_s=max(PROVE_TTL_S, answer.ttl_s))

    def _ordered(self, records: Iterable[Srv]) -> list[Srv]:
        rows = sorted(set(records))
        chance = random.Random(f"{self._seed} {rows}")
        return ordered(rows, lambda most: chance.randint(0, most))

    async def _proven(self, name: str, answer: Answer, looked_up: Sequence[Found], avoid: Collection[Place]) -> Answer:
        """The part of an answer that is proven; all of it, with the reason, where nothing is."""
        wires = [found.wire for found in looked_up]
        signers = {zone for found in looked_up for zone in found.signers}
        wires += await self._keys_above(signers, avoid, looked_up[0].place)
        question = {
            "name": name,
            "messages": [base64.b64encode(wire).decode() for wire in wires],
            "anchors": self._anchors,
            "now": time.time(),
        }
        verdict = await _ask_process(question)
        reason, detail = str(verdict["reason"]), str(verdict["detail"])
        if reason == Reason.DNSSEC_CLOCK:  # the clock may be set at any moment, by less than a noticeable step
            return answer._replace(dnssec=reason, detail=detail, ttl_s=TTL_MIN_S)
        answer = answer._replace(dnssec=reason, detail=detail, ttl_s=max(PROVE_TTL_S, answer.ttl_s))
        if reason != Reason.DNSSEC_VALID:
            return answer
        chosen = self._ordered(Srv(*row) for row in verdict["records"])
        valid_s = float(verdict["valid_s"])
        # Asked again in time before the signatures end.
        ttl_s = max(TTL_MIN_S, min(answer.ttl_s, valid_s / 2))
        return answer._replace(mcps=mcps_of(chosen, verdict["addresses"]), valid_s=valid_s, ttl_s=ttl_s)

    async def _keys_above(self, zones: Iterable[str], avoid: Collection[Place], first: Place) -> list[bytes]:
        """Answers with the keys of these zones and of those above them, up to the anchors. One that is missing shows in the
        proof."""
        wires: list[bytes] = []
        left, seen = sorted(zones), set[str]()
        while left and len(seen) < ZONES_MAX:
            zone = left.pop(0)
            if zone in seen or not any(_is_below(zone, anchor) for anchor in self._anchored):
                continue
            seen.add(zone)
            for kind in ("DNSKEY",) if zone in self._anchored else ("DNSKEY", "DS"):
                try:
                    found = await self._lookup(zone, kind, avoid, first)
                except DnsFailure as failure:
                    log.debug("%s %s: %s", zone, kind, failure)
                    continue
                wires.append(found.wire)
                left += sorted(found.signers)
        return wires

    async def _lookup(self, name: str, kind: str, avoid: Collection[Place] = (), first: Place | None = None) -> Found:
        """No records where the name or the type does not exist. Asked last are those to ``avoid``, and before them those that
        share a WAN or a resolver with them: whoever lies on one line names many resolvers there. Raises DnsFailure."""
        try:
            import dns.exception
            import dns.flags
            import dns.message
            import dns.rcode
            import dns.rdatatype
        except ImportError:
            raise DnsFailure("dnspython is not installed (package python3-dns)") from None
        validates = self._dnssec == DNSSEC_VALIDATE
        try:
            query = dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD_BYTES, want_dnssec=validates)
        except dns.exception.DNSException as error:
            raise DnsFailure(
                f"{name[:64]!r} is no name that can be asked for ({error}): it is in the list dns_name, or below the domain "
                "that DHCP gave (option dhcp4_name_code)"
            ) from None
        # CD: what the resolver thinks of the signatures is no matter (RFC 4035 section 3.2.2); AD: it is (RFC 6840 5.7).
        query.flags |= dns.flags.CD if validates else dns.flags.AD if self._dnssec == DNSSEC_RESOLVER else 0
        problem = "no resolver is known"
        used = collections.Counter(half for place in avoid for half in place)
        order = {
            place: (place != first, place in avoid, sum(used[half] for half in place)) for place in self._askable()
        }
        for place in sorted(order, key=order.__getitem__):
            resolver, way = place
            where = _where(place)
            try:
                response, wire = await _exchange(query, resolver.address, way)
            except TimeoutError:
                problem = f"{where} does not answer"
                continue
            except (OSError, dns.exception.DNSException) as error:
                problem = f"{where}: {(error.strerror if isinstance(error, OSError) else None) or error}"
                continue
            if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                problem = f"{where} answers {dns.rcode.to_text(response.rcode())} for {name}"
                continue
            try:
                if not isinstance(response, dns.message.QueryMessage):
                    raise dns.exception.FormError
                chain = response.resolve_chaining()
            except dns.exception.DNSException as error:
                problem = f"{where}: {error}"
                continue
            signers = frozenset(
                _absolute(signature.signer.to_text())
                for rrset in response.answer
                if rrset.rdtype == dns.rdatatype.RRSIG
                for signature in rrset
            )
            is_vouched_for = way is None and bool(response.flags & dns.flags.AD)
            return Found(list(chain.answer or ()), float(chain.minimum_ttl), wire, signers, is_vouched_for, place)
        raise DnsFailure(problem)

    def _askable(self) -> Iterator[Place]:
        """Resolvers with the WANs over which each may be asked."""
        ways = self._ways()
        resolvers = [Resolver(address) for address in self._servers] or read_resolvers(self._resolv_files)
        for resolver in resolvers:
            if resolver.address.startswith("127.") or resolver.address == "::1":
                yield resolver, None
                continue
            for way in ways:
                is_able = way.address6 if ":" in resolver.address else way.address4
                if is_able and resolver.interface in ("", way.interface):
                    yield resolver, way


def read_resolvers(files: Sequence[str]) -> list[Resolver]:
    """Those of the first file that names any."""
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = parse_resolvers(file.read())
        except OSError:
            continue
        if found:
            return found
    return []


def parse_resolvers(text: str) -> list[Resolver]:
    """``nameserver`` lines, and netifd's comments ``# Interface wan`` before them; ``wan6`` and ``wan_6`` mean ``wan`` too."""
    found, interface = [], ""
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["#", "Interface"] and len(words) == 3:
            interface = re.sub(r"(?<=[a-z])_?6$", "", words[2])
        elif words[:1] == ["nameserver"] and len(words) == 2 and "%" not in words[1]:
            found.append(Resolver(words[1], interface))
    return list(dict.fromkeys(found))


def _where(place: Place) -> str:
    resolver, way = place
    return resolver.address if way is None else f"{resolver.address} over {way.interface}"


def _clock() -> float:
    """Another value after somebody has set the clock."""
    return time.time() - asyncio.get_running_loop().time()


def _absolute(zone: str) -> str:
    return zone.rstrip(".").lower() + "."


def _is_below(zone: str, anchor: str) -> bool:
    return anchor in (".", zone) or zone.endswith("." + anchor)


async def _ask_process(question: dict[str, Any]) -> dict[str, Any]:
    """The verdict of :mod:`.dnssec_process`; that it failed, when it does."""
    failed = {"reason": Reason.DNSSEC_FAILED, "detail": ""}
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        return failed | {"detail": f"no process can be started: {error.strerror}"}
    try:
        async with asyncio.timeout(PROVE_S):
            output, _ = await process.communicate(json.dumps(question).encode())
        verdict: dict[str, Any] = json.loads(output)
    except TimeoutError:
        return failed | {"detail": "it took too long"}
    except (OSError, ValueError):
        return failed | {"detail": "the log has the details"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return verdict


async def _exchange(query: dns.message.Message, address: str, way: Way | None) -> tuple[dns.message.Message, bytes]:
    """One question and its answer, parsed and as it came, by UDP, and by TCP where it did not fit. Raises TimeoutError,
    OSError, DNSException."""
    import dns.flags
    import dns.message

    wire = query.to_wire()
    async with asyncio.timeout(TRY_S):
        with _socket_to(address, way, socket.SOCK_DGRAM) as sock:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (address, DNS_PORT))
            await loop.sock_sendall(sock, wire)
            while True:
                answer = await loop.sock_recv(sock, 65535)
                response = dns.message.from_wire(answer, ignore_trailing=True, raise_on_truncation=False)
                if query.is_response(response):
                    break
        if not response.flags & dns.flags.TC:
            return response, answer
        with _socket_to(address, way, socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, (address, DNS_PORT))
            await loop.sock_sendall(sock, len(wire).to_bytes(2, "big") + wire)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                more = await loop.sock_recv(sock, 65535)
                if not more:
                    raise OSError("the resolver closed the connection")
                data += more
            response = dns.message.from_wire(data[2:], ignore_trailing=True)
            if not query.is_response(response):
                raise OSError("the resolver answered another question")
            return response, data[2:]


def _socket_to(address: str, way: Way | None, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if way is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.device.encode())
            sock.bind((way.address6 if family == socket.AF_INET6 else way.address4, 0))
    except OSError:
        sock.close()
        raise
    return sock
