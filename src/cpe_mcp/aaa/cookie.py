"""The Convert Cookie (RFC 8803 section 4.2.7): which subscriber a connection belongs to, and the proof of it. It covers no
address, since a mobile line's changes and is shared. Every connection has one of its own. No IO; Unix time in s is an argument.

Layout, in octets::

    0      version, 2
    1      kind: 0 own table, 1 the operator's handle
    2      epoch: low 16 bits of the number of EPOCH_S since 1970
    4      handle: kind 0: 16 octets; kind 1: its length in one octet, and it
    ..     nonce, 8
    ..     MAC, 16: HMAC-SHA-256 with the subscriber's key over LABEL, the whole epoch, and everything before, cut
    ..     zeros up to a whole number of 32-bit words: the TLV counts in words

Kind 0: the handle is made of the name with the subscriber's key, another one in each epoch: only the concentrator, which has
the table, knows whose it is. Kind 1: AAA makes handle and key with a secret that it shares with the operator's concentrators
(:func:`make_handle`); these take everything out of the handle and keep no table (design D11).

Kind CHALLENGE is no cookie but stands in the place of one in a concentrator's Error 3: its Unix time, for a router without a
clock. 8 octets: version, kind, time in 6.
"""

from __future__ import annotations

from _operator import _compare_digest as is_same  # hmac.compare_digest, without what hmac brings along
from os import urandom
from typing import NamedTuple

from cpe_mcp.aaa.mac import mac

VERSION = 2
OWN_TABLE, OPERATOR, CHALLENGE = 0, 1, 0x80
EPOCH_S = 300
"""A cookie is taken in its epoch and the ones beside it: 5 to 10 minutes, and a clock may be wrong by that."""
LABEL = b"cpe-mcp convert cookie 2\x00"
"""Keeps a MAC made for this purpose from being good for any other that may use the same key."""
HANDLE_LABEL = b"cpe-mcp convert handle 2\x00"
NAME_LABEL = b"cpe-mcp handle name\x00"
KEY_LABEL = b"cpe-mcp handle key\x00"
HANDLE_OCTETS = 16
NONCE_OCTETS = 8
MAC_OCTETS = 16
"""128 bits: guessing is hopeless on line, and the cookie stays small in every first segment."""
MAX_NAME_OCTETS = 200
"""With it a handle of kind 1 fits its length octet."""
MAX_HANDLE_OCTETS = 255
SEED_OCTETS, EXPIRY_OCTETS, NAME_STEP = 8, 4, 16
"""A name takes a multiple of NAME_STEP octets of its handle, so that the length says little."""
KEY_OCTETS = 32
WORD_OCTETS = 4
CHALLENGE_OCTETS = 8


class CookieError(ValueError):
    """A cookie or handle cannot be made of these settings."""


class Credential(NamedTuple):
    """What a router makes its cookies of."""

    name: str = ""
    """In the concentrator's own table; "" with a handle."""
    key: bytes = b""
    """b"": no cookie is made."""
    handle: bytes = b""
    """From AAA."""

    def __repr__(self) -> str:
        return f"<credential of {self.name or 'a handle'}>" if self.key else "<no credential>"


NO_CREDENTIAL = Credential()


class Parts(NamedTuple):
    """A cookie that is one by its layout; nothing of it is proven."""

    kind: int
    epoch: int
    """16 bits."""
    handle: bytes
    nonce: bytes
    head: bytes
    """What the MAC covers."""
    proof: bytes


class Handle(NamedTuple):
    """What the concentrators of an operator read in a handle."""

    name: str
    expires: int
    """Unix time, s."""
    key: bytes

    def __repr__(self) -> str:
        return f"<handle of {self.name} until {self.expires}>"


# The router's half ----------------------------------------------------------------------------------------------------


def own_credential(name: str, key: str) -> Credential:
    """Of a subscriber of the concentrator's own table. Raises CookieError."""
    octets = len(name.encode())
    if not 1 <= octets <= MAX_NAME_OCTETS:
        raise CookieError(f"subscriber name must have 1 to {MAX_NAME_OCTETS} octets, {name!r} has {octets}")
    if not key:
        raise CookieError(f"subscriber {name!r} has no key: set option key at both ends")
    return Credential(name, key.encode())


def make_cookie(credential: Credential, unix_s: float, nonce: bytes = b"") -> bytes:
    """For one connection, a multiple of 4 octets long; b"" without a credential."""
    if not credential.key:
        return b""
    epoch = epoch_of(unix_s)
    if credential.handle:
        kind, handle = OPERATOR, bytes((len(credential.handle),)) + credential.handle
    else:
        kind, handle = OWN_TABLE, own_handle(credential.name, credential.key, epoch)
    head = bytes((VERSION, kind)) + (epoch & 0xFFFF).to_bytes(2, "big") + handle + (nonce or urandom(NONCE_OCTETS))
    cookie = head + _proof(credential.key, epoch, head)
    return cookie + bytes(-len(cookie) % WORD_OCTETS)


