"""The installable packages, looked at without a package manager: layout, fields, scripts, and what they say they need."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apk as apk_format
import pytest
from package_build import OURS, ROOT, as_ipk, content, members, packages

import cpe_mcp
from cpe_mcp.kernel.numbers import MARK_LOCAL

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-1")]

STDLIB_PACKAGES = {
    "asyncio": "python3-asyncio",
    "ctypes": "python3-ctypes",
    "curses": "python3-ncurses",
    "dbm": "python3-dbm",
    "decimal": "python3-decimal",
    "doctest": "python3-pydoc",
    "email": "python3-urllib",
    "http": "python3-urllib",  # itself in python3-light, but imports email
    "logging": "python3-logging",
    "lzma": "python3-lzma",
    "multiprocessing": "python3-multiprocessing",
    "pathlib": "python3-urllib",  # imports urllib up to Python 3.12
    "readline": "python3-readline",
    "sqlite3": "python3-sqlite3",
    "ssl": "python3-openssl",
    "unicodedata": "python3-codecs",
    "unittest": "python3-unittest",
    "urllib": "python3-urllib",
    "uuid": "python3-uuid",
    "xml": "python3-xml",
    "xmlrpc": "python3-xml",
}
"""Where OpenWrt keeps the modules that are not in python3-light."""
OPTIONAL = ("dns", "prometheus_client")
"""Asked for only when the user switches on what needs it, and refused in words where it is missing."""
LIBRARIES = {"msgpack": "python3-msgpack", "pyrad": "python3-pyrad", "pyroute2": "python3-pyroute2"}
PROGRAMS = {
    "cpe-mcp": ("cpe_mcp.upstream.daemon", "cpe_mcp.relay.upstream_worker", "cpe_mcp.cli.main"),
    "cpe-mcp-concentrator": ("cpe_mcp.concentrator.daemon", "cpe_mcp.relay.concentrator_worker"),
}
PYTHON_PACKAGES = tuple(PROGRAMS)
SHELL = ("etc/init.d/", "etc/hotplug.d/", "etc/uci-defaults/", "etc/udhcpc.user.d/", "usr/libexec/")


@pytest.fixture(params=OURS)
def name(request: pytest.FixtureRequest) -> str:
    """Of one package after the other."""
    return str(request.param)


def test_layout_is_what_opkg_reads(name: str) -> None:
    archive = as_ipk(packages()[name])
    names = [name.rstrip("/") for name in members(archive)]
    assert names == [".", "./debian-binary", "./data.tar.gz", "./control.tar.gz"]
    assert content(archive, "./debian-binary") == b"2.0\n"


def test_every_file_belongs_to_root_and_has_a_fixed_time(name: str) -> None:
    for part in ("./data.tar.gz", "./control.tar.gz"):
        for info in members(content(as_ipk(packages()[name]), part)).values():
            assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "root", "root"), info.name
            assert info.mtime == 1_700_000_000, info.name


def test_control_fields(name: str) -> None:
    control = content(content(as_ipk(packages()[name]), "./control.tar.gz"), "./control").decode()
    fields = dict(line.split(": ", 1) for line in control.splitlines())
    assert fields["Package"] == name
    assert fields["Version"] == f"{cpe_mcp.__version__}-r1"
    assert fields["Architecture"] == "all"
    assert fields["License"] == "Apache-2.0"
    assert int(fields["Installed-Size"]) == packages()[name].installed_bytes
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", one) for one in fields["Depends"].split(", "))
    assert all(fields.values()), "an empty field crashes opkg"


def test_no_byte_code_and_nothing_of_the_lab(name: str) -> None:
    for path in packages()[name].files:
        assert not path.endswith(".pyc")
        assert "__pycache__" not in path
        assert "/cpe_mcp/lab" not in path


def test_settings_are_conffiles_that_others_cannot_read() -> None:
    for name, path in (("cpe-mcp", "/etc/config/cpe-mcp"), ("cpe-mcp-concentrator", "/etc/config/mcp-concentrator")):
        package = packages()[name]
        control = content(as_ipk(package), "./control.tar.gz")
        assert content(control, "./conffiles").decode().split() == [path]
        assert package.files[path].mode == 0o600, "it holds keys"


def test_the_same_sources_give_the_same_octets(name: str) -> None:
    assert as_ipk(packages()[name]) == as_ipk(packages()[name])


def test_python_modules_lie_where_the_routers_python_looks() -> None:
    paths = packages("3.13")["cpe-mcp"].files
    assert "/usr/lib/python3.13/site-packages/cpe_mcp/upstream/daemon.py" in paths
    assert not [path for path in paths if "/python3.11/" in path]


def test_every_shell_script_parses_and_is_clean(name: str, tmp_path: Path) -> None:
    package = packages()[name]
    scripts = {path[1:].replace("/", "-"): file.data.decode() for path, file in shell_files(package.files)}
    scripts |= {script: text for script, text in package.scripts.items() if text}
    if not scripts:
        return
    for script, text in scripts.items():
        (tmp_path / script).write_text(text)
        subprocess.run(["sh", "-n", str(tmp_path / script)], check=True)
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("not there: shellcheck")
    # What sh -n and OpenWrt's ash have in common: local; variables that rc.common reads or that come from config_get.
    argv = [shellcheck, "--shell=dash", "--exclude=SC3043,SC2034,SC2154,SC2317,SC2329", *scripts]
    result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not result.stdout


def test_scripts_in_apks_frame_parse(name: str) -> None:
    for text in apk_format.frame_scripts(packages()[name]).values():
        subprocess.run(["sh", "-n", "-c", text], check=True)


def test_every_import_is_covered_by_a_dependency() -> None:
    for name in PYTHON_PACKAGES:
        package = packages()[name]
        missing = {}
        for path, file in package.files.items():
            if path.endswith(".py"):
                for module in needed_modules(file.data.decode()):
                    wanted = STDLIB_PACKAGES.get(module) or LIBRARIES.get(module)
                    if wanted is None and module in (*sys.stdlib_module_names, *OPTIONAL, "cpe_mcp"):
                        continue
                    if wanted not in package.depends:
                        missing[module] = (path, wanted)
        assert not missing


def test_no_python_dependency_is_for_nothing() -> None:
    by_package: dict[str, set[str]] = {}
    for module, owner in (STDLIB_PACKAGES | LIBRARIES).items():
        by_package.setdefault(owner, set()).add(module)
    for name in PYTHON_PACKAGES:
        package = packages()[name]
        used = {
            module
            for path, file in package.files.items()
            if path.endswith(".py")
            for module in needed_modules(file.data.decode(), guarded=True)
        }
        if any(path.endswith("/light_pyroute2.py") for path in package.files):
            used.add("pyroute2")  # loaded by name
        for dependency in package.depends:
            if dependency in by_package:
                assert by_package[dependency] & used, f"{name} does not use {dependency}"


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_a_package_holds_every_module_that_its_programs_import(name: str, tmp_path: Path) -> None:
    unpack(name, tmp_path)
    site = tmp_path / "usr/lib/python3.11/site-packages"
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "for name, module in sys.modules.items():\n"
        "    if name.split('.')[0] == 'cpe_mcp': print(module.__file__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, *PROGRAMS[name]], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded = result.stdout.split()
    assert loaded
    assert all(path.startswith(str(site)) for path in loaded)


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_programs_start_from_what_is_installed(name: str, tmp_path: Path) -> None:
    unpack(name, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "usr/lib/python3.11/site-packages")}
    for program in sorted((tmp_path / "usr/bin").iterdir()):
        assert program.read_text().startswith("#!/usr/bin/python3\n")
        argv = [sys.executable, str(program), "--help"]
        result = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert "usage" in result.stdout.lower()


def test_versions_agree() -> None:
    for makefile in ("package/cpe-mcp/Makefile", "luci/luci-app-cpe-mcp/Makefile"):
        assert f"PKG_VERSION:={cpe_mcp.__version__}\n" in (ROOT / makefile).read_text()


def test_feed_makefiles_follow_the_conventions() -> None:
    for path in [*ROOT.glob("package/*/Makefile"), ROOT / "luci/luci-app-cpe-mcp/Makefile"]:
        text = path.read_text()
        assert text.startswith("# SPDX-License-Identifier: "), path
        for name in ("PKG_VERSION", "PKG_RELEASE", "PKG_LICENSE", "PKG_MAINTAINER"):
            assert re.search(rf"^{name}:=\S", text, re.MULTILINE), (path, name)
        if "PYPI_NAME" in text:
            assert re.search(r"^PKG_HASH:=[0-9a-f]{64}$", text, re.MULTILINE), path


def test_the_firewalls_fragment_names_the_mark_of_the_table() -> None:
    fragment = packages()["cpe-mcp"].files["/usr/share/nftables.d/chain-pre/input/60-cpe-mcp.nft"].data.decode()
    assert f"meta mark & {MARK_LOCAL:#x} == {MARK_LOCAL:#x}" in fragment
    assert len(fragment.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("mptcp", "release", "memory_kb", "words"),
    [
        (True, "6.6.93", 121_000, ""),
        (True, "6.12.1-custom", 1_000_000, ""),
        (False, "6.6.93", 121_000, "no Multipath TCP"),
        (True, "5.15.167", 121_000, "Linux 5.15 is too old"),
        (True, "6.6.93", 59_000, "57 MB of memory are too few"),
    ],
)
def test_refusal_is_in_words(tmp_path: Path, *, mptcp: bool, release: str, memory_kb: int, words: str) -> None:
    result = run_preinst(router(tmp_path, mptcp=mptcp, release=release, memory_kb=memory_kb), {})
    assert result.returncode == (1 if words else 0), result.stderr
    assert words in result.stderr
    assert result.stderr.count("\n") == (1 if words else 0)
    if words and mptcp:
        assert "Needed: " in result.stderr


def test_nothing_is_refused_while_an_image_is_built(tmp_path: Path) -> None:
    root = router(tmp_path, mptcp=False, release="5.4.0", memory_kb=1)
    assert run_preinst(root, {"IPKG_INSTROOT": "/build/root"}).returncode == 0


def router(directory: Path, *, mptcp: bool, release: str, memory_kb: int) -> Path:
    """A directory with what the refusal looks at."""
    (directory / "proc/sys/kernel").mkdir(parents=True)
    (directory / "proc/sys/kernel/osrelease").write_text(f"{release}\n")
    (directory / "proc/meminfo").write_text(f"MemTotal:         {memory_kb} kB\nMemFree:  1 kB\n")
    if mptcp:
        (directory / "proc/sys/net/mptcp").mkdir(parents=True)
        (directory / "proc/sys/net/mptcp/enabled").write_text("1\n")
    return directory


def run_preinst(root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    script = packages()["cpe-mcp"].scripts["preinst"]
    full = {"PATH": os.environ["PATH"], "CPE_MCP_PROBE_ROOT": str(root), **environment}
    return subprocess.run(["sh", "-c", script], env=full, capture_output=True, text=True, check=False)


def shell_files(files: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((path, file) for path, file in files.items() if path.lstrip("/").startswith(SHELL))


def needed_modules(source: str, *, guarded: bool = False) -> set[str]:
    """First parts of the modules that a file imports. Those that it can do without (``except ImportError``) only if asked."""
    tree = ast.parse(source)
    optional: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(handler) for handler in node.handlers):
            optional.update(inner for statement in node.body for inner in ast.walk(statement))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            optional.update(inner for statement in node.body for inner in ast.walk(statement))
    found = set()
    for node in ast.walk(tree):
        if node in optional and not guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def unpack(name: str, directory: Path) -> None:
    (directory / "data.tar.gz").write_bytes(content(as_ipk(packages()[name]), "./data.tar.gz"))
    with tarfile.open(directory / "data.tar.gz") as tar:
        tar.extractall(directory, filter="data")
