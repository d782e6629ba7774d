"""Watches the directory where DHCP hooks leave their lease files, and says which lease changed.

Files are ``RUN_DIR/dhcp/INTERFACE.v4`` and ``.v6``, replaced by renaming. The kernel tells of changes (inotify); where
it refuses, or Python came without ctypes, the directory is read every few seconds. What a lease means must not be in
here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import struct
from collections.abc import Callable

from cpe_mcp.discovery.lease import Lease, pull_lease

log = logging.getLogger(__name__)

DIRECTORY = "dhcp"
"""Below the daemon's run directory."""
RESCAN_S = 2.0
"""Between two readings where inotify is refused: soon enough for an address that lasts hours."""
MAX_FILE_BYTES = 1 << 17
"""Twice the largest file the DHCPv4 hook can write (29 options of 2048 digits)."""

_NAME = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9_.-]*)\.v([46])", re.ASCII)
_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_DELETE = 0x8, 0x40, 0x80, 0x200
_IN_IGNORED = 0x8000
"""linux/inotify.h; IGNORED comes unasked when the directory itself is gone."""
_EVENT = struct.Struct("iIII")
"""struct inotify_event without its name."""

_Stamp = tuple[int, int, int]
"""Inode, modification time in ns, size: a renewal with the same content is another inode."""


class DhcpFiles:
    """Calls ``on_change(interface, family, lease)`` on the event loop; lease None when the file is gone.

    ``family`` is 4 or 6. Every change of a file is told, also one that leaves the content as it was: the lease of an
    unchanged answer is a new one.
    """

    def __init__(
        self, run_dir: str, on_change: Callable[[str, int, Lease | None], None], *, rescan_s: float = RESCAN_S
    ) -> None:
        self._directory = os.path.join(run_dir, DIRECTORY)
        self._on_change = on_change
        self._rescan_s = rescan_s
        self._seen: dict[tuple[str, int], _Stamp] = {}
        self._inotify = -1
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tell what is there now and watch from then on. Raises OSError when the directory cannot be made."""
        os.makedirs(self._directory, exist_ok=True)
        self._watch()

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            os.makedirs(self._directory, exist_ok=True)
            self._inotify = _open_inotify(self._directory)
        except (OSError, ImportError) as error:
            log.debug("no inotify for %s (%s): reading it every %.0f s", self._directory, error, self._rescan_s)
            self._timer = loop.call_later(self._rescan_s, self._watch)
        else:
            self._timer = None
            loop.add_reader(self._inotify, self._readable)
        self._scan()  # after the watch is set, so that nothing falls between

    def _readable(self) -> None:
        events = os.read(self._inotify, 1 << 16)
        if _is_gone(events):
            self.close()
            self._watch()
        else:
            self._scan()

    def _scan(self) -> None:
        present: dict[tuple[str, int], _Stamp] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    if match and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        key = (match[1], int(match[2]))
                        present[key] = (status.st_ino, status.st_mtime_ns, status.st_size)
        for interface, family in sorted(self._seen.keys() - present.keys()):
            del self._seen[interface, family]
            self._on_change(interface, family, None)
        for key, stamp in sorted(present.items()):
            if self._seen.get(key) != stamp:
                self._seen[key] = stamp
                self._tell(*key)

    def _tell(self, interface: str, family: int) -> None:
        path = os.path.join(self._directory, f"{interface}.v{family}")
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            log.warning("lease file %s cannot be read: %s", path, error.strerror)
            return
        if len(content) > MAX_FILE_BYTES:
            log.warning("lease file %s is larger than %d octets: not taken", path, MAX_FILE_BYTES)
            return
        self._on_change(interface, family, pull_lease(content.decode("ascii", "replace")))


def _open_inotify(directory: str) -> int:
    """A descriptor that becomes readable when an entry changes. Raises OSError, ImportError without ctypes."""
    import ctypes  # a package of its own on OpenWrt

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    mask = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
        error = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(error, "inotify_add_watch")
    return descriptor


def _is_gone(events: bytes) -> bool:
    at = 0
    while at < len(events):
        _, mask, _, name_bytes = _EVENT.unpack_from(events, at)
        if mask & _IN_IGNORED:
            return True
        at += _EVENT.size + name_bytes
    return False
