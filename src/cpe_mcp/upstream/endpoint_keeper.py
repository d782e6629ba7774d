"""Keeps the kernel's MPTCP endpoints and limits as they are wanted. One kind of IO: the MPTCP path manager's netlink."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping

from cpe_mcp.kernel.mptcp import MptcpNetlink
from cpe_mcp.kernel.mptcp_events import GROUP
from cpe_mcp.paths.observed import FLAG_BACKUP, Endpoint
from cpe_mcp.paths.reconcile import RETURN_PAUSE_S, EndpointPlan, plan_endpoints

log = logging.getLogger(__name__)

MPTCP_SUBFLOWS = 8
"""Limit of additional subflows: the kernel's maximum; the endpoints decide how many there are."""


class EndpointKeeper:
    """One per namespace. ``complain`` is told of what the kernel refuses: each command for itself, since one that fails must
    not keep the others from their lines. Raises OSError where it has no MPTCP."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._mptcp = MptcpNetlink()
        self._deleted: dict[str, float] = {}
        """Address -> when, as long as it may not come back."""
        self._added: dict[str, float] = {}
        """Address of each endpoint that is there -> since when."""
        self._made: set[tuple[str, int]] = set()
        """Address and device index of each that we have added, whatever its device has become since."""

    def close(self) -> None:
        """Give the socket back; what is in the kernel stays."""
        self._mptcp.close()

    def apply(self, wanted: Mapping[int, Endpoint], ours: Iterable[int]) -> None:
        """The difference. ``ours``: device indexes of the managed WANs."""
        self._do("MPTCP limits", self._set_limits)
        self._reconcile(wanted, ours)

    def delete(self, name: str, device_index: int, address: str = "") -> None:
        """All endpoints of WAN ``name``, or that of one of its addresses, now."""
        for endpoint in self._there(f" of wan {name}") or ():
            if endpoint.device_index == device_index and address in ("", endpoint.address):
                self._delete(endpoint)

    def delete_all(self, ours: Iterable[int]) -> None:
        """What is on the managed WANs' devices and what we have made: no trace."""
        self._reconcile({}, ours)

    def added_at(self, address: str) -> float | None:
        """When this address got the endpoint that it has; None: it has none of ours."""
        return self._added.get(address)

    def events_group(self) -> int:
        """Number of the multicast group of events. Raises OSError where the kernel has none (before Linux 5.12)."""
        try:
            return self._mptcp.groups[GROUP]
        except KeyError:
            raise OSError(f"this kernel has no {GROUP}") from None

    def pause_s(self) -> float:
        """Until every address that was deleted may come back; 0 when all may."""
        now = time.monotonic()
        self._forget_deleted(now)
        return max((at + RETURN_PAUSE_S - now for at in self._deleted.values()), default=0.0)

    def _set_limits(self) -> None:
        if self._mptcp.limits() != (MPTCP_SUBFLOWS, 0):
            self._mptcp.set_limits(subflows=MPTCP_SUBFLOWS, add_addr_accepted=0)

    def _reconcile(self, wanted: Mapping[int, Endpoint], ours: Iterable[int]) -> None:
        actual, now, ours = self._there(), time.monotonic(), set(ours)
        if actual is None:
            return
        # Some are of an earlier run of ours.
        self._added = {row.address: self._added.get(row.address, now) for row in actual}
        self._made &= {(row.address, row.device_index) for row in actual}
        self._forget_deleted(now)
        vanished = {index for index in {row.device_index for row in actual} - ours if index and not _exists(index)}
        self._carry_out(plan_endpoints(wanted, actual, ours, self._deleted, now, made=self._made, vanished=vanished))

    def _forget_deleted(self, now: float) -> None:
        self._deleted = {address: at for address, at in self._deleted.items() if now - at < RETURN_PAUSE_S}

    def _carry_out(self, plan: EndpointPlan) -> None:
        # What comes and what changes first: a connection that loses its last subflow finds the next one there already.
        refused = [row for row in plan.add if not self._add(row, is_last_try=not plan.delete)]
        for endpoint in plan.change:
            self._do(
                f"MPTCP endpoint {endpoint.address}: flags not changed",
                lambda row=endpoint: self._mptcp.set_flags(row.id, row.flags & FLAG_BACKUP),  # type: ignore[misc]
            )
        for endpoint in plan.delete:
            if self._delete(endpoint):
                log.info("endpoint %s removed", endpoint.address)
        for endpoint in refused if plan.delete else ():
            self._add(endpoint, is_last_try=True)  # the kernel has room for eight

    def _add(self, endpoint: Endpoint, *, is_last_try: bool) -> bool:
        what = f"MPTCP endpoint {endpoint.address} (id {endpoint.id}) not added" if is_last_try else ""
        if not self._do(what, lambda: self._mptcp.add(endpoint)):
            return False
        self._deleted.pop(endpoint.address, None)
        self._added[endpoint.address] = time.monotonic()
        self._made.add((endpoint.address, endpoint.device_index))
        log.info("endpoint %s added%s", endpoint.address, " as backup" if endpoint.flags & FLAG_BACKUP else "")
        return True

    def _delete(self, endpoint: Endpoint) -> bool:
        what = f"MPTCP endpoint {endpoint.address} (id {endpoint.id}) not removed"
        if not self._do(what, lambda: self._mptcp.delete(endpoint.id)):
            return False
        self._deleted[endpoint.address] = time.monotonic()
        self._added.pop(endpoint.address, None)
        self._made.discard((endpoint.address, endpoint.device_index))
        return True

    def _there(self, whose: str = "") -> list[Endpoint] | None:
        """Those of others too; None: the kernel does not tell."""
        found: list[Endpoint] = []
        is_told = self._do(f"MPTCP endpoints{whose}", lambda: found.extend(self._mptcp.endpoints()))
        return found if is_told else None

    def _do(self, what: str, command: Callable[[], None]) -> bool:
        """One command. False: the kernel refused it, and ``what`` was said of it if there is anything to say."""
        try:
            command()
        except OSError as error:
            if what:
                self._complain(f"{what}: {error.strerror or error}")
            return False
        return True


def _exists(device_index: int) -> bool:
    try:
        socket.if_indextoname(device_index)
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.ENODEV)  # else it is we who cannot tell
    return True
