"""dhcp-request with the real uci: the chosen WANs ask for the option, and afterwards the user's file is what it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.openwrt, pytest.mark.requirement("Y-9")]

SCRIPT = Path(__file__).resolve().parents[2] / "files/usr/libexec/cpe-mcp/dhcp-request"
NETWORK = """
config interface 'wan'
	option device 'eth1'
	option proto 'dhcp'

config interface 'wan6'
	option device '@wan'
	option proto 'dhcpv6'
	list reqopts '23'

config interface 'lte'
	option device 'wwan0'
	option proto 'dhcp'
	option reqopts '121 42'

config interface 'dsl'
	option device 'eth2'
	option proto 'pppoe'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'

"""
WANS = """
config wan 'one'
	option device 'eth1'
	option interface 'wan'

config wan 'lte'
	option device 'wwan0'

config wan 'dsl'
	option device 'pppoe-dsl'
"""
FUNCTIONS = """
config_load() { CONFIG=$1; uci -q show "$1" > /dev/null; }
config_get() {
	value=$(uci -q get "$CONFIG.$2.$3") || value=${4-}
	eval "$1=\\$value"
}
config_get_bool() {
	config_get "$@"
	case "$(eval "echo \\$$1")" in 1 | on | yes | true) eval "$1=1" ;; *) eval "$1=0" ;; esac
}
config_foreach() {
	callback=$1 type=$2
	shift 2
	for section in $(uci -q show "$CONFIG" | sed -n "s/^$CONFIG\\.\\([^.=]*\\)=$type$/\\1/p"); do
		"$callback" "$section" "$@"
	done
}
"""
"""What the script uses of OpenWrt's functions.sh."""


class Router:
    """The two configuration files, and uci working on them."""

    def __init__(self, directory: Path, uci: str) -> None:
        self.directory, self._uci = directory, uci
        self.ledger = directory / "etc-cpe-mcp/dhcp-requests"
        for folder in ("config", "save", "bin"):
            (directory / folder).mkdir()
        (directory / "functions.sh").write_text(FUNCTIONS)
        wrapper = directory / "bin/uci"
        wrapper.write_text(f'#!/bin/sh\nexec {uci} -c {directory}/config -t {directory}/save "$@"\n')
        wrapper.chmod(0o755)
        (directory / "config/network").write_text(NETWORK)
        self.settings(WANS)

    @property
    def network(self) -> str:
        return (self.directory / "config/network").read_text()

    def settings(self, text: str) -> None:
        (self.directory / "config/cpe-mcp").write_text(text)

    def run(self, action: str) -> int:
        environment = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "CPE_MCP_FUNCTIONS": str(self.directory / "functions.sh"),
            "CPE_MCP_LEDGER": str(self.ledger),
        }
        return subprocess.run(["sh", str(SCRIPT), action], env=environment, check=False).returncode

    def requests(self, interface: str) -> list[str]:
        argv = [str(self.directory / "bin/uci"), "-q", "get", f"network.{interface}.reqopts"]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture
def router(tmp_path: Path) -> Router:
    uci = shutil.which("uci")
    if uci is None:
        pytest.skip("not there: uci")
    return Router(tmp_path, uci)


def test_the_chosen_wans_ask_and_nobody_else(router: Router) -> None:
    assert router.run("apply") == 0
    assert router.requests("wan") == ["224", "225"]
    assert router.requests("wan6") == ["23", "65001"]
    assert router.requests("lte") == ["121", "42", "224", "225"]
    assert router.requests("dsl") == [], "PPPoE has no DHCPv4"
    assert router.requests("lan") == []


def test_applying_again_changes_nothing(router: Router) -> None:
    router.run("apply")
    network, ledger = router.network, router.ledger.read_text()
    router.run("apply")
    assert (router.network, router.ledger.read_text()) == (network, ledger)


def test_removal_gives_back_the_users_file(router: Router) -> None:
    router.run("apply")
    assert router.run("remove") == 0
    assert router.network == NETWORK
    assert not router.ledger.parent.exists()


def test_what_the_user_asked_for_himself_stays(router: Router) -> None:
    mine = NETWORK.replace("'121 42'", "'121 224'")
    (router.directory / "config/network").write_text(mine)
    router.run("apply")
    assert router.requests("lte") == ["121", "224", "225"]
    router.run("remove")
    assert router.network == mine


@pytest.mark.parametrize(
    "change",
    [
        WANS.replace("config wan 'one'", "config wan 'one'\n\toption enabled '0'"),
        WANS + "\nconfig discovery 'discovery'\n\toption dhcp '0'\n",
        WANS + "\nconfig global 'global'\n\toption enabled '0'\n",
        "",
    ],
)
def test_a_wan_that_is_no_longer_wanted_stops_asking(router: Router, change: str) -> None:
    router.run("apply")
    router.settings(change)
    router.run("apply")
    assert router.requests("wan") == []
    assert router.requests("wan6") == ["23"]


def test_another_code_replaces_the_one_before(router: Router) -> None:
    router.run("apply")
    router.settings(WANS + "\nconfig discovery 'discovery'\n\toption dhcp4_code '230'\n\toption dhcp4_name_code '0'\n")
    router.run("apply")
    assert router.requests("wan") == ["230"]
    router.run("remove")
    assert router.network == NETWORK


def test_an_unreadable_file_takes_nothing_back(router: Router) -> None:
    router.run("apply")
    network = router.network
    router.settings("config wan\n\toption 'broken\n")
    assert router.run("apply") == 1
    assert router.network == network
