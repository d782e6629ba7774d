"""A small ubus broker for tests where there is no ubusd: objects, calls, answers and events, on the real wire format.

It has none of ubusd's access lists and monitors. Where it and ubusd differ, ubusd is right.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import NamedTuple

from cpe_mcp.bus.blob import BlobError, pull_table, push_table
from cpe_mcp.bus.wire import (
    EVENT_OBJECT,
    HEADER_BYTES,
    Attr,
    Attrs,
    Header,
    MessageType,
    Status,
    pull_attributes,
    pull_header,
    pull_number,
    pull_string,
    push_message,
    push_number,
    push_string,
)


class Client:
    """One connection."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.writer = writer

    def send(self, kind: MessageType, seq: int, peer: int, *attrs: tuple[Attr, bytes]) -> None:
        """Send a message."""
        self.writer.write(push_message(kind, seq, peer, attrs))


class Published(NamedTuple):
    """An object; ``path`` is "" for one that only listens."""

    client: Client
    path: str
    signature: bytes


class Broker:
    """Serves at ``path`` from :meth:`start` to :meth:`stop`; started again, it knows nothing of before."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.clients: dict[int, Client] = {}
        self.objects: dict[int, Published] = {}
        self._patterns: list[tuple[str, int]] = []
        self._subscriptions: list[tuple[int, int]] = []
        """Target and subscriber."""
        self._numbers = itertools.count(0x90000000)
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Die as ubusd does: every connection ends."""
        assert self._server is not None
        self._server.close()
        for client in list(self.clients.values()):
            client.writer.close()
        self.clients.clear()
        self.objects.clear()
        self._patterns.clear()
        self._subscriptions.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(next(self._numbers), writer)
        self.clients[client.number] = client
        client.send(MessageType.HELLO, 0, client.number)
        try:
            while True:
                header = pull_header(await reader.readexactly(HEADER_BYTES))
                self._handle(client, header, pull_attributes(await reader.readexactly(header.body_bytes)))
        except (asyncio.IncompleteReadError, ConnectionError, BlobError):
            pass
        finally:
            self.clients.pop(client.number, None)
            self.objects = {number: row for number, row in self.objects.items() if row.client is not client}
            self._patterns = [(pattern, number) for pattern, number in self._patterns if number in self.objects]
            writer.close()

    def _handle(self, client: Client, header: Header, attrs: Attrs) -> None:
        if header.kind in {MessageType.DATA, MessageType.STATUS}:
            self._answer(client, header, attrs)
            return
        handlers = {
            MessageType.ADD_OBJECT: self._add,
            MessageType.LOOKUP: self._lookup,
            MessageType.INVOKE: self._invoke,
            MessageType.SUBSCRIBE: self._subscribe,
            MessageType.NOTIFY: self._notify,
        }
        handler = next((handler for kind, handler in handlers.items() if kind == header.kind), None)
        status = Status.INVALID_COMMAND if handler is None else handler(client, header, attrs)
        if status is not None:
            client.send(MessageType.STATUS, header.seq, header.peer, (Attr.STATUS, push_number(status)))

    def _add(self, client: Client, header: Header, attrs: Attrs) -> Status | None:
        path = pull_string(attrs, Attr.OBJPATH) or ""
        if path and any(row.path == path for row in self.objects.values()):
            return Status.INVALID_ARGUMENT
        number = next(self._numbers)
        self.objects[number] = Published(client, path, bytes(attrs.get(Attr.SIGNATURE, b"")))
        client.send(MessageType.DATA, header.seq, header.peer, (Attr.OBJID, push_number(number)))
        if path:
            self._tell(client, "ubus.object.add", push_table({"id": number % 2**31, "path": path}))
        return Status.OK

    def _subscribe(self, client: Client, header: Header, attrs: Attrs) -> Status | None:
        number, target = pull_number(attrs, Attr.OBJID), pull_number(attrs, Attr.TARGET)
        if number is None or target is None or target not in self.objects:
            return Status.NOT_FOUND
        self._subscriptions.append((target, number))
        return Status.OK

    def _notify(self, client: Client, header: Header, attrs: Attrs) -> Status | None:
        source, method = pull_number(attrs, Attr.OBJID), pull_string(attrs, Attr.METHOD) or ""
        for target, number in self._subscriptions:
            if target == source and number in self.objects:
                payloads = [(Attr.OBJID, push_number(number)), (Attr.METHOD, push_string(method))]
                payloads += [(Attr.DATA, bytes(attrs.get(Attr.DATA, b"")))]
                payloads += [(Attr.NO_REPLY, b"\1")] if Attr.NO_REPLY in attrs else []
                self.objects[number].client.send(MessageType.INVOKE, header.seq, client.number, *payloads)
        return Status.OK

    def _lookup(self, client: Client, header: Header, attrs: Attrs) -> Status | None:
        path = pull_string(attrs, Attr.OBJPATH)
        found = [(number, row) for number, row in self.objects.items() if row.path and path in {None, row.path}]
        for number, row in found:
            client.send(
                MessageType.DATA,
                header.seq,
                header.peer,
                (Attr.OBJPATH, push_string(row.path)),
                (Attr.OBJID, push_number(number)),
                (Attr.OBJTYPE, push_number(number)),
                (Attr.SIGNATURE, row.signature),
            )
        return Status.OK if found or path is None else Status.NOT_FOUND

    def _invoke(self, client: Client, header: Header, attrs: Attrs) -> Status | None:
        number, method = pull_number(attrs, Attr.OBJID), pull_string(attrs, Attr.METHOD)
        if number is None or method is None:
            return Status.INVALID_ARGUMENT
        data = bytes(attrs.get(Attr.DATA, b""))
        if number == EVENT_OBJECT:
            return self._event(client, method, data)
        row = self.objects.get(number)
        if row is None:
            return Status.NOT_FOUND
        row.client.send(
            MessageType.INVOKE,
            header.seq,
            client.number,
            (Attr.OBJID, push_number(number)),
            (Attr.METHOD, push_string(method)),
            (Attr.USER, push_string("root")),
            (Attr.GROUP, push_string("root")),
            (Attr.DATA, data),
        )
        return None  # the object's client answers

    def _event(self, client: Client, method: str, data: bytes) -> Status:
        args = pull_table(data)
        if method == "register":
            number = int(args["object"])
            if not -(2**31) <= number < 2**31:
                return Status.INVALID_ARGUMENT
            self._patterns.append((str(args["pattern"]), number % 2**32))
            return Status.OK
        if method != "send":
            return Status.INVALID_COMMAND
        self._tell(client, str(args["id"]), push_table(args["data"]))
        return Status.OK

    def _tell(self, client: Client, name: str, data: bytes) -> None:
        for pattern, number in self._patterns:
            matches = name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
            listener = self.objects[number].client
            if matches and listener is not client:
                listener.send(
                    MessageType.INVOKE,
                    0,
                    0,
                    (Attr.OBJID, push_number(number)),
                    (Attr.METHOD, push_string(name)),
                    (Attr.DATA, data),
                )

    def _answer(self, client: Client, header: Header, attrs: Attrs) -> None:
        number = pull_number(attrs, Attr.OBJID)
        row = self.objects.get(number) if number is not None else None
        caller = self.clients.get(header.peer)
        if number is None or row is None or row.client is not client or caller is None:
            return
        kind = MessageType(header.kind)
        payloads = [(Attr(key), bytes(value)) for key, value in attrs.items()]
        caller.send(kind, header.seq, number, *payloads)
