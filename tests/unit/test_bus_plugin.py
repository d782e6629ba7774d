"""The public object's methods are the same in the daemon, in rpcd's plugin, in the manual and in LuCI's rights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cpe_mcp.upstream.answers import Answers

ROOT = Path(__file__).parents[2]
PLUGIN = (ROOT / "files/usr/share/rpcd/ucode/cpe-mcp.uc").read_text()
MANUAL = (ROOT / "docs/manual/ubus.md").read_text()
RIGHTS = ROOT / "luci/luci-app-cpe-mcp/root/usr/share/rpcd/acl.d/luci-app-cpe-mcp.json"


def plugin_methods() -> dict[str, set[str]]:
    """Method -> its arguments, as the plugin has them."""
    table = PLUGIN.partition("const METHODS = {")[2].partition("\n};")[0]
    rows = re.findall(r"^\t(\w+): \{([^}]*)\}", table, re.MULTILINE)
    return {name: set(re.findall(r"(\w+):", args)) for name, args in rows}


@pytest.mark.requirement("X-2")
def test_the_plugin_offers_every_method_of_the_daemon() -> None:
    assert set(plugin_methods()) == set(Answers.methods(object.__new__(Answers)))


def test_the_manual_has_every_method_with_its_arguments() -> None:
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\| ", MANUAL.partition("## Errors")[0], re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", args))) for name, args in rows}
    assert documented == plugin_methods()


def test_the_manual_has_every_error_of_the_plugin() -> None:
    codes = set(re.findall(r"^\t'([a-z-]+)': UBUS_STATUS", PLUGIN, re.MULTILINE)) | {"failed"}
    assert set(re.findall(r"^\| `([a-z-]+)` \| [0-9]+, ", MANUAL, re.MULTILINE)) == codes


def test_luci_may_ask_what_exists() -> None:
    if not RIGHTS.exists():
        pytest.skip("needs the LuCI application")
    (rights,) = json.loads(RIGHTS.read_text()).values()
    asked = {method for kind in ("read", "write") for method in rights[kind]["ubus"].get("cpe-mcp", ())}
    assert asked <= set(plugin_methods())
