"""The RADIUS dictionary that comes with the package, under the enterprise number of the settings."""

from __future__ import annotations

import os

from cpe_mcp.settings.router import DEFAULT_ENTERPRISE

DICTIONARY_FILE = os.path.join(os.path.dirname(__file__), "cpe_mcp.dictionary")


def dictionary_text(enterprise: int) -> str:
    """Our whole dictionary under this enterprise number, in FreeRADIUS syntax."""
    with open(DICTIONARY_FILE, encoding="ascii") as file:
        return file.read().replace(f"\t{DEFAULT_ENTERPRISE}\n", f"\t{enterprise}\n")


def vendor_dictionary_text(enterprise: int) -> str:
    """Only the part that a RADIUS server lacks: our vendor and its attributes."""
    text = dictionary_text(enterprise)
    return text[text.index("VENDOR\t") :]
