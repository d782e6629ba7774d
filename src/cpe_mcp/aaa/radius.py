"""RADIUS client: one question over UDP to the first of several servers that answers, on the running asyncio loop.

Packets are pyrad's; the transport is ours because of what has to hold here (CVE-2024-3596 and RFC 5080): a socket and so
a random source port for each request, Message-Authenticator first in every request and required in every answer, and
whatever does not belong to the question ignored and counted by its kind. What follows from a verdict, and when to ask
again, must not be in here (:mod:`.session`).
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import secrets
import socket
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
    SCHEME,
    SERVICE_CLASS,
    SUBSCRIBER_KEY,
    UP_MBIT,
    AttributeValueError,
    pull_concentrators,
    pull_filters,
    pull_key,
    pull_service_classes,
    pull_terms,
)
from cpe_mcp.aaa.dictionary import dictionary_text

__all__ = ["RadiusAnswer", "RadiusClient", "RadiusError"]

log = logging.getLogger(__name__)

MAX_PACKET_BYTES = 4096
"""RFC 2865 section 3."""
MAX_PASSWORD_OCTETS = 128
"""RFC 2865 section 5.2."""
MAX_TEXT_OCTETS = 253
"""Longest value of any attribute (RFC 2865 section 5)."""
MAX_REASON_CHARS = 200
"""Of a Reply-Message: it goes to a log line and a status page."""
SILENT_S = 60.0
"""How long a server that gave no answer is asked after the others, so that only one question in a while pays for it."""

_USER_NAME, _FILTER_ID, _REPLY_MESSAGE, _CLASS, _SESSION_TIMEOUT = 1, 11, 18, 25, 27
_IP_RECVERR, _IPV6_RECVERR = 11, 25
"""linux/in.h, linux/in6.h; Python's socket module has no names for them before 3.14."""


class RadiusError(ValueError):
    """These settings make no RADIUS request; names the option."""


class _Unreachable(Exception):
    """The network says that this server is not there."""


