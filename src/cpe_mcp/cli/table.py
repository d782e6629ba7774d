"""Numbers, durations and tables as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "-"
"""In place of an empty cell: columns stay countable for awk."""


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """``columns``: key -> heading. Text is aligned left, numbers right; one line per row, no trailing blanks."""
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    headings = list(columns.values())
    widths = [max(len(line[i]) for line in [headings, *cells]) for i in range(len(headings))]
    right = [bool(rows) and all(_is_number(row.get(key)) for row in rows) for key in columns]
    return "\n".join(
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [headings, *cells]
    )


def amount(count: float) -> str:
    """Bytes with a decimal unit: ``0 B``, ``1.5 kB``, ``12 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    digits = 1 if unit != "B" and count < 9.95 else 0
    return f"{count:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """The two largest units: ``12 s``, ``3 min 5 s``, ``2 h 0 min``, ``4 d 7 h``."""
    total = int(seconds)
    for size, unit, rest_size, rest_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if total >= size:
            return f"{total // size} {unit} {total % size // rest_size} {rest_unit}"
    return f"{total} s"


def endpoint(address: str, port: int) -> str:
    """``192.0.2.1:443`` or ``[2001:db8::1]:443``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _cell(value: Any) -> str:
    if value is None or value in ("", []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
