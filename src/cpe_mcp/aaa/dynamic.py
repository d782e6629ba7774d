"""Dynamic authorization (RFC 5176): what a request wants, of which sessions, and what it is answered. No IO, no clock.

Packets and proofs are :mod:`.dynamic_packets`'; what becomes of a session is decided by those who have it (:class:`Sessions`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple, Protocol

from cpe_mcp.aaa.attributes import (
    CONCENTRATOR,
    CONCENTRATOR_IPV4,
    CONCENTRATOR_IPV6,
    CONNECTIONS,
    DOWN_MBIT,
    SCHEME,
    SERVICE_CLASS,
    UP_MBIT,
    AttributeValueError,
    Concentrator,
    pull_address,
    pull_concentrator,
    pull_filter,
    pull_integer,
    pull_scheme,
    pull_service_class,
)

Key = int | tuple[int, int]
"""Type of an attribute; (enterprise, vendor type) of a vendor's."""
Attributes = Mapping[Any, Sequence[bytes]]
"""Values by :data:`Key`."""

DISCONNECT_REQUEST, DISCONNECT_ACK, DISCONNECT_NAK = 40, 41, 42
COA_REQUEST, COA_ACK, COA_NAK = 43, 44, 45
ADMIN_RESET = 6
"""Acct-Terminate-Cause of a Disconnect-ACK (RFC 5176 section 3, RFC 2866 section 5.10)."""

USER_NAME, NAS_IP_ADDRESS, SERVICE_TYPE, FRAMED_IP_ADDRESS, FILTER_ID, REPLY_MESSAGE = 1, 4, 6, 8, 11, 18
STATE, SESSION_TIMEOUT, CALLING_STATION_ID, NAS_IDENTIFIER, PROXY_STATE, NAS_PORT_ID = 24, 27, 31, 32, 33, 87
ACCT_SESSION_ID, ACCT_TERMINATE_CAUSE, ACCT_MULTI_SESSION_ID, EVENT_TIMESTAMP = 44, 49, 50, 55
MESSAGE_AUTHENTICATOR, NAS_IPV6_ADDRESS, FRAMED_INTERFACE_ID, FRAMED_IPV6_PREFIX = 80, 95, 96, 97
ERROR_CAUSE, FRAMED_IPV6_ADDRESS = 101, 168
"""RFC 2865, 2866, 2869, 3162, 5176, 6911."""

OF_THE_PACKET = frozenset((REPLY_MESSAGE, STATE, PROXY_STATE, EVENT_TIMESTAMP, MESSAGE_AUTHENTICATOR))
"""Neither identify nor change anything."""
OF_THE_NAS = frozenset((NAS_IP_ADDRESS, NAS_IDENTIFIER, NAS_IPV6_ADDRESS))
OF_THE_SESSION = frozenset(
    (
        USER_NAME,
        FRAMED_IP_ADDRESS,
        CALLING_STATION_ID,
        ACCT_SESSION_ID,
        ACCT_MULTI_SESSION_ID,
        NAS_PORT_ID,
        FRAMED_INTERFACE_ID,
        FRAMED_IPV6_PREFIX,
        FRAMED_IPV6_ADDRESS,
    )
)


class ErrorCause(IntEnum):
    """Values of attribute 101 that are sent (RFC 5176 section 3.6)."""

    UNSUPPORTED_ATTRIBUTE = 401
    MISSING_ATTRIBUTE = 402
    NAS_IDENTIFICATION_MISMATCH = 403
    INVALID_REQUEST = 404
    UNSUPPORTED_SERVICE = 405
    INVALID_ATTRIBUTE_VALUE = 407
    SESSION_CONTEXT_NOT_FOUND = 503
    RESOURCES_UNAVAILABLE = 506


