"""What a package is: its fields, its scripts and its files, made from a feed Makefile and the sources it names."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from makefile import Makefile

MODES = {"INSTALL_BIN": 0o755, "INSTALL_DATA": 0o644, "INSTALL_CONF": 0o600}
"""What OpenWrt's rules.mk gives them."""
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
LUCI_POSTINST = """#!/bin/sh
[ -z "$IPKG_INSTROOT" ] || exit 0
# The menu is cached, and rights are read at rpcd's start.
rm -f /tmp/luci-indexcache.*
rm -rf /tmp/luci-modulecache/
[ ! -x /etc/init.d/rpcd ] || /etc/init.d/rpcd reload
exit 0
"""
NOT_INSTALLED = ("__pycache__", ".egg-info", ".dist-info", ".pyc")


@dataclass(frozen=True)
class File:
    """One regular file."""

    data: bytes
    mode: int


@dataclass
class Package:
    """One installable package, in no format yet."""

    name: str
    version: str
    """With the release: ``0.1.0-r1``."""
    title: str
    description: str
    depends: list[str]
    conflicts: list[str]
    license: str
    section: str
    url: str
    maintainer: str
    conffiles: list[str]
    scripts: dict[str, str]
    """Name of :data:`SCRIPTS` -> shell text, as the Makefile has it."""
    files: dict[str, File] = field(default_factory=dict)
    """Absolute path on the router -> file."""

    @property
    def installed_bytes(self) -> int:
        """Sum of the file sizes; flash with compression needs about a third."""
        return sum(len(file.data) for file in self.files.values())


def read_packages(makefile: Makefile, site_packages: str, source: Path, python_dir: str) -> list[Package]:
    """All packages of one feed Makefile. ``source`` is the unpacked source, ``python_dir`` where its modules begin in it."""
    packages = []
    for name in makefile.packages:
        package = _declared(makefile, name)
        package.files |= _python_files(makefile, name, source / python_dir, site_packages)
        package.files |= _installed(makefile, name, source)
        missing = [path for path in package.conffiles if path not in package.files]
        if missing:
            raise ValueError(f"{makefile.path}: conffile {missing[0]} of {name} is not among its files")
        packages.append(package)
    return packages


def read_luci_app(makefile: Makefile, directory: Path, po2lmo: str | None) -> list[Package]:
    """The packages that luci.mk would make of an application: itself, and one for each translation."""
    name = directory.name
    depends = _depends(makefile.value("LUCI_DEPENDS"))
    common = {
        "version": f"{makefile.value('PKG_VERSION')}-r{makefile.value('PKG_RELEASE')}",
        "conflicts": [],
        "license": makefile.value("PKG_LICENSE"),
        "section": "luci",
        "url": "",
        "maintainer": makefile.value("PKG_MAINTAINER"),
        "conffiles": [],
    }
    title = makefile.value("LUCI_TITLE")
    app = Package(
        name=name,
        title=title,
        description=title,
        depends=["luci-base", *depends],
        scripts={"postinst": LUCI_POSTINST},
        **common,  # type: ignore[arg-type]
    )
    for part, target in (("htdocs", "/www"), ("root", "")):
        for path in _walk(directory / part):
            relative = path.relative_to(directory / part).as_posix()
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            app.files[f"{target}/{relative}"] = File(path.read_bytes(), mode)
    packages = [app]
    basename = name.removeprefix("luci-app-")
    for catalogue in sorted((directory / "po").glob(f"*/{basename}.po")):
        if po2lmo is None:
            print(f"no package for the translation {catalogue.parent.name}: po2lmo is not on PATH")
            continue
        language = catalogue.parent.name
        compiled = _compile(po2lmo, catalogue)
        translation = Package(
            name=f"luci-i18n-{basename}-{language.lower().replace('_', '-')}",
            title=f"{title} ({language})",
            description=f"Translation of {name}: {language}",
            depends=[name],
            scripts={},
            **common,  # type: ignore[arg-type]
        )
        translation.files[f"/usr/lib/lua/luci/i18n/{basename}.{language.lower().replace('_', '-')}.lmo"] = File(
            compiled, 0o644
        )
        packages.append(translation)
    return packages


