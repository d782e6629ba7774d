"""The LuCI app's made files are what the declarations say, and its page takes what the daemon takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.aaa.dynamic_packets import DISCARDS, DUPLICATE, NAMES
from cpe_mcp.settings import SettingsError, parse_router
from cpe_mcp.settings.load import ROUTER_SECTIONS
from cpe_mcp.settings.option import declared_options

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
APP = ROOT / "luci/luci-app-cpe-mcp"
RESOURCES = APP / "htdocs/luci-static/resources"
NODE = shutil.which("node")

MADE = {
    "options": RESOURCES / "cpe-mcp/declared.js",
    "reasons": RESOURCES / "cpe-mcp/reasons.js",
    "selftest": RESOURCES / "cpe-mcp/selftest.js",
}

VALUES: dict[str, list[str]] = {
    "flag": ["0", "1"],
    "address": ["192.0.2.1", "2001:db8::1", "::", "::ffff:192.0.2.1", "192.0.2.256", "192.0.2", "01.2.3.4", ":::",
                "2001:db8:::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::", "g::", "x", "192.0.2.0/24"],
    "prefix": ["192.0.2.0/24", "192.0.2.1/24", "192.0.2.0/33", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/32",
               "2001:db8::1/128", "::/0", "::/129", "192.0.2.1", "x/8", "192.0.2.0/"],
    "host": ["192.0.2.1", "192.0.2.1:1812", "192.0.2.1:0", "192.0.2.1:70000", "2001:db8::1", "[2001:db8::1]:1812",
             "[2001:db8::1]", "[192.0.2.1]:1812", "radius.example", "192.0.2.1:"],
    "mac": ["00:53:00:12:34:56", "00-53-00-12-34-56", "00:53:00:12:34", "0:53:00:12:34:56", "zz:53:00:12:34:56"],
    "ports": ["443", "8000-8100", "8100-8000", "0", "65536", "1-65535", "-1", "http", "80-"],
    "dscp": ["0", "63", "64", "EF", "ef", "AF41", "AF44", "AF51", "CS7", "CS8", "0x2e", "0x40", "-1", "LE", "VA"],
    "dscp-map": ["EF:AF41", "46:0", "EF", "EF:", "EF:64", "1:2:3"],
    "domain": ["example.com", "*.example.com", "example.com.", "-x.example", "a..b", "x" * 64 + ".example", "münchen.example",
               "exa mple.com", "_x.example", "com"],
}  # fmt: skip
"""Good and bad ones of each kind; integer, number and choice get theirs from their declarations."""


def _made(module: str) -> str:
    command = [sys.executable, str(ROOT / "tools/luci_declared.py"), module]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", sorted(MADE))
def test_the_made_modules_are_what_the_declarations_say(module: str) -> None:
    assert MADE[module].read_text() == _made(module), "run make generate"


def _vectors() -> list[tuple[str, str, str]]:
    """(section type, option, value) to be judged by both."""
    vectors = []
    for type_, kind in ROUTER_SECTIONS.items():
        for name, option in declared_options(kind.settings).items():
            values = VALUES.get(option.kind, ["any text"])
            if option.kind in ("integer", "number"):
                assert option.low is not None
                assert option.high is not None
                edges = [option.low - 1, option.low, option.high, option.high + 1]
                values = [f"{edge:.10g}" for edge in edges] + ["x", "1.", ".5", "1e3", "0x10"]
                values += ["1.5"] if option.kind == "integer" else []
            elif option.choices:
                values = [*option.choices, "neither"]
            vectors += [(type_, name, value) for value in values]
    return vectors


def _daemon_takes(type_: str, name: str, value: str) -> bool:
    """Whether the kind and limits of this option allow the value; what only holds between options does not count."""
    keyword = "list" if declared_options(ROUTER_SECTIONS[type_].settings)[name].many else "option"
    try:
        parse_router(f"config {type_} '{type_}'\n\t{keyword} {name} '{value}'\n")
    except SettingsError as error:
        return "is not allowed; " not in str(error) or "is not allowed; less than" in str(error)
    return True


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_takes_what_the_daemon_takes() -> None:
    vectors = _vectors()
    script = f"""
        const {{ load }} = require({json.dumps(str(ROOT / "tests/luci/luci.js"))});
        const sections = load('cpe-mcp.declared').sections, checks = load('cpe-mcp.checks');
        const rows = JSON.parse(require('node:fs').readFileSync(0, 'utf-8'));
        console.log(JSON.stringify(rows.map(([ type, name, value ]) =>
            checks.check(sections[type].options[name], value) === true)));
    """
    assert NODE is not None
    ran = subprocess.run([NODE, "-e", script], input=json.dumps(vectors), capture_output=True, text=True, check=True)
    page: list[bool] = json.loads(ran.stdout)
    daemon = [_daemon_takes(*vector) for vector in vectors]
    assert len(vectors) > 150
    assert any(daemon)
    assert not all(daemon)
    assert [(vector, taken) for vector, taken in zip(vectors, page, strict=True)] == list(
        zip(vectors, daemon, strict=True)
    )


def _acl() -> dict[str, Any]:
    text = (APP / "root/usr/share/rpcd/acl.d/luci-app-cpe-mcp.json").read_text()
    rules: dict[str, Any] = json.loads(text)["luci-app-cpe-mcp"]
    return rules


def test_permissions_are_those_that_the_pages_use() -> None:
    acl = _acl()
    used = set(re.findall(r"method\('(\w+)'", (RESOURCES / "cpe-mcp/api.js").read_text()))
    may_read, may_write = set(acl["read"]["ubus"]["cpe-mcp"]), set(acl["write"]["ubus"]["cpe-mcp"])
    assert used
    assert used <= may_read | may_write
    assert not may_read & may_write
    assert {"speedtest", "drop", "reload"} <= may_write
    assert "uci" not in acl["read"], "keys and passwords are in the settings: who may only look asks the daemon"
    assert acl["write"]["uci"] == {"cpe-mcp": ["read", "write"], "firewall": ["read"], "network": ["read"]}
    assert "file" not in acl["read"]
    assert "file" not in acl["write"]
    assert "*" not in json.dumps(acl)


def test_no_page_runs_programs_or_makes_markup_of_data() -> None:
    for path in RESOURCES.rglob("*.js"):
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "require fs", "eval(", "fs.exec"):
            assert word not in text, f"{path.name}: {word}"


def test_children_of_elements_are_lists() -> None:
    """LuCI's E() takes a lone string for markup: what is not a list or an element may not be its third argument."""
    for path in RESOURCES.rglob("*.js"):
        for line in path.read_text().splitlines():
            for call in re.finditer(r"(?<![\w.])E\('\w+', [^\n]*?\}, (.)", line):
                assert call[1] == "[", f"{path.name}: {line.strip()}"


