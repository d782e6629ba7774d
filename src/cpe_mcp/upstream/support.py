"""The support report: one text that can be shown to others. Pure; what goes in is gathered by :mod:`.answers`.

Secrets are masked twice: the settings are printed without them, and every text that holds one of them anywhere, an error
message or a log line of others, has it replaced. So are, unless asked for in full, names of people and of what they visit,
and every address is shortened that is not a concentrator's or another server's of the operator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from cpe_mcp.policy.masking import without_hosts
from cpe_mcp.policy.reasons import TEXTS
from cpe_mcp.policy.rules import compile_rules
from cpe_mcp.settings import RouterSettings, split_host
from cpe_mcp.settings.option import Option, declared_options

MASK = "********"
SHORT_SECRET = 4
"""A secret shorter than this is only replaced where it stands as a word of its own, or the report would be unreadable."""
SERVERS = ("host", "address")
"""Kinds of options of a router that name servers."""


def report(parts: Mapping[str, Any], secrets: Iterable[str]) -> str:
    """One section for each of ``parts``; a text is printed as it is, a list or table as indented JSON, one row a line."""
    sections = [f"== {title} ==\n{_printed(part)}" for title, part in parts.items()]
    return mask("\n\n".join(sections) + "\n", secrets)


def mask(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets, in whichever way JSON, Python or UCI would write them."""
    return _replaced(text, secrets, whole_words=False)


def without_people(text: str, names: Iterable[str], servers: Collection[str]) -> str:
    """``text`` without these names where they stand as words, and with all addresses but those of ``servers`` shortened."""
    return without_hosts(_replaced(text, names, whole_words=True), kept=servers)


def secrets_of(settings: RouterSettings) -> list[str]:
    """Every value of an option of kind ``secret`` in these settings."""
    return list(_values(settings, lambda declared: declared.kind == "secret"))


def names_of(settings: RouterSettings) -> set[str]:
    """What in these settings names a person or what somebody visits. A word that is the report's own as well names nobody."""
    names = {name.removeprefix("*.") for name in _values(settings, lambda declared: declared.private)}
    names |= {rule.section for rule in settings.rules if "[" not in rule.section}
    for rule in compile_rules(
        settings.rules
    ):  # nft shows a counter by the section's name, and sets by what domains hash to
        names |= {rule.name_set(4), rule.name_set(6), *([] if "[" in rule.section else [rule.counter()])}
    own = {*TEXTS, *(wan.name for wan in settings.wans), *(row.name for row in settings.concentrators)}
    for declared in declared_options(type(settings.rules[0])).values() if settings.rules else ():
        own.update(declared.choices)
    return names - own


def servers_of(settings: RouterSettings, status: Mapping[str, Any]) -> set[str]:
    """Addresses of the operator's servers: who helps has to see them, and they are nobody's."""
    servers = {split_host(host, 1)[0] for host in _values(settings, lambda declared: declared.kind in SERVERS)}
    servers.update(*(row["addresses"] for row in status["concentrators"]))
    for row in status["sources"]:
        servers.update(row.get("unconfirmed", ()), *row.get("concentrators", ()))
    return servers


def _values(settings: RouterSettings, is_wanted: Callable[[Option], bool]) -> Iterator[str]:
    """What is set of the options that are wanted."""
    import dataclasses

    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        for section in value if isinstance(value, tuple) else (value,):
            for name, declared in declared_options(type(section)).items():
                if is_wanted(declared):
                    found = getattr(section, name)
                    yield from filter(None, found if declared.many else (found,))


def _replaced(text: str, words: Iterable[str], *, whole_words: bool) -> str:
    forms: set[str] = set()
    for word in words:
        if word:
            forms |= {word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1]}
            forms |= {repr(word)[1:-1], word.replace("'", "'\\''"), word.encode().hex()}
    for form in sorted(forms, key=len, reverse=True):
        pattern = re.escape(form)
        is_word = whole_words or len(form) < SHORT_SECRET
        text = re.sub(rf"(?<!\w){pattern}(?!\w)" if is_word else pattern, MASK, text)
    return text


def _printed(part: Any) -> str:
    if isinstance(part, str):
        return part.rstrip("\n") or "none"
    if isinstance(part, Mapping):
        return "\n".join(f"{name}: {_value(value)}" for name, value in part.items()) or "none"
    return "\n".join(_value(row) for row in part) or "none"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
