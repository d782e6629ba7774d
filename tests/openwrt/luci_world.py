"""Real LuCI with this project's app, rpcd's real plugin, and a stand-in for the daemon that answers what a test wants.

The root comes from a program ``owrt-luci-root DIR PORT`` on PATH: it runs a throw-away OpenWrt (ubusd, rpcd, netifd, uhttpd,
LuCI) whose changed files lie in DIR and whose LuCI listens on 127.0.0.1:PORT, prints READY, and ends with its signal.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from webdriver import Browser, free_port

from cpe_mcp.bus.service import BusService
from cpe_mcp.control.ask import ApiError

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "luci/luci-app-cpe-mcp"
PLUGIN = ROOT / "files/usr/share/rpcd/ucode/cpe-mcp.uc"
SCREENSHOTS = ROOT / "build/screenshots"
BOOT_S = 60.0
QUIET_S = 2.0
"""For a page to ask what it asks first."""
PASSWORD = "multipath"
SHADOW = "root:$1$cpemcp$cFsvq/jv9lAj/Vzt/UTPk/:20000:0:99999:7:::\n"
"""The same password, hashed."""
VIEWER = "viewer"
METHODS = ("status", "paths", "history", "flows", "records", "concentrators", "check", "why", "speedtest", "drop", "quota",
           "support", "reload")  # fmt: skip
LANGUAGE = "de"


class StandIn:
    """The daemon's private object, served by the project's own bus client in a thread: ``answers`` by method."""

    def __init__(self, socket_path: Path) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._socket_path = str(socket_path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._service: BusService | None = None

    def start(self) -> None:
        """Be there."""

        async def begin() -> None:
            methods = {name: self._method(name) for name in METHODS}
            self._service = BusService(methods, socket_path=self._socket_path)
            self._service.start()

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(5)

    def stop(self) -> None:
        """Be gone, as a daemon that was stopped."""
        if self._service is not None:
            asyncio.run_coroutine_threadsafe(self._service.stop(), self._loop).result(5)
            self._service = None

    def close(self) -> None:
        """For good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The arguments of all calls of a method so far."""
        return [args for name, args in list(self.calls) if name == method]

    def _method(self, name: str) -> Any:
        async def answer(args: Mapping[str, Any]) -> Any:
            self.calls.append((name, dict(args)))
            reply = self.answers[name]
            if callable(reply):
                reply = reply(dict(args))
            if isinstance(reply, Exception):
                raise reply
            return reply

        return answer


class LuciWorld:
    """The root with everything in it, and a browser that is logged in."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("owrt-luci-root")
        if program is None:
            pytest.skip("owrt-luci-root, which starts OpenWrt's LuCI, is not on PATH")
        self._ubus = shutil.which("ubus") or pytest.skip("ubus is not on PATH")
        self.folder = folder / "root"
        self._install()
        self.url = f"http://127.0.0.1:{(port := free_port())}/cgi-bin/luci"
        self._log = folder / "root.log"
        self._process = subprocess.Popen(
            [program, str(self.folder), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=self._log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.browser: Browser | None = None
        try:
            self._wait_until_ready()
            self.daemon = StandIn(self.folder / "tmp/run/ubus/ubus.sock")
            self.browser = Browser(folder)
            self.log_in()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything."""
        if self.browser is not None:
            self.browser.close()
            self.daemon.close()
        self._process.terminate()
        self._process.wait(20)

    def ubus(self, name: str, method: str, args: Mapping[str, Any]) -> Any:
        """``ubus call`` as root, in the root."""
        done = self._call(name, method, args)
        assert done.returncode == 0, f"ubus call {name} {method} {args}: {done.returncode} {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def answers(self, method: str) -> bool:
        """Whether the daemon does, through the public object."""
        return self._call("cpe-mcp", method, {}).returncode == 0

    def _call(self, name: str, method: str, args: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        command = [
            self._ubus,
            "-s",
            str(self.folder / "tmp/run/ubus/ubus.sock"),
            "call",
            name,
            method,
            json.dumps(args),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def settings(self) -> dict[str, dict[str, Any]]:
        """What is saved and applied in /etc/config/cpe-mcp, by section."""
        values: dict[str, dict[str, Any]] = self.ubus("uci", "get", {"config": "cpe-mcp"})["values"]
        return values

    def configure(self, *sections: tuple[str, str, Mapping[str, Any]]) -> None:
        """Replace the whole of /etc/config/cpe-mcp: (type, name, values); name "" for an anonymous one."""
        for name in self.settings():
            self.ubus("uci", "delete", {"config": "cpe-mcp", "section": name})
        for type_, name, values in sections:
            args = {"config": "cpe-mcp", "type": type_, "values": dict(values)}
            self.ubus("uci", "add", args | ({"name": name} if name else {}))
        self.ubus("uci", "commit", {"config": "cpe-mcp"})

    def allow_viewer(self) -> None:
        """A login that may see everything and change nothing, as rpcd's own settings have it."""
        values = {"username": VIEWER, "password": SHADOW.split(":")[1], "read": ["*"]}
        if not any(
            row.get("username") == VIEWER for row in self.ubus("uci", "get", {"config": "rpcd"})["values"].values()
        ):
            self.ubus("uci", "add", {"config": "rpcd", "type": "login", "values": values})
            self.ubus("uci", "commit", {"config": "rpcd"})

    def log_in(self, user: str = "root") -> None:
        """In the page, in place of who was logged in."""
        browser = self._browser()
        browser.size(1280, 900)
        browser.forget()
        browser.go(f"{self.url}/")
        shown = (
            "const e = document.querySelector('.modal input[name=luci_password]'); return e && e.offsetParent !== null"
        )
        browser.wait(lambda: browser.run(shown), "the login page")
        browser.type(".modal input[name=luci_username]", user)
        browser.type(".modal input[name=luci_password]", PASSWORD)
        browser.run("document.querySelector('input[name=luci_password]').form.submit()")
        browser.wait(lambda: browser.count("#mainmenu, #topmenu"), "the menu")
        # uhttpd may hold a page back for its script timeout of 60 s while it waits for the end of a request that the
        # browser gave up: so nothing is given up.
        browser.wait(lambda: browser.run("return document.readyState") == "complete", "the page")
        time.sleep(QUIET_S)

    def open(self, page: str) -> Browser:
        """A page of ours, shown until its title is there."""
        browser = self._browser()
        browser.complaints()
        browser.go(f"{self.url}/admin/network/cpe-mcp/{page}")
        browser.wait(lambda: browser.count("#view h2"), f"the page {page}")
        return browser

    def shoot(self, name: str) -> Path:
        """A screenshot that stays."""
        path = SCREENSHOTS / f"{name}.png"
        self._browser().screenshot(path)
        return path

    def _browser(self) -> Browser:
        assert self.browser is not None
        return self.browser

    def _install(self) -> None:
        """Where the packages put it."""
        shutil.copytree(APP / "htdocs", self.folder / "www", dirs_exist_ok=True)
        jsmin = shutil.which("jsmin")
        for script in (self.folder / "www").rglob("*.js") if jsmin is not None else ():
            done = subprocess.run([str(jsmin)], input=script.read_bytes(), capture_output=True, check=True)
            script.write_bytes(done.stdout)  # as LuCI's build does
        shutil.copytree(APP / "root", self.folder, dirs_exist_ok=True)
        plugins = self.folder / "usr/share/rpcd/ucode"
        plugins.mkdir(parents=True, exist_ok=True)
        shutil.copy(PLUGIN, plugins)
        config = self.folder / "etc/config"
        config.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "files/etc/config/cpe-mcp", config)
        shadow = self.folder / "etc/shadow"
        shadow.write_text(SHADOW)
        shadow.chmod(0o600)
        po2lmo = shutil.which("po2lmo")
        translation = APP / "po" / LANGUAGE / "cpe-mcp.po"
        if po2lmo is not None and translation.exists():
            folder = self.folder / "usr/lib/lua/luci/i18n"
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([po2lmo, str(translation), str(folder / f"cpe-mcp.{LANGUAGE}.lmo")], check=True)

    def _wait_until_ready(self) -> None:
        due = time.monotonic() + BOOT_S
        while "READY" not in self._log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > due:
                pytest.fail(f"owrt-luci-root did not come up: {self._log.read_text(errors='replace')}")
            time.sleep(0.1)


__all__ = ["ApiError", "LuciWorld", "StandIn"]
