"""apk's format, version 3, made by ``apk mkpkg``."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from contents import Package, shebang_first

ARCHITECTURE = "noarch"
BEGIN = (
    '#!/bin/sh\n[ "$IPKG_NO_SCRIPT" = 1 ] && exit 0\n[ -s "$IPKG_INSTROOT/lib/functions.sh" ] || exit 0\n'
    '. "$IPKG_INSTROOT/lib/functions.sh"\nexport root="$IPKG_INSTROOT" pkgname="{name}"\n'
)
"""functions.sh enables, starts and stops services and runs uci-defaults, by the list of files in /lib/apk/packages."""


def pack(apk: str, package: Package, output: Path, mtime: int) -> None:
    """Write the package file. Raises CalledProcessError with apk's own words on stderr."""
    with tempfile.TemporaryDirectory() as scratch:
        root, scripts = Path(scratch, "root"), Path(scratch, "scripts")
        scripts.mkdir()
        for path, file in package.files.items():
            _write(root / path.lstrip("/"), file.data, file.mode)
        _add_lists(root, package)
        for directory, folders, files in os.walk(root):
            for name in (*folders, *files):
                os.utime(Path(directory, name), (mtime, mtime))
                os.chown(Path(directory, name), 0, 0) if os.geteuid() == 0 else None
        argv = [apk, "mkpkg", "--files", str(root), "--output", str(output)]
        for name, value in _info(package).items():
            argv += ["--info", f"{name}:{value}"] if value else []
        for name, text in frame_scripts(package).items():
            _write(scripts / name, text.encode(), 0o755)
            argv += ["--script", f"{name}:{scripts / name}"]
        subprocess.run(argv, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(mtime)})


def _info(package: Package) -> dict[str, str]:
    return {
        "name": package.name,
        "version": package.version,
        "description": package.title,
        "arch": ARCHITECTURE,
        "license": package.license,
        "origin": package.name,
        "url": package.url,
        "maintainer": package.maintainer,
        "depends": " ".join([*package.depends, *(f"!{name}" for name in package.conflicts)]),
    }


def frame_scripts(package: Package) -> dict[str, str]:
    """apk's name of a script -> its text: our part in the frame that OpenWrt gives every package."""
    begin = BEGIN.format(name=package.name)
    own = {name: shebang_first(text) for name, text in package.scripts.items() if text}
    # What belongs to us runs in a subshell, like opkg's -pkg files, so that its exit does not end the rest.
    inner = {name: f"(\n{text})\n" for name, text in own.items()}
    scripts = {
        "post-install": f"{begin}{inner.get('postinst', '')}add_group_and_user\ndefault_postinst\n",
        "post-upgrade": f"{begin}export PKG_UPGRADE=1\n{inner.get('postinst', '')}add_group_and_user\ndefault_postinst\n",
        "pre-deinstall": f"{begin}{inner.get('prerm', '')}default_prerm\n",
    }
    if "preinst" in own:
        scripts["pre-install"] = f"#!/bin/sh\n{own['preinst']}"
        scripts["pre-upgrade"] = scripts["pre-install"]
    if "postrm" in own:
        scripts["post-deinstall"] = f"#!/bin/sh\n{own['postrm']}"
    return scripts


def _add_lists(root: Path, package: Package) -> None:
    """The lists that functions.sh and sysupgrade read: files, conffiles and the sums of their first content."""
    lists = root / "lib/apk/packages" / package.name
    _write(
        lists.with_name(f"{package.name}.list"), "".join(f"{path}\n" for path in sorted(package.files)).encode(), 0o644
    )
    if package.conffiles:
        names = "".join(f"{path}\n" for path in package.conffiles)
        sums = "".join(f"{path} {hashlib.sha256(package.files[path].data).hexdigest()}\n" for path in package.conffiles)
        _write(lists.with_name(f"{package.name}.conffiles"), names.encode(), 0o644)
        _write(lists.with_name(f"{package.name}.conffiles_static"), sums.encode(), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
