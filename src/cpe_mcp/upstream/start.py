"""Starts ``cpe-mcpd`` without OpenSSL: 1.2 MB of a router's memory for itself, and 3.4 MB of pages from files, for nothing.

asyncio and hashlib load it wherever it is installed, and OpenWrt's python3-pyroute2 brings it along. The daemon speaks no TLS,
and Python's own hashes do for RADIUS and cookies. Both are made to work where it is missing, so here it is missing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

TLS = "ssl"
HASHES = "_hashlib"
OWN_HASHES = ("_md5", "_sha1", "_sha2" if sys.version_info >= (3, 12) else "_sha256", "_sha3", "_blake2")
"""A Python that was built without them has OpenSSL's only."""


def main() -> int:
    """See :func:`cpe_mcp.upstream.daemon.main`."""
    leave_out_openssl()
    from cpe_mcp.upstream import daemon

    return daemon.main()


def leave_out_openssl() -> None:
    """For this process; before anything else is imported."""
    left_out = [TLS, HASHES] if all(map(find_spec, OWN_HASHES)) else [TLS]
    for name in left_out:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: an import raises ModuleNotFoundError


if __name__ == "__main__":
    sys.exit(main())
