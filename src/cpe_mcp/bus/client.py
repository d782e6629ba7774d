"""Our own ubus client: asyncio on ubusd's Unix socket. It needs no library, and it accepts calls without arguments, with
unknown ones and with the session that LuCI's web server adds.

Order of things (libubus): ubusd greets with HELLO; a request's answer is any number of DATA and one STATUS, with the
sequence number and peer of the request; a call arrives as INVOKE, and is answered likewise with the caller's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cpe_mcp.bus.blob import BlobError, pull_table, push_table
from cpe_mcp.bus.interface import CALL_TIMEOUT_S, DEFAULT_SOCKET, BusError, EventHandler, ObjectMethod
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

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 2.0
"""ubusd greets at once; what does not is something else, or hangs."""
SEQ_MAX = 0xFFFF


class Request:
    """One that waits for its answer."""

    def __init__(self) -> None:
        self.data: list[Attrs] = []
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class OwnBus:
    """See :class:`.interface.Bus`; made by :func:`connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._requests: dict[tuple[int, int], Request] = {}
        """By sequence number and peer."""
        self._objects: dict[int, Mapping[str, ObjectMethod]] = {}
        self._listeners: dict[int, EventHandler] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._seq = 0
        self._lost = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait for the greeting. Raises OSError when there is none."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                header, _ = await self._receive()
        except (TimeoutError, asyncio.IncompleteReadError, BlobError) as error:
            raise ConnectionError(f"no greeting: {str(error) or 'silence'}") from None
        if header.kind != MessageType.HELLO:
            raise ConnectionError(f"a message of type {header.kind} instead of a greeting")
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def add(self, name: str, methods: Mapping[str, ObjectMethod]) -> None:
        """Publish an object. Raises BusError."""
        signature = push_table({method: dict(row.signature) for method, row in methods.items()})
        number = await self._add_object(
            [(Attr.OBJPATH, push_string(name)), (Attr.SIGNATURE, signature)], f"publishing {name}"
        )
        self._objects[number] = methods

    async def call(
        self, name: str, method: str, args: Mapping[str, Any], *, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """Another object's reply. Raises BusError."""
        what = f"{name} {method}"
        number = await self._look_up(name, what, timeout_s)
        replies = await self._invoke(number, method, args, what, timeout_s)
        try:
            return pull_table(replies[0][Attr.DATA]) if replies and Attr.DATA in replies[0] else {}
        except BlobError as error:
            raise BusError(Status.PARSE_ERROR, f"{what}: {error}") from None

    async def send(self, event: str, data: Mapping[str, Any]) -> None:
        """Send an event. Raises BusError."""
        await self._invoke(EVENT_OBJECT, "send", {"id": event, "data": dict(data)}, f"event {event}", CALL_TIMEOUT_S)

    async def listen(self, pattern: str, handler: EventHandler) -> None:
        """Hear events. Raises BusError."""
        what = f"listening to {pattern}"
        number = await self._add_object([], what)
        self._listeners[number] = handler
        args = {"object": as_int32(number), "pattern": pattern}
        await self._invoke(EVENT_OBJECT, "register", args, what, CALL_TIMEOUT_S)

    async def subscribe(self, name: str, handler: EventHandler) -> None:
        """Hear what another object tells its subscribers. Raises BusError."""
        what = f"subscribing to {name}"
        target = await self._look_up(name, what, CALL_TIMEOUT_S)
        number = await self._add_object([], what)
        self._listeners[number] = handler
        attrs = [(Attr.OBJID, push_number(number)), (Attr.TARGET, push_number(target))]
        await self._request(MessageType.SUBSCRIBE, 0, attrs, what, CALL_TIMEOUT_S)

    async def wait_lost(self) -> None:
        """Returns when ubusd is gone."""
        await self._lost.wait()

    async def close(self) -> None:
        """Leave the bus."""
        tasks = [task for task in (self._reading, *self._answering) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lose()
        self._writer.close()

    # Asking -----------------------------------------------------------------------------------------------------------

    async def _look_up(self, name: str, what: str, timeout_s: float) -> int:
        """The number of an object. Raises BusError."""
        found = await self._request(MessageType.LOOKUP, 0, [(Attr.OBJPATH, push_string(name))], what, timeout_s)
        number = next((pull_number(attrs, Attr.OBJID) for attrs in found), None)
        if number is None:  # it is there, and we may see none of its methods
            raise BusError(Status.NOT_FOUND, what)
        return number

    async def _add_object(self, attrs: Sequence[tuple[Attr, bytes]], what: str) -> int:
        answer = await self._request(MessageType.ADD_OBJECT, 0, attrs, what, CALL_TIMEOUT_S)
        number = next((pull_number(row, Attr.OBJID) for row in answer), None)
        if number is None:
            raise BusError(Status.NO_DATA, what)
        return number

    async def _invoke(
        self, number: int, method: str, args: Mapping[str, Any], what: str, timeout_s: float
    ) -> list[Attrs]:
        attrs = [
            (Attr.OBJID, push_number(number)),
            (Attr.METHOD, push_string(method)),
            (Attr.DATA, push_table(args)),
        ]
        return await self._request(MessageType.INVOKE, number, attrs, what, timeout_s)

    async def _request(
        self, kind: MessageType, peer: int, attrs: Sequence[tuple[Attr, bytes]], what: str, timeout_s: float
    ) -> list[Attrs]:
        """The DATA messages of the answer. Raises BusError."""
        if self._lost.is_set():
            raise BusError(Status.CONNECTION_FAILED, what)
        self._seq = self._seq % SEQ_MAX + 1
        key = (self._seq, peer)
        request = self._requests[key] = Request()
        try:
            async with asyncio.timeout(timeout_s):
                await self._write(push_message(kind, self._seq, peer, attrs))
                status = await request.status
        except TimeoutError:
            raise BusError(Status.TIMEOUT, what) from None
        except BlobError as error:
            raise BusError(Status.INVALID_ARGUMENT, f"{what}: {error}") from None
        finally:
            del self._requests[key]
        if status != Status.OK:
            raise BusError(status, what)
        return request.data

    async def _write(self, message: bytes) -> None:
        self._writer.write(message)
        try:
            await self._writer.drain()
        except ConnectionError:
            self._lose()

    # Hearing ----------------------------------------------------------------------------------------------------------

    async def _receive(self) -> tuple[Header, bytes]:
        header = pull_header(await self._reader.readexactly(HEADER_BYTES))
        return header, await self._reader.readexactly(header.body_bytes)

    async def _read(self) -> None:
        try:
            while True:
                header, body = await self._receive()
                try:
                    self._heard(header, pull_attributes(body))
                except BlobError as error:  # ubusd hands on other clients' answers as they are
                    log.warning("ubus: a message of type %d is passed over: %s", header.kind, error)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except BlobError as error:
            log.warning("ubus: %s; connecting again", error)
        finally:
            self._lose()

    def _heard(self, header: Header, attrs: Attrs) -> None:
        """Raises BlobError."""
        if header.kind in {MessageType.DATA, MessageType.STATUS}:
            request = self._requests.get((header.seq, header.peer))
            if request is None:
                return  # its caller has given up
            if header.kind == MessageType.DATA:
                request.data.append(attrs)
            elif not request.status.done():
                status = pull_number(attrs, Attr.STATUS)
                request.status.set_result(Status.INVALID_ARGUMENT if status is None else status)
        elif header.kind == MessageType.INVOKE:
            number = pull_number(attrs, Attr.OBJID)
            if number is None:
                return
            if number in self._listeners:
                self._event(self._listeners[number], attrs)
                if header.peer and Attr.NO_REPLY not in attrs:  # from an object that waits until all subscribers know
                    ended = [(Attr.STATUS, push_number(Status.OK)), (Attr.OBJID, push_number(number))]
                    self._writer.write(push_message(MessageType.STATUS, header.seq, header.peer, ended))
                return
            task = asyncio.get_running_loop().create_task(self._answer(header, number, attrs))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        # The rest is about subscriptions: we offer none, and a target that went away is told as an event of ubusd, too.

    def _event(self, handler: EventHandler, attrs: Attrs) -> None:
        name = pull_string(attrs, Attr.METHOD) or ""
        try:
            handler(name, pull_table(attrs.get(Attr.DATA, memoryview(b""))))
        except BlobError as error:
            log.warning("ubus event %s: %s", name, error)
        except Exception:
            log.exception("handler of ubus event %s failed", name)

    async def _answer(self, header: Header, number: int, attrs: Attrs) -> None:
        """Run a method of ours, and send DATA and STATUS."""
        ours = (Attr.OBJID, push_number(number))
        status, reply = await self._run(number, attrs)
        messages = []
        if reply is not None:
            try:
                data = [ours, (Attr.DATA, push_table(reply))]
                messages.append(push_message(MessageType.DATA, header.seq, header.peer, data))
            except BlobError as error:
                log.error("ubus: no reply to a call: %s", error)
                status = Status.NO_MEMORY
        if Attr.NO_REPLY not in attrs:
            ended = [(Attr.STATUS, push_number(status)), ours]
            messages.append(push_message(MessageType.STATUS, header.seq, header.peer, ended))
            await self._write(b"".join(messages))

    async def _run(self, number: int, attrs: Attrs) -> tuple[Status, Mapping[str, Any] | None]:
        methods = self._objects.get(number)
        if methods is None:
            return Status.NOT_FOUND, None
        try:
            method = methods.get(pull_string(attrs, Attr.METHOD) or "")
            args = pull_table(attrs.get(Attr.DATA, memoryview(b"")))
        except BlobError:
            return Status.INVALID_ARGUMENT, None
        if method is None:
            return Status.METHOD_NOT_FOUND, None
        try:
            return Status.OK, await method.handler(args)
        except Exception:
            log.exception("a method on ubus failed")
            return Status.UNKNOWN_ERROR, None

    def _lose(self) -> None:
        """Nobody will be answered any more."""
        self._lost.set()
        for request in self._requests.values():
            if not request.status.done():
                request.status.set_result(Status.CONNECTION_FAILED)


async def connect(socket_path: str = DEFAULT_SOCKET) -> OwnBus:
    """A connection to ubusd. Raises OSError when nobody listens there."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    bus = OwnBus(reader, writer)
    try:
        await bus.start()
    except BaseException:
        writer.close()
        raise
    return bus


def as_int32(number: int) -> int:
    """A 32-bit number as blobmsg's type INT32 has it; ubusd takes object numbers as no other type."""
    return number - 2**32 if number >= 2**31 else number
