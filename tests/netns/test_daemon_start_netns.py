"""``cpe-mcpd`` that cannot start says why in one line: in a namespace of its own, as a user would start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

START_S = 20
WAN = "config wan 'one'\n\toption device 'eth9'\n"
RADIUS = """config radius 'radius'
	option enabled '1'
	list server '192.0.2.1'
	option username 'alice'
	option password 'p'
	option secret 's'
	option nas_identifier ''
"""


def start(tmp_path: Path, sections: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Start it in the foreground; it is expected to end by itself."""
    config = tmp_path / "cpe-mcp"
    config.write_text(f"config global 'global'\n\toption run_dir '{tmp_path}/run'\n{sections}")
    command = [sys.executable, "-m", "cpe_mcp.upstream.daemon", "--config", str(config), "--foreground"]
    return subprocess.run(
        ["unshare", "-n", *prefix, *command], capture_output=True, text=True, timeout=START_S, check=False
    )


@pytest.mark.parametrize("missing", ["-net_admin", "-net_admin,-net_raw,-sys_admin"])
def test_without_the_rights(tmp_path: Path, missing: str) -> None:
    done = start(tmp_path, WAN, "setpriv", "--bounding-set", missing, "--inh-caps", missing)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "cpe-mcpd: ERROR: cannot run: [Errno 1] Operation not permitted"
    assert "Traceback" not in done.stderr


def test_radius_settings_that_make_no_request(tmp_path: Path) -> None:
    done = start(tmp_path, WAN + RADIUS)
    assert done.returncode == 2
    assert done.stderr == (f"cpe-mcpd: ERROR: {tmp_path}/cpe-mcp: radius.nas_identifier is empty: RFC 2865 wants one\n")