class Refused(Exception):
    """The request is answered with a NAK, and nothing has changed."""

    def __init__(self, cause: ErrorCause, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class Nas(NamedTuple):
    """Who we are."""

    identifier: str
    addresses: Collection[str]


class Selector(NamedTuple):
    """Which sessions a request means: everything that is given must be the session's."""

    user: str = ""
    addresses: tuple[str, ...] = ()
    calling_station: str = ""
    session_id: str = ""
    multi_session_id: str = ""
    port: str = ""
    """NAS-Port-Id: a WAN of a router's."""

    def matches(
        self,
        *,
        users: Collection[str],
        addresses: Collection[str],
        calling_station: str = "",
        session_ids: Collection[str] = (),
        multi_session_id: str = "",
        ports: Collection[str] = (),
    ) -> bool:
        """Whether it means a session that is known by these. ``session_ids``: those under which accounting tells of it."""
        return (
            (not self.user or self.user in users)
            and all(address in addresses for address in self.addresses)
            and (not self.calling_station or self.calling_station == calling_station)
            and (not self.session_id or self.session_id in session_ids)
            and (not self.multi_session_id or self.multi_session_id == multi_session_id)
            and (not self.port or self.port in ports)
        )


class Change(NamedTuple):
    """What a CoA-Request sets; None: stays as it is."""

    down_mbit: int | None = None
    up_mbit: int | None = None
    scheme: str | None = None
    connections: int | None = None
    session_timeout_s: int | None = None
    filters: tuple[str, ...] | None = None
    concentrators: tuple[Concentrator, ...] | None = None
    service_classes: tuple[tuple[str, str], ...] | None = None


class Sessions(Protocol):
    """Who has the sessions."""

    def find(self, selector: Selector) -> Sequence[Any]:
        """All that it means."""

    def change(self, sessions: Sequence[Any], change: Change) -> None:
        """All of it for all of them, or nothing: raises Refused."""

    def disconnect(self, sessions: Sequence[Any]) -> None:
        """Their authorization ends, and what runs under it."""


class Decision(NamedTuple):
    """The answer."""

    code: int
    error_cause: ErrorCause | None = None
    text: str = ""
    """Why not, for the log: a NAK has no room for words (RFC 5176 section 3.5)."""
    sessions: int = 0
    """How many were changed or ended."""


def decide(
    code: int, attributes: Attributes, *, nas: Nas, enterprise: int, abilities: Collection[str], sessions: Sessions
) -> Decision:
    """Carry out a CoA- or Disconnect-Request that is authentic. ``abilities``: the fields of :class:`Change` that mean
    something here; any other attribute is unsupported (RFC 5176 section 3: all are mandatory)."""
    is_coa = code == COA_REQUEST
    try:
        _check_nas(attributes, nas)
        change = _pull_change(attributes, enterprise, abilities if is_coa else ())
        selector = _pull_selector(attributes)
        if is_coa and change == Change():
            raise Refused(ErrorCause.MISSING_ATTRIBUTE, "nothing to change is in the request")
        found = sessions.find(selector)
        if not found:
            raise Refused(ErrorCause.SESSION_CONTEXT_NOT_FOUND, "there is no such session")
        if is_coa:
            sessions.change(found, change)
        else:
            sessions.disconnect(found)
    except Refused as error:
        return Decision(COA_NAK if is_coa else DISCONNECT_NAK, error.cause, str(error))
    return Decision(COA_ACK if is_coa else DISCONNECT_ACK, sessions=len(found))


def _check_nas(attributes: Attributes, nas: Nas) -> None:
    if not OF_THE_NAS & attributes.keys():
        raise Refused(
            ErrorCause.MISSING_ATTRIBUTE, "NAS-Identifier, NAS-IP-Address or NAS-IPv6-Address has to say who is meant"
        )
    identifiers = [value.decode(errors="replace") for value in attributes.get(NAS_IDENTIFIER, ())]
    addresses = _addresses(attributes, NAS_IP_ADDRESS, NAS_IPV6_ADDRESS)
    if any(text != nas.identifier for text in identifiers) or any(text not in nas.addresses for text in addresses):
        raise Refused(ErrorCause.NAS_IDENTIFICATION_MISMATCH, "another NAS is meant")


def _pull_selector(attributes: Attributes) -> Selector:
    for key in OF_THE_SESSION:
        if len(attributes.get(key, ())) > 1:
            raise Refused(ErrorCause.INVALID_REQUEST, f"attribute {key} occurs more than once")
    if (FRAMED_INTERFACE_ID in attributes) != (FRAMED_IPV6_PREFIX in attributes):
        raise Refused(
            ErrorCause.MISSING_ATTRIBUTE, "Framed-Interface-Id and Framed-IPv6-Prefix name a session only together"
        )

    def text(key: int) -> str:
        return b"".join(attributes.get(key, ())).decode(errors="replace")

    addresses = _addresses(attributes, FRAMED_IP_ADDRESS, FRAMED_IPV6_ADDRESS)
    if FRAMED_IPV6_PREFIX in attributes:
        addresses.append(_joined(attributes[FRAMED_IPV6_PREFIX][0], attributes[FRAMED_INTERFACE_ID][0]))
    selector = Selector(
        text(USER_NAME),
        tuple(addresses),
        text(CALLING_STATION_ID),
        text(ACCT_SESSION_ID),
        text(ACCT_MULTI_SESSION_ID),
        text(NAS_PORT_ID),
    )
    if selector == Selector():
        raise Refused(ErrorCause.MISSING_ATTRIBUTE, "no attribute says which session is meant")
    return selector


def _addresses(attributes: Attributes, ipv4: int, ipv6: int) -> list[str]:
    found = []
    for key, octets, make in ((ipv4, 4, IPv4Address), (ipv6, 16, IPv6Address)):
        for value in attributes.get(key, ()):
            if len(value) != octets:
                raise Refused(
                    ErrorCause.INVALID_ATTRIBUTE_VALUE, f"attribute {key} has {len(value)} octets, not {octets}"
                )
            found.append(str(make(value)))
    return found


def _joined(prefix: bytes, interface: bytes) -> str:
    """The address of a Framed-IPv6-Prefix (RFC 3162 section 2.3) and a Framed-Interface-Id (section 2.2)."""
    if not 2 <= len(prefix) <= 18 or prefix[1] > 64 or len(interface) != 8:
        raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, "Framed-IPv6-Prefix and Framed-Interface-Id make no address")
    return str(IPv6Address(prefix[2:10].ljust(8, b"\0") + interface))


