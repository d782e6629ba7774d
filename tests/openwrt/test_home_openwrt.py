"""From the package to the proof: what a person at home does, on a real OpenWrt between real lines, and back again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from home import APK, KEY, OPKG, SCREENSHOTS, Home

from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.transfer import Content, Download, fetch_small

pytestmark = [pytest.mark.openwrt, pytest.mark.netns]

DOWNLOAD_BYTES = 60_000_000
"""4 s of both lines."""
APPLIED_S = 40.0
MIN_SHARE = 15
"""Percent of a download that the slower line carries at least; a third is its part."""
PHONE = (360, 740)


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path, getattr(request, "param", OPKG))
    yield made
    made.close()


@pytest.mark.requirement("X-1")
@pytest.mark.requirement("X-2")
@pytest.mark.requirement("X-3")
@pytest.mark.requirement("Y-7")
@pytest.mark.parametrize("home", [OPKG, APK], indirect=True, ids=["opkg", "apk"])
def test_installed_clicked_used_proven_and_removed(home: Home) -> None:
    lab = home.lab
    content = Content(lab, DOWNLOAD_BYTES)
    assert fetch_small(lab), "without the package the LAN has the Internet"
    before = home.traces()

    home.install()
    assert fetch_small(lab), "installed and not set up: as before"
    # Each package makes rpcd start again, and a page that asks it in that second waits for an answer that never comes.
    home.run("sleep 2; ubus -t 10 wait_for session uci luci cpe-mcp")
    home.log_in()
    browser = home.page()
    browser.go(f"{home.url}/admin/network/cpe-mcp/overview")
    browser.wait(lambda: browser.count("#cpe-use-wwan"), "the lines on the first page")
    for name in ("wan", "wwan"):
        if not browser.run(f"return document.querySelector('#cpe-use-{name}').checked"):
            browser.click(f"#cpe-use-{name}")
    browser.click("#cpe-concentrator-static")
    browser.type("#cpe-address", ADDRESSES.concentrator1.v4)
    browser.type("#cpe-subscriber", "alice")
    browser.type("#cpe-key", KEY)
    home.run("uci set cpe-mcp.global.intercept=any; uci commit cpe-mcp")  # the lab's servers have private addresses
    browser.screenshot(SCREENSHOTS / "home-first-use.png")
    browser.run("document.querySelector('.cbi-page-actions .cbi-button-apply').click()")
    home.until(lambda: home.status().get("interception", {}).get("reason") != "no-wan", "the daemon runs", APPLIED_S)
    if "1" in home.run("sysctl -n net.bridge.bridge-nf-call-iptables", check=False):
        taken = home.until(
            lambda: (row := home.status()["interception"])["reason"] == "bridge-filter" and row, "it is seen"
        )
        assert not taken["on"]
        assert fetch_small(lab), "where nothing can be taken everything is forwarded"
        home.run("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0")
    home.until(lambda: home.status().get("interception", {}).get("on"), "connections are taken")
    home.until(lambda: home.status()["pool"]["ready"], "warm connections")

    received = Download(lab, DOWNLOAD_BYTES).wait(60)
    assert received.error == ""
    assert received.sha256 == content.sha256(DOWNLOAD_BYTES)

    browser.go(f"{home.url}/admin/network/cpe-mcp/overview")
    browser.wait_text("This download", "#cpe-proofs", timeout_s=30)
    proof = browser.text("#cpe-proofs")
    shares = {name: int(share) for name, share in re.findall(r"(\w+) (\d+) %", proof)}
    assert set(shares) == {"wan", "wwan"}, f"{proof} {received.rates_mbit} {home.run('logread | tail -20')}"
    assert min(shares.values()) >= MIN_SHARE, proof
    browser.screenshot(SCREENSHOTS / "home-overview.png")
    browser.size(*PHONE, phone=True)
    browser.go(f"{home.url}/admin/network/cpe-mcp/overview")
    browser.wait_text("This download", "#cpe-proofs", timeout_s=30)
    wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    browser.screenshot(SCREENSHOTS / "home-overview-phone.png")

    home.run("rm /etc/config/cpe-mcp")  # both keep settings that were changed
    home.remove()
    after = home.traces()
    for what, was in before.items():
        assert sorted(after[what].splitlines()) == sorted(was.splitlines()), what
    assert fetch_small(lab), "removed: as before"


SETTINGS = f"""uci -q batch <<X
set cpe-mcp.global.intercept=any
set cpe-mcp.wan=wan
set cpe-mcp.wan.device=eth1
set cpe-mcp.wwan=wan
set cpe-mcp.wwan.device=wwan0
set cpe-mcp.wwan.preference=20
set cpe-mcp.home=concentrator
add_list cpe-mcp.home.address={ADDRESSES.concentrator1.v4}
set cpe-mcp.home.subscriber=alice
set cpe-mcp.home.key='{KEY}'
commit cpe-mcp
X
reload_config"""
BRIDGE_FILTER_OFF = (
    "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null; true"
)


def carried(home: Home) -> int:
    """Finished flows to the lab's web server that went through the concentrator."""
    shown = json.loads(home.run("cpe-mcp --json records"))["flows"]
    return sum(row["action"] == "proxy" and row["server"] == ADDRESSES.server.v4 for row in shown)


def is_carried(home: Home) -> bool:
    """Whether one more small download goes through the concentrator."""
    before = carried(home)
    return fetch_small(home.lab) and home.until(lambda: carried(home) > before, "the record", 5)


