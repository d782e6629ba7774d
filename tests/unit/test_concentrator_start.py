"""Settings that parse and still cannot work: one line, exit code 2, and nothing has changed."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from cpe_mcp.concentrator.control import Control
from cpe_mcp.concentrator.daemon import Daemon
from cpe_mcp.settings import SettingsError, load_concentrator

pytestmark = pytest.mark.unit

GLOBAL = "config global 'global'\n\toption run_dir '@RUN@'\n\toption metrics_port '@PORT@'\n"
RADIUS = """
config radius 'radius'
	option enabled '1'
	list server '127.0.0.1'
	option secret 'between-us-only'
	option nas_identifier '@NAS@'
"""


def written(directory: Path, *, port: str = "0", nas: str | None = None) -> Path:
    text = GLOBAL.replace("@RUN@", str(directory / "run")).replace("@PORT@", port)
    path = directory / "mcp-concentrator"
    path.write_text(text if nas is None else text + RADIUS.replace("@NAS@", nas))
    return path


def started(path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nfrom cpe_mcp.concentrator.daemon import main\nsys.exit(main(['--config', {str(path)!r}]))"
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_an_empty_nas_identifier_ends_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, nas="")
    result = started(path)
    assert result.returncode == 2
    (line,) = [row for row in result.stderr.splitlines() if "INFO" not in row]
    assert str(path) in line
    assert "nas_identifier" in line
    assert "between-us-only" not in line
    assert not (tmp_path / "run").exists()


@pytest.mark.requirement("X-14")
def test_metrics_without_their_library_end_in_one_line(tmp_path: Path) -> None:
    """As on a machine where it is not installed."""
    path = written(tmp_path, port="9524")
    result = started(path, before="sys.modules['prometheus_client'] = None")
    assert result.returncode == 2
    (line,) = [row for row in result.stderr.splitlines() if "INFO" not in row]
    assert str(path) in line
    assert "metrics_port" in line
    assert "prometheus-client" in line


def test_without_metrics_the_library_is_not_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, nas="")  # ends before it needs any rights, after all imports
    code = f"""import sys
from cpe_mcp.concentrator.daemon import main
main(['--config', {str(path)!r}])
sys.exit('prometheus_client' in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_a_reload_with_them_leaves_the_settings_before_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # a reload sets it; this gives the root logger its own back at the end

    async def main() -> None:
        path = written(tmp_path, nas="us")
        before = load_concentrator(str(path))
        daemon = Daemon(before, str(path))
        written(tmp_path, nas="")
        await daemon.reload()
        assert "settings not read again" in caplog.text
        assert "nas_identifier" in caplog.text
        assert daemon._control.settings is before
        assert daemon._settings is before
        written(tmp_path, nas="others")
        await daemon.reload()
        assert daemon._control.settings.radius.nas_identifier == "others"

    asyncio.run(main())


def test_configure_changes_nothing_when_it_raises(tmp_path: Path) -> None:
    async def main() -> None:
        good = load_concentrator(str(written(tmp_path, nas="us")))
        control = Control(good)
        authorizer, radius = control.authorizer, control._radius
        with pytest.raises(SettingsError, match="nas_identifier"):
            control.configure(load_concentrator(str(written(tmp_path, nas=""))))
        assert (control.settings, control.authorizer, control._radius) == (good, authorizer, radius)

    asyncio.run(main())


@pytest.mark.parametrize("option", ["password", "nas_identifier"])
def test_what_no_request_can_carry_is_refused_by_name_and_not_shown(tmp_path: Path, option: str) -> None:
    async def main() -> None:
        path = written(tmp_path, nas="us")
        text = path.read_text().replace("\toption nas_identifier 'us'\n", "")
        path.write_text(f"{text}\toption {option} '{'x' * 300}'\n")
        with pytest.raises(SettingsError, match=rf"radius\.{option} is too long") as error:
            Control(load_concentrator(str(path)))
        assert "xxx" not in str(error.value)

    asyncio.run(main())


NOTHING_PREPARED = "import cpe_mcp.concentrator.daemon as daemon\ndaemon.prepare = lambda **_: None"


@pytest.mark.requirement("5.3-b")
def test_filters_without_nft_end_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text() + "config filter 'closed'\n\tlist rule 'tcp dport 25 drop'\n")
    result = started(path, before=f"{NOTHING_PREPARED}\nimport os\nos.environ['PATH'] = {str(tmp_path)!r}")
    assert result.returncode == 2
    (line,) = [row for row in result.stderr.splitlines() if "INFO" not in row and "WARNING" not in row]
    assert str(path) in line
    assert "the program nft is not there; install nftables" in line


def test_a_missing_right_ends_in_one_line_that_names_it(tmp_path: Path) -> None:
    refuse = "def refuse(**_): raise PermissionError(1, 'Operation not permitted')\ndaemon.prepare = refuse"
    result = started(written(tmp_path), before=f"{NOTHING_PREPARED}\n{refuse}")
    assert result.returncode == 1
    (line,) = [row for row in result.stderr.splitlines() if "INFO" not in row and "WARNING" not in row]
    assert line.endswith("Operation not permitted; it needs the capability CAP_NET_ADMIN")
