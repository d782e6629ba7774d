"""The tables of the LuCI app that are made from Python: ``declared.js``, every option of ``/etc/config/cpe-mcp``,
``reasons.js``, every reason with its text, and ``selftest.js``, what the self-test, the evidence about Multipath TCP and
the troubles with RADIUS servers say, all ready for translation.

``python tools/luci_declared.py options|reasons|selftest`` prints one of them; ``make generate`` writes them, and
``tests/luci/test_luci_tables.py`` holds the committed ones to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from typing import Any

from cpe_mcp.aaa.troubles import TROUBLES
from cpe_mcp.policy.negotiation import EVIDENCE
from cpe_mcp.policy.reasons import TEXTS
from cpe_mcp.settings.load import ROUTER_SECTIONS, SectionKind, plain_number
from cpe_mcp.settings.option import Option, declared_options
from cpe_mcp.upstream import check_texts

HEAD = """'use strict';
'require baseclass';

/* Made by tools/luci_declared.py (make generate) from {source}; change it there. */

return baseclass.extend({{
"""


def options_module() -> str:
    """``declared.js``: section type -> ``many``, ``doc``, ``options`` (name -> kind, many, default, limits, doc)."""
    lines = [HEAD.format(source="the settings' declarations"), "\tsections: {\n"]
    for type_, kind in ROUTER_SECTIONS.items():
        lines.append(f"\t\t{_js(type_)}: {{\n")
        lines.append(f"\t\t\tmany: {_js(kind.many)},\n\t\t\tdoc: _({_js(_about(kind))}),\n\t\t\toptions: {{\n")
        for name, declared in declared_options(kind.settings).items():
            lines.append(f"\t\t\t\t{_js(name)}: {{ {_fields(declared, _default(kind, name))} }},\n")
        lines.append("\t\t\t}\n\t\t},\n")
    return "".join([*lines, "\t}\n});\n"])


def reasons_module() -> str:
    """``reasons.js``: reason -> text, and how a row of the daemon's answers is put into words."""
    lines = [HEAD.format(source="policy/reasons.py"), "\ttexts: {\n"]
    lines += [f"\t\t{_js(str(reason))}: _({_js(text)}),\n" for reason, text in TEXTS.items()]
    lines += [
        "\t},\n\n",
        "\t/* the text of a row { reason, text }: translated, or as the daemon wrote it */\n",
        "\ttext: function(row) {\n",
        "\t\treturn this.texts[row.reason] || row.text || row.reason || '';\n",
        "\t}\n});\n",
    ]
    return "".join(lines)


def selftest_module() -> str:
    """``selftest.js``: code -> text."""
    source = "upstream/check_texts.py, policy/negotiation.py and aaa/troubles.py"
    lines = [HEAD.format(source=source), "\ttexts: {\n"]
    texts = {**check_texts.TEXTS, **EVIDENCE, **TROUBLES}
    lines += [f"\t\t{_js(code)}: {_translatable(text)},\n" for code, text in texts.items()]
    return "".join([*lines, "\t}\n});\n"])


def _translatable(text: str) -> str:
    """A text of nothing but places and signs is the same in every language."""
    return f"_({_js(text)})" if re.search("[a-z]", text.replace("%s", "")) else _js(text)


def _fields(declared: Option, default: Any) -> str:
    fields = [f"kind: {_js(declared.kind)}"]
    if declared.many:
        fields.append("many: true")
    fields.append(f"default: {_js(_written(default))}")
    for limit in ("low", "high"):
        value = getattr(declared, limit)
        if value is not None:
            fields.append(f"{limit}: {plain_number(value)}")
    if declared.unit:
        fields.append(f"unit: {_js(declared.unit)}")
    if declared.choices:
        fields.append("choices: [ " + ", ".join(_js(choice) for choice in declared.choices) + " ]")
    fields.append(f"doc: _({_js(declared.doc)})")
    return ", ".join(fields)


def _about(kind: SectionKind) -> str:
    """The first paragraph of the docstring, behind its leading ``config ...``."""
    about = (inspect.getdoc(kind.settings) or "").partition("``: ")[2].split("\n\n")[0]
    about = " ".join(about.replace("``", "").split())
    return about[:1].upper() + about[1:]


def _default(kind: SectionKind, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(kind.settings) if field.name == name)


def _written(value: Any) -> Any:
    """A value as UCI holds it: text, or a list of texts."""
    if isinstance(value, tuple):
        return [str(_written(item)) for item in value]
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)):
        return plain_number(value)
    return str(value)


def _js(value: object) -> str:
    """A value as JavaScript; texts in the single quotes of LuCI's own sources."""
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"
    if isinstance(value, list):
        return "[ " + ", ".join(_js(item) for item in value) + " ]" if value else "[]"
    return json.dumps(value)


MODULES = {"options": options_module, "reasons": reasons_module, "selftest": selftest_module}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python tools/luci_declared.py``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("module", choices=sorted(MODULES))
    sys.stdout.write(MODULES[parser.parse_args(arguments).module]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
