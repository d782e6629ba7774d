"""Where the daemons' log lines go: good news to standard output, warnings and errors to standard error.

procd and systemd put a severity on each of the two, so that a router's log shows as an error only what is one.
"""

from __future__ import annotations

import logging
import sys

OWN = ("cpe_mcp", "__main__")
"""Our loggers; the second one is a daemon's that was started as a module."""


def log_to_streams(program: str) -> None:
    """Set the root logger up; :func:`set_level` has the level."""
    formatter = logging.Formatter(f"{program}: %(levelname)s: %(message)s")
    good, bad = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    good.addFilter(lambda record: record.levelno < logging.WARNING)
    bad.setLevel(logging.WARNING)
    for handler in (good, bad):
        handler.setFormatter(formatter)
        logging.getLogger().addHandler(handler)


def set_level(level: str) -> None:
    """Of our own modules: ``debug``, ``info``, ``warning`` or ``error``. Libraries have warnings at most to tell: pyroute2
    would write every message of the kernel at level debug, with all addresses in it."""
    own = getattr(logging, level.upper())
    logging.getLogger().setLevel(max(own, logging.WARNING))
    for name in OWN:
        logging.getLogger(name).setLevel(own)
