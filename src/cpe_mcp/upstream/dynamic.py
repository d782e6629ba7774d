"""The router's end of dynamic authorization: its one session, as a CoA changes it and a Disconnect ends it.

A change takes the way of an Accept, a Disconnect that of a Reject: what they do to connections is said there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.dynamic import Change, ErrorCause, Refused, Selector
from cpe_mcp.aaa.dynamic_packets import Rules, plain_address
from cpe_mcp.paths.scheme import split_scheme
from cpe_mcp.settings import split_host
from cpe_mcp.settings.router import RadiusSettings

if TYPE_CHECKING:
    from cpe_mcp.upstream.authenticator import AccountingIds

ABILITIES = ("down_mbit", "up_mbit", "scheme", "session_timeout_s", "concentrators", "service_classes")
"""Fields of :class:`Change` that mean something here. Filters and limits of connections are the concentrator's."""


class Host(Protocol):
    """What this module needs of :class:`cpe_mcp.upstream.authenticator.Authenticator`."""

    @property
    def accept(self) -> RadiusAnswer | None: ...

    def replace(self, accept: RadiusAnswer, *, is_new_time: bool) -> None: ...

    def withdraw(self) -> None: ...


class RouterSession:
    """See :class:`cpe_mcp.aaa.dynamic.Sessions`. ``addresses()``: those of the WANs; ``calling_station()``: as requests
    have it; ``wans``: names that a scheme may bind to. The sessions of accounting, one for each WAN and one for all, are one
    here: RADIUS has authorized the router, not its lines."""

    def __init__(
        self,
        host: Host,
        *,
        username: str,
        wans: Collection[str],
        addresses: Callable[[], Collection[str]],
        calling_station: Callable[[], str],
        accounting_ids: Callable[[], AccountingIds],
    ) -> None:
        self._host = host
        self._username = username
        self._wans = wans
        self._addresses = addresses
        self._calling_station = calling_station
        self._accounting_ids = accounting_ids

    def find(self, selector: Selector) -> list[RadiusAnswer]:
        """The Accept in force, if it is meant."""
        accept = self._host.accept
        if accept is None:
            return []
        users = {self._username, accept.user} - {""}
        ids = self._accounting_ids()
        is_meant = selector.matches(
            users=users,
            addresses=self._addresses(),
            calling_station=self._calling_station(),
            session_ids=ids.sessions,
            multi_session_id=ids.total,
            ports=self._wans,
        )
        return [accept] if is_meant else []

    def change(self, sessions: Sequence[Any], change: Change) -> None:
        """Raises Refused."""
        if change.scheme is not None:
            _, wan = split_scheme(change.scheme)
            if wan and wan not in self._wans:
                raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, f"CPE-MCP-Scheme: there is no WAN {wan!r} here")
        if change.session_timeout_s == 0:
            raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, "a Session-Timeout of 0 is no session")
        fields = {name: value for name, value in change._asdict().items() if name in ABILITIES and value is not None}
        (accept,) = sessions
        self._host.replace(accept._replace(**fields), is_new_time=change.session_timeout_s is not None)

    def disconnect(self, sessions: Sequence[Any]) -> None:
        """As a Reject."""
        self._host.withdraw()


def rules(radius: RadiusSettings) -> Rules:
    """Who may send: ``dynamic_client``, or the servers. Their secret is that of the requests."""
    hosts = radius.dynamic_client or tuple(split_host(host, 0)[0] for host in radius.server)
    return Rules({plain_address(host): radius.secret.encode() for host in hosts}, radius.enterprise)
