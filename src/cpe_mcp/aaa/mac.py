"""HMAC-SHA-256 (RFC 2104, FIPS 180-4) with the interpreter's own hash. Python's hmac brings hashlib along, and that OpenSSL: a
megabyte and more for each relay worker of a small router, which makes one cookie for each connection and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

BLOCK_OCTETS = 64
INNER = bytes(octet ^ 0x36 for octet in range(256))
OUTER = bytes(octet ^ 0x5C for octet in range(256))


def _hash() -> Callable[[bytes], Any]:
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        try:
            own: Callable[[bytes], Any] = import_module(name).sha256
        except (ImportError, AttributeError):
            continue
        return own
    from hashlib import sha256

    return sha256


_sha256 = _hash()


def mac(key: bytes, message: bytes) -> bytes:
    """32 octets."""
    if len(key) > BLOCK_OCTETS:
        key = _sha256(key).digest()
    key = key.ljust(BLOCK_OCTETS, b"\0")
    inner: bytes = _sha256(key.translate(INNER) + message).digest()
    outer: bytes = _sha256(key.translate(OUTER) + inner).digest()
    return outer
