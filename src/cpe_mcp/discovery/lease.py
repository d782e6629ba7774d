"""What a DHCP client's hook leaves behind for the daemon: the text of one lease file, and what it says.

One ``name=value`` a line: ``opt<code>=<hex>`` for each DHCPv4 option that came (the hook does not know which code
counts), ``passthru=<hex>`` for DHCPv6, ``lease=<seconds>``, and ``uptime=<seconds>``: the machine's uptime when it was
written. Uptime and not the time of day, because a router without a clock boots with a wrong one and corrects it later.
Files and directories must not be in here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from cpe_mcp.discovery.dhcp_options import (
    MAX_PASSTHRU_HEX_CHARS,
    Mcp,
    join_instances,
    pull_dhcp4,
    pull_dhcp6,
    pull_domain,
    pull_hex,
    pull_passthru,
)

DHCP4_CODES = range(224, 255)
"""The site-specific codes (RFC 3942) a hook writes down."""
_OPTION_LINES = {f"opt{code}": code for code in DHCP4_CODES}


class Lease(NamedTuple):
    """One DHCP answer on one interface, values not looked at yet."""

    options: tuple[tuple[int, str], ...] = ()
    """(code, hex) of each ``opt`` line, in order."""
    passthru: str = ""
    """Hex of DHCPv6 options as odhcp6c passes them through."""
    lease_s: float | None = None
    """How long the answer holds; None when the file does not say."""
    uptime_s: float | None = None
    """The machine's uptime when the answer came; None when the file does not say."""

    def end(self, now: float) -> float | None:
        """When it ends, on the clock of ``now`` (time.monotonic(), which is the uptime); None: not known."""
        if self.lease_s is None:
            return None
        # An uptime ahead of now would stretch the lease.
        return (now if self.uptime_s is None else min(self.uptime_s, now)) + self.lease_s


def pull_lease(text: str) -> Lease:
    """The lease in a file's text. Lines it does not know are passed over: a hook may be newer than the daemon."""
    options = []
    passthru = ""
    seconds: dict[str, float | None] = {"lease": None, "uptime": None}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not equals:
            continue
        if name in _OPTION_LINES:
            options.append((_OPTION_LINES[name], value))
        elif name == "passthru":
            passthru = value
        elif name in seconds and value.isascii() and value.isdecimal():
            seconds[name] = float(value)
    return Lease(tuple(options), passthru, seconds["lease"], seconds["uptime"])


def mcps_of_lease4(lease: Lease, code: int, *, own: Collection[str] = ()) -> list[Mcp]:
    """The MCPs of a DHCPv4 lease; empty when the option is absent. Raises OptionError when it is malformed."""
    option = f"DHCPv4 option {code}"
    value = join_instances(((c, pull_hex(text, option)) for c, text in lease.options if c == code), code)
    return [] if value is None else pull_dhcp4(value, code, own=own)


def domain_of_lease4(lease: Lease, code: int) -> str:
    """The domain in a DHCPv4 lease; "" when the option is absent. Raises OptionError when it is malformed."""
    option = f"DHCPv4 option {code}"
    value = join_instances(((c, pull_hex(text, option)) for c, text in lease.options if c == code), code)
    return "" if value is None else pull_domain(value, code)


def mcps_of_lease6(lease: Lease, code: int, *, own: Collection[str] = ()) -> list[Mcp]:
    """The MCPs of a DHCPv6 lease; empty when the option is absent. Raises OptionError when it is malformed."""
    options = pull_hex(lease.passthru, "DHCPv6 passthru", MAX_PASSTHRU_HEX_CHARS)
    return pull_dhcp6(pull_passthru(options, code), code, own=own)
