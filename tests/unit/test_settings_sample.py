"""The shipped files and the manual's tables are what the declarations say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.settings import ConcentratorSettings, RouterSettings, parse_concentrator, parse_router
from cpe_mcp.settings.load import CONCENTRATOR_SECTIONS, ROUTER_SECTIONS
from cpe_mcp.settings.option import declared_options
from cpe_mcp.settings.sample import main, option_tables, sample_file

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SHIPPED = {
    "router": ROOT / "files/etc/config/cpe-mcp",
    "concentrator": ROOT / "files/concentrator/etc/config/mcp-concentrator",
}
PAGES = {
    "router": ROOT / "docs/manual/settings-router.md",
    "concentrator": ROOT / "docs/manual/settings-concentrator.md",
}
SECTIONS = {"router": ROUTER_SECTIONS, "concentrator": CONCENTRATOR_SECTIONS}
SIDES = sorted(SECTIONS)


@pytest.mark.parametrize("side", SIDES)
def test_the_shipped_file_is_the_generated_one(side: str) -> None:
    assert SHIPPED[side].read_text() == sample_file(side), f"run: python -m cpe_mcp.settings.sample {side}"


@pytest.mark.parametrize("side", SIDES)
def test_the_manual_ends_with_the_generated_tables(side: str) -> None:
    page = PAGES[side].read_text()
    assert page.endswith(option_tables(side)), f"run: python -m cpe_mcp.settings.sample {side} --table"


@pytest.mark.parametrize("side", SIDES)
def test_every_option_is_in_the_sample(side: str) -> None:
    sample = sample_file(side)
    for type_, kind in SECTIONS[side].items():
        (block,) = [part for part in sample.split("\n\n") if re.search(rf"^#?config {type_}\b", part, re.M)]
        for name, declared in declared_options(kind.settings).items():
            keyword = "list" if declared.many else "option"
            assert re.search(rf"^\t# {re.escape(declared.doc)}.*\n\t#{keyword} {name} '", block, re.M), (type_, name)


def test_the_shipped_files_as_they_are_change_nothing() -> None:
    assert parse_router(sample_file("router")) == RouterSettings()
    assert parse_concentrator(sample_file("concentrator")) == ConcentratorSettings()


def test_everything_uncommented_is_the_defaults() -> None:
    """But for what has none: the names and the required options of the example sections."""

    def uncommented(side: str) -> str:
        return re.sub(r"^(\t?)#(?=(?:config|option|list) )", r"\1", sample_file(side), flags=re.M)

    defaults = RouterSettings()
    settings = parse_router(uncommented("router"))
    assert dataclasses.replace(settings, wans=(), concentrators=(), rules=()) == defaults
    (rule,) = settings.rules
    assert dataclasses.replace(rule, section="") == type(rule)()
    (wan,), (static,) = settings.wans, settings.concentrators
    assert dataclasses.replace(wan, name="", device="") == type(wan)()
    assert dataclasses.replace(static, name="", address=()) == type(static)()

    concentrator = parse_concentrator(uncommented("concentrator"))
    examples: dict[str, Any] = {"subscribers": (), "dynamic_clients": (), "interfaces": (), "filters": ()}
    assert dataclasses.replace(concentrator, **examples) == ConcentratorSettings()
    (client,), (interface,) = concentrator.dynamic_clients, concentrator.interfaces
    assert dataclasses.replace(interface, name="", device="") == type(interface)()
    assert dataclasses.replace(client, name="", address=()) == type(client)()
    (subscriber,) = concentrator.subscribers
    assert dataclasses.replace(subscriber, name="", address=()) == type(subscriber)()


def test_the_command_prints_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["router"]) == 0
    assert capsys.readouterr().out == sample_file("router")
    assert main(["concentrator", "--table"]) == 0
    assert capsys.readouterr().out == option_tables("concentrator")
