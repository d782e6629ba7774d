"""pyroute2's route socket without the rest of pyroute2.

``import pyroute2`` runs a package initialiser that loads everything it offers, a database and its SQLite among it: 11.5 MB of a
router's memory, of which one class is used here. Its submodules need no such initialiser, so the package is entered into
``sys.modules`` unexecuted and only the submodule is imported: 6.4 MB with 0.9.7, 4.9 MB with 0.7.9 (measured on Python
3.11). A version whose submodules do need it is imported whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

PACKAGE = "pyroute2"


def load() -> tuple[Any, type[Exception]]:
    """``(IPRoute, NetlinkError)``. Raises ImportError where pyroute2 is not installed."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise ImportError(f"{PACKAGE} is not installed")
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        try:
            return _classes(f"{PACKAGE}.iproute")
        except Exception:
            for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
                del sys.modules[name]
    return _classes(PACKAGE)


def _classes(module: str) -> tuple[Any, type[Exception]]:
    error: type[Exception] = importlib.import_module(f"{PACKAGE}.netlink.exceptions").NetlinkError
    return importlib.import_module(module).IPRoute, error
