"""Keeps the kernel's MPTCP endpoints and limits as they are wanted. One kind of IO: the MPTCP path manager's netlink."""

from __future__ import annotations

import logging
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
    """One per namespace. ``complain`` is told of what the kernel refuses. Raises OSError where it has no MPTCP."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._mptcp = MptcpNetlink()
        self._deleted: dict[str, float] = {}
        self._added: dict[str, float] = {}

    def close(self) -> None:
        """Give the socket back; what is in the kernel stays."""
        self._mptcp.close()

    def apply(self, wanted: Mapping[int, Endpoint], ours: Iterable[int]) -> None:
        """The difference. ``ours``: device indexes of the managed WANs."""
        try:
            if self._mptcp.limits() != (MPTCP_SUBFLOWS, 0):
                self._mptcp.set_limits(subflows=MPTCP_SUBFLOWS, add_addr_accepted=0)
            actual, now = self._mptcp.endpoints(), time.monotonic()
            for address in {endpoint.address for endpoint in actual}:
                self._added.setdefault(address, now)  # left by an earlier run of ours
            self._carry_out(plan_endpoints(wanted, actual, ours, self._deleted, now))
        except OSError as error:
            self._complain(f"MPTCP endpoints: {error.strerror or error}")

    def delete(self, name: str, device_index: int, address: str = "") -> None:
        """All endpoints of WAN ``name``, or that of one of its addresses, now."""
        now = time.monotonic()
        try:
            for endpoint in self._mptcp.endpoints():
                if endpoint.device_index == device_index and address in ("", endpoint.address):
                    self._mptcp.delete(endpoint.id)
                    self._deleted[endpoint.address] = now
                    self._added.pop(endpoint.address, None)
        except OSError as error:
            self._complain(f"MPTCP endpoints of wan {name}: {error.strerror or error}")

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
        return max((at + RETURN_PAUSE_S - now for at in self._deleted.values()), default=0.0)

    def _carry_out(self, plan: EndpointPlan) -> None:
        # What comes and what changes first: a connection that loses its last subflow finds the next one there already.
        for endpoint in plan.add:
            self._mptcp.add(endpoint)
            self._deleted.pop(endpoint.address, None)
            self._added[endpoint.address] = time.monotonic()
            log.info("endpoint %s added%s", endpoint.address, " as backup" if endpoint.flags & FLAG_BACKUP else "")
        for endpoint in plan.change:
            self._mptcp.set_flags(endpoint.id, endpoint.flags & FLAG_BACKUP)
        for endpoint in plan.delete:
            self._mptcp.delete(endpoint.id)
            self._deleted[endpoint.address] = time.monotonic()
            self._added.pop(endpoint.address, None)
            log.info("endpoint %s removed", endpoint.address)
