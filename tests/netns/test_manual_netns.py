"""What operators copy out of the manual is taken by the programs that it is for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from relay_world import run

pytestmark = [pytest.mark.netns, pytest.mark.requirement("5.6.7-a")]

MANUAL = Path(__file__).parents[2] / "docs/manual"
BLOCKS = [
    (page.name, kind, text)
    for page in sorted(MANUAL.glob("*.md"))
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
]
TABLES = [
    pytest.param(text, id=f"{page}-{number}")
    for number, (page, _, text) in enumerate(BLOCKS)
    if "table inet" in text[:12]
]
JSON = [pytest.param(text, id=f"{page}-{number}") for number, (page, kind, text) in enumerate(BLOCKS) if kind == "json"]


def test_there_is_something_to_copy() -> None:
    assert len(TABLES) >= 3
    assert len(JSON) >= 2


@pytest.mark.parametrize("text", TABLES)
def test_nft_takes_the_tables(text: str) -> None:
    name = "cpemcp-manual"
    run("ip", "netns", "add", name)
    try:
        argv = ["ip", "netns", "exec", name, "nft", "--check", "-f", "-"]
        result = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    finally:
        run("ip", "netns", "delete", name)
    assert not result.returncode, result.stderr


@pytest.mark.parametrize("text", JSON)
def test_json_is_json(text: str) -> None:
    assert json.loads(text)
