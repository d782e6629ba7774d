"""The udhcpc hook, sourced as netifd's script sources it: by busybox ash where there is one, by the system's sh too."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cpe_mcp.discovery.lease import pull_lease

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.2.1-a")]

HOOK = Path(__file__).parents[2] / "files/etc/udhcpc.user.d/60-cpe-mcp"
SHELLS = (
    pytest.param(("sh",), id="sh"),
    pytest.param(
        ("busybox", "ash"),
        id="busybox",
        marks=pytest.mark.skipif(shutil.which("busybox") is None, reason="needs the program busybox"),
    ),
)
VALUE = "08c0000201c000020204c6336401"


def run(shell: tuple[str, ...], run_dir: Path, event: str, **variables: str) -> None:
    """One event; fails when the hook prints anything: it would end up in the system log every half lease."""
    done = subprocess.run(
        [*shell, "-c", f'set -eu; (. {HOOK} "$@")', "dhcp.script", event],
        env={"PATH": os.environ["PATH"], "CPE_MCP_RUN_DIR": str(run_dir), "INTERFACE": "wan", "lease": "3600"}
        | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""


def lines(run_dir: Path, name: str = "wan.v4") -> list[str]:
    assert [path.name for path in (run_dir / "dhcp").iterdir()] == [name], "nothing temporary stays"
    return (run_dir / "dhcp" / name).read_text().splitlines()


@pytest.mark.parametrize("shell", SHELLS)
class TestHook:
    @pytest.mark.parametrize("event", ["bound", "renew"])
    def test_options_and_lease_are_written(self, shell: tuple[str, ...], tmp_path: Path, event: str) -> None:
        run(shell, tmp_path, event, opt224=VALUE, opt254="00ff", opt249="00", opt252="00", opt223="00", opt43="00")
        written = lines(tmp_path)
        assert written[:3] == [f"opt224={VALUE}", "opt254=00ff", "lease=3600"]
        lease = pull_lease("\n".join(written))
        assert lease.options == ((224, VALUE), (254, "00ff"))
        assert lease.lease_s == 3600
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        assert lease.uptime_s is not None
        assert uptime - 60 < lease.uptime_s <= uptime

    @pytest.mark.parametrize("event", ["deconfig", "leasefail"])
    def test_the_file_goes_with_the_lease(self, shell: tuple[str, ...], tmp_path: Path, event: str) -> None:
        run(shell, tmp_path, event)
        run(shell, tmp_path, "bound", opt224=VALUE)
        run(shell, tmp_path, event)
        assert list((tmp_path / "dhcp").iterdir()) == []

    def test_nak_waits_for_deconfig(self, shell: tuple[str, ...], tmp_path: Path) -> None:
        run(shell, tmp_path, "bound", opt224=VALUE)
        run(shell, tmp_path, "nak")
        assert len(lines(tmp_path)) == 3

    def test_an_answer_without_options_replaces_one_with(self, shell: tuple[str, ...], tmp_path: Path) -> None:
        run(shell, tmp_path, "bound", opt224=VALUE)
        run(shell, tmp_path, "renew", lease="60")
        assert lines(tmp_path)[0] == "lease=60"

    @pytest.mark.parametrize(
        "value",
        [
            "$(touch {0}/owned)",
            "`touch {0}/owned`",
            "00;touch {0}/owned",
            "00\nlease=999999",
            "0G",
            "AB",
            "000",
            "ab" * 1025,
            "*",
            "-n",
        ],
    )
    def test_what_is_not_hex_is_only_marked(self, shell: tuple[str, ...], tmp_path: Path, value: str) -> None:
        run(shell, tmp_path, "bound", opt224=value.format(tmp_path), opt225="0a")
        assert lines(tmp_path)[:3] == ["opt224=invalid", "opt225=0a", "lease=3600"]
        assert not (tmp_path / "owned").exists()

    def test_the_longest_value_is_written(self, shell: tuple[str, ...], tmp_path: Path) -> None:
        run(shell, tmp_path, "bound", opt224="ab" * 1024)
        assert lines(tmp_path)[0] == "opt224=" + "ab" * 1024

    @pytest.mark.parametrize("lease", ["", "abc", "-1", "12345678901", "6 0"])
    def test_a_lease_that_is_no_number_is_left_out(self, shell: tuple[str, ...], tmp_path: Path, lease: str) -> None:
        run(shell, tmp_path, "bound", lease=lease)
        assert [line.split("=")[0] for line in lines(tmp_path)] == ["uptime"]

    @pytest.mark.parametrize("name", ["", "../wan", "a/b", ".wan", "wan lan", "wan\n", "w*"])
    def test_an_interface_that_is_no_file_name_is_passed_over(
        self, shell: tuple[str, ...], tmp_path: Path, name: str
    ) -> None:
        run(shell, tmp_path, "bound", INTERFACE=name, opt224=VALUE)
        assert list(tmp_path.rglob("*")) == []

    def test_names_of_netifd_interfaces(self, shell: tuple[str, ...], tmp_path: Path) -> None:
        run(shell, tmp_path, "bound", INTERFACE="wwan_4-1.7", opt224=VALUE)
        assert lines(tmp_path, "wwan_4-1.7.v4")[0] == f"opt224={VALUE}"

    def test_a_directory_that_cannot_be_made_breaks_nothing_else(self, shell: tuple[str, ...], tmp_path: Path) -> None:
        (tmp_path / "dhcp").write_text("in the way")
        done = subprocess.run(
            [*shell, "-c", f'(. {HOOK} "$@"); echo goes on', "dhcp.script", "bound"],
            env={"PATH": os.environ["PATH"], "CPE_MCP_RUN_DIR": str(tmp_path), "INTERFACE": "wan"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "goes on\n"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs the program shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(HOOK)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