def time_of(value: bytes) -> int | None:
    """The Unix time in a challenge; None: it is a cookie of another make."""
    if len(value) == CHALLENGE_OCTETS and value[0] == VERSION and value[1] == CHALLENGE:
        return int.from_bytes(value[2:], "big")
    return None


# The concentrator's half ----------------------------------------------------------------------------------------------


def make_challenge(unix_s: float) -> bytes:
    """8 octets."""
    return bytes((VERSION, CHALLENGE)) + int(unix_s).to_bytes(CHALLENGE_OCTETS - 2, "big")


def pull_cookie(cookie: bytes) -> Parts | None:
    """None: it is none of ours. Never raises."""
    if len(cookie) < 5 or cookie[0] != VERSION or cookie[1] not in (OWN_TABLE, OPERATOR):
        return None
    kind = cookie[1]
    start, octets = (4, HANDLE_OCTETS) if kind == OWN_TABLE else (5, cookie[4])
    nonce_at = start + octets
    mac_at = nonce_at + NONCE_OCTETS
    end = mac_at + MAC_OCTETS
    if not octets or len(cookie) != end + -end % WORD_OCTETS or any(cookie[end:]):
        return None
    epoch = int.from_bytes(cookie[2:4], "big")
    return Parts(kind, epoch, cookie[start:nonce_at], cookie[nonce_at:mac_at], cookie[:mac_at], cookie[mac_at:end])


def is_proven(parts: Parts, key: bytes, epoch: int) -> bool:
    """Whether it was made with this key in this epoch; takes as long for every MAC."""
    return bool(key) and is_same(parts.proof, _proof(key, epoch, parts.head))


def own_handle(name: str, key: bytes, epoch: int) -> bytes:
    """Of a subscriber of the own table, in one epoch."""
    return mac(key, HANDLE_LABEL + epoch.to_bytes(8, "big") + name.encode())[:HANDLE_OCTETS]


def read_handle(handle: bytes, secret: bytes) -> Handle | None:
    """What AAA has put into it. Not proven: with other octets it has another key, and nobody knows that one."""
    seed, hidden = handle[:SEED_OCTETS], handle[SEED_OCTETS:]
    if not secret or len(hidden) < EXPIRY_OCTETS + NAME_STEP:
        return None
    plain = _hide(secret, seed, hidden)
    try:
        name = plain[EXPIRY_OCTETS:].rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return None
    if not name or not name.isprintable():
        return None
    return Handle(name, int.from_bytes(plain[:EXPIRY_OCTETS], "big"), _key_of(secret, handle))


# AAA's half -----------------------------------------------------------------------------------------------------------


def make_handle(name: str, secret: bytes, expires: float, seed: bytes = b"") -> Credential:
    """Handle and key of one subscriber until then (Unix time, s). Raises CookieError."""
    octets = name.encode()
    if not 1 <= len(octets) <= MAX_NAME_OCTETS or not name.isprintable():
        raise CookieError(f"subscriber name must have 1 to {MAX_NAME_OCTETS} printable octets: {name!r}")
    if not secret:
        raise CookieError("no secret: set option cookie_secret of section global")
    if not 0 < expires < 2 ** (8 * EXPIRY_OCTETS):
        raise CookieError("the handle would be valid for too long")
    seed = seed or urandom(SEED_OCTETS)
    plain = int(expires).to_bytes(EXPIRY_OCTETS, "big") + octets + bytes(-len(octets) % NAME_STEP)
    handle = seed + _hide(secret, seed, plain)
    return Credential("", _key_of(secret, handle), handle)


# Shared ---------------------------------------------------------------------------------------------------------------


def epoch_of(unix_s: float) -> int:
    """Number of the epoch."""
    return max(0, int(unix_s)) // EPOCH_S


def whole_epoch(low: int, around: int) -> int | None:
    """The epoch of these 16 bits, if it is ``around`` or beside it."""
    for epoch in (around, around - 1, around + 1):
        if epoch >= 0 and epoch & 0xFFFF == low:
            return epoch
    return None


def _proof(key: bytes, epoch: int, head: bytes) -> bytes:
    return mac(key, LABEL + epoch.to_bytes(8, "big") + head)[:MAC_OCTETS]


def _key_of(secret: bytes, handle: bytes) -> bytes:
    return mac(secret, KEY_LABEL + handle)[:KEY_OCTETS]


def _hide(secret: bytes, seed: bytes, data: bytes) -> bytes:
    """Its own reverse."""
    stream = b""
    while len(stream) < len(data):
        stream += mac(secret, NAME_LABEL + seed + bytes((len(stream) // 32,)))
    return bytes(one ^ other for one, other in zip(data, stream, strict=False))
