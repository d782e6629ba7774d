"""A headless Chromium for tests, by the WebDriver protocol (W3C Recommendation of 2018) of chromedriver over HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

START_S = 20.0
WAIT_S = 15.0
"""For a page to show what it should: LuCI loads some thirty files."""
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def needed() -> tuple[str, str]:
    """Paths of chromium and chromedriver; skips when one is missing."""
    browser = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("chromium is not installed")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromedriver is not installed")
    return browser, driver


class Browser:
    """One window. Close it in the end."""

    def __init__(self, profile: Path) -> None:
        browser, driver = needed()
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = (profile / "chromedriver.log").open("wb")
        self._driver = subprocess.Popen(
            [driver, f"--port={port}"], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self._session = ""
        try:
            self._wait_until_ready()
            options = {
                "binary": browser,
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
                         f"--user-data-dir={profile / 'chromium'}", "--no-first-run", "--disable-background-networking"],
            }  # fmt: skip
            logs = {"browser": "ALL"}
            always = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
            value = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": always}})
            self._session = f"/session/{value['sessionId']}"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End browser and driver."""
        if self._session:
            try:
                self._ask("DELETE", self._session)
            except (OSError, RuntimeError):
                pass
        self._driver.terminate()
        self._driver.wait(10)
        self._log.close()

    def go(self, url: str) -> None:
        """Load a page."""
        self._do("POST", "/url", {"url": url})

    def forget(self) -> None:
        """All logins."""
        self._cdp("Network.clearBrowserCookies", {})

    def drag(self, selector: str, onto: str) -> None:
        """Take the first element with the mouse, and let it go over the lower half of another."""
        handle, target = self._element(selector), self._element(onto)
        below = int(self.run("return arguments[0].getBoundingClientRect().height", target)) // 4
        steps = [
            _move(handle, 0),
            {"type": "pointerDown", "button": 0},
            _move(handle, 4),
            _move(target, below - 2),
            _move(target, below),
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self._do("POST", "/actions", {"actions": [mouse]})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function's body in the page."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """The screen, in CSS pixels; a phone's also for what asks for the device's width."""
        metrics = {
            "width": width,
            "height": height,
            "screenWidth": width,
            "screenHeight": height,
            "deviceScaleFactor": 1,
            "mobile": phone,
        }
        self._cdp("Emulation.setDeviceMetricsOverride", metrics)

    def dark(self, on: bool) -> None:
        """Whether the person prefers dark pages."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self._cdp("Emulation.setEmulatedMedia", {"features": features})

    def text(self, selector: str = "body") -> str:
        """What is written in the first element, "" when there is none."""
        return str(self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", selector))

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str) -> None:
        """Click the first element as a person does; fails when it is not there or covered. Pages redraw themselves: when
        that takes the element away just now, its successor is clicked."""
        for tries_left in (3, 2, 1, 0):
            try:
                element = self._element(selector)
                self.run("arguments[0].scrollIntoView({ block: 'center' })", element)
                self._do("POST", f"/element/{next(iter(element.values()))}/click", {})
                return
            except RuntimeError as error:
                if "stale element" not in str(error) or not tries_left:
                    raise

    def type(self, selector: str, text: str) -> None:
        """Replace the text of an input."""
        name = next(iter(self._element(selector).values()))
        self._do("POST", f"/element/{name}/clear", {})
        self._do("POST", f"/element/{name}/value", {"text": text})

    def wait(self, is_true: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
        """The first true value; fails the test with what the page shows when none comes."""
        due = time.monotonic() + timeout_s
        while time.monotonic() < due:
            value = is_true()
            if value:
                return value
            time.sleep(0.1)
        pytest.fail(f"not within {timeout_s} s: {what}\n{self.text()}\n{self.complaints()}")

    def wait_text(self, text: str, selector: str = "body", timeout_s: float = WAIT_S) -> None:
        """Until it is written there."""
        self.wait(lambda: text in self.text(selector), f"{text!r} in {selector}", timeout_s)

    def complaints(self) -> list[str]:
        """Errors of the page's scripts since the last call."""
        rows = self._do("POST", "/se/log", {"type": "browser"})
        return [row["message"] for row in rows if row["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """The whole page, however long."""
        # At once: a theme that scrolls smoothly would have its bar of menus in the middle of the picture.
        self.run("scrollTo({ top: 0, behavior: 'instant' })")
        self.wait(lambda: not self.run("return scrollY"), "the top of the page")
        height = int(self.run("return document.documentElement.scrollHeight"))
        shot = self._cdp(
            "Page.captureScreenshot",
            {
                "format": "png",
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": self.run("return innerWidth"), "height": height, "scale": 1},
            },
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _element(self, selector: str) -> dict[str, str]:
        element: dict[str, str] = self._do("POST", "/element", {"using": "css selector", "value": selector})
        return element

    def _cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _do(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask(verb, self._session + path, body)

    def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise RuntimeError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def _wait_until_ready(self) -> None:
        due = time.monotonic() + START_S
        while True:
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except OSError:
                if time.monotonic() > due or self._driver.poll() is not None:
                    raise
            time.sleep(0.1)


def _move(element: dict[str, str], down: int) -> dict[str, Any]:
    """A step of the mouse: to so many pixels below the middle of an element."""
    return {"type": "pointerMove", "duration": 150, "origin": element, "x": 0, "y": down}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
