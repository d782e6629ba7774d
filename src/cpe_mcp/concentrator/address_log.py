"""Writes who had which of our addresses and ports (section ``address_log``), to a file, the system log or both.

A logger of its own, which nothing else reaches: these lines are in no other log, and no other line is among them.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler, SysLogHandler
from typing import Any

from cpe_mcp.concentrator.address_line import address_line
from cpe_mcp.settings.concentrator import AddressLogSettings

log = logging.getLogger(__name__)

MB = 1_000_000
FILE_MODE, DIRECTORY_MODE = 0o600, 0o700
"""For nobody but the daemon's user: the lines say who went where, and when."""
SYSLOG = "/dev/log"
IDENTITY = "mcp-concentrator-addresses: "


class _PrivateFile(RotatingFileHandler):
    """Opened with the first line; files put aside keep the mode."""

    def _open(self) -> io.TextIOWrapper:
        os.makedirs(os.path.dirname(self.baseFilename), DIRECTORY_MODE, exist_ok=True)

        def opener(path: str, flags: int) -> int:
            return os.open(path, flags, FILE_MODE)

        return io.TextIOWrapper(open(self.baseFilename, "ab", opener=opener), encoding="utf-8")


class AddressLog:
    """One per daemon. :meth:`write` never raises: what cannot be written is counted, and complained of once."""

    def __init__(self, settings: AddressLogSettings) -> None:
        self.written = 0
        self.failed = 0
        """Lines that reached not all of the places they should."""
        self._complained = ""
        self._handlers: list[logging.Handler] = []
        self._settings = AddressLogSettings()
        self.configure(settings)

    def configure(self, settings: AddressLogSettings) -> None:
        """Other settings; the file is opened anew, so that it may have been moved away."""
        self.close()
        self._settings = settings
        self._complained = ""
        if not settings.enabled:
            return
        if settings.file:
            size = int(settings.max_mb * MB)
            self._add(
                _PrivateFile(settings.file, maxBytes=size, backupCount=settings.keep, encoding="utf-8", delay=True)
            )
        if settings.syslog:
            try:
                handler = SysLogHandler(SYSLOG, SysLogHandler.LOG_LOCAL0)
            except OSError as error:
                self._complain(f"{SYSLOG}: {error.strerror}")
                return
            handler.ident = IDENTITY
            self._add(handler)

    def close(self) -> None:
        """Give the files back."""
        for handler in self._handlers:
            handler.close()
        self._handlers.clear()

    def write(self, record: Mapping[str, Any]) -> None:
        """A connection has ended."""
        if not self._settings.enabled:
            return
        line = address_line(record, with_destination=self._settings.destinations)
        if not line:
            return
        self.written += 1
        failed = self.failed
        for handler in self._handlers:
            handler.handle(logging.LogRecord(__name__, logging.INFO, "", 0, line, None, None))
        self.failed = min(self.failed, failed + 1)

    def status(self) -> dict[str, Any]:
        """For people."""
        settings = self._settings
        places = [name for name, is_on in ((settings.file, settings.file), ("syslog", settings.syslog)) if is_on]
        return {
            "enabled": settings.enabled,
            "places": places if settings.enabled else [],
            "written": self.written,
            "failed": self.failed,
            "trouble": self._complained,
        }

    def _add(self, handler: logging.Handler) -> None:
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.handleError = self._failed  # type: ignore[method-assign]
        self._handlers.append(handler)

    def _failed(self, record: logging.LogRecord) -> None:
        """Called in the handler of what went wrong."""
        self.failed += 1
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.filename:
            self._complain(f"{error.filename}: {error.strerror}")
        else:
            self._complain(str(error))

    def _complain(self, text: str) -> None:
        if text != self._complained:
            self._complained = text
            log.error("the address log cannot be written: %s; see section address_log", text)
