"""pyroute2 without its package initialiser: the same classes for less memory."""

from __future__ import annotations

import hmac
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

HMAC_8 = hmac.new(b"k", b"x", "sha256").hexdigest()[:8]


def run(code: str, *, path: Path | None = None) -> str:
    """What a fresh interpreter prints."""
    prelude = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    done = subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_database_and_the_rest_stay_out() -> None:
    loaded = run(
        "import sys; from cpe_mcp.kernel.light_pyroute2 import load; load()\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('pyroute2.ndb', 'sqlite3', 'pyroute2.nftables'))))"
    )
    assert loaded == ""


def test_what_pyroute2_only_names_is_there_for_everybody_else() -> None:
    load = "import sys; from cpe_mcp.kernel.light_pyroute2 import load; load()\n"
    assert run(load + "print(*{'multiprocessing', 'unittest.mock', 'unittest'} & set(sys.modules))") == ""
    assert run("from cpe_mcp.kernel.light_pyroute2 import load; load(); import unittest.mock as m; print(m.Mock().x())")


def test_the_daemon_runs_without_openssl() -> None:
    """Its hashes and its look at routes work all the same."""
    assert run(
        "from cpe_mcp.upstream.start import leave_out_openssl; leave_out_openssl()\n"
        "import asyncio, hashlib, hmac, sys, cpe_mcp.upstream.daemon\n"
        "from cpe_mcp.kernel.routes import IPRoute\n"
        "with IPRoute() as routes: print(any(link.get_attr('IFLA_IFNAME') == 'lo' for link in routes.get_links()))\n"
        "print(hashlib.md5(b'x').hexdigest(), hmac.new(b'k', b'x', 'sha256').hexdigest()[:8])\n"
        "print(sys.modules.get('ssl'), sys.modules.get('_ssl'), sys.modules.get('_hashlib'))"
    ).split("\n") == ["True", "9dd4e461268c8034f5c8564e155c67a6 " + HMAC_8, "None None None"]


def test_the_classes_work_and_are_those_of_a_full_import_that_came_first() -> None:
    assert (
        run(
            "from cpe_mcp.kernel.light_pyroute2 import load\n"
            "IPRoute, error = load()\n"
            "with IPRoute() as routes: print(any(link.get_attr('IFLA_IFNAME') == 'lo' for link in routes.get_links()))"
        )
        == "True"
    )
    assert (
        run(
            "import pyroute2; from cpe_mcp.kernel.light_pyroute2 import load\n"
            "print(load()[0] is pyroute2.IPRoute, load()[1] is pyroute2.netlink.exceptions.NetlinkError)"
        )
        == "True True"
    )


def test_a_version_that_needs_its_initialiser_is_imported_whole(tmp_path: Path) -> None:
    package = tmp_path / "pyroute2"
    (package / "netlink").mkdir(parents=True)
    (package / "__init__.py").write_text("needed = 1\nfrom pyroute2.iproute import IPRoute\n")
    (package / "iproute.py").write_text("import pyroute2\nclass IPRoute:\n    needs = pyroute2.needed\n")
    (package / "netlink/__init__.py").write_text("")
    (package / "netlink/exceptions.py").write_text("class NetlinkError(Exception): pass\n")
    assert run("from cpe_mcp.kernel.light_pyroute2 import load\nprint(load()[0].needs)", path=tmp_path) == "1"
