"""What is told on ubus when something changes: events as the difference of two views. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

PATH = "cpe-mcp.path"
CONCENTRATOR = "cpe-mcp.concentrator"
AUTH = "cpe-mcp.auth"
DISCOVERY = "cpe-mcp.discovery"

DEGRADED = "degraded"
"""State of a WAN that works, but not as it should (:data:`cpe_mcp.paths.health.DEGRADED`)."""
GONE = "gone"
"""State of a WAN that is not in the settings any more."""
ACCEPTED, WAITING, OFF = "accepted", "waiting", "off"
"""States of the authentication: flows may be proxied; not yet or not any more; nobody is asked."""


class PathView(NamedTuple):
    """A WAN."""

    usable: bool
    state: str
    reason: str
    quota: str = ""
    """Its state."""


class ConcentratorView(NamedTuple):
    """A concentrator; ``reason`` is "" while it is usable."""

    usable: bool
    reason: str


class View(NamedTuple):
    """Everything that events are made of; WANs and concentrators by name."""

    paths: Mapping[str, PathView]
    concentrators: Mapping[str, ConcentratorView]
    auth: str
    """ACCEPTED, WAITING or OFF."""
    auth_reason: str
    refused: tuple[tuple[str, str, tuple[str, ...], str], ...] = ()
    """(source, interface, addresses, reason): named by somebody, and not believed."""


def differences(before: View, after: View, texts: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) for each thing that is another one now. ``texts`` gives a reason's text for people.

    A usable WAN whose state moves on is no event: it carries flows all the time. One that becomes degraded, or is well again,
    is, and so is one whose quota has crossed a step.
    """

    def text(reason: str, otherwise: str) -> str:
        return texts.get(reason, reason) if reason else otherwise

    for name, path in after.paths.items():
        old = before.paths.get(name)
        is_other = (
            old is None
            or old.usable != path.usable
            or old.quota != path.quota
            or (old.state == DEGRADED) != (path.state == DEGRADED)
        )
        if is_other or (not path.usable and old is not None and old.reason != path.reason):
            yield (
                PATH,
                {"wan": name, "state": path.state, "reason": path.reason, "text": text(path.reason, path.state)},
            )
    for name in before.paths.keys() - after.paths.keys():
        yield PATH, {"wan": name, "state": GONE, "reason": "", "text": "not in the settings any more"}
    for name, concentrator in after.concentrators.items():
        if before.concentrators.get(name) != concentrator:
            usable, reason = concentrator
            yield (
                CONCENTRATOR,
                {"name": name, "usable": usable, "reason": reason, "text": text(reason, "usable")},
            )
    for name in before.concentrators.keys() - after.concentrators.keys():
        yield CONCENTRATOR, {"name": name, "usable": False, "reason": "", "text": "no source names it any more"}
    for refusal in after.refused:
        if refusal not in before.refused:
            source, interface, addresses, reason = refusal
            data = {"source": source, "interface": interface, "addresses": list(addresses)}
            yield DISCOVERY, {**data, "reason": reason, "text": text(reason, "")}
    if (before.auth, before.auth_reason) != (after.auth, after.auth_reason):
        otherwise = "not asked" if after.auth == OFF else after.auth
        yield (
            AUTH,
            {"state": after.auth, "reason": after.auth_reason, "text": text(after.auth_reason, otherwise)},
        )