Pull = Callable[[bytes], Any]
_ONE: Mapping[int, tuple[str, Pull]] = {
    DOWN_MBIT: ("down_mbit", partial(pull_integer, "CPE-MCP-Down-Mbit")),
    UP_MBIT: ("up_mbit", partial(pull_integer, "CPE-MCP-Up-Mbit")),
    SCHEME: ("scheme", pull_scheme),
    CONNECTIONS: ("connections", partial(pull_integer, "CPE-MCP-Connections")),
}
"""Of our own attributes, those that occur once."""
_MANY: Mapping[int, tuple[str, Pull]] = {
    CONCENTRATOR: ("concentrators", pull_concentrator),
    CONCENTRATOR_IPV4: ("concentrators", lambda value: pull_address(value, 4)),
    CONCENTRATOR_IPV6: ("concentrators", lambda value: pull_address(value, 16)),
    SERVICE_CLASS: ("service_classes", pull_service_class),
}
"""Those that may occur several times, in the order in which they count."""


def _pull_change(attributes: Attributes, enterprise: int, abilities: Collection[str]) -> Change:
    one: dict[Key, tuple[str, Pull]] = {(enterprise, number): row for number, row in _ONE.items()}
    many: dict[Key, tuple[str, Pull]] = {(enterprise, number): row for number, row in _MANY.items()}
    one[SESSION_TIMEOUT] = ("session_timeout_s", partial(pull_integer, "Session-Timeout"))
    many[FILTER_ID] = ("filters", pull_filter)
    if SERVICE_TYPE in attributes:  # Authorize-Only wants a State and another round (RFC 5176 section 3.2)
        raise Refused(
            ErrorCause.UNSUPPORTED_SERVICE, "Service-Type is not served: put what is to change into the request"
        )
    for key in attributes:
        if key in OF_THE_PACKET or key in OF_THE_NAS or key in OF_THE_SESSION:
            continue
        row = one.get(key) or many.get(key)
        if row is None or row[0] not in abilities:
            raise Refused(ErrorCause.UNSUPPORTED_ATTRIBUTE, f"attribute {_shown(key)} means nothing here")
        if key in one and len(attributes[key]) > 1:
            raise Refused(ErrorCause.INVALID_REQUEST, f"attribute {_shown(key)} occurs more than once")
    fields: dict[str, Any] = {}
    try:
        for key, (field, pull) in one.items():
            for value in attributes.get(key, ()):
                fields[field] = pull(value)
        for key, (field, pull) in many.items():
            if key in attributes:
                fields[field] = _unique((*fields.get(field, ()), *map(pull, attributes[key])))
    except AttributeValueError as error:
        raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, str(error)) from None
    return Change(**fields)


def _unique(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _shown(key: Key) -> str:
    return f"{key[1]} of vendor {key[0]}" if isinstance(key, tuple) else str(key)
