"""What every nftables table of ours needs: load a transaction, read counters, see what is there. Runs ``nft``, some
milliseconds each."""

from __future__ import annotations

import json
import subprocess

NFT_TIMEOUT_S = 10.0
TOO_LONG = f"nft did not end within {NFT_TIMEOUT_S:.0f} s"


def load(text: str) -> None:
    """One transaction: all of it or nothing. Raises RuntimeError with nft's own words when it refuses or takes too long,
    OSError without nft."""
    try:
        result = subprocess.run(
            ["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(TOO_LONG) from None
    if result.returncode:
        raise RuntimeError(f"nft refused: {result.stderr.strip().splitlines()[0] if result.stderr.strip() else ''}")


def counters(table: str) -> dict[str, int]:
    """Packets of every named counter of a table of family inet; empty when the table or nft has gone."""
    # -t: without the elements of sets, of which there may be thousands
    argv = ["nft", "-j", "-t", "list", "counters", "table", "inet", table]
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if result.returncode:
        return {}
    rows = [row["counter"] for row in json.loads(result.stdout)["nftables"] if "counter" in row]
    return {row["name"]: int(row["packets"]) for row in rows if row["table"] == table}


def listing(table: str) -> str:
    """A table of family inet as nft lists it without what changes by itself (elements, counts); "" when the table, nft or the
    right to look is not there. Raises RuntimeError when nft takes too long: then nobody knows."""
    argv = ["nft", "-s", "-t", "list", "table", "inet", table]
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False)
    except OSError:
        return ""
    except subprocess.TimeoutExpired:
        raise RuntimeError(TOO_LONG) from None
    return "" if result.returncode else result.stdout
