"""opkg's format: a gzip tar of ``./debian-binary``, ``./data.tar.gz`` and ``./control.tar.gz``."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import PurePosixPath

from contents import File, Package

ARCHITECTURE = "all"


def pack(package: Package, mtime: int) -> bytes:
    """The whole file; the same input gives the same octets."""
    return _tar_gz(
        {
            "debian-binary": File(b"2.0\n", 0o644),
            "data.tar.gz": File(_tar_gz(package.files, mtime), 0o644),
            "control.tar.gz": File(_tar_gz(_control_files(package), mtime), 0o644),
        },
        mtime,
        in_order=True,
    )


def control(package: Package) -> str:
    """The control file. An empty field is left out: opkg crashes on an empty Depends."""
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Depends": ", ".join(package.depends),
        "Conflicts": ", ".join(package.conflicts),
        "License": package.license,
        "Section": package.section,
        "URL": package.url,
        "Maintainer": package.maintainer,
        "Architecture": ARCHITECTURE,
        "Installed-Size": str(package.installed_bytes),
        "Description": package.description,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def _control_files(package: Package) -> dict[str, File]:
    files = {"control": File(control(package).encode(), 0o644)}
    if package.conffiles:
        files["conffiles"] = File("".join(f"{path}\n" for path in package.conffiles).encode(), 0o644)
    for name in ("preinst", "postrm"):
        if package.scripts.get(name):
            files[name] = File(package.scripts[name].encode(), 0o755)
    # functions.sh enables, starts and stops services and runs uci-defaults, then runs our own part, the -pkg file.
    for name in ("postinst", "prerm"):
        begin = '#!/bin/sh\n[ "$IPKG_NO_SCRIPT" = 1 ] && exit 0\n[ -s "$IPKG_INSTROOT/lib/functions.sh" ] || exit 0\n'
        files[name] = File(f'{begin}. "$IPKG_INSTROOT/lib/functions.sh"\ndefault_{name} "$0" "$@"\n'.encode(), 0o755)
        if package.scripts.get(name):
            files[f"{name}-pkg"] = File(package.scripts[name].encode(), 0o755)
    return files


def _tar_gz(files: dict[str, File], mtime: int, *, in_order: bool = False) -> bytes:
    names = [name.lstrip("/") for name in files]
    entries = dict(zip(names, files.values(), strict=True))
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for directory in sorted({str(parent) for name in names for parent in PurePosixPath(name).parents}):
            tar.addfile(_entry("./" if directory == "." else f"./{directory}/", 0o755, mtime, tarfile.DIRTYPE))
        for name in names if in_order else sorted(names):
            info = _entry(f"./{name}", entries[name].mode, mtime, tarfile.REGTYPE)
            info.size = len(entries[name].data)
            tar.addfile(info, io.BytesIO(entries[name].data))
    return gzip.compress(raw.getvalue(), 9, mtime=0)


def _entry(name: str, mode: int, mtime: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.type = mode, mtime, kind
    info.uname = info.gname = "root"
    return info
