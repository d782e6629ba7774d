"""The support report: one text that can be shown to others. Pure; what goes in is gathered by :mod:`.answers`.

Secrets are masked twice: the settings are printed without them, and every text that holds one of them anywhere, an error
message or a log line of others, has it replaced. Addresses of people and of the servers they visit are shortened unless
asked for in full.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MASK = "********"
SHORT_SECRET = 4
"""A secret shorter than this is only replaced where it stands as a word of its own, or the report would be unreadable."""
RECORDS = 20
"""Finished flows that are shown."""


def report(parts: Mapping[str, Any], secrets: Iterable[str]) -> str:
    """One section for each of ``parts``; a text is printed as it is, a list or table as indented JSON, one row a line."""
    sections = [f"== {title} ==\n{_printed(part)}" for title, part in parts.items()]
    return mask("\n\n".join(sections) + "\n", secrets)


def mask(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets, in whichever way JSON, Python or UCI would write them."""
    forms: set[str] = set()
    for secret in secrets:
        if secret:
            forms |= {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
            forms |= {repr(secret)[1:-1], secret.replace("'", "'\\''"), secret.encode().hex()}
    for form in sorted(forms, key=len, reverse=True):
        pattern = re.escape(form)
        text = re.sub(rf"(?<!\w){pattern}(?!\w)" if len(form) < SHORT_SECRET else pattern, MASK, text)
    return text


def secrets_of(settings: Any) -> list[str]:
    """Every value of an option of kind ``secret`` in these settings."""
    import dataclasses

    from cpe_mcp.settings.option import declared_options

    found: list[str] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        for section in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(section):
                for name, declared in declared_options(type(section)).items():
                    if declared.kind == "secret":
                        secret = getattr(section, name)
                        found += list(secret) if declared.many else [secret]
    return [secret for secret in found if secret]


def shortened(address: str) -> str:
    """``192.168.1.x`` and ``2001:db8:1:x``: the network stays, the host goes. Anything else stays as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return f"{address.rpartition('.')[0]}.x"
    groups = parsed.exploded.split(":")[:3]
    return ":".join(group.lstrip("0") or "0" for group in groups) + ":x"


def flow_lines(flows: Sequence[Mapping[str, Any]], *, full: bool) -> list[dict[str, Any]]:
    """The flows with client and server shortened, unless ``full``."""
    if full:
        return [dict(flow) for flow in flows]
    return [{**flow, "client": shortened(flow["client"]), "server": shortened(flow["server"])} for flow in flows]


def _printed(part: Any) -> str:
    if isinstance(part, str):
        return part.rstrip("\n") or "none"
    if isinstance(part, Mapping):
        return "\n".join(f"{name}: {_value(value)}" for name, value in part.items()) or "none"
    return "\n".join(_value(row) for row in part) or "none"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
