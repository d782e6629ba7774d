"""The LuCI app's translation template, made from the texts inside ``_( )`` of its JavaScript and the titles of its menu.

``python tools/luci_pot.py`` prints ``po/templates/cpe-mcp.pot``; ``make generate`` writes it, and
``tests/luci/test_luci_translations.py`` holds the committed one to it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

APP = Path(__file__).resolve().parents[1] / "luci" / "luci-app-cpe-mcp"
PACKAGE_PATH = "applications/luci-app-cpe-mcp"
"""How translators know the files: by the path in LuCI's feed."""
CALL = re.compile(r"(?<![\w.$])_\(\s*'((?:[^'\\\n]|\\.)*)'\s*\)")
ANY_CALL = re.compile(r"(?<![\w.$])_\(")


def texts() -> dict[str, list[str]]:
    """Text -> places (``file:line``), in the order of files and lines. Raises ValueError for a ``_( )`` that holds
    anything but one text in single quotes: no tool could translate it."""
    found: dict[str, list[str]] = {}
    for path in sorted((APP / "htdocs").rglob("*.js")):
        source = path.read_text(encoding="utf-8")
        place = f"{PACKAGE_PATH}/{path.relative_to(APP)}"
        calls = list(CALL.finditer(source))
        odd = {match.start() for match in ANY_CALL.finditer(source)} - {match.start() for match in calls}
        if odd:
            line = source.count("\n", 0, min(odd)) + 1
            raise ValueError(f"{path}:{line}: _( ) holds one text in single quotes and nothing else")
        for match in calls:
            text = re.sub(r"\\(.)", r"\1", match[1])
            found.setdefault(text, []).append(f"{place}:{source.count(chr(10), 0, match.start()) + 1}")
    for path in sorted((APP / "root/usr/share/luci/menu.d").glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")).values():
            found.setdefault(entry["title"], []).append(f"{PACKAGE_PATH}/{path.relative_to(APP)}")
    return found


def template() -> str:
    """The whole file."""
    lines = ['msgid ""', 'msgstr "Content-Type: text/plain; charset=UTF-8"', ""]
    for text, places in sorted(texts().items()):
        lines += [*(f"#: {place}" for place in places), f"msgid {quoted(text)}", 'msgstr ""', ""]
    return "\n".join(lines[:-1]) + "\n"


def quoted(text: str) -> str:
    """A text as a .po file writes it, on one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


if __name__ == "__main__":
    sys.stdout.write(template())
