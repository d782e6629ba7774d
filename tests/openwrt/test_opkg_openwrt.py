"""The packages in the hands of the real opkg: install, upgrade with a changed conffile, refusal, removal."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from contents import File, Package
from package_build import OURS, as_ipk, packages, stub

pytestmark = [pytest.mark.openwrt, pytest.mark.requirement("X-1")]

OPKG_OWN = ("usr/lib/opkg", "var", "tmp", "etc/opkg")
"""Where opkg keeps what it knows: not part of any package."""


@pytest.fixture
def opkg() -> str:
    """The program; OpenWrt calls it opkg, its own build opkg-cl."""
    found = shutil.which("opkg") or shutil.which("opkg-cl")
    if found is None:
        pytest.skip("not there: opkg")
    return found


class Router:
    """A root directory that opkg works on."""

    def __init__(self, opkg: str, directory: Path) -> None:
        self.root = directory / "root"
        self._files = directory / "files"
        self._files.mkdir()
        for folder in ("tmp", "etc/config", "usr/lib/opkg", "var/lock"):
            (self.root / folder).mkdir(parents=True)
        self._argv = [opkg, "-o", str(self.root), "--add-arch", "all:1"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "IPKG_NO_SCRIPT": "1"}
        return subprocess.run([*self._argv, *arguments], env=environment, capture_output=True, text=True, check=False)

    def install(self, chosen: Sequence[Package], *, command: str = "install") -> subprocess.CompletedProcess[str]:
        names = []
        for package in chosen:
            path = self._files / f"{package.name}_{package.version}_all.ipk"
            path.write_bytes(as_ipk(package))
            names.append(str(path))
        return self.run(command, *names)

    def files(self) -> dict[str, bytes]:
        """What is on the router, without opkg's own records."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and not str(path.relative_to(self.root)).startswith(OPKG_OWN)
        }


@pytest.fixture
def router(opkg: str, tmp_path: Path) -> Router:
    """With everything installed that ours depend on."""
    made = Router(opkg, tmp_path)
    assert made.install(dependencies()).returncode == 0
    return made


def dependencies() -> list[Package]:
    """Stand-ins for everything that our packages need of others."""
    names = {name for package in packages().values() for name in package.depends} - set(OURS)
    return [stub(name) for name in sorted(names)]


def test_installs_with_the_named_dependencies_and_nothing_else(router: Router) -> None:
    before = router.files()
    package = packages()["cpe-mcp"]
    result = router.install([package])
    assert result.returncode == 0, result.stderr
    after = router.files()
    assert after.keys() - before.keys() == {path.lstrip("/") for path in package.files}
    assert all(after[path.lstrip("/")] == file.data for path, file in package.files.items())
    assert (router.root / "etc/init.d/cpe-mcp").stat().st_mode & 0o777 == 0o755
    assert (router.root / "etc/config/cpe-mcp").stat().st_mode & 0o777 == 0o600


def test_does_not_install_without_its_dependencies(opkg: str, tmp_path: Path) -> None:
    result = Router(opkg, tmp_path).install([packages()["cpe-mcp"]])
    assert result.returncode != 0
    assert "cannot find dependency python3-msgpack" in result.stderr


def test_removal_leaves_nothing(router: Router) -> None:
    before = router.files()
    assert router.install([packages()["cpe-mcp"], packages()["luci-app-cpe-mcp"]]).returncode == 0
    assert len(router.files()) > len(before)
    result = router.run("remove", "luci-app-cpe-mcp", "cpe-mcp")
    assert result.returncode == 0, result.stderr
    assert router.files() == before


def test_an_upgrade_keeps_changed_settings(router: Router) -> None:
    package = packages()["cpe-mcp"]
    assert router.install([package]).returncode == 0
    settings = router.root / "etc/config/cpe-mcp"
    mine = settings.read_bytes() + b"config wan 'dsl'\n\toption device 'eth1'\n"
    settings.write_bytes(mine)
    result = router.install([newer(package)])
    assert result.returncode == 0, result.stderr
    assert settings.read_bytes() == mine
    assert settings.with_name("cpe-mcp-opkg").read_bytes().startswith(b"# newer\n")


def test_an_upgrade_brings_new_settings_where_they_were_not_touched(router: Router) -> None:
    package = packages()["cpe-mcp"]
    assert router.install([package]).returncode == 0
    result = router.install([newer(package)])
    assert result.returncode == 0, result.stderr
    assert (router.root / "etc/config/cpe-mcp").read_bytes().startswith(b"# newer\n")


def test_changed_settings_survive_removal(router: Router) -> None:
    assert router.install([packages()["cpe-mcp"]]).returncode == 0
    settings = router.root / "etc/config/cpe-mcp"
    settings.write_bytes(b"config wan 'dsl'\n\toption device 'eth1'\n")
    assert router.run("remove", "cpe-mcp").returncode == 0
    assert settings.exists(), "opkg keeps what the user wrote"


def test_router_and_concentrator_do_not_live_together(router: Router) -> None:
    assert router.install([packages()["cpe-mcp"]]).returncode == 0
    result = router.install([packages()["cpe-mcp-concentrator"]])
    assert result.returncode != 0
    assert "conflict" in (result.stdout + result.stderr).lower()


def newer(package: Package) -> Package:
    """The next version, with other default settings."""
    path = "/etc/config/cpe-mcp"
    changed = File(b"# newer\n" + package.files[path].data, package.files[path].mode)
    return replace(package, version="0.2.0-r1", files={**package.files, path: changed})
