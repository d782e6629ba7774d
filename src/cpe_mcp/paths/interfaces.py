"""What OpenWrt's netifd says of its interfaces: why one is down, and which device it really uses. Pure.

netifd's words (its ubus.c, seen with the version of July 2026): object ``network.interface`` has the method ``dump``, tells
its subscribers ``interface.update`` and ``interface.down`` with all of one interface, and sends the event
``network.interface`` with ``action`` (``ifup``, ``ifdown``) and ``interface``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

OBJECT = "network.interface"
ADDED_EVENT = "ubus.object.add"


class InterfaceView(NamedTuple):
    """One logical interface."""

    name: str
    is_up: bool
    is_pending: bool
    """netifd is bringing it up."""
    device: str
    """``l3_device``: where its packets leave, for example pppoe-wan; "" while it is down."""
    errors: tuple[str, ...]
    """Codes of what went wrong, for example NO_DEVICE, AUTH_FAILED."""

    def why_down(self) -> str:
        """For people: what netifd says of an interface that is down."""
        state = "is being brought up" if self.is_pending else "is down"
        return f"interface {self.name} {state}" + (f": {', '.join(self.errors)}" if self.errors else "")


def pull_interface(row: object) -> InterfaceView | None:
    """One interface of ``dump`` or of an update; None for anything else."""
    if not isinstance(row, Mapping) or not isinstance(row.get("interface"), str):
        return None
    errors = row.get("errors")
    codes = (
        [str(error.get("code")) for error in errors if isinstance(error, Mapping)] if isinstance(errors, list) else []
    )
    device = row.get("l3_device")
    return InterfaceView(
        name=row["interface"],
        is_up=bool(row.get("up")),
        is_pending=bool(row.get("pending")),
        device=device if isinstance(device, str) else "",
        errors=tuple(dict.fromkeys(codes)),
    )


def pull_dump(reply: Mapping[str, Any]) -> dict[str, InterfaceView]:
    """All interfaces by name."""
    rows = reply.get("interface")
    views = [pull_interface(row) for row in rows] if isinstance(rows, list) else []
    return {view.name: view for view in views if view is not None}


def device_warning(wan: str, device: str, interface: InterfaceView | None) -> str:
    """One sentence when a WAN's settings name another device than its interface uses; "" when all is well."""
    if interface is None or not interface.is_up or interface.device in ("", device):
        return ""
    return (
        f"option device of section wan '{wan}' is '{device}', but netifd's interface {interface.name} sends over "
        f"{interface.device}: set option device to '{interface.device}'"
    )
