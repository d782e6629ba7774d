"""The daemons of a lab from the outside: wait until they are in a state, and what they say of themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cpe_mcp.control.ask import ApiError
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab

READY_S = 10.0
"""From the start of the daemons to the first warm connection: RADIUS, discovery and one handshake take well under 2 s."""
POLL_S = 0.02
RECORD_S = 0.4
"""Within which a worker has sent the record of a flow that ended."""


def status(lab: Lab) -> dict[str, Any]:
    """What ``cpe-mcp status`` shows. Raises LabError when the daemon does not answer."""
    try:
        answer: dict[str, Any] = lab.ask("status")
    except (OSError, ApiError) as error:
        raise LabError(f"cpe-mcpd does not answer: {error}") from None
    return answer


def await_status(lab: Lab, what: str, is_reached: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The status once it is as wanted. Raises LabError, with the reason that the daemon gives, after READY_S."""
    deadline = time.monotonic() + READY_S
    while not is_reached(now := status(lab)):
        if time.monotonic() > deadline:
            raise LabError(f"after {READY_S:g} s still not: {what}; cpe-mcpd says: {now['text']}")
        time.sleep(POLL_S)
    return now


def await_taken(lab: Lab) -> dict[str, Any]:
    """Until new connections of both families are taken, with as many warm connections as there may be."""
    return await_status(
        lab,
        "connections are taken and the pool is full",
        lambda now: now["interception"]["on"] and now["interception"]["ipv6"] and is_pool_full(now),
    )


def is_pool_full(now: Mapping[str, Any]) -> bool:
    """Whether a status shows every warm connection ready; true for a pool of size 0."""
    return bool(now["pool"]["ready"] >= now["pool"]["size"])


def count_proxied(lab: Lab, server: str, port: int) -> int:
    """How many flows to a server the package has carried, once what is known of them does not change any more."""
    count = -1
    while count != (now := sum(row["action"] == "proxy" for row in flows_to(lab, server, port))):
        count = now
        time.sleep(RECORD_S)
    return count


def flows_to(lab: Lab, server: str, port: int) -> list[dict[str, Any]]:
    """What the daemon knows of flows to a server, live and finished ones."""
    rows = [*lab.ask("flows", {"limit": 1000})["flows"], *lab.ask("records", {"limit": 1000})["flows"]]
    return [row for row in rows if (row["server"], row["server_port"]) == (server, port)]
