"""The shipped configuration files and the manual's option tables, made from the declarations.

``python -m cpe_mcp.settings.sample router`` prints ``files/etc/config/cpe-mcp``, with ``--table`` the tables of
``docs/manual/settings-router.md``; ``concentrator`` does the same for the other side. Tests hold the committed files
to what this prints.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from typing import Any

from cpe_mcp.settings.load import CONCENTRATOR_SECTIONS, ROUTER_SECTIONS, SectionKind, allowed, plain_number
from cpe_mcp.settings.option import Option, declared_options

SIDES = {"router": ROUTER_SECTIONS, "concentrator": CONCENTRATOR_SECTIONS}
FILES = {"router": "/etc/config/cpe-mcp", "concentrator": "/etc/config/mcp-concentrator"}
EXAMPLE_NAMES = {
    "wan": "dsl",
    "concentrator": "home",
    "listener": "default",
    "subscriber": "alice",
    "dynamic_client": "aaa",
    "interface": "access",
    "filter": "gold",
}
"""How the sample calls the sections of which there may be several."""
EXAMPLES: dict[tuple[str, str], Any] = {
    ("wan", "device"): "eth1",
    ("concentrator", "address"): ("192.0.2.1",),
    ("subscriber", "address"): ("192.0.2.0/24",),
    ("dynamic_client", "address"): ("192.0.2.10",),
    ("interface", "device"): "eth0",
    ("filter", "rule"): ("tcp dport 25 drop",),
}
"""What the sample shows where a section is not allowed without a value. Documentation prefixes only, and no keys:
somebody would use them."""


def sample_file(side: str) -> str:
    """The shipped configuration: every option with its meaning and its default, the default commented out."""
    lines = [
        f"# {FILES[side]}",
        "# Every option is shown with what it is when it is not set. To set it, take away its #,",
        "# and that of the config line above it where there is one.",
    ]
    for type_, kind in SIDES[side].items():
        lines += ["", *(f"# {text}" for text in _about(kind).replace("``", "").splitlines())]
        lines.append(_config_line(type_, kind))
        for name, declared in declared_options(kind.settings).items():
            lines.append(f"\t# {declared.doc} {_range(declared)}".rstrip())
            keyword = "list" if declared.many else "option"
            lines += [f"\t#{keyword} {name} '{value}'" for value in _shown(_sample_value(type_, kind, name))]
    return "\n".join(lines) + "\n"


def option_tables(side: str) -> str:
    """The manual's tables in Markdown, one for each section type."""
    lines: list[str] = []
    for type_, kind in SIDES[side].items():
        name = "" if kind.may_be_anonymous else " 'NAME'" if kind.many else f" '{type_}'"
        lines += [f"## `config {type_}{name}`", "", _about(kind), ""]
        lines += ["| option | when not set | allowed | meaning |", "|---|---|---|---|"]
        for option, declared in declared_options(kind.settings).items():
            default = ", ".join(f"`{value}`" for value in _shown(_default(kind, option)) if value) or "-"
            what = ("list; each " if declared.many else "") + allowed(declared)
            lines.append(f"| `{option}` | {default} | {what} | {declared.doc} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m cpe_mcp.settings.sample``."""
    parser = argparse.ArgumentParser(prog="python -m cpe_mcp.settings.sample", description=__doc__.split("\n")[0])
    parser.add_argument("side", choices=sorted(SIDES))
    parser.add_argument("--table", action="store_true", help="print the manual's tables instead of the file")
    chosen = parser.parse_args(arguments)
    sys.stdout.write(option_tables(chosen.side) if chosen.table else sample_file(chosen.side))
    return 0


def _config_line(type_: str, kind: SectionKind) -> str:
    if kind.may_be_anonymous:
        return f"#config {type_}"
    return f"#config {type_} '{EXAMPLE_NAMES[type_]}'" if kind.many else f"config {type_} '{type_}'"


def _about(kind: SectionKind) -> str:
    """The docstring behind its leading ``config ...``: it is written for people who edit the file."""
    _, _, about = (inspect.getdoc(kind.settings) or "").partition("``: ")
    about = about.strip()
    return about[:1].upper() + about[1:]


def _range(declared: Option) -> str:
    """What the comment adds to the meaning: range, unit, choices."""
    if declared.kind in ("integer", "number", "choice", "dscp") and not declared.many:
        return f"({allowed(declared)})"
    if declared.kind in ("choice", "ports", "mac", "dscp", "dscp-map", "domain"):
        return f"(one line for each; {allowed(declared)})"
    return "(one line for each)" if declared.many else ""


def _default(kind: SectionKind, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(kind.settings) if field.name == name)


def _sample_value(type_: str, kind: SectionKind, name: str) -> Any:
    return EXAMPLES.get((type_, name), _default(kind, name))


def _shown(value: Any) -> list[str]:
    """A value as it is written in the file: one text for a plain option, one for each element of a list."""
    if isinstance(value, tuple):
        return [str(element) for element in value] or [""]
    if isinstance(value, bool):
        return ["1" if value else "0"]
    if isinstance(value, (int, float)):
        return [plain_number(value)]
    return [str(value)]


if __name__ == "__main__":
    sys.exit(main())