def test_menu_pages_exist() -> None:
    menu = json.loads((APP / "root/usr/share/luci/menu.d/luci-app-cpe-mcp.json").read_text())
    views = [entry["action"]["path"] for entry in menu.values() if entry["action"]["type"] == "view"]
    assert [view.partition("/")[2] for view in views] == ["overview", "connections", "rules", "settings", "diagnostics"]
    for view in views:
        assert (RESOURCES / "view" / f"{view}.js").is_file(), view


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_every_counter_of_dynamic_requests_has_its_words() -> None:
    kinds = [*NAMES.values(), DUPLICATE, *DISCARDS]
    script = f"""
        const {{ load }} = require({json.dumps(str(ROOT / "tests/luci/luci.js"))});
        const kinds = JSON.parse(require('node:fs').readFileSync(0, 'utf-8'));
        console.log(JSON.stringify(kinds.map(kind => load('cpe-mcp.radius').requests({{ [kind]: 7 }}))));
    """
    assert NODE is not None
    ran = subprocess.run([NODE, "-e", script], input=json.dumps(kinds), capture_output=True, text=True, check=True)
    for kind, rows in zip(kinds, json.loads(ran.stdout), strict=True):
        ((_, text),) = rows
        assert "7" in text
        assert text != f"7 {kind}" or kind == "malformed", f"{kind} is shown under the daemon's name: see radius.js"
