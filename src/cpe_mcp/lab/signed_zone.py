"""A DNS server with signed zones in the lab: Knot DNS, which makes the keys and signs. Only files are written in here, and
keys made; who starts the server, and in which namespace, is the caller's business.

There is a parent zone, whose key is the trust anchor, and below it the operator's zone: a delegation as in the real tree.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROGRAM, KEY_PROGRAM = "knotd", "keymgr"
PACKAGE = "knot"
PARENT, ZONE = "example.", "operator.example."
NAME = f"_convert._tcp.{ZONE}".rstrip(".")
"""Where the SRV records are."""
READY = "server started"
"""In the log, when it answers."""


class SignedZone(NamedTuple):
    """What a router has to be told, and the command that runs the server in the foreground."""

    anchor: str
    command: list[str]


def write_zones(
    directory: Path, address: str, targets: Sequence[tuple[str, str, int]], *, signed: bool = True
) -> SignedZone:
    """Write the server's configuration for this address: ``targets`` are ``(name, address, port)`` of concentrators in
    the operator's zone, best first. ``signed`` False leaves the operator's zone, and the delegation to it, unsigned.
    Raises OSError, CalledProcessError."""
    (directory / "db").mkdir(parents=True, exist_ok=True)
    config = directory / "knot.conf"
    config.write_text(_config(directory, address, signed), encoding="ascii")
    anchor = _new_key(config, PARENT)
    ds = [_new_key(config, ZONE)] if signed else []
    head = "@ 3600 IN SOA ns hostmaster 1 3600 600 86400 60\n@ 3600 IN NS ns\n"
    parent = [f"ns 3600 IN A {address}", f"operator 3600 IN NS ns.{ZONE}", f"ns.operator 3600 IN A {address}"]
    parent += [f"operator 3600 IN DS {row.split(maxsplit=1)[1]}" for row in ds]
    zone = [f"ns 3600 IN A {address}"]
    for number, (name, target, port) in enumerate(targets):
        zone.append(f"_convert._tcp 300 IN SRV {10 * (number + 1)} 1 {port} {name}")
        zone.append(f"{name} 300 IN A {target}")
    for name, lines in ((PARENT, parent), (ZONE, zone)):
        text = f"$ORIGIN {name}\n{head}" + "\n".join(lines) + "\n"
        (directory / f"{name}zone").write_text(text, encoding="ascii")
    return SignedZone(anchor, [PROGRAM, "-c", str(config)])


def _new_key(config: Path, zone: str) -> str:
    """Make the zone's one key; its DS record with the zone before it, as option ``trust_anchor`` has it."""
    command = [KEY_PROGRAM, "-c", str(config), zone]
    subprocess.run([*command, "generate", "ksk=yes", "zsk=yes"], check=True, capture_output=True)
    rows = subprocess.run([*command, "ds"], check=True, capture_output=True, text=True).stdout.splitlines()
    words = next(row.split() for row in rows if row.split()[4] == "2")  # NAME DS TAG ALGORITHM DIGESTTYPE DIGEST
    return " ".join([zone, *words[2:]])


def _config(directory: Path, address: str, signed: bool) -> str:
    signs = "dnssec-signing: on\n    dnssec-policy: lab"
    return f"""\
server:
    rundir: "{directory}"
    listen: {address}@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stdout
    any: info
database:
    storage: "{directory}/db"
policy:
  - id: lab
    manual: on
template:
  - id: default
    storage: "{directory}"
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
zone:
  - domain: {PARENT}
    file: "{PARENT}zone"
    {signs}
  - domain: {ZONE}
    file: "{ZONE}zone"
    {signs if signed else ""}
"""
