"""The router's Ident responder (RFC 1413): tells its concentrators whose a connection to them is, and nobody else anything.

It answers for connections of the router's own to the concentrator that asks; nothing of the LAN is in an answer. Others are
kept out by the nftables table already (:mod:`cpe_mcp.kernel.nft`); who gets here all the same is reset unread.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from cpe_mcp.aaa.ident import (
    HIDDEN_USER,
    INVALID_PORT,
    NO_USER,
    PORT,
    QUESTION_MAX,
    IdentError,
    Ports,
    answer_error,
    answer_user,
    fits,
    pull_question,
)
from cpe_mcp.paths.observed import Subflow

log = logging.getLogger(__name__)

QUESTION_S = 5.0
"""For a question to come, and for the answer to leave."""
ASKERS_MAX = 16
"""Connections at once: a concentrator needs one, for a moment."""
BACKLOG = 16
STRANGER, BUSY, ANSWERED, MALFORMED = "stranger", "busy", "answered", "malformed"
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)

Place = tuple[str, str]
"""Local address, and its device."""


class Dump(Protocol):
    """What this module needs of :class:`cpe_mcp.kernel.subflows.SubflowDump`."""

    def read(self, remotes: Collection[tuple[str, int]]) -> list[Subflow]: ...


class IdentResponder:
    """``user_at(address)``: what the subscriber is called at the concentrator with this address, "" when that is not told, None
    when there is no such concentrator."""

    def __init__(self, *, user_at: Callable[[str], str | None], dump: Callable[[], Dump], port: int = PORT) -> None:
        self._user_at = user_at
        self._make_dump = dump
        self._dump: Dump | None = None
        self._port = port
        self._sockets: dict[Place, socket.socket] = {}
        self._askers: set[asyncio.Task[None]] = set()
        self._errors: list[str] = []
        self.counters: collections.Counter[str] = collections.Counter()

    def follow(self, places: Iterable[Place]) -> None:
        """Serve there and nowhere else."""
        wanted, errors = set(places), []
        for place in self._sockets.keys() - wanted:
            self._shut(place)
        for place in sorted(wanted - self._sockets.keys()):
            try:
                sock = self._sockets[place] = _listen(*place, self._port)
            except OSError as error:
                errors.append(f"ident at {place[0]} port {self._port} on {place[1]}: {error.strerror}")
                continue
            asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)
        for line in errors:
            if line not in self._errors:
                log.error("%s", line)
        self._errors = errors

    def close(self) -> None:
        """Serve nowhere."""
        self.follow(())
        for task in self._askers:
            task.cancel()

    def status(self) -> dict[str, Any]:
        """For people, ready for JSON."""
        return {"addresses": sorted({address for address, _ in self._sockets}), "counters": dict(self.counters)}

    def _shut(self, place: Place) -> None:
        sock = self._sockets.pop(place)
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError:  # gone again
            return
        sock.setblocking(False)
        user = self._user_at(peer[0])
        if user is None or len(self._askers) >= ASKERS_MAX:
            self.counters[STRANGER if user is None else BUSY] += 1
            _reset(sock)
            return
        task = asyncio.get_running_loop().create_task(self._serve(sock, peer[0], user))
        self._askers.add(task)
        task.add_done_callback(self._askers.discard)

    async def _serve(self, sock: socket.socket, peer: str, user: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(QUESTION_S):
                line = b""
                while not line.endswith(b"\n"):
                    more = await loop.sock_recv(sock, QUESTION_MAX - len(line))
                    line += more
                    if not more or len(line) >= QUESTION_MAX:
                        self.counters[MALFORMED] += 1
                        return
                await loop.sock_sendall(sock, self.answer(line, sock.getsockname()[0], peer, user))
        except (TimeoutError, OSError):
            self.counters[MALFORMED] += 1
        finally:
            sock.close()

    def answer(self, line: bytes, local: str, peer: str, user: str) -> bytes:
        """To one question from a concentrator, that came to our address ``local``."""
        try:
            ports = pull_question(line)
        except IdentError:
            self.counters[MALFORMED] += 1
            return answer_error(Ports(0, 0), INVALID_PORT)
        self.counters[ANSWERED] += 1
        if not self._is_ours(local, peer, ports):
            return answer_error(ports, NO_USER)
        return answer_user(ports, user) if fits(user) else answer_error(ports, HIDDEN_USER)

    def _is_ours(self, local: str, peer: str, ports: Ports) -> bool:
        """Whether there is this connection of ours to the concentrator."""
        if self._dump is None:
            self._dump = self._make_dump()
        try:
            rows = self._dump.read({(peer, ports.ours)})
        except OSError:
            return False
        return any((row.local, row.local_port) == (local, ports.theirs) for row in rows)


def _listen(address: str, device: str, port: int) -> socket.socket:
    sock = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    sock.close()
