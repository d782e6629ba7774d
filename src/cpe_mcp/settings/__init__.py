"""Settings: declared beside each field (:mod:`.option`), read from UCI syntax (:mod:`.uci`), checked (:mod:`.load`).

Daemons and tools import from here. The relay workers do not: what they need of it arrives in frames.
"""

from cpe_mcp.settings.concentrator import ConcentratorSettings
from cpe_mcp.settings.hosts import split_host
from cpe_mcp.settings.load import (
    load_concentrator,
    load_router,
    mask_secrets,
    parse_concentrator,
    parse_router,
    warnings_of,
)
from cpe_mcp.settings.router import RouterSettings
from cpe_mcp.settings.uci import SettingsError

__all__ = [
    "ConcentratorSettings",
    "RouterSettings",
    "SettingsError",
    "load_concentrator",
    "load_router",
    "mask_secrets",
    "parse_concentrator",
    "parse_router",
    "split_host",
    "warnings_of",
]
