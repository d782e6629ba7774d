"""RADIUS client: one question to the first of several servers that answers, on the running asyncio loop.

Packets are pyrad's, and what an answer is worth is judged here because of what has to hold (CVE-2024-3596 and RFC 5080):
Message-Authenticator first in every request and required in every answer that comes over UDP, and whatever does not belong
to the question ignored and counted by its kind. How packets travel is :mod:`.carriers`; what follows from a verdict, and
when to ask again, must not be in here (:mod:`.session`).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, AuthPacket, Packet, PacketError

from cpe_mcp.aaa.answer import ACCEPT, REJECT, TIMEOUT, RadiusAnswer, SecretOctets
from cpe_mcp.aaa.attributes import (
    CONCENTRATOR,
    CONCENTRATOR_IPV4,
    CONCENTRATOR_IPV6,
    CONNECTIONS,
    DOWN_MBIT,
    HANDLE,
    QUOTA,
    SCHEME,
    SERVICE_CLASS,
    SUBSCRIBER_KEY,
    UP_MBIT,
    WAN_ADDRESS,
    AttributeValueError,
    pull_concentrators,
    pull_filters,
    pull_key,
    pull_quotas,
    pull_service_classes,
    pull_terms,
)
from cpe_mcp.aaa.carriers import Carrier, Server, UdpCarrier, Unreachable
from cpe_mcp.aaa.dictionary import dictionary_text
from cpe_mcp.aaa.troubles import Trouble, asked, read, say
from cpe_mcp.paths.snapshot import WanView

__all__ = ["RadiusAnswer", "RadiusClient", "RadiusError"]

log = logging.getLogger(__name__)

MAX_PASSWORD_OCTETS = 128
"""RFC 2865 section 5.2."""
MAX_TEXT_OCTETS = 253
"""Longest value of any attribute (RFC 2865 section 5)."""
MAX_VENDOR_OCTETS = 247
"""Of what one vendor-specific attribute can hold (RFC 2865 section 5.26)."""
MAX_REASON_CHARS = 200
"""Of a Reply-Message: it goes to a log line and a status page."""
SILENT_S = 60.0
"""How long a server that gave no answer is asked after the others, so that only one question in a while pays for it."""

_USER_NAME, _FILTER_ID, _REPLY_MESSAGE, _CLASS, _SESSION_TIMEOUT = 1, 11, 18, 25, 27
_CHAP_PASSWORD, _CHAP_CHALLENGE, _INTERIM_INTERVAL = 3, 60, 85
_CHALLENGE_OCTETS = 16


class RadiusError(ValueError):
    """These settings make no RADIUS request; names the option."""


class RadiusClient:
    """Asks ``servers``, (address, port) each, in order. Raises RadiusError when the settings cannot work.

    ``counters`` holds how many requests and retransmissions were sent and answers taken, and how many datagrams were
    ignored as ``wrong-source``, ``malformed``, ``unexpected`` (another question's), ``unsigned`` (no
    Message-Authenticator) and ``forged`` (an authenticator is wrong: a forgery, or another secret). ``carrier``: UDP
    unless given. ``dhcp_codes``: the DHCPv4 and DHCPv6 option codes that hold concentrators in the attributes of RFC 9445;
    without them those attributes say nothing.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        secret: bytes,
        *,
        timeout_s: float,
        tries: int,
        enterprise: int,
        nas_identifier: str,
        carrier: Carrier | None = None,
        chap: bool = False,
        dhcp_codes: tuple[int, int] | None = None,
    ) -> None:
        if not servers:
            raise RadiusError("radius.server is empty: name at least one server, ADDRESS or ADDRESS:PORT")
        if not secret:
            raise RadiusError("radius.secret is empty: without it anybody could answer for the server")
        if not nas_identifier:
            raise RadiusError("radius.nas_identifier is empty: RFC 2865 wants one")
        try:
            self._servers = [Server(address, port) for address, port in servers]
        except ValueError as error:
            raise RadiusError(f"radius.server {error}") from None
        self._secret = secret
        self._carrier: Carrier = carrier or UdpCarrier(timeout_s=timeout_s, tries=tries)
        self._chap = chap
        self._dhcp_codes = dhcp_codes
        self._enterprise = enterprise
        self._nas_identifier = nas_identifier
        self._dictionary = Dictionary(io.StringIO(dictionary_text(enterprise)))
        self.counters: Counter[str] = Counter()

    @property
    def asks_here(self) -> bool:
        """Whether a server is on this machine: then no WAN is needed."""
        return any(server.is_here for server in self._servers)

    async def authenticate(
        self,
        *,
        username: str,
        password: str,
        calling_station: str = "",
        wans: Sequence[WanView] = (),
        ways: Sequence[WanView] | None = None,
    ) -> RadiusAnswer:
        """Ask whether this router's subscriber may use concentrators; ``wans`` are told to the server, as a hint.

        The question goes out of ``ways`` and nothing else, best first; None: as the routes say. Raises RadiusError when
        user name or password does not fit a request.
        """
        if not username:
            raise RadiusError("radius.username is empty")
        addresses = [address for wan in wans for address in (wan.address4, wan.address6) if address]
        told = [f"{wan.name} {address}" for wan in wans for address in (wan.address4, wan.address6) if address]
        return await self._ask(username, password, "Framed-User", calling_station, addresses, told, ways)

    async def authorize_address(self, address: str, *, password: str) -> RadiusAnswer:
        """Ask whether connections from this source address may use this concentrator (draft-nam section 5.3).

        The address is the User-Name too. Service-Type is Call-Check and not Authorize-Only, which needs the State of
        an earlier session (RFC 5176 section 3.2). Raises RadiusError, ValueError for what is no address.
        """
        text = str(ip_address(address))
        return await self._ask(text, password, "Call-Check", "", (text,), (), None)

    async def _ask(
        self,
        username: str,
        password: str,
        service: str,
        calling_station: str,
        addresses: Sequence[str],
        told: Sequence[str],
        ways: Sequence[WanView] | None,
    ) -> RadiusAnswer:
        for option, text, limit in (
            ("username", username, MAX_TEXT_OCTETS),
            ("password", password, MAX_PASSWORD_OCTETS),
            ("nas_identifier", self._nas_identifier, MAX_TEXT_OCTETS),
        ):
            if len(text.encode()) > limit:
                raise RadiusError(f"radius.{option} has {len(text.encode())} octets, RADIUS takes at most {limit}")
        now = asyncio.get_running_loop().time()
        troubles: list[Trouble] = []
        for server in sorted(self._servers, key=lambda server: server.silent_until > now):
            able = _ways_to(server, ways)
            if not able:
                troubles.append(say("server-no-family", server.name))
                continue
            for way in able:
                # A request of its own for each try: Identifier and Authenticator are never used twice.
                request = self._request(username, password, service, calling_station, addresses, told)
                reply, trouble = await self._try(server, way, request)
                if reply is not None:
                    server.silent_until = 0.0
                    return self._pull_answer(request, reply, server)
                troubles.append(trouble)
            server.silent_until = asyncio.get_running_loop().time() + SILENT_S
        return RadiusAnswer(TIMEOUT, read(troubles), troubles=tuple(troubles))

    async def _try(self, server: Server, way: WanView | None, request: Any) -> tuple[Any | None, Trouble]:
        """The valid reply of this server over this WAN, or None and what to say about it."""
        name = asked(server.name, way.name if way is not None else "")
        ignored_before = self.counters.copy()
        try:
            reply = await self._carrier.exchange(
                server,
                request.RequestPacket(),
                lambda data, is_source: self._checked(request, data, from_server=is_source),
                way=way,
                counters=self.counters,
            )
        except Unreachable as error:
            return None, say("server-unreachable", name, str(error))
        return reply, say(_silence(self.counters - ignored_before), name)

    def _request(
        self,
        username: str,
        password: str,
        service: str,
        calling_station: str = "",
        addresses: Sequence[str] = (),
        told: Sequence[str] = (),
    ) -> Any:
        packet = AuthPacket(
            id=secrets.randbelow(256), secret=self._secret, authenticator=os.urandom(16), dict=self._dictionary
        )
        packet.add_message_authenticator()  # before all others: it is sent first
        packet["User-Name"] = username
        if self._chap:
            challenge, identifier = os.urandom(_CHALLENGE_OCTETS), os.urandom(1)
            digest = hashlib.md5(identifier + password.encode() + challenge).digest()  # RFC 1994 section 4.1
            packet[_CHAP_PASSWORD], packet[_CHAP_CHALLENGE] = [identifier + digest], [challenge]
        else:
            packet["User-Password"] = packet.PwCrypt(password)
        packet["Service-Type"] = service
        packet["NAS-Identifier"] = self._nas_identifier
        packet["NAS-Port-Type"] = "Virtual"
        if calling_station:
            packet["Calling-Station-Id"] = calling_station
        for address in reversed(addresses):  # the first of each family stays: RFC 2865 allows one
            packet["Framed-IPv6-Address" if ":" in address else "Framed-IP-Address"] = address
        if told:
            packet[(self._enterprise, WAN_ADDRESS)] = [text.encode()[:MAX_VENDOR_OCTETS] for text in told]
        return packet

    def _checked(self, request: Any, data: bytes, *, from_server: bool) -> Any | None:
        """The reply in a datagram if it answers ``request`` and proves that its sender knows the secret."""
        if not from_server:
            self.counters["wrong-source"] += 1
            return None
        try:
            reply = Packet(packet=data, dict=self._dictionary)
        except PacketError:
            self.counters["malformed"] += 1
            return None
        if reply.id != request.id or reply.code not in (AccessAccept, AccessReject, AccessChallenge):
            kind = "unexpected"
        elif self._carrier.needs_signature and not reply.message_authenticator:
            kind = "unsigned"
        elif not request.VerifyReply(reply, data, enforce_ma=self._carrier.needs_signature):
            kind = "forged"
        else:
            self.counters["answers"] += 1
            return reply
        self.counters[kind] += 1
        return None

    def _pull_answer(self, request: Any, reply: Any, server: Server) -> RadiusAnswer:
        message = _text(b" ".join(reply.get(_REPLY_MESSAGE, [])))
        if reply.code == AccessChallenge:
            return RadiusAnswer(REJECT, f"the server wants a challenge answered: {message}", server=server.name)
        if reply.code == AccessReject:
            return RadiusAnswer(REJECT, message or "Access-Reject", server=server.name)
        concentrators, errors = pull_concentrators(
            reply.get((self._enterprise, CONCENTRATOR), []),
            reply.get((self._enterprise, CONCENTRATOR_IPV4), []),
            reply.get((self._enterprise, CONCENTRATOR_IPV6), []),
        )
        if self._dhcp_codes is not None:
            # Not at the top: a package for a concentrator has no DHCP options.
            from cpe_mcp.aaa.dhcp_attributes import LONG_EXTENDED_5, pull_dhcp_concentrators

            code4, code6 = self._dhcp_codes
            more, wrong = pull_dhcp_concentrators(reply.get(LONG_EXTENDED_5, []), code4=code4, code6=code6)
            concentrators = list(dict.fromkeys([*concentrators, *more]))
            errors += wrong
        timeout_s = None
        for value in reply.get(_SESSION_TIMEOUT, []):
            if len(value) == 4:
                timeout_s = float(int.from_bytes(value, "big"))
            else:
                errors.append(f"Session-Timeout: {len(value)} octets, not 4")
        interim_s = float(int.from_bytes(b"".join(reply.get(_INTERIM_INTERVAL, [])[-1:])[:4], "big"))
        terms, wrong = pull_terms(
            reply.get((self._enterprise, DOWN_MBIT), []),
            reply.get((self._enterprise, UP_MBIT), []),
            reply.get((self._enterprise, SCHEME), []),
            reply.get((self._enterprise, CONNECTIONS), []),
        )
        errors += wrong
        classes, wrong = pull_service_classes(reply.get((self._enterprise, SERVICE_CLASS), []))
        errors += wrong
        filters, wrong = pull_filters(reply.get(_FILTER_ID, []))
        errors += wrong
        quotas, wrong = pull_quotas(reply.get((self._enterprise, QUOTA), []))
        errors += wrong
        key, wrong = self._pull_key(request, reply)
        errors += wrong
        for error in errors:
            log.warning("RADIUS server %s: left out of its Accept: %s", server.name, error)
        user = _text(b"".join(reply.get(_USER_NAME, [])[:1]))
        return RadiusAnswer(
            ACCEPT,
            message,
            tuple(concentrators),
            timeout_s,
            server.name,
            user,
            terms.down_mbit,
            terms.up_mbit,
            terms.scheme,
            tuple(classes),
            subscriber_key=key,
            handle=b"".join(reply.get((self._enterprise, HANDLE), [])[-1:]),
            quotas=tuple(quotas),
            classes=tuple(reply.get(_CLASS, [])),
            connections=terms.connections,
            filters=tuple(filters),
            interim_s=interim_s,
        )

    def _pull_key(self, request: Any, reply: Any) -> tuple[SecretOctets | None, list[str]]:
        """The subscriber key of an Accept, the last one counts; the salt encryption takes the request's authenticator."""
        key, errors = None, []
        for value in reply.get((self._enterprise, SUBSCRIBER_KEY), []):
            try:
                key = SecretOctets(pull_key(request.SaltDecrypt(value)))
            except PacketError:
                errors.append(f"CPE-MCP-Subscriber-Key: {len(value)} octets are no salt-encrypted value")
            except AttributeValueError as error:
                errors.append(str(error))
        return key, errors


def _ways_to(server: Server, ways: Sequence[WanView] | None) -> list[WanView | None]:
    """The WANs over which this server can be asked; [None]: as the routes say."""
    if ways is None or server.is_here:
        return [None]
    return [way for way in ways if server.source_on(way)]


def _silence(ignored: Counter[str]) -> str:
    """What to say about a server that gave no valid answer: a code of :mod:`.troubles`."""
    if ignored["unsigned"]:
        return "server-unsigned"
    if ignored["forged"]:
        return "server-forged"
    if ignored["wrong-source"]:
        return "server-elsewhere"
    return "server-no-secret"


def _text(value: bytes) -> str:
    text = value.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_REASON_CHARS]
