"""Asking a running daemon at its question socket. Blocking and light: the CLI starts with little more than this."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

MAX_LINE_BYTES = 4 * 1024 * 1024
"""A list of 10,000 flows takes about 3 MB."""
ASK_TIMEOUT_S = 10.0


class ApiError(Exception):
    """A plain sentence instead of a result: what a method of a daemon raises, and what the asker gets."""


def ask(path: str, method: str, args: Mapping[str, Any] | None = None, *, timeout_s: float = ASK_TIMEOUT_S) -> Any:
    """Ask a running daemon and wait. Raises ApiError with its sentence, OSError when it does not run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(path)
        connection.sendall(json.dumps({"method": method, "args": dict(args or {})}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            line = lines.readline(MAX_LINE_BYTES) or b'{"error": "the daemon closed the connection"}'
    try:
        answer = json.loads(line)
    except ValueError:
        raise ApiError(f"the daemon's answer is longer than {MAX_LINE_BYTES} octets: ask for less") from None
    if "error" in answer:
        raise ApiError(answer["error"])
    return answer["result"]
