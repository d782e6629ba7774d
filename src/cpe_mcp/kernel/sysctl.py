"""Kernel values under /proc/sys of the current network namespace: set what is missing, say what was changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/proc/sys")
READ_BYTES = 4096
"""A value is given as a whole, in at most one page."""


class Tuning(NamedTuple):
    """One value and why."""

    name: str
    """Dotted, as ``sysctl`` takes it."""
    value: str
    """Numbers, separated by one blank."""
    at_least: bool
    """True: larger numbers that are set already stay. False: exactly this."""
    reason: str


def read(name: str) -> str | None:
    """The value with single blanks; None where this kernel has no such name."""
    try:
        # Looked at every second: no buffers, no text layer.
        with open(f"{ROOT}/{name.replace('.', '/')}", "rb", buffering=0) as file:
            return " ".join(file.read(READ_BYTES).decode("ascii").split())
    except OSError:
        return None


def tune(table: Iterable[Tuning]) -> tuple[list[str], list[str]]:
    """Apply the table. Returns ``(changes, problems)``, one line each; a name that the kernel lacks is a problem."""
    changes: list[str] = []
    problems: list[str] = []
    for row in table:
        now = read(row.name)
        if now is None:
            problems.append(f"{row.name}: this kernel does not have it")
            continue
        wanted = _at_least(now, row.value) if row.at_least else row.value
        if wanted == now:
            continue
        try:
            (ROOT / row.name.replace(".", "/")).write_text(wanted, encoding="ascii")
        except OSError as error:
            problems.append(f"{row.name}: {error.strerror}")
        else:
            changes.append(f"{row.name}: {now} -> {wanted} ({row.reason})")
    return changes, problems


def _at_least(now: str, wanted: str) -> str:
    if not all(re.fullmatch(r"\d+", word) for word in now.split()):
        return wanted
    pairs = zip(now.split(), wanted.split(), strict=True)
    return " ".join(str(max(int(old), int(new))) for old, new in pairs)
