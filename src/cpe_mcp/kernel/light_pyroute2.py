"""pyroute2's route socket without the rest of pyroute2.

``import pyroute2`` runs a package initialiser that loads everything it offers, a database and its SQLite among it: 11.5 MB of a
router's memory, of which one class is used here. Its submodules need no such initialiser, so the package is entered into
``sys.modules`` unexecuted and only the submodule is imported: 6.4 MB with 0.9.7, 4.9 MB with 0.7.9 (measured on Python
3.11). Of Python's own modules it names some that only its other classes call, such as a mock for its own tests: 0.9 MB with
0.9.7, for which there are stand-ins while it is imported. A version whose submodules need any of that is imported whole.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

PACKAGE = "pyroute2"
ONLY_NAMED = ("multiprocessing", "ssl", "unittest", "unittest.mock")
"""What pyroute2 imports for servers, probes by TLS and tests."""


class StandIn(ModuleType):
    """A module, or anything in it, that is named and called at most."""

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(name)

    def __call__(self, *_: object, **__: object) -> StandIn:
        return self


def load() -> tuple[Any, type[Exception]]:
    """``(IPRoute, NetlinkError)``. Raises ImportError where pyroute2 is not installed."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise ImportError(f"{PACKAGE} is not installed")
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        try:
            with _stand_ins():
                return _classes(f"{PACKAGE}.iproute")
        except Exception:
            for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
                del sys.modules[name]
    return _classes(PACKAGE)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """For those of :data:`ONLY_NAMED` that nobody has loaded."""
    before: dict[str, Any] = {name: sys.modules[name] for name in ONLY_NAMED if name in sys.modules}
    sys.modules.update({name: StandIn(name) for name in ONLY_NAMED if before.get(name) is None})
    try:
        yield
    finally:
        for name in ONLY_NAMED:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _classes(module: str) -> tuple[Any, type[Exception]]:
    error: type[Exception] = importlib.import_module(f"{PACKAGE}.netlink.exceptions").NetlinkError
    return importlib.import_module(module).IPRoute, error
