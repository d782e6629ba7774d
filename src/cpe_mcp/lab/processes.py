"""The programs of a running lab: started in its namespaces, kept by name, each with a log, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpe_mcp.lab.namespaces import LabError

READY_TIMEOUT_S = 15.0
"""For a program to say that it is ready; all of a lab together take about 1.5 s on an idle machine."""
STOP_TIMEOUT_S = 5.0
"""Between SIGTERM and SIGKILL."""
POLL_S = 0.02


def argv_inside(namespace: str, argv: Sequence[str]) -> list[str]:
    """A command that runs another one in a namespace; ``ip`` is replaced by it and keeps the process id."""
    return ["ip", "netns", "exec", namespace, *argv]


class Processes:
    """Processes of their own sessions: a Ctrl-C in the terminal is ours, and we end them.

    ``log_directory`` must exist before the first :meth:`start`.
    """

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._all: list[subprocess.Popen[Any]] = []
        self._named: dict[str, subprocess.Popen[Any]] = {}

    def popen(self, namespace: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program that is ended with the others; ``options`` are those of Popen."""
        options.setdefault("start_new_session", True)
        process = subprocess.Popen(argv_inside(namespace, argv), **options)
        self._all.append(process)
        return process

    def start(self, name: str, namespace: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program by name, with its output in its log. Raises LabError when it runs already."""
        if name in self._named and self._named[name].poll() is None:
            raise LabError(f"{name} runs already")
        with open(self._log_path(name), "ab") as log:
            self._named[name] = self.popen(
                namespace, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options
            )
        return self._named[name]

    def pid(self, name: str) -> int:
        """Raises LabError when it was not started, or was stopped."""
        if name not in self._named:
            raise LabError(f"{name} does not run")
        return self._named[name].pid

    def log(self, name: str) -> str:
        """What a program has written. Raises LabError when it never ran."""
        try:
            return self._log_path(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            names = sorted(path.stem for path in self._log_directory.glob("*.log"))
            raise LabError(f"no log of {name}; there are {', '.join(names)}") from None

    def stop(self, *names: str) -> None:
        """SIGTERM and wait; those that do not run are skipped."""
        for name in names:
            if name in self._named:
                self.end(self._named.pop(name))

    def kill(self, *names: str) -> None:
        """SIGKILL to each and to the children it has; those that do not run are skipped."""
        for name in names:
            if name in self._named:
                process = self._named.pop(name)
                _kill_group(process)
                self._all.remove(process)

    def end(self, process: subprocess.Popen[Any]) -> None:
        """SIGTERM and wait; SIGKILL to its whole group when that is not enough."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill_group(process)
        with contextlib.suppress(ValueError):
            self._all.remove(process)

    def terminate_all(self) -> None:
        """SIGTERM to all, the last one first; does not wait."""
        for process in reversed(self._all):
            if process.poll() is None:
                process.terminate()

    def reap_all(self) -> None:
        """Wait for all to have ended, and forget them."""
        for process in self._all:
            process.wait()
        self._all.clear()
        self._named.clear()

    def waiting(self, name: str) -> Iterator[None]:
        """Yields until the caller has what it waits for. Raises LabError when time is up or the program has ended."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        process = self._named[name]
        while True:
            yield
            if process.poll() is not None:
                last = self.log(name).strip().splitlines()[-1:]
                raise LabError(f"{name} ended with {process.returncode}: {''.join(last) or 'no message'}")
            if time.monotonic() > deadline:
                raise LabError(f"{name}: not ready after {READY_TIMEOUT_S:g} s")
            time.sleep(POLL_S)

    def await_text(self, name: str, text: str) -> None:
        """Until it has written ``text``."""
        for _ in self.waiting(name):
            if text in self.log(name):
                return

    def await_port(self, name: str, table: str, port: int) -> None:
        """Until a port is bound where it runs; ``table`` is tcp, tcp6, udp or udp6 of proc(5)."""
        for _ in self.waiting(name):
            with contextlib.suppress(OSError):
                rows = Path(f"/proc/{self.pid(name)}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
                if any(row.split()[1].endswith(f":{port:04X}") for row in rows):
                    return

    def _log_path(self, name: str) -> Path:
        return self._log_directory / f"{name}.log"


def _kill_group(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # started without a session of its own
            process.kill()
    process.wait()
