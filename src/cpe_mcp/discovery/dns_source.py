"""Concentrators from DNS: asks for the SRV records of the configured names and for their targets' addresses, over the WANs.

dnspython makes and reads the messages; it is loaded with the first question only. A question goes to one resolver over one
WAN at a time, best first, and waits in a task of its own: nothing else ever waits for it. What to make of the answers is in
:mod:`.srv` and :mod:`.candidates`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cpe_mcp.discovery.srv import TARGETS_MAX, Srv, mcps_of, ordered

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


class Answer(NamedTuple):
    """What came of asking for one name."""

    mcps: tuple[tuple[tuple[str, ...], int], ...]
    ttl_s: float


class DnsFailure(Exception):
    """No answer, or none that means anything. One line for people."""


class DnsSource:
    """Keeps asking for ``names``. ``on_answer(name, mcps, ttl_s)`` and ``on_failure(name, why)`` are called on the event loop;
    ``ways()`` gives the WANs in use, best first."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        servers: Sequence[str],
        ways: Callable[[], Sequence[Way]],
        on_answer: Callable[[str, tuple[tuple[tuple[str, ...], int], ...], float], None],
        on_failure: Callable[[str, str], None],
        resolv_files: Sequence[str] = RESOLV_FILES,
    ) -> None:
        self._names = tuple(names)
        self._servers = tuple(servers)
        self._ways = ways
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._resolv_files = tuple(resolv_files)
        # One draw in this process's life: the order changes when the records do, not with every question.
        self._seed = random.SystemRandom().random()
        self._hurried: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to ask."""
        for name in self._names:
            self._hurried[name] = asyncio.Event()
            self._tasks.append(asyncio.get_running_loop().create_task(self._keep(name)))

    async def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def hurry(self) -> None:
        """A WAN came up: whoever waits to try again tries now."""
        for event in self._hurried.values():
            event.set()

    async def _keep(self, name: str) -> None:
        pause_s = RETRY_S
        while True:
            self._hurried[name].clear()
            try:
                answer = await self._ask(name)
            except DnsFailure as failure:
                self._on_failure(name, str(failure))
                wait_s, pause_s = pause_s, min(RETRY_MAX_S, 2 * pause_s)
                may_hurry = True
            else:
                self._on_answer(name, answer.mcps, answer.ttl_s)
                wait_s, pause_s, may_hurry = answer.ttl_s, RETRY_S, False
            try:
                async with asyncio.timeout(wait_s):
                    while True:
                        await self._hurried[name].wait()
                        self._hurried[name].clear()
                        if may_hurry:
                            break
            except TimeoutError:
                pass

    async def _ask(self, name: str) -> Answer:
        """Raises DnsFailure."""
        records, ttl_s = await self._lookup(name, "SRV")
        chosen = ordered(
            (Srv(row.priority, row.weight, row.port, row.target.to_text()) for row in records),
            self._draw(sorted(row.to_text() for row in records)),
        )
        addresses: dict[str, list[str]] = {}
        problem = f"the targets of {name} have no address"
        for target in dict.fromkeys(row.target for row in chosen[:TARGETS_MAX]):
            for kind in ("A", "AAAA"):
                try:
                    rows, address_ttl_s = await self._lookup(target, kind)
                except DnsFailure as failure:
                    problem, ttl_s = str(failure), TTL_MIN_S  # one family of one target: go on with the rest, ask soon
                    continue
                if rows:
                    addresses.setdefault(target, []).extend(row.address for row in rows)
                    ttl_s = min(ttl_s, address_ttl_s)
        mcps = mcps_of(chosen, addresses)
        if chosen and not mcps:
            raise DnsFailure(problem)
        return Answer(mcps, min(TTL_MAX_S, max(TTL_MIN_S, ttl_s)))

    def _draw(self, records: Sequence[str]) -> Callable[[int], int]:
        chance = random.Random(f"{self._seed} {records}")
        return lambda most: chance.randint(0, most)

    async def _lookup(self, name: str, kind: str) -> tuple[list[Any], float]:
        """Records and TTL in s; no records where the name or the type does not exist. Raises DnsFailure."""
        try:
            import dns.exception
            import dns.message
            import dns.rcode
        except ImportError:
            raise DnsFailure("dnspython is not installed (package python3-dns)") from None
        query = dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD_BYTES)
        problem = "no resolver is known"
        for resolver, way in self._askable():
            over = f" over {way.interface}" if way is not None else ""
            where = f"{resolver.address}{over}"
            try:
                response = await _exchange(query, resolver.address, way)
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
                found = response.resolve_chaining()
            except dns.exception.DNSException as error:
                problem = f"{where}: {error}"
                continue
            return list(found.answer or ()), float(found.minimum_ttl)
        raise DnsFailure(problem)

    def _askable(self) -> Iterator[tuple[Resolver, Way | None]]:
        """Resolvers with the WANs over which each may be asked; None for one on this machine."""
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


async def _exchange(query: dns.message.Message, address: str, way: Way | None) -> dns.message.Message:
    """One question and its answer, by UDP, and by TCP where it did not fit. Raises TimeoutError, OSError, DNSException."""
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
            return response
        with _socket_to(address, way, socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, (address, DNS_PORT))
            await loop.sock_sendall(sock, len(wire).to_bytes(2, "big") + wire)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                more = await loop.sock_recv(sock, 65535)
                if not more:
                    raise OSError("the resolver closed the connection")
                data += more
            return dns.message.from_wire(data[2:], ignore_trailing=True)


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
