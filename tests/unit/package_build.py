"""The package builder of tools/packages as tests use it: built once, from this checkout, without a network."""

from __future__ import annotations

import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import ipk
import make_packages
from contents import File, Package

ROOT = Path(__file__).resolve().parents[2]

OURS = ("cpe-mcp", "cpe-mcp-concentrator", "luci-app-cpe-mcp")
"""Packages whose sources are all in this checkout."""
MTIME = make_packages.MTIME


@cache
def packages(python: str = "3.11") -> dict[str, Package]:
    """Name -> package, of :data:`OURS`."""
    return {package.name: package for package in make_packages.collect(python, list(OURS))}


def as_ipk(package: Package) -> bytes:
    """The package as opkg's file."""
    return ipk.pack(package, MTIME)


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    """Name -> header of a gzip tar."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {info.name: info for info in tar.getmembers()}


def content(archive: bytes, name: str) -> bytes:
    """One member of a gzip tar."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def stub(name: str, version: str = "1-r1", **fields: Any) -> Package:
    """A package with nothing in it: stands for one of OpenWrt's own."""
    declared: dict[str, Any] = {
        "title": name,
        "description": f"stands for {name}",
        "depends": [],
        "conflicts": [],
        "license": "Apache-2.0",
        "section": "test",
        "url": "",
        "maintainer": "",
        "conffiles": [],
        "scripts": {},
        "files": {f"/usr/share/stubs/{name}": File(b"\n", 0o644)},
    }
    return Package(name=name, version=version, **(declared | fields))
