"""Where the daemons' log lines go: good news to standard output, warnings and errors to standard error.

procd and systemd put a severity on each of the two, so that a router's log shows as an error only what is one.
"""

from __future__ import annotations

import logging
import sys


def log_to_streams(program: str) -> None:
    """Set the root logger up; its level is the caller's business."""
    formatter = logging.Formatter(f"{program}: %(levelname)s: %(message)s")
    good, bad = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    good.addFilter(lambda record: record.levelno < logging.WARNING)
    bad.setLevel(logging.WARNING)
    for handler in (good, bad):
        handler.setFormatter(formatter)
        logging.getLogger().addHandler(handler)
