"""The house as a whole: nothing of a developer's machine is committed, everything imports, workers stay small."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cpe_mcp
from cpe_mcp.lab.network import PROGRAMS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
FORBIDDEN = (
    r"/wor" r"k/",  # split, so that this file does not hold what it looks for
    r"/hom" r"e/[a-z]",
    r"\bpyp" r"i\.org\b",
    r"\bpythonhos" r"ted\.org\b",
    r"\bdeb\.deb" r"ian\.org\b",
    r"\bdownloads\.open" r"wrt\.org\b",
    r"https?://[^/\s]*(artifac" r"tory|nex" r"us|devp" r"i)\b",
)
HEAVY = ("asyncio", "dataclasses", "logging", "pyroute2", "pyrad", "ipaddress")
"""What a relay worker must not load: together they would more than double its memory."""
MODULES = [
    module.name
    for module in pkgutil.walk_packages(cpe_mcp.__path__, "cpe_mcp.")
    if not module.name.endswith("__main__")  # those run when they are imported
]
LIGHT = [name for name in MODULES if name.startswith(("cpe_mcp.convert", "cpe_mcp.policy"))]


def committed_files() -> list[str]:
    """Paths that git knows, and new ones it would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("needs a git clone")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_committed_file_names_a_machine_path_or_a_registry() -> None:
    pattern = re.compile("|".join(FORBIDDEN))
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in committed_files()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_rooms_are_there() -> None:
    for room in (
        "convert",
        "policy",
        "discovery",
        "aaa",
        "paths",
        "relay",
        "kernel",
        "upstream",
        "concentrator",
        "lab",
    ):
        assert any(name.startswith(f"cpe_mcp.{room}.") for name in MODULES), f"room {room} is empty"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is_for(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", ["cpe_mcp.relay.upstream_worker", "cpe_mcp.relay.concentrator_worker", *LIGHT])
def test_a_relay_worker_imports_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_make_installs_every_program_of_the_lab() -> None:
    (listed,) = re.findall(r"^PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert set(PROGRAMS.values()) <= set(listed.split())
