"""Reads the router's settings and says whether they would work. Imports nothing heavy: the init script waits for it.

``python3 -m cpe_mcp.upstream.check_config [FILE]`` prints what procd needs to know, one ``name=value`` a line: ``workers``,
``intercept_port``, ``run_dir``, and ``interfaces``, netifd's names of the enabled WANs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cpe_mcp.aaa.cookie import CookieError, own_credential
from cpe_mcp.settings import RouterSettings, SettingsError, load_router

DEFAULT_CONFIG = "/etc/config/cpe-mcp"
EXIT_OK, EXIT_USAGE = 0, 2


def load_settings(path: str) -> RouterSettings:
    """The settings, with what only shows when they are used. Raises SettingsError."""
    settings = load_router(path)
    for static in settings.concentrators:
        if static.subscriber:
            try:
                own_credential(static.subscriber, static.key)
            except CookieError as error:
                raise SettingsError(f"{path}: section concentrator '{static.name}': {error}") from None
    return settings


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 the settings work, 2 they do not, with one line that says where and why."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) > 1:
        print("usage: check_config [FILE]", file=sys.stderr)
        return EXIT_USAGE
    try:
        settings = load_settings(arguments[0] if arguments else DEFAULT_CONFIG)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    general = settings.general
    print(f"workers={general.workers}")
    print(f"intercept_port={general.intercept_port}")
    print(f"run_dir={general.run_dir}")
    print("interfaces=" + " ".join(wan.interface or wan.name for wan in settings.wans if wan.enabled))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