class RadiusClient:
    """Asks ``servers``, (address, port) each, in order. Raises RadiusError when the settings cannot work.

    ``counters`` holds how many requests and retransmissions were sent and answers taken, and how many datagrams were
    ignored as ``wrong-source``, ``malformed``, ``unexpected`` (another question's), ``unsigned`` (no
    Message-Authenticator) and ``forged`` (an authenticator is wrong: a forgery, or another secret).
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
    ) -> None:
        if not servers:
            raise RadiusError("radius.server is empty: name at least one server, ADDRESS or ADDRESS:PORT")
        if not secret:
            raise RadiusError("radius.secret is empty: without it anybody could answer for the server")
        if not nas_identifier:
            raise RadiusError("radius.nas_identifier is empty: RFC 2865 wants one")
        self._servers = [_Server(address, port) for address, port in servers]
        self._secret = secret
        self._timeout_s = timeout_s
        self._tries = tries
        self._enterprise = enterprise
        self._nas_identifier = nas_identifier
        self._dictionary = Dictionary(io.StringIO(dictionary_text(enterprise)))
        self.counters: Counter[str] = Counter()

    async def authenticate(
        self, *, username: str, password: str, calling_station: str = "", addresses: Sequence[str] = ()
    ) -> RadiusAnswer:
        """Ask whether this router's subscriber may use concentrators; ``addresses`` are its WANs', as a hint.

        Raises RadiusError when user name or password does not fit a request.
        """
        if not username:
            raise RadiusError("radius.username is empty")
        return await self._ask(username, password, "Framed-User", calling_station, addresses)

    async def authorize_address(self, address: str, *, password: str) -> RadiusAnswer:
        """Ask whether connections from this source address may use this concentrator (draft-nam section 5.3).

        The address is the User-Name too. Service-Type is Call-Check and not Authorize-Only, which needs the State of
        an earlier session (RFC 5176 section 3.2). Raises RadiusError, ValueError for what is no address.
        """
        text = str(ip_address(address))
        return await self._ask(text, password, "Call-Check", "", (text,))

    async def _ask(
        self, username: str, password: str, service: str, calling_station: str, addresses: Sequence[str]
    ) -> RadiusAnswer:
        for option, text, limit in (
            ("username", username, MAX_TEXT_OCTETS),
            ("password", password, MAX_PASSWORD_OCTETS),
            ("nas_identifier", self._nas_identifier, MAX_TEXT_OCTETS),
        ):
            if len(text.encode()) > limit:
                raise RadiusError(f"radius.{option} has {len(text.encode())} octets, RADIUS takes at most {limit}")
        now = asyncio.get_running_loop().time()
        failures = []
        for server in sorted(self._servers, key=lambda server: server.silent_until > now):
            # A request of its own for each server: Identifier and Authenticator are never used twice.
            request = self._request(username, password, service, calling_station, addresses)
            ignored_before = self.counters.copy()
            try:
                reply = await self._exchange(server, request)
            except _Unreachable as error:
                failures.append(f"{server.name} is unreachable ({error})")
            else:
                if reply is not None:
                    server.silent_until = 0.0
                    return self._pull_answer(request, reply, server)
                failures.append(f"{server.name} {_silence(self.counters - ignored_before)}")
            server.silent_until = asyncio.get_running_loop().time() + SILENT_S
        return RadiusAnswer(TIMEOUT, "; ".join(failures))

    def _request(
        self, username: str, password: str, service: str, calling_station: str, addresses: Sequence[str]
    ) -> Any:
        packet = AuthPacket(
            id=secrets.randbelow(256), secret=self._secret, authenticator=os.urandom(16), dict=self._dictionary
        )
        packet.add_message_authenticator()  # before all others: it is sent first
        packet["User-Name"] = username
        packet["User-Password"] = packet.PwCrypt(password)
        packet["Service-Type"] = service
        packet["NAS-Identifier"] = self._nas_identifier
        packet["NAS-Port-Type"] = "Virtual"
        if calling_station:
            packet["Calling-Station-Id"] = calling_station
        for address in reversed(addresses):  # the first of each family stays: RFC 2865 allows one
            packet["Framed-IPv6-Address" if ":" in address else "Framed-IP-Address"] = address
        return packet

    async def _exchange(self, server: _Server, request: Any) -> Any | None:
        """The valid reply to ``request``; None when none came. Raises _Unreachable."""
        loop = asyncio.get_running_loop()
        raw = request.RequestPacket()
        with server.open_socket() as sock:
            for number in range(self._tries):
                self.counters["retransmissions" if number else "requests"] += 1
                try:
                    await loop.sock_sendto(sock, raw, server.sockaddr)
                    async with asyncio.timeout(self._timeout_s):
                        while True:
                            data, source = await loop.sock_recvfrom(sock, MAX_PACKET_BYTES)
                            reply = self._checked(request, data, from_server=server.is_source(source))
                            if reply is not None:
                                return reply
                except TimeoutError:
                    continue
                except OSError as error:
                    raise _Unreachable(error.strerror) from None
        return None

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
        elif not reply.message_authenticator:
            kind = "unsigned"
        elif not request.VerifyReply(reply, data, enforce_ma=True):
            kind = "forged"
        else:
            self.counters["answers"] += 1
            return reply
        self.counters[kind] += 1
        return None

    def _pull_answer(self, request: Any, reply: Any, server: _Server) -> RadiusAnswer:
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
        timeout_s = None
        for value in reply.get(_SESSION_TIMEOUT, []):
            if len(value) == 4:
                timeout_s = float(int.from_bytes(value, "big"))
            else:
                errors.append(f"Session-Timeout: {len(value)} octets, not 4")
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
            classes=tuple(reply.get(_CLASS, [])),
            connections=terms.connections,
            filters=tuple(filters),
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


class _Server:
    """One server's address and how it behaved."""

    def __init__(self, address: str, port: int) -> None:
        flags = socket.AI_NUMERICHOST  # never a look-up: it would block the loop
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=flags)
        except OSError as error:
            raise RadiusError(f"radius.server {address!r} is no IP address ({error.strerror})") from None
        self._family = found[0][0]
        self.sockaddr: tuple[Any, ...] = found[0][4]
        self.name = f"[{address}]:{port}" if self._family == socket.AF_INET6 else f"{address}:{port}"
        self.silent_until = 0.0

    def is_source(self, source: tuple[Any, ...]) -> bool:
        return source[:2] == self.sockaddr[:2] and source[3:] == self.sockaddr[3:]

    def open_socket(self) -> socket.socket:
        """A fresh socket, not connected, so that an answer from another address is seen; it hears of ICMP errors."""
        sock = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if self._family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        return sock


def _silence(ignored: Counter[str]) -> str:
    """What to say about a server that gave no valid answer."""
    if ignored["unsigned"]:
        return "answers without Message-Authenticator: bring it up to date (CVE-2024-3596)"
    if ignored["forged"]:
        return "gave an answer that does not prove the secret: is radius.secret the same at both ends?"
    if ignored["wrong-source"]:
        return "answered from another address: make it answer from the one it was asked at"
    return "did not answer: is it running, does it know this client and the same secret?"


def _text(value: bytes) -> str:
    text = value.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_REASON_CHARS]