def _declared(makefile: Makefile, name: str) -> Package:
    description = " ".join(makefile.block(f"Package/{name}/description").split())
    return Package(
        name=name,
        version=f"{makefile.value('PKG_VERSION')}-r{makefile.value('PKG_RELEASE')}",
        title=makefile.field(name, "TITLE"),
        description=description,
        depends=_depends(makefile.field(name, "DEPENDS")),
        conflicts=makefile.field(name, "CONFLICTS").split(),
        license=makefile.value("PKG_LICENSE"),
        section=makefile.field(name, "SECTION"),
        url=makefile.field(name, "URL"),
        maintainer=makefile.value("PKG_MAINTAINER"),
        conffiles=makefile.block(f"Package/{name}/conffiles").split(),
        scripts={script: makefile.block(f"Package/{name}/{script}") for script in SCRIPTS},
    )


def _depends(text: str) -> list[str]:
    """Names of ``+NAME``; ``@SYMBOL`` says only where the SDK offers the package."""
    names = []
    for word in text.split():
        if word.startswith("+") and ":" not in word:
            names.append(word[1:])
        elif not word.startswith("@"):
            raise ValueError(f"dependency {word}: only +NAME and @SYMBOL are understood")
    return names


def _python_files(makefile: Makefile, name: str, root: Path, site_packages: str) -> dict[str, File]:
    """Modules and their data files under site-packages, as the filespec picks them."""
    include: list[str] = []
    exclude: list[str] = []
    for line in makefile.expand(makefile.block(f"Py3Package/{name}/filespec")).split():
        sign, _, prefix = line.partition("|")
        (include if sign == "+" else exclude).append(prefix)
    files = {}
    tops = [path.parent for path in sorted(root.glob("*/__init__.py"))]
    for path in (path for top in tops for path in _walk(top)):
        installed = f"{site_packages}/{path.relative_to(root).as_posix()}"
        if _below(installed, include) and not _below(installed, exclude):
            files[installed] = File(path.read_bytes(), 0o644)
    return files


def _installed(makefile: Makefile, name: str, source: Path) -> dict[str, File]:
    """What the INSTALL lines of the package's install recipe put in place."""
    files = {}
    for line in makefile.expand(makefile.block(f"Py3Package/{name}/install")).splitlines():
        words = shlex.split(line)
        command = words[0].removeprefix("$(").removesuffix(")") if words else ""
        if command in ("", "INSTALL_DIR"):
            continue
        if command not in MODES or len(words) != 3:
            raise ValueError(f"{makefile.path}: not understood: {line.strip()}")
        target = words[2].removeprefix("$(1)")
        if words[1].startswith("$(PKG_INSTALL_DIR)/usr/bin/"):
            data = _entry_point(source, PurePosixPath(words[1]).name)
        else:
            data = Path(words[1]).read_bytes()
        files[target] = File(data, MODES[command])
    return files


def _entry_point(source: Path, program: str) -> bytes:
    """The script that pip would make for ``[project.scripts]``."""
    scripts = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, function = scripts[program].split(":")
    return f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n".encode()


def _compile(po2lmo: str, catalogue: Path) -> bytes:
    output = catalogue.parent / f".{catalogue.stem}.lmo"
    try:
        subprocess.run([po2lmo, str(catalogue), str(output)], check=True)
        return output.read_bytes()
    finally:
        output.unlink(missing_ok=True)


def _walk(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.endswith(NOT_INSTALLED) for part in path.relative_to(root).parts)
    ]


def _below(path: str, roots: list[str]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def shebang_first(text: str) -> str:
    """A script's text without its own first line, to be put behind another beginning."""
    return re.sub(r"\A#!.*\n", "", text)
