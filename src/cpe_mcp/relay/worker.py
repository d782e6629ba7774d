"""What both kinds of relay worker share: the control channel, accepting, the records, the tick, start and stop."""

from __future__ import annotations

import errno
import getopt
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cpe_mcp.control.frames import CONTROL_SOCKET, COUNTERS, DROP, DROPPED, FLOWS, HELLO, LIST, RECORDS, push_frame
from cpe_mcp.control.worker_end import WorkerEnd
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay.congestion import CongestionKeeper
from cpe_mcp.relay.loop import Loop
from cpe_mcp.relay.pump import Pipes
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.relay.sockets import DESCRIPTORS_OUT, accept, reset_on_close

if TYPE_CHECKING:
    from cpe_mcp.relay.loop import Owner
    from cpe_mcp.relay.relaying import Flow
    from cpe_mcp.relay.sockets import Socket

RECORDS_PER_FRAME = 128
"""About 40 KiB of msgpack, well within a frame."""
FLOWS_PER_FRAME = 24
"""A live flow with nine subflows, more than the kernel makes, has about 5 KiB."""
FILTERED_MAX = 4096
"""Live flows that one question with a filter looks at, the newest ones: about 10 ms in which no flow is served."""
ACCEPT_BATCH = 64
"""Connections accepted in one go (measured: one at a time costs 16 us each, more than 16 gains nothing)."""
COUNTERS_S = 1.0
TRACE_S = 60.0
"""Between two tracebacks in the log: what went wrong once may go wrong with every connection."""
INTERNAL_ERRORS = "internal_errors"
"""Counter."""


