"""The translation template holds the texts of the pages, and the German translation fits it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PO = ROOT / "luci/luci-app-cpe-mcp/po"
ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', re.MULTILINE)
PLACE = re.compile(r"%[sd%]")


def _entries(text: str) -> dict[str, str]:
    """msgid -> msgstr."""

    def joined(quoted: str) -> str:
        return "".join(str(ast.literal_eval(line)) for line in quoted.splitlines())

    return {joined(match[1]): joined(match[2]) for match in ENTRY.finditer(text)}


def _template() -> dict[str, str]:
    return _entries((PO / "templates/cpe-mcp.pot").read_text())


def test_the_template_is_in_step() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools/luci_pot.py")], capture_output=True, text=True, check=True
    ).stdout
    assert (PO / "templates/cpe-mcp.pot").read_text() == made, "run make generate"


def test_the_template_has_the_texts_of_pages_settings_and_reasons() -> None:
    texts = _template()
    for text in (
        "Connections",
        "The leg to the concentrator is not encrypted by this package.",
        "Use several WANs at once",
        "the link is down",
        "netifd's name of the interface, for example wan; empty: same as the section.",
    ):
        assert text in texts
    assert len(texts) > 200


def test_the_german_translation_fits() -> None:
    template = _template()
    german = _entries((PO / "de/cpe-mcp.po").read_text())
    assert "Language: de" in german.pop("")
    unknown = sorted(text for text in german if text not in template)
    assert len(unknown) <= 0.1 * len(german), f"translated, but on no page any more: {unknown}"
    for text, translated in german.items():
        if translated:
            assert sorted(PLACE.findall(text)) == sorted(PLACE.findall(translated)), text
    missing = [text for text in template if text and not german.get(text)]
    assert not missing, f"shown in English to a person who reads German: {missing}"
