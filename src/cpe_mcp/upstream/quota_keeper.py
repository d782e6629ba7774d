"""Keeps count of the WANs that have a quota, across restarts and reboots; what follows is decided elsewhere.

The count is in two files. The one in RAM is as fresh as a restart of the daemon needs, because the kernel's counters go on
meanwhile. The one on flash is written once an hour at most (flash wears out), so that a reboot loses an hour at most.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from cpe_mcp.policy.quota import OVER, SOFT, WITHIN, Day, Usage, is_credible, period, state_of
from cpe_mcp.settings import RouterSettings
from cpe_mcp.settings.router import GB, WanSettings
from cpe_mcp.upstream import quota_file
from cpe_mcp.upstream.quota_file import Entry, QuotaFileError, Saved

log = logging.getLogger(__name__)

RAM_S = 10.0
"""Between two writes to RAM. The kernel's counters bridge them, unless the device is made anew meanwhile."""
FLASH_S = 3600.0
"""Between two writes to flash at least."""
FLASH_RETRY_S = 300.0
"""After a write that failed."""
WRAP = 2**32
WRAP_MARGIN = 2**27
"""Some drivers of 32-bit routers count in 32 bits: a counter this close to their end has not begun anew but gone round. More
than passes between two looks (0.25 s at 4 Gbit/s)."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"

TEXTS = {
    WITHIN: "not used up",
    SOFT: "nearly used up: only as backup",
    OVER: "used up: last resort",
}


class Counted:
    """One WAN with a quota."""

    def __init__(self, device: str, received: int, sent: int, usage: Usage) -> None:
        self.device = device
        self.index = device_index(device)
        self.received = received
        self.sent = sent
        self.usage = usage
        self.state = WITHIN

    def advance(self, received: int, sent: int) -> int:
        """The kernel's counters now; returns the bytes since the last call."""
        if received >= self.received and sent >= self.sent:
            new = received - self.received + sent - self.sent
        elif (index := device_index(self.device)) == self.index:
            new = _since(self.received, received) + _since(self.sent, sent)
        else:
            self.index = index
            new = received + sent
        self.received, self.sent = received, sent
        return new