class Worker:
    """Base of the two workers."""

    role = ""

    def __init__(self, run_dir: str, index: int, *, parent: int = 0, port: int = 0) -> None:
        """``parent``: end when this process is no longer our parent; 0 for a worker that stands alone. ``port``: where it
        takes connections, as far as control has to know."""
        hello = push_frame(HELLO, {"role": self.role, "index": index, "pid": os.getpid(), "port": port})
        self.loop = Loop(on_turn=self.on_turn, on_tick=self._tick, on_error=self.broke)
        self.pipes = Pipes()
        self.congestion = CongestionKeeper()
        self.control = WorkerEnd(os.path.join(run_dir, CONTROL_SOCKET), hello)
        self.unix_offset = time.time() - time.monotonic()
        self.live: dict[int, Flow] = {}
        self.unsettled: set[Flow] = set()
        """Flows whose deadline counts."""
        self.totals: dict[str, int] = {}
        """Counters since start."""
        self._parent = parent
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._control_fd = -1
        self._is_connected = False
        self._records: list[dict[str, Any]] = []
        self._sent_counters: dict[str, int] = {}
        self._next_counters = 0.0
        self._ids = 0
        self._next_trace = 0.0

    def next_id(self) -> int:
        """A number for a new flow."""
        self._ids += 1
        return self._ids

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.totals[name] = self.totals.get(name, 0) + by

    def broke(self, owner: Owner | None) -> None:
        """An exception that nobody expected is being handled. It is a bug of ours: what it came out of ends, and all others
        go on."""
        self.count(INTERNAL_ERRORS)
        if self.loop.now >= self._next_trace:
            self._next_trace = self.loop.now + TRACE_S
            sys.excepthook(*sys.exc_info())
        if owner is not None:
            owner.abandon()

    def guarded(self, flow: Flow, action: Callable[[], None]) -> None:
        """Do something of this flow's, outside its events."""
        try:
            action()
        except Exception:
            self.broke(flow)

    def ended(self, record: FlowRecord) -> None:
        """Count and report a flow that is over."""
        self.count("flows")
        self.count("bytes_up", record.bytes_up)
        self.count("bytes_down", record.bytes_down)
        self.count(f"action_{record.action or 'none'}")
        self._records.append(record._asdict())
        if len(self._records) >= RECORDS_PER_FRAME:
            self._send_records()
        else:
            self.loop.tick_soon()

    def accepted(self, listener: Socket, family: int) -> Iterator[tuple[Socket, tuple[str, int]]]:
        """A batch of new connections. When descriptors run out a reserved one is spent on refusing, else epoll would spin."""
        for _ in range(ACCEPT_BATCH):
            try:
                yield accept(listener, family, 0)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in DESCRIPTORS_OUT:
                    continue  # the peer has gone before we came
                self.count("refused_no_descriptors")
                os.close(self._reserve)
                try:
                    sock, _ = accept(listener, family, 0)
                    reset_on_close(sock)
                    sock.close()
                except OSError:
                    pass
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                return

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.loop.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _raise_descriptor_limit()
        self._tick()
        self.loop.run()
        self.on_stop()
        for flow in list(self.live.values()):
            flow.stop()
        self._send_records()
        self.on_stopped()
        self.control.close()
        self.loop.finish()

    # What a subclass does -------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Counters since start and gauges, by name."""
        return {**self.totals, "live": len(self.live), "robust": self.congestion.changed}

    def on_frame(self, kind: str, payload: Any) -> None:
        """A frame other than ``list`` from the control daemon."""
        raise NotImplementedError

    def on_turn(self) -> None:
        """The end of a loop turn."""

    def on_disconnected(self) -> None:
        """The channel to the control daemon broke: what was asked over it stays without an answer."""

    def on_tick(self) -> bool:
        """Time passed. True: something is timed, tick soon again."""
        return False

    def on_stop(self) -> None:
        """Before the flows end: close the listeners."""
        raise NotImplementedError

    def on_stopped(self) -> None:
        """All flows have ended, the control daemon still listens."""

    # The tick and the control channel -------------------------------------------------------------------------------

    def _tick(self) -> bool:
        now = self.loop.now
        if self._parent and os.getppid() != self._parent:
            self.loop.stop()
        for flow in [flow for flow in self.unsettled if flow.deadline <= now]:
            self.guarded(flow, flow.on_deadline)
        self._look_at_channel()
        if self.control.tick(now):
            self._control_fd = self.control.fileno()
            self.loop.add_level(self._control_fd, self._read_control)
            self._is_connected = True
        self.congestion.look(now, self.live.values())
        if self._records:
            self._send_records()
        if now >= self._next_counters:
            self._next_counters = now + COUNTERS_S
            counters = self.counters()
            if counters != self._sent_counters:
                self._sent_counters = counters
                self.control.send(COUNTERS, counters)
        return self.on_tick() or bool(self.unsettled) or self.control.fileno() < 0

    def _read_control(self) -> None:
        for kind, payload in self.control.receive():
            if kind == LIST:
                self._send_flows(payload["id"], self._chosen(payload))
            elif kind == DROP:
                self._drop(payload["id"], int(payload["flow"]))
            else:
                self.on_frame(kind, payload)
        if self.control.fileno() < 0:
            self.loop.forget_level(self._control_fd)
            self._sent_counters = {}
            self._look_at_channel()

    def _look_at_channel(self) -> None:
        if self._is_connected and self.control.fileno() < 0:
            self._is_connected = False
            self.on_disconnected()

    def _chosen(self, payload: Any) -> list[Flow]:
        """The flows that a ``list`` asks for, the newest first."""
        if "flow" in payload:
            flow = self.live.get(payload["flow"])
            return [flow] if flow is not None else []
        newest = list(self.live.values())[::-1]
        text = payload.get("filter", "")
        if text:
            newest = [flow for flow in newest[:FILTERED_MAX] if flow.matches(text)]
        return newest[: max(0, payload["limit"])]

    def _send_flows(self, request: Any, chosen: list[Flow]) -> None:
        """Live flows, answer to ``list``; ``more`` says that another frame follows."""
        for start in range(0, max(1, len(chosen)), FLOWS_PER_FRAME):
            rows = list(self._rows(chosen[start : start + FLOWS_PER_FRAME]))
            more = start + FLOWS_PER_FRAME < len(chosen)
            self.control.send(FLOWS, {"id": request, "flows": rows, "more": more}, keep=True)

    def _rows(self, flows: Iterable[Flow]) -> Iterator[dict[str, Any]]:
        for flow in flows:
            try:
                yield flow.describe()
            except Exception:
                self.broke(None)  # a question ends no flow

    def _drop(self, request: Any, number: int) -> None:
        """End one flow, with a reset to both sides."""
        flow = self.live.get(number)
        if flow is not None:
            flow.close(Reason.DROPPED, reset=True)
        self.control.send(DROPPED, {"id": request, "dropped": flow is not None}, keep=True)

    def _send_records(self) -> None:
        for start in range(0, len(self._records), RECORDS_PER_FRAME):
            self.control.send(RECORDS, self._records[start : start + RECORDS_PER_FRAME], keep=True)
        self._records.clear()


def _raise_descriptor_limit() -> None:
    """Two descriptors per flow: take what the hard limit gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_worker(program: str, options: dict[str, str], make: Callable[[dict[str, str]], Worker], argv: list[str]) -> int:
    """Parse ``--name VALUE`` options over the given defaults, make the worker, run it. Returns the exit code.

    getopt and not argparse: the latter alone would be a tenth of a worker's memory.
    """
    usage = f"usage: {program} " + " ".join(f"[--{name} {value or 'VALUE'}]" for name, value in options.items())
    try:
        given, rest = getopt.getopt(argv, "h", ["help", *(f"{name}=" for name in options)])
    except getopt.GetoptError as error:
        print(f"{program}: {error}\n{usage}", file=sys.stderr)
        return 2
    if rest or any(name in ("-h", "--help") for name, _ in given):
        print(usage, file=sys.stderr if rest else sys.stdout)
        return 2 if rest else 0
    values = {**options, **{name[2:]: value for name, value in given}}
    try:
        worker = make(values)
    except ValueError as error:
        print(f"{program}: {error}\n{usage}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{program}: cannot start: {os.strerror(error.errno or errno.EIO)}", file=sys.stderr)
        return 1
    worker.run()
    return 0
