"""Our nftables table as nft lists it, for questions and reports. Changes nothing."""

from __future__ import annotations

import subprocess

from cpe_mcp.kernel.numbers import NFT_TABLE

LISTING_TIMEOUT_S = 5.0


def table_listing() -> str:
    """The table without the elements of its sets; "" when it is not there or nft is missing. Runs nft: some milliseconds."""
    argv = ["nft", "--terse", "list", "table", "inet", NFT_TABLE]
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if not result.returncode else ""