class QuotaKeeper:
    """``clock()``: the wall clock, in s since 1970; ``monotonic()``: what ``now`` is everywhere."""

    def __init__(
        self,
        settings: RouterSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._ram = os.path.join(settings.general.run_dir, quota_file.QUOTA_FILE)
        self._boot = boot_id()
        self._counted: dict[str, Counted] = {}
        self._saved: dict[str, Entry] = {}
        """What the files said of WANs that were not seen since."""
        self._next_ram = self._next_flash = monotonic()
        self._rammed: Mapping[str, Entry] = {}
        self._flash = ""
        self._flashed: Mapping[str, Entry] = {}
        """What stands there."""
        self._flashing: asyncio.Future[None] | None = None
        self._complained = ""
        self.configure(settings)

    def configure(self, settings: RouterSettings) -> None:
        """Other settings; counts go on."""
        self._wans = {wan.name: wan for wan in settings.wans}
        flash = os.path.join(settings.general.state_dir, quota_file.QUOTA_FILE)
        if flash != self._flash:
            self._flash, self._flashed = flash, {}
        for name in [name for name in self._counted if not self._has_quota(name)]:
            counted = self._counted.pop(name)
            self._saved[name] = _entry(counted)
        self._saved = {name: entry for name, entry in self._saved.items() if name in self._wans}

    def start(self) -> None:
        """Take up what the files say."""
        flash, ram = self._read(self._flash), self._read(self._ram)
        newest = ram or flash
        if newest is not None:
            self._saved = {name: entry for name, entry in newest.wans.items() if name in self._wans}
            if newest.boot != self._boot:  # whatever the counters show has come since
                self._saved = {n: entry._replace(ifindex=0, received=0, sent=0) for n, entry in self._saved.items()}
        if flash is not None:
            self._flashed = flash.wans
            age_s = self._clock() - flash.written_s
            self._next_flash = self._monotonic() + min(FLASH_S, max(0.0, FLASH_S - age_s))

    async def stop(self) -> None:
        """The last write, to RAM; to flash only when it is due."""
        if self._flashing is not None:
            await asyncio.wait([self._flashing])
        if self._counted:
            self._write(self._ram)
            if self._is_flash_due():
                self._write(self._flash)

    def observe(self, counters: Mapping[str, tuple[int, int]]) -> None:
        """The kernel's counters, ``device -> (received, sent)``. As often as one likes."""
        if not any(wan.quota_gb for wan in self._wans.values()):
            return
        now, today = self._monotonic(), self._today()
        for name, wan in self._wans.items():
            if not self._has_quota(name) or wan.device not in counters:
                continue
            counted = self._counted.get(name)
            if counted is None or counted.device != wan.device:
                counted = self._counted[name] = self._begin(name, wan.device, *counters[wan.device])
            counted.usage.count(now, today, wan.quota_day, counted.advance(*counters[wan.device]))
            self._judge(wan, counted, today)
        self._save(now)

    def state(self, name: str) -> str:
        """WITHIN, SOFT or OVER."""
        counted = self._counted.get(name)
        return counted.state if counted is not None else WITHIN

    def report(self, name: str) -> dict[str, Any]:
        """For people; ``limit_gb`` 0 is no quota, ``resets_on`` is "" while the clock is not set."""
        wan, today = self._wans[name], self._today()
        limit = wan.quota_bytes()
        used = self._usage(name).used(today, wan.quota_day)
        state = self.state(name)
        return {
            "used_gb": round(used / GB, 6),
            "limit_gb": wan.quota_gb,
            "percent": 1000 * used // limit / 10 if limit else 0.0,
            "soft_percent": wan.quota_soft_percent,
            "state": state,
            "text": TEXTS[state],
            "resets_on": str(period(today, wan.quota_day)[1]) if limit and is_credible(today) else "",
        }

    def correct(self, name: str, used_gb: float) -> None:
        """The operator's own count. Written to flash at once: it is a person's doing. Raises ValueError."""
        wan, now, today = self._wans.get(name), self._monotonic(), self._today()
        if wan is None or not self._has_quota(name):
            known = [name for name in self._wans if self._has_quota(name)]
            raise ValueError(f"{name!r} is no WAN with a quota; there are: {', '.join(known) or 'none'}")
        usage = self._usage(name)
        usage.correct(now, today, wan.quota_day, round(used_gb * GB))
        log.info("wan %s: used volume set to %s GB by hand", name, used_gb)
        if name in self._counted:
            self._judge(wan, self._counted[name], today)
        else:  # its device is not there
            entry = self._saved.get(name) or Entry({}, wan.device, 0, 0, 0)
            self._saved[name] = entry._replace(periods=dict(usage.periods))
        self._next_ram = self._next_flash = now
        self._save(now)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _has_quota(self, name: str) -> bool:
        wan = self._wans.get(name)
        return wan is not None and wan.enabled and wan.quota_gb > 0

    def _usage(self, name: str) -> Usage:
        """Of a WAN whose device is not there, as the files say."""
        if name in self._counted:
            return self._counted[name].usage
        entry = self._saved.get(name)
        return Usage(entry.periods if entry is not None else None)

    def _today(self) -> Day:
        return Day(*time.localtime(self._clock())[:3])

    def _begin(self, name: str, device: str, received: int, sent: int) -> Counted:
        """As the files say; without a word of them, from the counters of now on."""
        before = self._counted.get(name)
        entry = _entry(before) if before is not None else self._saved.pop(name, None)
        counted = Counted(device, received, sent, Usage(entry.periods if entry is not None else None))
        if entry is not None and entry.device == device:
            is_same = entry.ifindex in (0, counted.index)
            counted.received, counted.sent = (entry.received, entry.sent) if is_same else (0, 0)
        return counted

    def _judge(self, wan: WanSettings, counted: Counted, today: Day) -> None:
        used = counted.usage.used(today, wan.quota_day)
        state = state_of(used, wan.quota_bytes(), wan.quota_soft_percent)
        if state != counted.state:
            say = log.info if state == WITHIN else log.warning
            say("wan %s: its quota is %s (%.3f of %g GB)", wan.name, TEXTS[state], used / GB, wan.quota_gb)
        counted.state = state

    # The files --------------------------------------------------------------------------------------------------------

    def _read(self, path: str) -> Saved | None:
        try:
            return quota_file.read(path)
        except OSError as error:
            log.warning("used volumes of the WANs cannot be read: %s: %s", path, error.strerror)
        except QuotaFileError as error:
            try:
                kept = f"it is kept as {quota_file.put_aside(path)}"
            except OSError as problem:
                kept = f"it cannot be put aside: {problem.strerror}"
            log.warning("used volumes of the WANs: %s; %s; set them with: cpe-mcp quota WAN --used GB", error, kept)
        return None

    def _save(self, now: float) -> None:
        if now < self._next_ram:
            return
        self._next_ram = now + RAM_S
        if self._now_saved().wans != self._rammed:
            self._write(self._ram)
        if self._is_flash_due() and self._flashing is None:
            # fsync may take a second, and the health of the lines is watched in this thread.
            self._next_flash = now + FLASH_S
            saved = self._now_saved()
            self._flashing = asyncio.get_running_loop().run_in_executor(None, quota_file.write, self._flash, saved)
            self._flashing.add_done_callback(lambda done: self._flash_written(done, saved))

    def _is_flash_due(self) -> bool:
        return self._monotonic() >= self._next_flash and self._now_saved().wans != self._flashed

    def _flash_written(self, done: asyncio.Future[None], saved: Saved) -> None:
        self._flashing = None
        error = done.exception() if not done.cancelled() else None
        if error is None:
            self._flashed = saved.wans
        else:
            self._next_flash = self._monotonic() + FLASH_RETRY_S
            self._complain(self._flash, error)

    def _write(self, path: str) -> None:
        saved = self._now_saved()
        if path == self._ram:
            self._rammed = saved.wans
        try:
            quota_file.write(path, saved)
        except OSError as error:
            self._complain(path, error)

    def _now_saved(self) -> Saved:
        wans = {**self._saved, **{name: _entry(counted) for name, counted in self._counted.items()}}
        return Saved(self._boot, round(self._clock(), 1), wans)

    def _complain(self, path: str, error: BaseException) -> None:
        line = f"used volumes of the WANs cannot be written to {path}: {getattr(error, 'strerror', None) or error}"
        if line != self._complained:
            self._complained = line
            log.warning("%s", line)


def device_index(device: str) -> int:
    """0: there is no such device in this network namespace."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def boot_id() -> str:
    """Another one after each boot; "" where the kernel does not say."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _since(before: int, now: int) -> int:
    """Bytes of one counter that may have begun anew, or gone round."""
    if now >= before:
        return now - before
    if WRAP - WRAP_MARGIN <= before < WRAP and now < WRAP_MARGIN:
        return WRAP - before + now
    return now


def _entry(counted: Counted) -> Entry:
    usage = counted.usage
    return Entry(dict(usage.periods), counted.device, counted.index, counted.received, counted.sent)
