"""Sends accounting records to the first of several servers that takes them, in order, for as long as that takes.

Each try is a packet of its own: Acct-Delay-Time is another one, and with it Identifier and authenticator (RFC 2866, 4.1).
What a server has answered with a wrong authenticator, it has not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any

from pyrad.packet import AccountingResponse, AcctPacket, Packet, PacketError

from cpe_mcp.aaa.accounting import INTERIM, START, STOP, Record, Spool
from cpe_mcp.aaa.carriers import MAX_PACKET_BYTES, Carrier, Server, Unreachable
from cpe_mcp.aaa.troubles import Trouble, asked, read, say
from cpe_mcp.paths.snapshot import WanView

log = logging.getLogger(__name__)

PORT = 1813
"""RFC 2866 section 3."""
AGAIN_MIN_S, AGAIN_MAX_S = 1.0, 30.0
"""Pause after all servers were asked in vain, doubled each time."""
HURRIED_S = 0.2
"""The same at the end."""
SILENT_S = 60.0
"""How long a server that did not answer comes after the others: records go one by one, and else each would wait for it."""
OCTETS = 2**32
"""Beyond it Acct-Input-Gigawords and Acct-Output-Gigawords count (RFC 2869 section 5.1)."""

USER_NAME, FRAMED_IP_ADDRESS, CLASS, NAS_IDENTIFIER = 1, 8, 25, 32
STATUS_TYPE, DELAY_TIME, INPUT_OCTETS, OUTPUT_OCTETS, SESSION_ID, AUTHENTIC, SESSION_TIME = 40, 41, 42, 43, 44, 45, 46
TERMINATE_CAUSE, MULTI_SESSION_ID, LINK_COUNT, INPUT_GIGAWORDS, OUTPUT_GIGAWORDS = 49, 50, 51, 52, 53
EVENT_TIMESTAMP, NAS_PORT_TYPE, NAS_PORT_ID, FRAMED_IPV6_ADDRESS = 55, 61, 87, 168
"""RFC 2865, 2866, 2869, 6911."""
BY_RADIUS, VIRTUAL = 1, 5
MIN_UNIX_S = 1_700_000_000
"""A clock before that was never set: no time is better than a wrong one."""


class Unsendable(Exception):
    """No packet can say this."""


class AccountingClient:
    """``servers``: (address, port) each; ``ways()``: WANs that may carry it, best first, None: as the routes say."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        secret: bytes,
        *,
        nas_identifier: str,
        carrier: Carrier,
        ways: Callable[[], Sequence[WanView] | None] = lambda: None,
        spool: Spool | None = None,
    ) -> None:
        self._servers = [Server(address, port) for address, port in servers]
        self._secret = secret
        self._nas_identifier = nas_identifier
        self._carrier = carrier
        self._ways = ways
        self.spool = spool if spool is not None else Spool()
        self.counters: Counter[str] = Counter()
        """``sent`` (taken by a server), and what :class:`cpe_mcp.aaa.radius.RadiusClient` counts of packets."""
        self.troubles: list[Trouble] = []
        """Why the oldest record is still here; [] when the last one was taken."""
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        """It ends soon: no pause longer than the shortest."""
        self._task: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        """The same for people."""
        return read(self.troubles)

    def start(self) -> None:
        """Begin to send, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, wait_s: float) -> None:
        """Send what waits for so long at most; then no more."""
        if self._task is None:
            return
        end = time.monotonic() + wait_s
        self._hurry.set()  # a server that was away a moment ago may be back
        while len(self.spool) and time.monotonic() < end and not self._task.done():
            await asyncio.sleep(0.02)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        if len(self.spool):
            log.warning("accounting: %d records are lost, no server took them in time", len(self.spool))

    def abandon(self) -> None:
        """Send no more, at once; the spool may go on elsewhere."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def finish(self, wait_s: float) -> asyncio.Task[None]:
        """As :meth:`stop`, while others go on; keep what it returns until it is done."""
        return asyncio.get_running_loop().create_task(self.stop(wait_s))

    def tell(self, record: Record) -> None:
        """One more."""
        self.spool.add(record)
        self._work.set()

    def status(self) -> dict[str, Any]:
        """For people."""
        return {
            "sent": self.counters["sent"],
            "waiting": len(self.spool),
            "lost": self.spool.lost,
            "trouble": self.trouble,
        }

    async def _run(self) -> None:
        pause_s = AGAIN_MIN_S
        while True:
            self._work.clear()
            first = self.spool.first()
            if first is None:
                await self._work.wait()
                continue
            number, record = first
            try:
                troubles = await self._send(record)
            except Unsendable as error:
                # It would stand in the way of all others for ever.
                log.error("accounting: a record of session %s is lost: %s", record.session_id or "-", error)
                self.spool.lose(number)
                continue
            if not troubles:
                self.counters["sent"] += 1
                self.spool.done(number)
                pause_s = AGAIN_MIN_S
                self._said([])
            else:
                self._said(troubles)
                if self._hurry.is_set():
                    await asyncio.sleep(HURRIED_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._hurry.wait()
                pause_s = min(AGAIN_MAX_S, 2 * pause_s)

    def _said(self, troubles: list[Trouble]) -> None:
        if bool(troubles) != bool(self.troubles):
            if troubles:
                log.warning("accounting: %s; records wait", read(troubles))
            else:
                log.info("accounting: a server takes records again")
        self.troubles = troubles

    async def _send(self, record: Record) -> list[Trouble]:
        """Empty when a server has it, else why not. Raises Unsendable."""
        failures = []
        ways = self._ways()
        now = time.monotonic()
        for server in sorted(self._servers, key=lambda server: server.silent_until > now):
            for way in [None] if ways is None or server.is_here else [way for way in ways if server.source_on(way)]:
                request, raw = self._packed(record)
                name = asked(server.name, way.name if way is not None else "")
                try:
                    reply = await self._carrier.exchange(
                        server, raw, partial(self._checked, request), way=way, counters=self.counters
                    )
                except Unreachable as error:
                    failures.append(say("server-unreachable", name, str(error)))
                    continue
                if reply is not None:
                    server.silent_until = 0.0
                    return []
                failures.append(say("server-silent", name))
            server.silent_until = time.monotonic() + SILENT_S
        return failures or [say("accounting-no-way")]

    def _packed(self, record: Record) -> tuple[Any, bytes]:
        """The request and its octets. Raises Unsendable."""
        try:
            request = self._request(record)
            raw = bytes(request.RequestPacket())
        except (ValueError, PacketError) as error:
            raise Unsendable(str(error)) from None
        if len(raw) > MAX_PACKET_BYTES:
            raise Unsendable(f"its packet would have {len(raw)} octets, RADIUS takes at most {MAX_PACKET_BYTES}")
        return request, raw

    def _request(self, record: Record) -> Any:
        packet = AcctPacket(id=secrets.randbelow(256), secret=self._secret)
        packet.add_message_authenticator()
        late_s = max(0.0, time.monotonic() - record.at)
        happened = time.time() - late_s

        def put(code: int, *values: bytes) -> None:
            packet[code] = list(values)

        put(STATUS_TYPE, _integer(record.status))
        put(NAS_IDENTIFIER, self._nas_identifier.encode())
        put(NAS_PORT_TYPE, _integer(VIRTUAL))
        put(DELAY_TIME, _integer(int(late_s)))
        if happened >= MIN_UNIX_S:
            put(EVENT_TIMESTAMP, _integer(int(happened)))
        if record.session_id:
            put(SESSION_ID, record.session_id.encode())
            put(MULTI_SESSION_ID, record.multi_session_id.encode())
            put(AUTHENTIC, _integer(BY_RADIUS))
            if record.who.user:
                put(USER_NAME, record.who.user.encode())
            if record.who.port:
                put(NAS_PORT_ID, record.who.port.encode())
            if record.who.classes:
                put(CLASS, *record.who.classes)
            for version, code in ((4, FRAMED_IP_ADDRESS), (6, FRAMED_IPV6_ADDRESS)):
                found = [
                    ip_address(text).packed for text in record.who.addresses if ip_address(text).version == version
                ]
                if found:
                    put(code, found[0])
        if record.status in (INTERIM, STOP):
            usage = record.usage
            put(SESSION_TIME, _integer(int(record.seconds)))
            put(INPUT_OCTETS, _integer(usage.up % OCTETS))
            put(OUTPUT_OCTETS, _integer(usage.down % OCTETS))
            put(INPUT_GIGAWORDS, _integer(usage.up // OCTETS))
            put(OUTPUT_GIGAWORDS, _integer(usage.down // OCTETS))
        if record.status in (START, INTERIM, STOP) and record.usage.links:
            put(LINK_COUNT, _integer(record.usage.links))
        if record.status == STOP and record.cause:
            put(TERMINATE_CAUSE, _integer(record.cause))
        return packet

    def _checked(self, request: Any, data: bytes, is_source: bool) -> Any | None:
        """The answer in a datagram, if it is one to ``request`` and proves that its sender knows the secret."""
        kind = "wrong-source"
        if is_source:
            try:
                reply = Packet(packet=data, secret=self._secret)
            except PacketError:
                kind = "malformed"
            else:
                if reply.code != AccountingResponse or reply.id != request.id:
                    kind = "unexpected"
                elif request.VerifyReply(reply, data):
                    return reply
                else:
                    kind = "forged"
        self.counters[kind] += 1
        return None


def _integer(value: int) -> bytes:
    return min(value, OCTETS - 1).to_bytes(4, "big")
