"""The packages in the hands of the real apk: made by ``apk mkpkg``, installed, upgraded with a changed conffile, removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import apk as apk_format
import pytest
from contents import File, Package
from package_build import MTIME, OURS, packages, stub

pytestmark = [pytest.mark.openwrt, pytest.mark.requirement("X-1")]

APK_OWN = ("lib/apk/db", "var", "tmp", "etc/apk", "dev", "proc", "sys")
"""Where apk keeps what it knows: not part of any package."""


@pytest.fixture
def apk() -> str:
    """The program, version 3."""
    found = shutil.which("apk")
    if found is None:
        pytest.skip("not there: apk")
    return found


class Router:
    """A root directory that apk works on. Scripts do not run: they would need a whole system in it."""

    def __init__(self, apk: str, directory: Path) -> None:
        self.root = directory / "root"
        self._files = directory / "files"
        self._files.mkdir()
        self._apk = apk
        options = ["--root", str(self.root), "--allow-untrusted", "--no-network", "--no-scripts", "--no-cache"]
        self._argv = [apk, *options, "--repositories-file", os.devnull, "--keys-dir", str(directory / "keys")]
        (directory / "keys").mkdir()
        assert self.run("add", "--initdb").returncode == 0

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._argv, *arguments], capture_output=True, text=True, check=False)

    def install(self, chosen: Sequence[Package]) -> subprocess.CompletedProcess[str]:
        names = []
        for package in chosen:
            path = self._files / f"{package.name}-{package.version}.apk"
            apk_format.pack(self._apk, package, path, MTIME)
            names.append(str(path))
        return self.run("add", *names)

    def files(self) -> dict[str, bytes]:
        """What is on the router, without apk's own records."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and not str(path.relative_to(self.root)).startswith(APK_OWN)
        }


@pytest.fixture
def router(apk: str, tmp_path: Path) -> Router:
    """With everything installed that ours depend on."""
    made = Router(apk, tmp_path)
    names = {name for package in packages("3.13").values() for name in package.depends} - set(OURS)
    result = made.install([stub(name) for name in sorted(names)])
    assert result.returncode == 0, result.stdout + result.stderr
    return made


def test_installs_its_files_and_the_lists_that_openwrt_reads(router: Router) -> None:
    before = router.files()
    package = packages("3.13")["cpe-mcp"]
    result = router.install([package])
    assert result.returncode == 0, result.stdout + result.stderr
    after = router.files()
    lists = {f"lib/apk/packages/cpe-mcp.{kind}" for kind in ("list", "conffiles", "conffiles_static")}
    assert after.keys() - before.keys() == {path.lstrip("/") for path in package.files} | lists
    assert all(after[path.lstrip("/")] == file.data for path, file in package.files.items())
    assert after["lib/apk/packages/cpe-mcp.conffiles"] == b"/etc/config/cpe-mcp\n"
    assert b"/etc/init.d/cpe-mcp\n" in after["lib/apk/packages/cpe-mcp.list"]
    assert (router.root / "etc/config/cpe-mcp").stat().st_mode & 0o777 == 0o600


def test_does_not_install_without_its_dependencies(apk: str, tmp_path: Path) -> None:
    result = Router(apk, tmp_path).install([packages("3.13")["cpe-mcp"]])
    assert result.returncode != 0
    assert "python3-msgpack (no such package)" in result.stdout + result.stderr


def test_removal_leaves_nothing(router: Router) -> None:
    before, directories = router.files(), set(router.root.glob("**/"))
    assert router.install([packages("3.13")["cpe-mcp"], packages("3.13")["luci-app-cpe-mcp"]]).returncode == 0
    result = router.run("del", "luci-app-cpe-mcp", "cpe-mcp")
    assert result.returncode == 0, result.stdout + result.stderr
    assert router.files() == before
    assert set(router.root.glob("**/")) == directories


def test_an_upgrade_keeps_changed_settings(router: Router) -> None:
    package = packages("3.13")["cpe-mcp"]
    assert router.install([package]).returncode == 0
    settings = router.root / "etc/config/cpe-mcp"
    mine = settings.read_bytes() + b"config wan 'dsl'\n\toption device 'eth1'\n"
    settings.write_bytes(mine)
    path = "/etc/config/cpe-mcp"
    changed = File(b"# newer\n" + package.files[path].data, package.files[path].mode)
    result = router.install([replace(package, version="0.2.0-r1", files={**package.files, path: changed})])
    assert result.returncode == 0, result.stdout + result.stderr
    assert settings.read_bytes() == mine
    assert settings.with_name("cpe-mcp.apk-new").read_bytes().startswith(b"# newer\n")


def test_router_and_concentrator_do_not_live_together(router: Router) -> None:
    assert router.install([packages("3.13")["cpe-mcp"]]).returncode == 0
    result = router.install([packages("3.13")["cpe-mcp-concentrator"]])
    assert result.returncode != 0
    assert "breaks: cpe-mcp-concentrator" in result.stdout + result.stderr


def test_the_same_sources_give_the_same_octets(apk: str, tmp_path: Path) -> None:
    one, other = tmp_path / "one.apk", tmp_path / "other.apk"
    for output in (one, other):
        apk_format.pack(apk, packages("3.13")["cpe-mcp"], output, MTIME)
    assert one.read_bytes() == other.read_bytes()


def test_scripts_of_the_package_run_in_openwrts_frame(apk: str, tmp_path: Path) -> None:
    path = tmp_path / "cpe-mcp.apk"
    apk_format.pack(apk, packages("3.13")["cpe-mcp"], path, MTIME)
    dump = subprocess.run([apk, "adbdump", str(path)], capture_output=True, text=True, check=True).stdout
    for script in ("pre-install", "post-install", "pre-deinstall", "post-deinstall", "pre-upgrade", "post-upgrade"):
        assert f"  {script}: |" in dump
    assert "default_postinst" in dump
    assert "default_prerm" in dump
