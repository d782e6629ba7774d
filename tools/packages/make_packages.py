"""Builds the installable packages without OpenWrt's SDK: ``make_packages.py ipk|apk [--python X.Y] [--output DIR]``.

What they hold comes from the feed Makefiles in ``package/`` and ``luci/``. Python's modules are packed as source: byte code
is what the feed's own build makes, with the Python that the router has.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import apk
import ipk
from contents import Package, read_luci_app, read_packages
from makefile import Makefile

ROOT = Path(__file__).resolve().parents[2]
PYTHON_OF = {"ipk": "3.11", "apk": "3.13"}
"""The Python of OpenWrt 24.10, the last with opkg, and of 25.12, the first with apk."""
MTIME = 1_700_000_000
"""Of every file in a package, so that the same sources give the same octets."""


def main() -> int:
    """Returns the exit code: 1 when a package could not be made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("format", choices=["ipk", "apk"])
    parser.add_argument("--python", metavar="X.Y", help="Python of the router (default: that of 24.10 or 25.12)")
    parser.add_argument("--output", type=Path, default=ROOT / "build/packages")
    parser.add_argument("--only", metavar="NAME", action="append", help="make only this package")
    options = parser.parse_args()
    tool = shutil.which("apk")
    if options.format == "apk" and tool is None:
        print("apk is not on PATH: the tool of apk-tools 3 (apk mkpkg) is needed to make .apk files", file=sys.stderr)
        return 1
    try:
        packages = collect(options.python or PYTHON_OF[options.format], options.only)
    except (OSError, ValueError) as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if options.format == "ipk":
            path = options.output / f"{package.name}_{package.version}_{ipk.ARCHITECTURE}.ipk"
            path.write_bytes(ipk.pack(package, MTIME))
        else:
            path = options.output / f"{package.name}-{package.version}.apk"
            assert tool is not None
            apk.pack(tool, package, path, MTIME)
        size, installed = path.stat().st_size // 1024, package.installed_bytes // 1024
        print(f"{path}: {size} KiB, {installed} KiB when installed")
    return 0


def collect(python: str, only: list[str] | None = None) -> list[Package]:
    """Every package, for a router with this Python. Raises OSError, ValueError."""
    site_packages = f"/usr/lib/python{python}/site-packages"
    given = {"PYTHON3_PKG_DIR": site_packages}
    packages = []
    for path in sorted(ROOT.glob("package/*/Makefile")):
        makefile = Makefile(path, given)
        if only and not set(only) & set(makefile.packages):
            continue
        if "PYPI_NAME" in makefile.variables:
            packages += read_packages(makefile, site_packages, fetch_source(makefile), "")
        else:
            packages += read_packages(makefile, site_packages, ROOT, "src")
    for path in sorted(ROOT.glob("luci/*/Makefile")):
        if not only or path.parent.name in only:
            packages += read_luci_app(Makefile(path, given), path.parent, shutil.which("po2lmo"))
    return [package for package in packages if not only or package.name in only]


def fetch_source(makefile: Makefile) -> Path:
    """The unpacked source of a Python library, by pip unless it is there already; held to the Makefile's PKG_HASH."""
    name, version = makefile.value("PYPI_NAME"), makefile.value("PKG_VERSION")
    directory = ROOT / "build/sources"
    archive = directory / f"{name}-{version}.tar.gz"
    if not archive.exists():
        directory.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        result = subprocess.run([*argv, "--dest", str(directory), f"{name}=={version}"], check=False)
        if result.returncode:
            raise ValueError(f"{name} {version} could not be fetched; put {archive.name} into {directory}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != makefile.value("PKG_HASH"):
        raise ValueError(f"{archive} has another hash than {makefile.path} wants: {found}")
    target = directory / f"{name}-{version}"
    if not target.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
    return target


if __name__ == "__main__":
    sys.exit(main())
