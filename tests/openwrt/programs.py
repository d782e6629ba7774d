"""OpenWrt's own programs for tests: found on PATH, started on sockets of their own, stopped by what started them.

rpcd has its folders built in (``/usr/share/rpcd/ucode``, ``/usr/lib/rpcd``, ``/var/run``). So it runs in a mount namespace of
its own, where those folders hold what the test wants; the machine's files stay as they are.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "files/usr/share/rpcd/ucode/cpe-mcp.uc"
START_S = 5.0
"""For a program to begin to serve."""


def find(name: str) -> str:
    """A program's path; skips the test when there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs the program {name}")
    return path


def wait_for(is_true: Callable[[], Any], what: str, timeout_s: float = START_S) -> Any:
    """The first true value; fails the test when none comes."""
    due = time.monotonic() + timeout_s
    while time.monotonic() < due:
        value = is_true()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"not within {timeout_s} s: {what}")


class Program:
    """A process of ours."""

    def __init__(self, command: Iterable[str], *, log: Path | None = None) -> None:
        self.command = list(command)
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it."""
        output = subprocess.DEVNULL if self._log is None else self._log.open("ab")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def wait(self) -> None:
        """Until it has ended by itself."""
        if self.process is not None:
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def log_text(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace") if self._log is not None and self._log.exists() else ""


class Ubusd(Program):
    """The message bus, at ``folder/ubus.sock``."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "ubus.sock"
        super().__init__([find("ubusd"), "-s", str(self.socket)])

    def start(self) -> None:
        """Run it until it listens."""
        super().start()
        wait_for(self._listens, f"ubusd at {self.socket}")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def ubus(self, *args: str, timeout_s: float = 10.0) -> subprocess.CompletedProcess[str]:
        """``ubus ARGS`` on this bus."""
        command = [find("ubus"), "-s", str(self.socket), "-t", str(int(timeout_s)), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s + 5)

    def refusal(self, name: str, method: str, args: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """The ubus status of a call that must fail, and what was printed all the same."""
        done = self.ubus("call", name, method, *([] if args is None else [json.dumps(args)]))
        assert done.returncode != 0, done.stdout
        return (256 - done.returncode if done.returncode > 128 else done.returncode), done.stdout

    def call(self, name: str, method: str, args: Mapping[str, Any] | None = None) -> Any:
        """The reply, which must be there; prints what went wrong."""
        done = self.ubus("call", name, method, *([] if args is None else [json.dumps(args)]))
        assert done.returncode == 0, f"ubus call {name} {method}: {done.returncode} {done.stdout} {done.stderr}"
        return json.loads(done.stdout)

    def has(self, name: str) -> bool:
        """Whether there is such an object."""
        return name in self.ubus("list").stdout.split()

    def listener(self, *patterns: str, log: Path) -> Program:
        """``ubus listen``, not yet started; its output is one JSON object per event."""
        return Program([find("ubus"), "-s", str(self.socket), "listen", *patterns], log=log)


class Rpcd(Program):
    """rpcd with our plugin, in a mount namespace of its own where ubusd's socket is at the usual place."""

    def __init__(self, ubusd: Ubusd, folder: Path, *, plugins: Iterable[Path] = (PLUGIN,)) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        rpcd = find("rpcd")
        modules = module_folder(rpcd)
        scratch = folder / "rpcd"
        scratch.mkdir(exist_ok=True)
        inside = [
            "set -e",
            f"mount -t tmpfs tmpfs {shlex.quote(str(scratch))}",
            f"cd {shlex.quote(str(scratch))}",
            "mkdir -p upper/share/rpcd/ucode upper/lib/rpcd scratch/share scratch/lib run",
            *(f"cp {shlex.quote(str(plugin))} upper/share/rpcd/ucode/" for plugin in plugins),
            f"cp {shlex.quote(str(modules / 'ucode.so'))} upper/lib/rpcd/",
            *(
                f"mount -t overlay overlay /usr/{name}"
                f" -o lowerdir=/usr/{name},upperdir=$PWD/upper/{name},workdir=$PWD/scratch/{name}"
                for name in ("share", "lib")
            ),
            "mkdir -p run/ubus",
            f"mount --bind {shlex.quote(str(ubusd.socket.parent))} run/ubus",
            "mount --rbind run /var/run",
            f"exec {shlex.quote(rpcd)}",
        ]
        unshare = [find("unshare"), "--mount", "--propagation", "private"]
        super().__init__([*unshare, "sh", "-c", "\n".join(inside)], log=folder / "rpcd.log")
        self._ubusd = ubusd

    def start(self) -> None:
        """Run it until the public object is there."""
        super().start()
        try:
            wait_for(lambda: self._ubusd.has("cpe-mcp"), "the object cpe-mcp")
        except BaseException:
            print(self.log_text())
            raise


def module_folder(rpcd: str) -> Path:
    """Where rpcd's modules are: in the system's folder, or under the prefix it was built for."""
    for folder in (Path("/usr/lib/rpcd"), Path(rpcd).resolve().parents[1] / "lib/rpcd"):
        if (folder / "ucode.so").exists():
            return folder
    pytest.skip("needs rpcd's module ucode")
