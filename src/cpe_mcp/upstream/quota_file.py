"""The file in which the used volumes survive: JSON, written in one step, the same form in RAM and on flash."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cpe_mcp.policy.quota import Day

QUOTA_FILE = "quota.json"
BROKEN_SUFFIX = ".broken"


class QuotaFileError(Exception):
    """What is there is not such a file; the text says why."""


class Entry(NamedTuple):
    """One WAN."""

    periods: Mapping[Day, int]
    """First day of a counting period -> bytes."""
    device: str
    ifindex: int
    """The kernel's index of the device at the last look; another one means that it was made anew, counters and all."""
    received: int
    sent: int
    """The kernel's counters at the last look: what they say more is not in ``periods`` yet."""


class Saved(NamedTuple):
    """A file's content."""

    boot: str
    """The kernel's boot id: another one means that all counters began anew."""
    written_s: float
    """Of the wall clock; of no more worth than that."""
    wans: Mapping[str, Entry]


def read(path: str) -> Saved | None:
    """None: there is none. Raises QuotaFileError; OSError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    try:
        row = json.loads(data)
        wans = {str(name): _entry(entry) for name, entry in row["wans"].items()}
        return Saved(str(row["boot"]), float(row["written_s"]), wans)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise QuotaFileError(f"{path} is damaged ({type(error).__name__}: {error})") from None


def write(path: str, saved: Saved) -> None:
    """Makes the directory too. A reader, also after a power cut, sees the old content or the new one. Raises OSError."""
    wans = {
        name: {**entry._asdict(), "periods": {str(day): count for day, count in entry.periods.items()}}
        for name, entry in saved.wans.items()
    }
    data = json.dumps({"boot": saved.boot, "written_s": saved.written_s, "wans": wans}, indent=1) + "\n"
    temporary = f"{path}.new"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def put_aside(path: str) -> str:
    """Keep a damaged file under another name, which is returned. Raises OSError."""
    aside = path + BROKEN_SUFFIX
    os.replace(path, aside)
    return aside


def remove(directory: str) -> None:
    """All of ours, and the directory when nothing else is in it."""
    path = os.path.join(directory, QUOTA_FILE)
    for name in (path, f"{path}.new", path + BROKEN_SUFFIX):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _entry(row: Any) -> Entry:
    numbers = [_count(row[name]) for name in ("ifindex", "received", "sent")]
    periods = {Day.parse(day): _count(count) for day, count in row["periods"].items()}
    return Entry(periods, str(row["device"]), *numbers)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
