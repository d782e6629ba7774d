"""The concentrator's sessions, as dynamic authorization (RFC 5176) finds, changes and ends them.

A session is a source address that RADIUS has accepted, a subscriber of the table, or one who came with a handle. What is asked
of several holds for all of them, or for none: whatever can fail comes before anything is another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol

from cpe_mcp.aaa.dynamic import Change, ErrorCause, Refused, Selector
from cpe_mcp.concentrator.authorizer import Authorizer, Session
from cpe_mcp.concentrator.filters import FilterError, FilterHook
from cpe_mcp.concentrator.handles import HandleSession
from cpe_mcp.concentrator.verdict import Verdict
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
OF_ADDRESSES_ONLY = ("scheme", "session_timeout_s", "filters")
"""Of these the table knows nothing, nor does a handle."""


class Host(Protocol):
    """What this module needs of :class:`cpe_mcp.concentrator.control.Control`."""

    filters: FilterHook
    authorizer: Authorizer

    def own_addresses(self) -> Collection[str]: ...

    def set_caps(self, caps_mbit: Mapping[str, tuple[float, float]]) -> None: ...

    def forget(self, who: Mapping[str, Any]) -> None: ...

    def follow_filters(self, *addresses: str) -> None: ...

    def ended(self, subscriber: str) -> None: ...

    def session_id(self, subscriber: str) -> str: ...

    def subscriber_of(self, session_id: str) -> str: ...

    def handle_ttl_s(self) -> float: ...


class Unseen(NamedTuple):
    """A subscriber who may have a handle that was not seen here; nothing else is known of him."""

    subscriber: str


Row = Session | HandleSession | Verdict | Unseen
"""A session: of an address, of a handle, of the table, or what may be one of a handle."""


class SubscriberSessions:
    """See :class:`cpe_mcp.aaa.dynamic.Sessions`. A session is a :data:`Row`."""

    def __init__(self, host: Host, *, now: Callable[[], float], unix: Callable[[], float]) -> None:
        self._host = host
        self._now = now
        self._unix = unix

    def find(self, selector: Selector) -> list[Row]:
        """Those that it means, lapsed ones too: their flows may run still."""
        authorizer = self._host.authorizer
        selector = selector._replace(user=_address(selector.user))
        users = {selector.user, *map(self._host.subscriber_of, (selector.session_id, selector.multi_session_id))} - {""}
        addresses = {*selector.addresses, *users}.union(*map(authorizer.addresses_of, users))
        sessions = [session for session in map(authorizer.session, sorted(addresses)) if session is not None]
        found: list[Row] = [
            session
            for session in sessions
            if self._means(selector, session.verdict.subscriber, users=(session.address,), addresses=(session.address,))
        ]
        for name in sorted(users):
            handle = authorizer.handles.get(name)
            if not self._means(selector, name):  # its address is anybody's: a NAT's, say
                continue
            if handle is not None:
                found.append(handle)
            elif name == selector.user and self._host.handle_ttl_s() and authorizer.table_row(name) is None:
                found.append(Unseen(name))
        names = {*users, *map(authorizer.table_name_of, selector.addresses)}
        for verdict in map(authorizer.table_row, sorted(names)):
            if verdict is not None:
                theirs = [a for a in selector.addresses if authorizer.table_name_of(a) == verdict.subscriber]
                if self._means(selector, verdict.subscriber, addresses=theirs):
                    found.append(verdict)
        return found

    def _means(
        self, selector: Selector, subscriber: str, *, users: Collection[str] = (), addresses: Collection[str] = ()
    ) -> bool:
        """Of accounting, he has one session, which is not part of another."""
        session_id = self._host.session_id(subscriber)
        return selector.matches(
            users=(subscriber, *users),
            addresses=addresses,
            session_ids=(session_id,),
            multi_session_id=session_id,
        )

    def change(self, sessions: Sequence[Any], change: Change) -> None:
        """Raises Refused. A session that is over has no terms to change, but can be given a new time."""
        host, now = self._host, self._now()
        sessions = [row for row in sessions if not isinstance(row, Unseen)]
        if change.session_timeout_s is None:
            sessions = [row for row in sessions if isinstance(row, Verdict) or row.until > now]
        if not sessions:
            raise Refused(ErrorCause.SESSION_CONTEXT_NOT_FOUND, "the session is over, or there is none")
        of_addresses = [row for row in sessions if isinstance(row, Session)]
        of_handles = [row for row in sessions if isinstance(row, HandleSession)]
        of_table = [row for row in sessions if isinstance(row, Verdict)]
        _check_abilities(change, of_addresses, of_handles, of_table)
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
                host.filters.apply({session.address: change.filters for session in of_addresses})
            except FilterError as error:
                raise Refused(ErrorCause.RESOURCES_UNAVAILABLE, str(error)) from None
        # Nothing fails from here on.
        host.authorizer.replace(
            [_changed_session(session, change, is_moved, now) for session in of_addresses],
            {row.subscriber: _changed(row, change, is_moved) for row in of_table},
            [_changed(row.verdict, change, is_moved) for row in of_handles],
        )
        if change.down_mbit is not None or change.up_mbit is not None:
            # One who has both: what is not named is as RADIUS said of his address, of which his handle knows nothing.
            rows: list[Session | HandleSession | Verdict] = [*of_handles, *of_table, *of_addresses]
            verdicts = [_changed(_verdict(row), change, is_moved) for row in rows]
            host.set_caps(
                {
                    name: verdict.cap_mbit
                    for row, verdict in zip(rows, verdicts, strict=True)
                    for name in self._names(row)
                }
            )
        for row in sessions:
            host.forget({**self._who(row), **({"end": "warm"} if is_moved else {})})

    def disconnect(self, sessions: Sequence[Any]) -> None:
        """What they have now ends. Who has an address is asked about anew at his next connection, who has a handle needs
        another one. Raises Refused."""
        authorizer = self._host.authorizer
        handles = [_name(row) for row in sessions if isinstance(row, HandleSession | Unseen)]
        if not authorizer.handles.has_room(len(handles)):
            raise Refused(ErrorCause.RESOURCES_UNAVAILABLE, "too many handles are ended that have time left")
        for row in sessions:
            names = self._names(row)
            self._host.forget({**self._who(row), "end": "flows"})
            if isinstance(row, Session):
                authorizer.withdraw(row.address)
            for name in names:
                self._host.ended(name)
        for name in handles:
            authorizer.handles.end(name, self._now(), self._unix(), self._host.handle_ttl_s())
        self._host.follow_filters()

    def _names(self, row: Row) -> tuple[str, ...]:
        return self._host.authorizer.names_at(row) if isinstance(row, Session) else (_name(row),)

    def _who(self, row: Row) -> dict[str, Any]:
        """As frame ``forget`` names it."""
        if isinstance(row, Session):
            return {"address": row.address, "names": list(self._names(row))}
        return {"subscriber": _name(row)}


def _check_abilities(
    change: Change, of_addresses: Sequence[Session], of_handles: Sequence[HandleSession], of_table: Sequence[Verdict]
) -> None:
    """Raises Refused where a subscriber has nothing that the change is for. One who has come with a handle and from an address
    that RADIUS knows has."""
    by_address = {row.verdict.subscriber for row in of_addresses}
    only_handles = [name for row in of_handles if (name := row.verdict.subscriber) not in by_address]
    for name in OF_ADDRESSES_ONLY:
        if getattr(change, name) is None:
            continue
        for who, rows in (
            ("a subscriber of the table", of_table),
            ("who is known by a handle only", only_handles),
        ):
            if rows:
                raise Refused(ErrorCause.UNSUPPORTED_ATTRIBUTE, f"{who} has no {name.replace('_', ' ')}")


def _verdict(row: Session | HandleSession | Verdict) -> Verdict:
    return row if isinstance(row, Verdict) else row.verdict


def _name(row: Row) -> str:
    return row.subscriber if isinstance(row, Unseen) else _verdict(row).subscriber


def _changed_session(session: Session, change: Change, is_moved: bool | None, now: float) -> Session:
    until = session.until
    since = session.since
    if change.session_timeout_s is not None:
        since, until = now, now + change.session_timeout_s
    return session._replace(
        verdict=_changed(session.verdict, change, is_moved),
        since=since,
        until=until,
        ends=session.ends if change.session_timeout_s is None else until,
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