def wan_row(home: Home, name: str) -> dict[str, Any]:
    """What the daemon says of one WAN; a row that says nothing while it is away."""
    rows: list[dict[str, Any]] = home.status().get("wans", [])
    return next((row for row in rows if row["name"] == name), {"reason": "", "detail": "", "usable": False})


@pytest.mark.requirement("X-2")
def test_typed_settings_reloads_and_restarts_of_others(home: Home) -> None:
    lab = home.lab
    content = Content(lab, DOWNLOAD_BYTES)
    home.run(BRIDGE_FILTER_OFF)
    home.install()
    home.run(SETTINGS)
    home.until(lambda: home.status().get("interception", {}).get("on"), "connections are taken", APPLIED_S)
    home.until(lambda: home.status()["pool"]["ready"], "warm connections")
    workers = [row["pid"] for row in home.status()["workers"]]

    running = Download(lab, DOWNLOAD_BYTES)
    home.run("uci set cpe-mcp.global.pool_size=3; uci commit cpe-mcp; reload_config")
    home.until(lambda: home.status()["pool"]["size"] == 3, "the other setting is in force")
    home.run("fw4 reload 2>&1")
    assert running.is_running, "the download was over too soon to show anything"
    received = running.wait(60)
    assert received.error == ""
    assert received.sha256 == content.sha256(DOWNLOAD_BYTES), "a flow survives a reload of settings and firewall"
    assert [row["pid"] for row in home.status()["workers"]] == workers, "nobody was restarted"
    assert is_carried(home)

    home.run("uci set cpe-mcp.wan.preference=many; uci commit cpe-mcp; reload_config")
    home.until(lambda: "option preference" in home.run("logread"), "the log names the option")
    assert is_carried(home), "wrong settings change nothing"
    home.run("uci set cpe-mcp.wan.preference=10; uci commit cpe-mcp; reload_config")

    home.run("uci set cpe-mcp.global.workers=2; uci commit cpe-mcp; reload_config")
    home.until(lambda: len(home.status()["workers"]) == 2, "one more worker")
    assert home.status()["workers"][0]["pid"] == workers[0], "the other one runs on"
    home.run("uci delete cpe-mcp.global.workers; uci set cpe-mcp.global.intercept_port=5199")
    home.run("uci commit cpe-mcp; reload_config")
    home.until(lambda: [row["pid"] for row in home.status()["workers"]] not in ([], workers), "a worker of that port")
    home.until(lambda: home.status()["interception"]["on"] and not home.status()["warnings"], "it is given connections")
    assert is_carried(home)
    for run_dir in ("/var/run/elsewhere", "/var/run/cpe-mcp"):
        home.run(f"uci set cpe-mcp.global.run_dir={run_dir}; uci commit cpe-mcp; reload_config")
        home.until(lambda: home.run(f"ls {run_dir}/control.sock", check=False), f"a daemon at {run_dir}")  # noqa: B023
        home.until(lambda: home.status().get("interception", {}).get("on"), "connections are taken again")
    assert is_carried(home)

    home.run("/etc/init.d/network restart")
    home.until(lambda: sum(wan["usable"] for wan in home.status()["wans"]) == 2, "both WANs are back", APPLIED_S)
    home.until(lambda: home.status()["interception"]["on"], "connections are taken again")
    assert is_carried(home)

    home.run("ifdown wwan")
    home.until(lambda: wan_row(home, "wwan")["reason"] == "wan-netifd-down", "netifd's word is passed on")
    assert wan_row(home, "wwan")["detail"].startswith("interface wwan is down")
    home.run("ifup wwan")
    home.until(lambda: wan_row(home, "wwan")["usable"], "it is used again", APPLIED_S)
    home.run("uci set cpe-mcp.wwan.interface=wan; uci commit cpe-mcp; reload_config")
    warning = home.until(lambda: home.status()["warnings"], "another device than the interface's is warned of")[0]
    assert "option device of section wan 'wwan' is 'wwan0'" in warning
    assert "eth1" in warning
    home.run("uci delete cpe-mcp.wwan.interface; uci commit cpe-mcp; reload_config")

    home.run("/etc/init.d/cpe-mcp stop")
    home.until(lambda: "cpe_mcp" not in home.run("nft list tables"), "the table is gone")
    assert fetch_small(lab), "stopped: everything is forwarded"


@pytest.mark.requirement("X-1")
@pytest.mark.parametrize("home", [OPKG, APK], indirect=True, ids=["opkg", "apk"])
def test_an_upgrade_starts_the_new_daemons_with_the_settings_of_before(home: Home) -> None:
    home.run(BRIDGE_FILTER_OFF)
    home.install()
    home.run(SETTINGS)
    home.until(lambda: home.status().get("interception", {}).get("on"), "connections are taken", APPLIED_S)
    before = {row["pid"] for row in home.status()["workers"]} | set(home.run("pgrep -f cpe-mcp[d]").split())

    home.upgrade()
    home.until(lambda: home.status().get("interception", {}).get("on"), "connections are taken again", APPLIED_S)
    after = {row["pid"] for row in home.status()["workers"]} | set(home.run("pgrep -f cpe-mcp[d]").split())
    assert after
    assert not before & after, "nobody of the version before is left"
    assert home.run("uci get cpe-mcp.home.key").strip() == KEY
    assert is_carried(home)
