"""A whole home: the lab's lines, servers and devices around a real OpenWrt router, which runs the packages from opkg or apk.

The lab's own router becomes three cables: each emulated line, and the LAN, is bridged to a port of the OpenWrt root, whose
netifd, fw4, procd, rpcd and LuCI are the real ones. Of OpenWrt's Python only the interpreter is replaced, by the one that runs
the tests; the modules are those of the installed package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apk as apk_format
import pytest
from contents import Package
from luci_world import PASSWORD, SHADOW
from package_build import MTIME, as_ipk, packages, stub
from webdriver import Browser, free_port, needed

from cpe_mcp.lab.namespaces import ip_batch
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES, LAN_DEVICE, LAN_HOSTS, LINK_NAMES

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build/screenshots"
BOOT_S = 60.0
QUIET_S = 2.0
"""For a page to ask what it asks first."""
PORTS = {"eth0": LAN_DEVICE, "eth1": "dsl", "wwan0": "lte"}
"""The router's ports, and what of the lab each is cabled to."""
INTERFACES = {"wan": "dsl", "wwan": "lte"}
STICK = "/root/packages"
"""Where the router finds the package files."""
KEY = "a key that only this test knows"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALLED = ("cpe-mcp", "luci-app-cpe-mcp")


@dataclass(frozen=True)
class Manager:
    """What a person types to a package manager, on a router without the Internet."""

    program: str
    options: str
    suffix: str
    install: str
    remove: str


OPKG = Manager("opkg", "--add-arch all:1", "ipk", "install", "remove")
APK = Manager("apk", "--allow-untrusted --no-network --no-cache --repositories-file /dev/null", "apk", "add", "del")
TRACES = ("nft -s list ruleset", "ip rule", "ip -6 rule", "ip route show table all", "ip mptcp endpoint")
"""What removal has to leave as it was."""
EXPIRES = r" expires \d+sec"
"""Routes that routers advertise count down."""

NETWORK = f"""
config interface 'loopback'
	option device 'lo'
	option proto 'static'
	option ipaddr '127.0.0.1'
	option netmask '255.0.0.0'

config device
	option name 'br-lan'
	option type 'bridge'
	list ports 'eth0'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'
	option ipaddr '{ADDRESSES.cpe.v4}'
	option netmask '255.255.255.0'

config interface 'wan'
	option device 'eth1'
	option proto 'static'
	option ipaddr '{ADDRESSES.cpe_dsl.v4}'
	option netmask '255.255.255.0'
	option gateway '{ADDRESSES.isp_dsl_access.v4}'
	option metric '10'

config interface 'wwan'
	option device 'wwan0'
	option proto 'static'
	option ipaddr '{ADDRESSES.cpe_lte.v4}'
	option netmask '255.255.255.0'
	option gateway '{ADDRESSES.isp_lte_access.v4}'
	option metric '20'
"""
FIREWALL = """
config defaults
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wwan'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'
	option mtu_fix '1'

config forwarding
	option src 'lan'
	option dest 'wan'
"""


