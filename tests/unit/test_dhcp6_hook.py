"""The DHCPv6 hook: what netifd says of an interface becomes a lease file that the daemon understands, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cpe_mcp.discovery.lease import mcps_of_lease6, pull_lease

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.2.1-a")]

HOOK = Path(__file__).resolve().parents[2] / "files/etc/hotplug.d/iface/60-cpe-mcp"
PASSTHRU = (
    "fde9002020010db800010000000000000000000120010db8000100000000000000000002fde9001000000000000000000000ffffc0000201"
)
"""Two instances of option 65001: two MCPs, the second by an IPv4-mapped address."""
FUNCTIONS = """
config_load() { :; }
config_foreach() { for section in dsl lte; do "$1" "$section"; done; }
config_get() {
	case "$2.$3" in
		dsl.device) eval "$1=eth1" ;;
		dsl.interface) eval "$1=wan" ;;
		lte.device) eval "$1=wwan0" ;;
		*) eval "$1=\\${4-}" ;;
	esac
}
"""
"""As OpenWrt's functions.sh would answer for a WAN dsl with an interface named otherwise, and a WAN lte."""
JSONFILTER = """#!/usr/bin/python3
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[2].removeprefix("@.").split("."):
    value = value.get(key, "") if value else ""
print(value)
"""


class Router:
    """What the hook sees of one: netifd's answer, the settings, a directory for lease files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        (directory / "functions.sh").write_text(FUNCTIONS)
        self.program("jsonfilter", JSONFILTER)
        self.answer({"proto": "dhcpv6", "data": {"passthru": PASSTHRU}})

    def program(self, name: str, text: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, status: dict[str, object]) -> None:
        (self.directory / "status.json").write_text(json.dumps(status))
        self.program(
            "ubus", f'#!/bin/sh\n[ "$2" = network.interface.wan6 ] || exit 4\ncat {self.directory}/status.json\n'
        )

    def run(self, action: str, interface: str = "wan6", device: str = "eth1") -> None:
        environment = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "CPE_MCP_FUNCTIONS": str(self.directory / "functions.sh"),
            "CPE_MCP_RUN_DIR": str(self.directory / "run"),
            "ACTION": action,
            "INTERFACE": interface,
            "DEVICE": device,
        }
        # hotplug-call sources it in a subshell
        script = f'( . "{HOOK}" )'
        result = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    def leases(self) -> dict[str, str]:
        """Name -> text, of the files that the daemon reads."""
        found = (self.directory / "run/dhcp").glob("[!.]*")
        return {path.name: path.read_text() for path in found}


@pytest.fixture
def router(tmp_path: Path) -> Router:
    if shutil.which("python3") is None:
        pytest.skip("not there: python3")
    return Router(tmp_path)


def test_every_instance_reaches_the_daemon_under_the_wans_name(router: Router) -> None:
    router.run("ifup")
    leases = router.leases()
    assert leases.keys() == {"wan.v6"}, "the WAN with that device, not the interface that speaks DHCPv6"
    lease = pull_lease(leases["wan.v6"])
    assert lease.passthru == PASSTHRU
    assert lease.uptime_s is not None
    assert mcps_of_lease6(lease, 65001) == [
        ("2001:db8:1::1", "2001:db8:1::2"),
        ("192.0.2.1",),
    ]


def test_an_interface_that_is_no_wans_keeps_its_own_name(router: Router) -> None:
    router.run("ifup", device="eth7")
    assert router.leases().keys() == {"wan6.v6"}


def test_an_update_replaces_and_an_answer_without_options_withdraws(router: Router) -> None:
    router.run("ifup")
    router.answer({"proto": "dhcpv6", "data": {"passthru": "fde90000"}})
    router.run("ifupdate")
    assert pull_lease(router.leases()["wan.v6"]).passthru == "fde90000"
    router.answer({"proto": "dhcpv6", "data": {}})
    router.run("ifupdate")
    assert router.leases() == {}


def test_only_who_wrote_it_withdraws_it(router: Router) -> None:
    router.run("ifup")
    router.run("ifdown", interface="wan")
    assert router.leases().keys() == {"wan.v6"}
    router.run("ifdown")
    assert router.leases() == {}
    assert list((router.directory / "run/dhcp").iterdir()) == []


@pytest.mark.parametrize(
    ("action", "interface"),
    [("ifup-failed", "wan6"), ("", "wan6"), ("ifup", ""), ("ifup", "../etc"), ("ifup", ".x"), ("ifup", "lan")],
)
def test_everything_else_is_passed_over(router: Router, action: str, interface: str) -> None:
    router.run(action, interface=interface)
    assert router.leases() == {}


def test_an_interface_of_another_protocol_is_passed_over(router: Router) -> None:
    router.answer({"proto": "static", "data": {"passthru": PASSTHRU}})
    router.run("ifup")
    assert router.leases() == {}


@pytest.mark.parametrize("value", ["$(touch pwned)", "zz", "ab cd", "a" * 32769])
def test_what_is_not_hex_is_marked_and_never_evaluated(router: Router, value: str) -> None:
    router.answer({"proto": "dhcpv6", "data": {"passthru": value}})
    router.run("ifup")
    assert router.leases()["wan.v6"].splitlines()[0] == "passthru=invalid"
    assert not list(router.directory.rglob("pwned"))
