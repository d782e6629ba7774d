"""How one setting is declared: beside its field, with everything a person needs to know about it.

A settings dataclass is one UCI section type; each field is one UCI option of the same name, and :func:`option` carries
type, range, unit and meaning. The parser (:mod:`.uci`), the error messages, the sample configuration and the manual's
tables are all made from these declarations and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """The declaration of one UCI option."""

    kind: str
    """``text``, ``flag``, ``integer``, ``number``, ``address``, ``prefix``, ``host`` (an address, or address:port),
    ``secret``, ``choice``, ``mac``, ``ports`` (one or a range), ``dscp``, ``dscp-map``, ``domain``, ``scheme``,
    ``rule-scheme``; ``many``
    says whether the option is a UCI list of them."""
    doc: str
    """One sentence for the manual and for the comment in the shipped file."""
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False
    private: bool = False
    """Names a person or what somebody visits: in no report that others read. Addresses are known without it."""


METADATA_KEY = "option"


def option(
    kind: str,
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: Sequence[str] = (),
    many: bool = False,
    private: bool = False,
) -> Any:
    """A dataclass field that is a UCI option. ``default`` of a list is a tuple."""
    declared = Option(kind, doc, low, high, unit, tuple(choices), many, private)
    return dataclasses.field(default=default, metadata={METADATA_KEY: declared})


def declared_options(section_type: type) -> dict[str, Option]:
    """Name -> declaration of every option of a settings dataclass, in the order they are declared."""
    return {
        field.name: field.metadata[METADATA_KEY]
        for field in dataclasses.fields(section_type)
        if METADATA_KEY in field.metadata
    }