class Home:
    """``close`` ends everything. ``lab`` has the clients and servers, ``browser`` is not logged in yet."""

    def __init__(self, folder: Path, manager: Manager = OPKG) -> None:
        needed()
        self._programs = {}
        self._manager = manager
        for name in ("owrt-luci-root", "owrt-exec", manager.program):
            path = shutil.which(name)
            if path is None:
                pytest.skip(f"needs the program {name}")
            self._programs[name] = path
        self.folder = folder / "router"
        self._packages = self.folder / "root/packages"
        self._router: subprocess.Popen[bytes] | None = None
        self.browser: Browser | None = None
        self.lab = Lab(name=f"home{os.getpid()}")
        try:
            self.lab.up()
            self.lab.start_concentrator(1, radius={"enabled": "0"}, subscribers={"alice": {"key": KEY}})
            self._prepare()
            self._boot(free_port())
            self._cable()
            self.browser = Browser(folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything."""
        if self.browser is not None:
            self.browser.close()
        if self._router is not None:
            self._router.terminate()
            self._router.wait(20)
        self.lab.down()

    def run(self, command: str, *, check: bool = True) -> str:
        """A shell command on the router; what it prints."""
        argv = [self._programs["owrt-exec"], str(self.folder), "sh", "-c", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        """``ubus call cpe-mcp status``; empty while nobody answers."""
        shown = self.run("ubus call cpe-mcp status 2>/dev/null", check=False)
        answer: dict[str, Any] = json.loads(shown) if shown.strip() else {}
        return answer

    def until(self, is_reached: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
        """The first true value; fails with the router's log when none comes."""
        due = time.monotonic() + timeout_s
        while time.monotonic() < due:
            if value := is_reached():
                return value
            time.sleep(0.2)
        pytest.fail(f"not within {timeout_s:g} s: {what}\n{self.run('logread | tail -40', check=False)}")

    def traces(self) -> dict[str, str]:
        """Everything in the kernel and in /etc that a package could leave behind."""
        found = {command: re.sub(EXPIRES, "", self.run(command)) for command in TRACES}
        found["/etc"] = self.run("find /etc -type f | sort | xargs md5sum")
        found["/tmp"] = self.run(
            "find /tmp/run /tmp/dnsmasq* -name '*cpe*' -not -path '/tmp/run/rpcd/*' 2>/dev/null | sort", check=False
        )
        return found

    def install(self) -> None:
        """The packages from the stick, as a person does."""
        self._ask_manager(self._manager.install, *(self._on_stick(name) for name in INSTALLED))

    def upgrade(self) -> None:
        """The same daemons as the next release: nothing differs but the number."""
        package = packages(PYTHON_VERSION)["cpe-mcp"]
        release = package.version.rpartition("-r")
        self._pack(replace(package, version=f"{release[0]}-r{int(release[2]) + 1}"))
        self._ask_manager(self._manager.install, self._on_stick("cpe-mcp"))

    def remove(self) -> None:
        """Them again."""
        self._ask_manager(self._manager.remove, *reversed(INSTALLED))

    def log_in(self) -> None:
        """In the page."""
        browser = self.page()
        browser.size(1280, 900)
        browser.go(f"{self.url}/")
        shown = (
            "const e = document.querySelector('.modal input[name=luci_password]'); return e && e.offsetParent !== null"
        )
        browser.wait(lambda: browser.run(shown), "the login page")
        browser.type(".modal input[name=luci_password]", PASSWORD)
        browser.run("document.querySelector('input[name=luci_password]').form.submit()")
        browser.wait(lambda: browser.count("#mainmenu, #topmenu"), "the menu")
        # uhttpd may hold a page back for its script timeout of 60 s while it waits for the end of a request that the
        # browser gave up: so nothing is given up.
        browser.wait(lambda: browser.run("return document.readyState") == "complete", "the page")
        time.sleep(QUIET_S)

    def page(self) -> Browser:
        """The browser."""
        assert self.browser is not None
        return self.browser

    def _ask_manager(self, *arguments: str) -> str:
        manager = self._manager
        return self.run(f"{self._programs[manager.program]} {manager.options} {' '.join(arguments)} 2>&1")

    def _on_stick(self, name: str) -> str:
        return f"{STICK}/{name}.{self._manager.suffix}"

    def _pack(self, package: Package) -> None:
        path = self._packages / f"{package.name}.{self._manager.suffix}"
        if self._manager == APK:
            apk_format.pack(self._programs["apk"], package, path, MTIME)
        else:
            path.write_bytes(as_ipk(package))

    def _prepare(self) -> None:
        """Files that the router has from the factory, and the packages on a stick."""
        config = self.folder / "etc/config"
        config.mkdir(parents=True)
        (config / "network").write_text(NETWORK)
        (config / "firewall").write_text(FIREWALL)
        (self.folder / "etc/opkg.conf").write_text("dest root /\nlists_dir ext /var/opkg-lists\n")
        shadow = self.folder / "etc/shadow"
        shadow.write_text(SHADOW)
        shadow.chmod(0o600)
        python = self.folder / "usr/bin/python3"
        python.parent.mkdir(parents=True)
        python.write_text(
            f'#!/bin/sh\nPYTHONPATH=/usr/lib/python{PYTHON_VERSION}/site-packages exec {sys.executable} -P "$@"\n'
        )
        python.chmod(0o755)
        self._packages.mkdir(parents=True)
        ours = packages(PYTHON_VERSION)
        needs = {name for package in ours.values() for name in package.depends} - set(ours)
        for package in (*(ours[name] for name in INSTALLED), *(stub(name) for name in sorted(needs))):
            self._pack(package)

    def _boot(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/cgi-bin/luci"
        log = self.folder / "root.log"
        visible = {str(ROOT), sys.prefix, sys.base_prefix}
        environment = {**os.environ, "OWRT_BIND": " ".join(sorted(visible))}
        with log.open("wb") as output:
            self._router = subprocess.Popen(
                [self._programs["owrt-luci-root"], str(self.folder), str(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        due = time.monotonic() + BOOT_S
        while "READY" not in log.read_text(errors="replace"):
            if self._router.poll() is not None or time.monotonic() > due:
                pytest.fail(f"the router does not come up: {log.read_text(errors='replace')}")
            time.sleep(0.1)

    def _cable(self) -> None:
        """The lab's router gives its lines up, and becomes the cables to the real one's ports."""
        cables = self.lab.namespace("cpe")
        for name in LINK_NAMES:
            self.lab.link(name).cut("address")
        lines = [f"address flush dev {LAN_DEVICE}"]
        init = int((self.folder / ".init.pid").read_text())
        for number, (port, device) in enumerate(PORTS.items()):
            outside = f"cable{number}"
            ip_batch(None, [f"link add {outside} netns {cables} type veth peer name new-{port} netns {init}"])
            bridge = LAN_DEVICE
            if device != LAN_DEVICE:
                bridge = f"modem{number}"
                lines += [f"link add {bridge} type bridge forward_delay 0 stp_state 0", f"link set {bridge} up"]
                lines += [f"link set {device} master {bridge}", f"link set {device} up"]
            lines += [f"link set {outside} master {bridge}", f"link set {outside} up"]
        ip_batch(cables, lines)
        for port in PORTS:
            self.run(f"ip link del {port}; ip link set new-{port} name {port}; ip link set {port} up")
        for host in (*LAN_HOSTS, *(f"isp-{name}" for name in LINK_NAMES)):
            ip_batch(
                self.lab.namespace(host), ["neigh flush all"]
            )  # they have met the lab's own router at these addresses
        self.run("sysctl -qw net.ipv4.ip_forward=1; /etc/init.d/network reload")
        if self._manager == APK:
            self._ask_manager("add --initdb")
        # Stand-ins for OpenWrt's own packages that ours need.
        names = sorted(path.stem for path in self._packages.iterdir() if path.stem not in INSTALLED)
        self._ask_manager(self._manager.install, *(self._on_stick(name) for name in names))
        self.until(lambda: "default via" in self.run("ip route show dev wwan0", check=False), "both lines have a route")
        for device in ("br-lan", "eth1", "wwan0"):  # what comes later would look like a trace of ours
            shown = f"ip -6 address show dev {device} scope link -tentative"
            self.until(lambda shown=shown: self.run(shown, check=False).strip(), f"{device} has its link-local address")  # type: ignore[misc]
        self.run("fw4 start 2>&1")
