"""The router's dnsmasq: told to put the addresses of the names in rules into the sets of table ``inet cpe_mcp``.

One snippet in dnsmasq's configuration directory, written only when it changes; dnsmasq reads it when it is restarted, so the
restart is paid only then. Without a rule that has names there is no snippet, and dnsmasq is left alone.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterable, Sequence

from cpe_mcp.kernel.numbers import NFT_TABLE
from cpe_mcp.policy.rules import Rule

log = logging.getLogger(__name__)

SNIPPET = "cpe-mcp.conf"
AUTO = "auto"
CONFIGURATIONS = "/var/etc/dnsmasq.conf*"
"""What OpenWrt's init script makes, one for each instance; each names its directory of snippets."""
DIRECTORIES = "/tmp/dnsmasq*.d"
"""Where these are on OpenWrt, while dnsmasq does not run."""
COMMAND_TIMEOUT_S = 30.0
VERSION_TIMEOUT_S = 5.0


def snippet(rules: Iterable[Rule]) -> str:
    """The lines for dnsmasq, "" without names.

    One line for a name: dnsmasq cuts lines at 1024 characters. Of several names that match, dnsmasq takes the longest and
    no other, so a name goes to the sets of those above it too.
    """
    named = [rule for rule in rules if rule.domains]
    names = sorted({domain for rule in named for domain in rule.domains})
    lines = []
    for name in names:
        meant = [rule for rule in named if any(name == own or name.endswith(f".{own}") for own in rule.domains)]
        # Sorted: the order of the rules is not dnsmasq's business, and a restart costs the users a second without names.
        sets = sorted({f"{family}#inet#{NFT_TABLE}#{rule.name_set(family)}" for rule in meant for family in (4, 6)})
        lines.append(f"nftset=/{name}/{','.join(sets)}\n")
    return "# Made by cpe-mcpd from the rules in /etc/config/cpe-mcp.\n" + "".join(lines) if lines else ""


def has_nftset(program: str = "dnsmasq") -> bool | None:
    """Whether this dnsmasq was built with nftset; None when there is none. Runs it once."""
    try:
        result = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return "nftset" in result.stdout.split()


def find_directories(
    setting: str, *, configurations: str = CONFIGURATIONS, directories: str = DIRECTORIES
) -> list[str]:
    """Where snippets belong: as the setting says, or for ``auto`` what the configurations of the running dnsmasq name."""
    if setting != AUTO:
        return [setting]
    found: list[str] = []
    for path in sorted(glob.glob(configurations)):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found += re.findall(r"^conf-dir=([^,\s]+)", file.read(), re.M)
        except OSError:
            continue
    if not found:
        found = sorted(glob.glob(directories))
    return list(dict.fromkeys(path.rstrip("/") for path in found if os.path.isdir(path)))


class Dnsmasq:
    """Keeps the snippet. Calls block for as long as dnsmasq takes to restart: not for an event loop."""

    def __init__(self) -> None:
        self._written: list[str] = []
        self._lock = threading.Lock()

    def apply(self, rules: Sequence[Rule], confdir: str, restart: str) -> list[str]:
        """Make the snippets as the rules want them. Returns what is wrong, one sentence each, for a person."""
        with self._lock:
            text = snippet(rules)
            directories = find_directories(confdir)
            problems = _problems(rules, directories) if text else []
            # A dnsmasq that does not know the option would not start any more.
            wanted = [os.path.join(directory, SNIPPET) for directory in directories if text and not problems]
            changed = self._delete_others(wanted, directories)
            for path in wanted:
                try:
                    changed |= _write(path, text)
                except OSError as error:
                    problems.append(f"{path} cannot be written ({error.strerror}): names in rules have no effect")
            self._written = wanted
            return problems + (_run(restart) if changed else [])

    def remove(self, confdir: str, restart: str) -> None:
        """No trace. dnsmasq is restarted in its own time: the daemon is about to end."""
        with self._lock:
            argv = shlex.split(restart)
            if self._delete_others([], find_directories(confdir)) and argv and shutil.which(argv[0]):
                subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _delete_others(self, wanted: Sequence[str], directories: Sequence[str]) -> bool:
        """True: there was a snippet that is not wanted, also one that a crash left behind."""
        known = {*self._written, *(os.path.join(directory, SNIPPET) for directory in directories)}
        deleted = [_delete(path) for path in known if path not in wanted]
        return any(deleted)


def _problems(rules: Sequence[Rule], directories: Sequence[str]) -> list[str]:
    labels = ", ".join(f"'{rule.label}'" for rule in rules if rule.domains)
    built = has_nftset()
    if built is None:
        return [f"there is no dnsmasq: the domains of rule {labels} have no effect"]
    if not built:
        return [f"this dnsmasq has no nftset: the domains of rule {labels} have no effect; install dnsmasq-full"]
    if not directories:
        return [
            f"dnsmasq's configuration directory was not found: the domains of rule {labels} have no effect; "
            "set confdir of section dns"
        ]
    return []


def _write(path: str, text: str) -> bool:
    """True: it was another text. Raises OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return False
    except FileNotFoundError:
        pass
    directory, name = os.path.split(path)
    unfinished = os.path.join(directory, f".{name}.new")  # dnsmasq skips names with a leading dot
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(unfinished, 0o644)
    os.replace(unfinished, path)
    return True


def _delete(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def _run(command: str) -> list[str]:
    argv = shlex.split(command)
    if not argv or shutil.which(argv[0]) is None:
        return []  # not an OpenWrt router: whoever set confdir restarts dnsmasq himself
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"'{command}' of section dns: {error}"]
    if result.returncode:
        return [f"'{command}' of section dns ended with {result.returncode}"]
    log.info("dnsmasq was restarted for the names in rules")
    return []
