"""Network namespaces: make, enter, fill and remove them. Knows nothing of labs, hosts or addresses.

Namespaces are those of ``ip netns`` (bind mounts in /run/netns), so that a person can look around with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence

NETNS_DIRECTORY = "/run/netns"
CLONE_NEWNET = 0x40000000
"""linux/sched.h"""
STOP_WAIT_S = 2.0
"""Between SIGTERM and SIGKILL for what still runs in a namespace that has to go."""

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot do what was asked; the message is one line for the user."""


def path_of(namespace: str) -> str:
    """The file that stands for a namespace."""
    return f"{NETNS_DIRECTORY}/{namespace}"


@contextlib.contextmanager
def enter(namespace: str) -> Iterator[None]:
    """The calling thread is in the namespace inside the ``with``: sockets and /proc/sys/net are its own.

    Raises LabError when there is no such namespace.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            target = os.open(path_of(namespace), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LabError(f"there is no network namespace {namespace}; is the lab up?") from None
        try:
            _set_namespace(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _set_namespace(home)
    finally:
        os.close(home)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def create(namespaces: Iterable[str]) -> None:
    """Make namespaces. Raises LabError, for instance when one exists."""
    ip_batch(None, [f"netns add {namespace}" for namespace in namespaces])


def remove(namespaces: Iterable[str]) -> None:
    """End every process in the namespaces and remove them. Those that do not exist are skipped."""
    present = [namespace for namespace in namespaces if os.path.exists(path_of(namespace))]
    end_processes(present)
    for namespace in present:
        subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def ip_batch(namespace: str | None, lines: Sequence[str]) -> None:
    """Run lines of ``ip`` in one process. Raises LabError with ip's message."""
    inside = [] if namespace is None else ["-n", namespace]
    done = subprocess.run(
        ["ip", *inside, "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(f"ip in {namespace or 'the first namespace'}: {done.stderr.strip().replace(chr(10), '; ')}")


def write_sysctls(namespace: str, values: dict[str, str]) -> None:
    """Set values below net, for example ``ipv4.ip_forward``. Raises LabError with the name that is refused."""
    with enter(namespace):
        for name, value in values.items():
            try:
                with open(f"/proc/sys/net/{name.replace('.', '/')}", "w", encoding="ascii") as file:
                    file.write(value)
            except OSError as error:
                raise LabError(f"net.{name} = {value} in {namespace}: {error.strerror}") from None


def processes_in(namespaces: Iterable[str]) -> set[int]:
    """Process ids in any of the namespaces, this process excepted."""
    inodes = {os.stat(path_of(namespace)).st_ino for namespace in namespaces}
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if os.stat(f"/proc/{name}/ns/net").st_ino in inodes:
                    found.add(int(name))
    return found - {os.getpid()}


def end_processes(namespaces: Sequence[str]) -> None:
    """SIGTERM, then SIGKILL, to every process in the namespaces; returns when none is left."""
    deadline = time.monotonic() + STOP_WAIT_S
    sent = signal.SIGTERM
    told: set[int] = set()
    while running := processes_in(namespaces):
        if sent == signal.SIGTERM and time.monotonic() > deadline:
            sent, told = signal.SIGKILL, set()
        for process in running - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, sent)
        told |= running
        time.sleep(0.02)
