"""The concentrator's sessions, as dynamic authorization (RFC 5176) finds, changes and ends them.

A session is a source address that RADIUS has accepted, or a subscriber of the table. What is asked of several holds for all of
them, or for none: whatever can fail comes before anything is another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from cpe_mcp.aaa.dynamic import Change, ErrorCause, Refused, Selector
from cpe_mcp.concentrator.authorizer import Authorizer, Session, Verdict
from cpe_mcp.concentrator.filters import FilterError, FilterHook
from cpe_mcp.policy.reasons import Reason

ABILITIES = (
    "down_mbit",
    "up_mbit",
    "scheme",
    "connections",
    "session_timeout_s",
    "filters",
    "concentrators",
)
"""Fields of :class:`Change` that mean something here. Service classes are the router's alone."""
OF_RADIUS_ONLY = ("scheme", "session_timeout_s", "filters")
"""Of these the table knows nothing."""


class Host(Protocol):
    """What this module needs of :class:`cpe_mcp.concentrator.control.Control`."""

    filters: FilterHook
    authorizer: Authorizer

    def own_addresses(self) -> Collection[str]: ...

    def set_caps(self, caps_mbit: Mapping[str, tuple[float, float]]) -> None: ...

    def forget(self, who: Mapping[str, str]) -> None: ...

    def follow_filters(self, *addresses: str) -> None: ...

    def ended(self, subscriber: str) -> None: ...

    def session_id(self, subscriber: str) -> str: ...


class SubscriberSessions:
    """See :class:`cpe_mcp.aaa.dynamic.Sessions`. A session is a :class:`Session`, or the :class:`Verdict` of the table."""

    def __init__(self, host: Host, *, now: Callable[[], float]) -> None:
        self._host = host
        self._now = now

    def find(self, selector: Selector) -> list[Session | Verdict]:
        """Those that it means, lapsed ones too: their flows may run still."""
        authorizer = self._host.authorizer
        selector = selector._replace(user=_address(selector.user))
        addresses = {*selector.addresses, *authorizer.addresses_of(selector.user), selector.user}
        sessions = [session for session in map(authorizer.session, sorted(addresses)) if session is not None]
        found: list[Session | Verdict] = [
            session
            for session in sessions
            if selector.matches(
                users=(session.verdict.subscriber, session.address),
                addresses=(session.address,),
                **self._ids(session.verdict.subscriber),
            )
        ]
        names = {selector.user, *map(authorizer.table_name_of, selector.addresses)}
        for verdict in map(authorizer.table_row, sorted(names)):
            if verdict is not None:
                theirs = [a for a in selector.addresses if authorizer.table_name_of(a) == verdict.subscriber]
                ids = self._ids(verdict.subscriber)
                if selector.matches(users=(verdict.subscriber,), addresses=theirs, **ids):
                    found.append(verdict)
        return found

    def _ids(self, subscriber: str) -> dict[str, str]:
        """As accounting calls his session; it is one of its own, not part of another."""
        session_id = self._host.session_id(subscriber)
        return {"session_id": session_id, "multi_session_id": session_id}

    def change(self, sessions: Sequence[Any], change: Change) -> None:
        """Raises Refused. A session that is over has no terms to change, but can be given a new time."""
        host, now = self._host, self._now()
        if change.session_timeout_s is None:
            sessions = [row for row in sessions if not (isinstance(row, Session) and row.until <= now)]
        if not sessions:
            raise Refused(ErrorCause.SESSION_CONTEXT_NOT_FOUND, "the session is over")
        of_radius = [row for row in sessions if isinstance(row, Session)]
        of_table = [row for row in sessions if isinstance(row, Verdict)]
        for name in OF_RADIUS_ONLY if of_table else ():
            if getattr(change, name) is not None:
                text = f"{of_table[0].subscriber} is a subscriber of the table, which has no {name.replace('_', ' ')}"
                raise Refused(ErrorCause.UNSUPPORTED_ATTRIBUTE, text)
        if change.session_timeout_s == 0:
            raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, "a Session-Timeout of 0 is no session")
        for name in change.filters or ():
            if not host.filters.knows(name):
                raise Refused(ErrorCause.INVALID_ATTRIBUTE_VALUE, f"there is no filter {name!r} here")
        is_moved = None
        if change.concentrators is not None:
            ours = host.own_addresses()
            is_moved = not any(address in ours for addresses, _ in change.concentrators for address in addresses)
        if change.filters is not None:
            try:
                host.filters.apply({session.address: change.filters for session in of_radius})
            except FilterError as error:
                raise Refused(ErrorCause.RESOURCES_UNAVAILABLE, str(error)) from None
        # Nothing fails from here on.
        host.authorizer.replace(
            [_changed_session(session, change, is_moved, now) for session in of_radius],
            {row.subscriber: _changed(row, change, is_moved) for row in of_table},
        )
        verdicts = [_changed(row, change, is_moved) for row in (*(s.verdict for s in of_radius), *of_table)]
        host.set_caps({verdict.subscriber: verdict.cap_mbit for verdict in verdicts})
        for row in sessions:
            host.forget({**_who(row), **({"end": "warm"} if is_moved else {})})

    def disconnect(self, sessions: Sequence[Any]) -> None:
        """They are asked about anew at their next connection; what they have now ends."""
        for row in sessions:
            if isinstance(row, Session):
                self._host.authorizer.withdraw(row.address)
            self._host.forget({**_who(row), "end": "flows"})
            self._host.ended(row.verdict.subscriber if isinstance(row, Session) else row.subscriber)
        self._host.follow_filters()


def _who(row: Session | Verdict) -> dict[str, str]:
    """As frame ``forget`` names it."""
    return {"address": row.address} if isinstance(row, Session) else {"subscriber": row.subscriber}


def _changed_session(session: Session, change: Change, is_moved: bool | None, now: float) -> Session:
    until = session.until
    since = session.since
    if change.session_timeout_s is not None:
        since, until = now, now + change.session_timeout_s
    return session._replace(
        verdict=_changed(session.verdict, change, is_moved),
        since=since,
        until=until,
        is_lapsed=until <= now,
        scheme=session.scheme if change.scheme is None else change.scheme,
        filters=session.filters if change.filters is None else change.filters,
    )


def _changed(verdict: Verdict, change: Change, is_moved: bool | None) -> Verdict:
    down, up = verdict.cap_mbit
    verdict = verdict._replace(
        cap_mbit=(
            down if change.down_mbit is None else float(change.down_mbit),
            up if change.up_mbit is None else float(change.up_mbit),
        ),
        connections=verdict.connections if change.connections is None else change.connections,
    )
    if is_moved is None:
        return verdict
    return verdict._replace(kind="reject" if is_moved else "accept", reason=Reason.MOVED if is_moved else Reason.READY)


def _address(text: str) -> str:
    """The address that a User-Name is, as sessions have it; the text when it is none."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text
