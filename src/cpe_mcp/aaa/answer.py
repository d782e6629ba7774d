"""What came of one RADIUS question: the vocabulary between the client that asks and the code that acts on the answer."""

from __future__ import annotations

from typing import NamedTuple

from cpe_mcp.aaa.attributes import Concentrator, Quota
from cpe_mcp.aaa.troubles import Trouble

ACCEPT = "accept"
REJECT = "reject"
TIMEOUT = "timeout"


class SecretOctets(bytes):
    """Octets that must not be read in a log line or a traceback: printed, they say only how many they are."""

    def __repr__(self) -> str:
        return f"<{len(self)} secret octets>"

    __str__ = __repr__


class RadiusAnswer(NamedTuple):
    """What came of one question."""

    verdict: str
    """``accept``, ``reject``, or ``timeout`` when no server gave a valid answer."""
    reason: str
    """Reply-Message of the server, or what went wrong; for people."""
    concentrators: tuple[Concentrator, ...] = ()
    """(addresses, port or 0) of each concentrator an Accept names, best first."""
    session_timeout_s: float | None = None
    """How long an Accept holds; None when it does not say."""
    server: str = ""
    """The server that answered."""
    user: str = ""
    """User-Name in the answer: what AAA calls this subscriber; "" when it does not say."""
    down_mbit: int = 0
    """Cap of all the subscriber's connections together, towards the subscriber; 0: none."""
    up_mbit: int = 0
    """The same from the subscriber."""
    scheme: str = ""
    """Distribution scheme that the router is to use, one that :func:`cpe_mcp.paths.scheme.split_scheme` knows; "": its own."""
    service_classes: tuple[tuple[str, str], ...] = ()
    """(class, address): the concentrator of this address serves only what a rule sends to that class."""
    subscriber_key: SecretOctets | None = None
    """Key that the subscriber proves itself with to concentrators; came salt-encrypted (RFC 2868 section 3.5)."""
    handle: bytes = b""
    """What concentrators know the subscriber by, opaque to the router; b"" when the Accept does not say."""
    quotas: tuple[Quota, ...] = ()
    """What each WAN may carry in a month."""
    classes: tuple[bytes, ...] = ()
    """Class attributes, in order: accounting sends them back as they are (RFC 2865 section 5.25)."""
    connections: int = 0
    """Most that the subscriber may have at a concentrator at once; 0: no limit."""
    interim_s: float = 0.0
    """Acct-Interim-Interval: how often accounting is to tell of a session; 0: not said."""
    filters: tuple[str, ...] = ()
    """Filter-Id: names of the filters that the subscriber's traffic has at the concentrator."""
    troubles: tuple[Trouble, ...] = ()
    """The reason as data, where it is not the server's own words."""
