"""An emulated line of a running lab: changed, cut and read through the emulator's control socket."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cpe_mcp.lab.line import default_queue_ms
from cpe_mcp.lab.namespaces import LabError

ANSWER_TIMEOUT_S = 2.0
"""The emulator answers within one turn; on a machine with every core busy that may be tens of milliseconds."""
CUTS = ("silent", "down", "unplugged", "address")

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """What a line is like."""

    down_mbit: float
    """Towards the subscriber, counting IP bytes."""
    up_mbit: float
    rtt_ms: float
    """Half of it in each direction; the queue's part comes on top."""
    loss_percent: float = 0.0
    """Random loss, in each direction."""
    queue_ms: float | None = None
    """Tail-drop queue of each direction; None: one bandwidth-delay product, at least 30 ms."""

    def directions(self) -> dict[str, dict[str, float]]:
        """The arguments of both :class:`~cpe_mcp.lab.line.Direction`."""
        common = {
            "delay_ms": self.rtt_ms / 2,
            "loss_percent": self.loss_percent,
            "queue_ms": default_queue_ms(self.rtt_ms) if self.queue_ms is None else self.queue_ms,
        }
        return {"down": {"rate_mbit": self.down_mbit, **common}, "up": {"rate_mbit": self.up_mbit, **common}}


DEFAULT_LINKS: Mapping[str, LinkSpec] = {"dsl": LinkSpec(100, 40, 20), "lte": LinkSpec(50, 25, 50)}


def ask_emulator(directory: str, **question: Mapping[str, Any]) -> dict[str, Any]:
    """One question (see :mod:`.emulator`) to the emulator whose control socket is in ``directory``. Raises LabError."""
    own = os.path.join(directory, f"emulator-{os.getpid()}-{next(_numbers)}.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection, contextlib.ExitStack() as stack:
        try:
            connection.bind(own)
            stack.callback(os.unlink, own)
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(os.path.join(directory, "emulator.sock"))
            connection.send(json.dumps(question).encode())
            answer: dict[str, Any] = json.loads(connection.recv(65536))
        except OSError as error:
            raise LabError(f"the link emulator does not answer: {error}") from None
    if "error" in answer:
        raise LabError(f"link emulator: {answer['error']}")
    return answer


class WanEnd(Protocol):
    """What happens on the cpe in a cut other than a silent one."""

    def take_down(self, kind: str) -> None: ...

    def bring_up(self, kind: str) -> None: ...


class Link:
    """One line. ``directory`` has the emulator's control socket."""

    def __init__(self, name: str, spec: LinkSpec, directory: str, wan: WanEnd) -> None:
        self.name = name
        self.device = name
        """On the cpe."""
        self.spec = spec
        """What it was when the lab came up."""
        self._directory = directory
        self._wan = wan
        self._cut = ""

    def cut(self, kind: str) -> None:
        """Cut the line.

        ``silent``: packets vanish, those in flight too, and both ends believe the line is up. ``down``: the cpe's
        device is set down, as ``ifdown`` or a pulled USB modem does: the kernel removes its routes; then netifd's part,
        the DHCP clients stop and the address goes. ``unplugged``: the cpe's device loses its carrier, as when an
        Ethernet cable to the modem is pulled, then netifd's part. ``address``: the lease is lost, the link stays up.
        """
        if kind not in CUTS:
            raise LabError(f"cut {kind}: there are {', '.join(CUTS)}")
        if self._cut:
            raise LabError(f"{self.name} is already cut ({self._cut}); restore it first")
        self._cut = kind
        if kind == "silent":
            self._change({"down": {"blackhole": True}, "up": {"blackhole": True}})
        else:
            self._wan.take_down(kind)

    def restore(self) -> None:
        """Undo the cut, if there is one; after any but a silent one the DHCP clients start again and get the routes back."""
        kind, self._cut = self._cut, ""
        if kind == "silent":
            self._change({"down": {"blackhole": False}, "up": {"blackhole": False}})
        elif kind:
            self._wan.bring_up(kind)

    def set(
        self,
        *,
        down_mbit: float | None = None,
        up_mbit: float | None = None,
        rtt_ms: float | None = None,
        loss_percent: float | None = None,
        queue_ms: float | None = None,
    ) -> None:
        """Change what is given while traffic runs. The queue stays as long as it was unless it is given too."""
        common = {
            "delay_ms": None if rtt_ms is None else rtt_ms / 2,
            "loss_percent": loss_percent,
            "queue_ms": queue_ms,
        }
        self._change({"down": {"rate_mbit": down_mbit, **common}, "up": {"rate_mbit": up_mbit, **common}})

    def stats(self) -> dict[str, dict[str, int]]:
        """``down`` and ``up``: ``packets`` and IP ``bytes`` delivered, ``queue_drops``, ``loss_drops``, ``cut_drops``."""
        return self._change({})

    def _change(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
        counters: dict[str, dict[str, int]] = ask_emulator(self._directory, change={self.name: values})["lines"][
            self.name
        ]
        return counters
