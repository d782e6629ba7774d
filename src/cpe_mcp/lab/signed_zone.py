"""A DNS server with signed zones in the lab: Knot DNS, which makes the keys and signs. Only files are written in here, and
keys made; who starts the server, and in which namespace, is the caller's business.

There is a parent zone, whose key is the trust anchor, and below it the operator's zone: a delegation as in the real tree.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROGRAM, KEY_PROGRAM, CONTROL_PROGRAM = "knotd", "keymgr", "knotc"
PACKAGE = "knot"
PARENT, ZONE = "example.", "operator.example."
NAME = f"_convert._tcp.{ZONE}".rstrip(".")
"""Where the SRV records are."""
READY = "server started"
"""In the log, when it answers."""


SIGNED, UNSIGNED, STRIPPED, EXPIRED = "signed", "unsigned", "stripped", "expired"
"""What is to be served: zones in order; the operator's zone, and the delegation to it, without signatures; its signatures only
removed, as somebody on the way does; signatures that have ended."""
EXPIRES_S = 2
"""So long those of EXPIRED hold; the server has one second of it to hear that it is not to sign again."""


class Target(NamedTuple):
    """A concentrator in the operator's zone: the first label of its name, and what its records say."""

    name: str
    address: str
    port: int
    priority: int = 10
    weight: int = 1


class SignedZone(NamedTuple):
    """What a router has to be told, the command that runs the server in the foreground, and one to run when it is ready."""

    anchor: str
    command: list[str]
    then: list[str]


def write_zones(directory: Path, address: str, targets: Sequence[Target], state: str = SIGNED) -> SignedZone:
    """Write the server's configuration for this address, and zones that name these concentrators. Raises OSError,
    CalledProcessError."""
    (directory / "db").mkdir(parents=True, exist_ok=True)
    config = directory / "knot.conf"
    config.write_text(_config(directory, address, state), encoding="ascii")
    anchor = _new_key(config, PARENT)
    ds = [_new_key(config, ZONE)] if state != UNSIGNED else []
    # No TTL is longer than a signature: the server would not sign.
    head = "$TTL 1\n@ IN SOA ns hostmaster 1 3600 600 86400 1\n@ IN NS ns\n"
    parent = [f"ns IN A {address}", f"operator IN NS ns.{ZONE}", f"ns.operator IN A {address}"]
    parent += [f"operator IN DS {row.split(maxsplit=1)[1]}" for row in ds]
    zone = [f"ns IN A {address}"]
    for target in targets:
        zone.append(f"_convert._tcp IN SRV {target.priority} {target.weight} {target.port} {target.name}")
        zone.append(f"{target.name} IN A {target.address}")
    for name, lines in ((PARENT, parent), (ZONE, zone)):
        text = f"$ORIGIN {name}\n{head}" + "\n".join(lines) + "\n"
        (directory / f"{name}zone").write_text(text, encoding="ascii")
    freeze = [CONTROL_PROGRAM, "-c", str(config), "zone-freeze"]
    return SignedZone(anchor, [PROGRAM, "-c", str(config)], freeze if state == EXPIRED else [])


def _new_key(config: Path, zone: str) -> str:
    """Make the zone's one key; its DS record with the zone before it, as option ``trust_anchor`` has it."""
    command = [KEY_PROGRAM, "-c", str(config), zone]
    subprocess.run([*command, "generate", "ksk=yes", "zsk=yes"], check=True, capture_output=True)
    rows = subprocess.run([*command, "ds"], check=True, capture_output=True, text=True).stdout.splitlines()
    words = next(row.split() for row in rows if row.split()[4] == "2")  # NAME DS TAG ALGORITHM DIGESTTYPE DIGEST
    return " ".join([zone, *words[2:]])


def _config(directory: Path, address: str, state: str) -> str:
    signs = "dnssec-signing: on\n    dnssec-policy: lab"
    times = f"    rrsig-lifetime: {EXPIRES_S}\n    rrsig-refresh: 1\n    rrsig-pre-refresh: 0\n    zone-max-ttl: 1\n"
    times += "    propagation-delay: 0\n"
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
{times if state == EXPIRED else ""}template:
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
    {signs if state in (SIGNED, EXPIRED) else ""}
"""
