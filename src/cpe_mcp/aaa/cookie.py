"""The Convert Cookie (RFC 8803 section 4.2.5) that says which subscriber a connection belongs to, and proves it.

This is a simple first form: one fixed value per subscriber and key, so whoever reads it off the wire can use it until
the key changes. Its final form is a decision still to be made; nothing outside this file knows the layout. Who the
subscribers are and what their keys are must not be in here.

Layout, in octets::

    0      version, 1
    1      length n of the name
    2      n octets of the subscriber's name, UTF-8
    2+n    16 octets: HMAC-SHA-256 with the subscriber's key over LABEL and everything before, cut to 128 bits
    18+n   zeros up to a whole number of 32-bit words

The zeros are part of the cookie because the TLV counts in words: a cookie of another size would come back longer
than it was sent.
"""

from __future__ import annotations

import hmac

VERSION = 1
LABEL = b"cpe-mcp convert cookie 1\x00"
"""Keeps a MAC made for this purpose from being good for any other that may use the same key."""
MAC_OCTETS = 16
"""128 bits: guessing is hopeless on line, and the cookie stays small in every first segment."""
MAX_NAME_OCTETS = 255
"""What the length octet can say; with it the cookie still fits a TLV (1016 octets)."""
WORD_OCTETS = 4


class CookieError(ValueError):
    """A cookie cannot be made of these settings."""


def make_cookie(subscriber: str, key: str) -> bytes:
    """The cookie of ``subscriber``, a multiple of 4 octets long. Raises CookieError."""
    name = subscriber.encode()
    if not 1 <= len(name) <= MAX_NAME_OCTETS:
        raise CookieError(f"subscriber name must have 1 to {MAX_NAME_OCTETS} octets, {subscriber!r} has {len(name)}")
    if not key:
        raise CookieError(f"subscriber {subscriber!r} has no key: set option key at both ends")
    head = bytes((VERSION, len(name))) + name
    cookie = head + _mac(head, key)
    return cookie + bytes(-len(cookie) % WORD_OCTETS)


def subscriber_of(cookie: bytes) -> str | None:
    """The name in a cookie, not proven; None when it is not a cookie of ours."""
    if len(cookie) < 2 or cookie[0] != VERSION or cookie[1] == 0:
        return None
    end = 2 + cookie[1] + MAC_OCTETS
    if len(cookie) != end + -end % WORD_OCTETS or any(cookie[end:]):
        return None
    try:
        return cookie[2 : 2 + cookie[1]].decode()
    except UnicodeDecodeError:
        return None


def check_cookie(cookie: bytes, key: str) -> bool:
    """Whether the cookie was made with ``key``. False without a key, however the cookie looks."""
    if not key or subscriber_of(cookie) is None:
        return False
    mac_at = 2 + cookie[1]
    return hmac.compare_digest(cookie[mac_at : mac_at + MAC_OCTETS], _mac(cookie[:mac_at], key))


def _mac(head: bytes, key: str) -> bytes:
    return hmac.digest(key.encode(), LABEL + head, "sha256")[:MAC_OCTETS]
