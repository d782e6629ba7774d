"""What labs leave on the machine while they are up: their state directories, who owns them, and the one shared sysctl.

``/run/cpe-mcp-lab/LAB/owner`` names the process that keeps the lab up. ``congestion-control`` beside the directories
keeps what net.ipv4.tcp_allowed_congestion_control was before the first lab: a namespace may only select an algorithm
that is listed in the first one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from cpe_mcp.lab.namespaces import LabError, remove
from cpe_mcp.lab.plan import netns_names

ROOT = Path("/run/cpe-mcp-lab")
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
SAVED = "congestion-control"
OWNER = "owner"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")


def directory_of(name: str) -> Path:
    """The state directory of a lab. Raises LabError for a name that cannot be part of a namespace's name."""
    if not NAME.fullmatch(name) or name == SAVED:
        raise LabError(f"lab name {name!r}: up to 30 small letters, digits and dashes")
    return ROOT / name


def claim(name: str, algorithm: str) -> Path:
    """Make the state directory, owned by this process, and let namespaces use the congestion control.

    What a killed owner left behind is removed first. Raises LabError when the lab is up.
    """
    directory = directory_of(name)
    with _locked():
        if directory.exists():
            owner = owner_of(name)
            if owner:
                raise LabError(f"lab {name} is up already (process {owner}); cpe-mcp-lab down --name {name}")
            _remove(name)
        _allow(algorithm)
        directory.mkdir(mode=0o700)
        (directory / OWNER).write_text(f"{os.getpid()} {_start_of(os.getpid())}\n", encoding="ascii")
    return directory


def release(name: str) -> None:
    """Remove all that a lab has on this machine, its processes included; with the last lab the sysctl goes back."""
    with _locked():
        _remove(name)


def owner_of(name: str) -> int:
    """The process that keeps a lab up; 0 when there is no such lab or its owner was killed."""
    try:
        owner, start = (directory_of(name) / OWNER).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0
    return int(owner) if _start_of(int(owner)) == start else 0


def _allow(algorithm: str) -> None:
    """Let namespaces select a congestion control. Raises LabError when the kernel has it not."""
    allowed = ALLOWED.read_text(encoding="ascii").split()
    if algorithm in allowed:
        return
    saved = ROOT / SAVED
    if not saved.exists():
        saved.write_text(" ".join(allowed), encoding="ascii")
    try:
        ALLOWED.write_text(" ".join([*allowed, algorithm]), encoding="ascii")
    except OSError:
        raise LabError(f"this kernel has no congestion control {algorithm}") from None


def _remove(name: str) -> None:
    remove(netns_names(name))
    shutil.rmtree(directory_of(name), ignore_errors=True)


def _start_of(process: int) -> str:
    """When a process started, in clock ticks since boot: tells it from a later one with the same number."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One lab at a time claims or releases; what is not needed any more when no lab is left goes at the end.

    The lock is on ROOT itself, which goes too: a waiting one looks again then.
    """
    while True:
        ROOT.mkdir(mode=0o755, exist_ok=True)
        try:
            descriptor = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(ROOT).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        yield
    finally:
        if not any(path.is_dir() for path in ROOT.iterdir()):
            saved = ROOT / SAVED
            if saved.exists():
                ALLOWED.write_text(saved.read_text(encoding="ascii"), encoding="ascii")
                saved.unlink()
            ROOT.rmdir()
        os.close(descriptor)
