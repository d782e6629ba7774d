"""Two families of errors: ours and the peer's.

Inside this room everything that is wrong with received bytes raises :class:`Violation`. It is turned into the peer's error
in one place per role, ``receive_data``; callers see nothing else and never have to guess who is to blame.
"""

from __future__ import annotations

from cpe_mcp.convert.tlv import ErrorCode


class ConvertError(Exception):
    """Base of what this room raises."""


class LocalError(ConvertError):
    """We misused the protocol: a call that the state does not allow, or a value that does not fit."""


class PeerError(ConvertError):
    """The peer violated the protocol. The connection is of no more use."""

    def __init__(self, text: str, reply: bytes = b"") -> None:
        super().__init__(text)
        self.reply = reply
        """What a Converter sends before it closes, b"" where RFC 8803 wants a bare reset. A Client just resets."""


class Violation(Exception):
    """Internal: what is wrong, and the Convert error a Converter answers it with; None for a bare reset."""

    def __init__(self, text: str, code: ErrorCode | None) -> None:
        super().__init__(text)
        self.code = code
