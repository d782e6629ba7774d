"""``mcp-concentrator``: the downstream MCP's control daemon. Processes, signals, files; nothing is decided here.

``mcp-concentrator --config FILE`` serves; ``mcp-concentrator status`` asks the one that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cpe_mcp
from cpe_mcp.aaa.cookie import CookieError, make_handle
from cpe_mcp.concentrator.border import BorderKeeper
from cpe_mcp.concentrator.control import Control
from cpe_mcp.concentrator.figures import Figures
from cpe_mcp.concentrator.kernel_setup import prepare
from cpe_mcp.concentrator.workers import WorkerProcesses, worker_command
from cpe_mcp.control.api import ApiServer
from cpe_mcp.control.ask import ApiError, ask
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.control.logs import log_to_streams, set_level
from cpe_mcp.settings import ConcentratorSettings, SettingsError, load_concentrator
from cpe_mcp.settings.concentrator import ADDRESS, BOTH, COOKIE
from cpe_mcp.settings.load import warnings_of

if TYPE_CHECKING:
    from cpe_mcp.concentrator.metrics import MetricsServer

log = logging.getLogger(__name__)

DEFAULT_CONFIG = "/etc/config/mcp-concentrator"
DEFAULT_RUN_DIR = "/run/mcp-concentrator"
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RUNNING = 0, 1, 2, 3
NEEDS_RESTART = ("workers", "run_dir", "max_subflows", "tune_kernel")
"""Options of section global that only a start applies."""
NEEDS_TEXT = {ADDRESS: "needs a known address", COOKIE: "needs a cookie", BOTH: "needs a cookie and a known address"}
HANDLE_TTL_S = 86400
"""How long a handle is good if nothing else is said."""


class Daemon:
    """Everything that runs. Raises SettingsError for settings that cannot work here."""

    def __init__(self, settings: ConcentratorSettings, path: str) -> None:
        self._settings = settings
        self._path = path
        self._metrics: MetricsServer | None = None
        with _in_file(path):
            self._control = Control(settings, border=BorderKeeper())
            self._metrics = self._metrics_for(settings)
        general = settings.general
        self._workers = WorkerProcesses(worker_command(general.run_dir), general.workers)
        methods = {"status": self._control.status, "flows": self._control.flows}
        self._api = ApiServer(os.path.join(general.run_dir, API_SOCKET), methods)

    async def start(self) -> None:
        """Raises OSError when the kernel or the file system does not let us, SettingsError without a table that they need."""
        general = self._settings.general
        prepare(
            max_subflows=general.max_subflows,
            tune_kernel=general.tune_kernel,
            backlog=self._settings.limits.backlog,
        )
        with _in_file(self._path):
            self._control.start()
        self._control.accounting.start()
        self._workers.start()
        await self._api.start()
        if self._metrics is not None:
            await self._metrics.follow(general.metrics_address, general.metrics_port)

    async def stop(self) -> None:
        """End the workers, remove the sockets."""
        if self._metrics is not None:
            await self._metrics.close()
        await self._api.close()
        await self._workers.stop()
        await self._control.accounting.stop()
        self._control.stop()

    async def reload(self) -> None:
        """Read the settings again; wrong ones are refused and the old ones stay."""
        try:
            new = load_concentrator(self._path)
            with _in_file(self._path):
                metrics = self._metrics_for(new)
                self._control.configure(new)
        except SettingsError as error:
            log.error("settings not read again, those before stay in force: %s", error)
            return
        for name in NEEDS_RESTART:
            if getattr(new.general, name) != getattr(self._settings.general, name):
                log.warning("option %s of section global takes effect with the next restart", name)
        if new.limits.backlog != self._settings.limits.backlog:
            log.warning("option backlog of section limits takes effect with the next restart")
        self._settings = new
        set_level(new.general.log_level)
        log.info("settings read again")
        self._metrics = metrics
        if metrics is not None:
            try:
                await metrics.follow(new.general.metrics_address, new.general.metrics_port)
            except OSError as error:
                log.error("%s", error.strerror)

    def figures(self) -> Figures:
        """For the metrics."""
        return self._control.figures(worker_restarts=self._workers.restarts)

    def _metrics_for(self, settings: ConcentratorSettings) -> MetricsServer | None:
        """The server that there is, or a new one when the settings want one: most concentrators never load the library."""
        if self._metrics is not None or not settings.general.metrics_port:
            return self._metrics
        try:
            from cpe_mcp.concentrator.metrics import MetricsServer
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"section global, option metrics_port: needs the Python package {error.name}, which is not installed; "
                "install prometheus-client, or set metrics_port to 0"
            ) from None
        return MetricsServer(self.figures)


async def serve(settings: ConcentratorSettings, path: str) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the settings again. Returns the exit code; raises OSError, SettingsError."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    daemon = Daemon(settings, path)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, _background(daemon.reload))
    log.info("mcp-concentrator %s with %s", cpe_mcp.__version__, path)
    for warning in warnings_of(settings):
        log.warning("%s", warning)
    try:
        await daemon.start()
        await stopped.wait()
    finally:
        await daemon.stop()
    log.info("stopped")
    return EXIT_OK


@contextlib.contextmanager
def _in_file(path: str) -> Iterator[None]:
    """What is wrong with settings only when they are used names their file too."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _background(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A signal handler that runs a coroutine; the set keeps its task from being collected."""
    tasks: set[asyncio.Task[None]] = set()

    def handler() -> None:
        task = asyncio.get_running_loop().create_task(work())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return handler


def print_status(result: dict[str, Any]) -> None:
    """For people."""
    counters = result["counters"]
    print(f"mcp-concentrator {result['version']} on Linux {result['kernel']}, up {result['uptime_s']:.0f} s")
    for row in result["listeners"]:
        device = f" on {row['device']}" if row["device"] else ""
        print(
            f"listener {row['name']}: {', '.join(row['addresses'])} port {row['port']}{device}, faces {row['facing']}, "
            f"{NEEDS_TEXT[row['authorization']]}"
        )
    for row in result["interfaces"]:
        print(f"interface {row['name']}: {row['device']}, faces {row['facing']}")
    for row in result["filters"]:
        mark = f", mark {row['mark']:#x}" if row["mark"] else ""
        print(f"filter {row['name']}: {row['addresses']} addresses{mark}")
    print(
        f"workers: {len(result['workers'])}, flows now: {counters.get('live', 0)}, so far: {counters.get('flows', 0)}"
    )
    print(f"warm connections: {counters.get('waiting', 0)}, not authenticated yet: {counters.get('half_open', 0)}")
    if counters.get("plain_tcp"):
        print(f"flows over plain TCP, because Multipath TCP was lost on the way: {counters['plain_tcp']}")
    if result["cookies"]["outcomes"]:
        print(f"cookies{_counts_text(result['cookies']['outcomes'])}; remembered: {result['cookies']['remembered']}")
    for row in result["handles"]:
        limit = f", at most {row['connections']} connections" if row["connections"] else ""
        reason = "" if row["verdict"] == "accept" else f" ({row['reason']})"
        print(f"handle: {row['subscriber']} {row['verdict']}{reason}, for another {row['left_s']:.0f} s{limit}")
    for row in result["subscribers"]:
        carried = f"{row['flows']} flows, {row['bytes_up']} bytes up, {row['bytes_down']} down"
        print(f"subscriber {row['name']}: {carried}{_cap_text(row)}")
    if counters.get("held_back"):
        print(f"held back by a cap now: {counters['held_back']} directions")
    for row in result["authorizations"]:
        who = f" as {row['subscriber']}" if row["subscriber"] else ""
        terms = "".join(
            f", {text} {value}"
            for text, value in (
                ("at most", f"{row['connections']} connections" if row["connections"] else ""),
                ("scheme", row["scheme"]),
                ("filter", " and ".join(row["filters"])),
            )
            if value
        )
        print(f"RADIUS: {row['address']} {row['verdict']}{who}, for another {row['left_s']:.0f} s{terms}")
    accounting = result["accounting"]
    if accounting["enabled"]:
        lost = f", {accounting['lost']} lost" if accounting["lost"] else ""
        trouble = f": {accounting['trouble']}" if accounting["trouble"] else ""
        print(
            f"accounting: {accounting['sessions']} sessions, {accounting['sent']} records sent, {accounting['waiting']} wait"
            f"{lost}{trouble}"
        )
    logged = result["address_log"]
    if logged["enabled"]:
        trouble = f", {logged['failed']} of them not everywhere: {logged['trouble']}" if logged["trouble"] else ""
        print(f"address log: {logged['written']} lines to {' and '.join(logged['places'])}{trouble}")
    ident = result["ident"]
    if ident["mode"] != "off":
        print(f"ident ({ident['mode']}): {ident['remembered']} addresses known{_counts_text(ident['counters'])}")
        for row in ident["addresses"]:
            print(f"ident: {row['address']} {row['user'] or 'told nothing, ' + row['error']}")
    dynamic = result["dynamic"]
    if dynamic["enabled"]:
        where = ", ".join(dynamic["addresses"]) or "no address"
        print(f"dynamic authorization: at {where} port {dynamic['port']}{_counts_text(dynamic['counters'])}")
        for row in dynamic["peers"]:
            print(f"dynamic authorization from {row['address']}{_counts_text(row['counters'])}")
    table = result["table"]
    if table["wanted"] and not table["in_place"]:
        print("the nftables table is not in place: limits before TCP, sides and filters do not hold; the log says why")
    if table["disturbed"]:
        print(f"somebody took away or changed the nftables table {table['disturbed']} times")
    if not result["limits"]["filter"]:
        print("handshakes are not limited before TCP (section limits, option filter)")
    for row in result["limits"]["reached"]:
        if row["count"]:
            print(f"limit {row['name']}: {row['count']} {row['text']}")
    for row in result["refusals"]:
        print(f"refused {row['count']} times: {row['text']}")


def _counts_text(counters: dict[str, int]) -> str:
    """: 3 coa-ack, 1 stale"""
    return ": " + (", ".join(f"{count} {kind}" for kind, count in sorted(counters.items())) or "nothing yet")


def _cap_text(row: dict[str, Any]) -> str:
    """, capped at 50 Mbit/s down, 10 up"""
    caps = [f"{row[f'{way}_mbit']:g} Mbit/s {way}" for way in ("down", "up") if row[f"{way}_mbit"]]
    return f", capped at {' and '.join(caps)}" if caps else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 well, 1 cannot run, 2 wrong settings or usage, 3 status of a daemon that does not run."""
    parser = argparse.ArgumentParser(prog="mcp-concentrator", description="The concentrator for cpe-mcp routers.")
    parser.add_argument("command", nargs="?", choices=["serve", "status", "handle"], default="serve")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="handle: the subscriber")
    parser.add_argument(
        "--ttl", type=int, default=HANDLE_TTL_S, metavar="S", help=f"handle: good for so long (default {HANDLE_TTL_S})"
    )
    parser.add_argument("--config", default=DEFAULT_CONFIG, help=f"settings, UCI syntax (default {DEFAULT_CONFIG})")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground (it always does)")
    parser.add_argument("--run-dir", default=DEFAULT_RUN_DIR, help="status: where the daemon runs")
    parser.add_argument("--json", action="store_true", help="status: for programs")
    options = parser.parse_args(argv)
    if options.command == "status":
        return status(options.run_dir, as_json=options.json)
    try:
        settings = load_concentrator(options.config)
    except SettingsError as error:
        print(f"mcp-concentrator: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.command == "handle":
        return handle(settings, options.name, options.ttl)
    log_to_streams("mcp-concentrator")
    set_level(settings.general.log_level)
    try:
        return asyncio.run(serve(settings, options.config))
    except SettingsError as error:
        print(f"mcp-concentrator: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        # EPERM is the kernel's word; that of a file's mode is EACCES.
        hint = "; it needs the capability CAP_NET_ADMIN" if error.errno == errno.EPERM else ""
        log.error("cannot run: %s%s", error, hint)
        return EXIT_FAILED


def handle(settings: ConcentratorSettings, name: str, ttl_s: int) -> int:
    """Print what RADIUS gives a router to prove this subscriber with, as FreeRADIUS takes it from a program."""
    try:
        if ttl_s < 1:
            raise CookieError("--ttl takes seconds, 1 or more")
        made = make_handle(name, settings.general.cookie_secret.encode(), time.time() + ttl_s)
    except CookieError as error:
        print(f"mcp-concentrator: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"CPE-MCP-Handle = 0x{made.handle.hex()},\nCPE-MCP-Subscriber-Key = 0x{made.key.hex()}")
    return EXIT_OK


def status(run_dir: str, *, as_json: bool) -> int:
    """Ask the daemon and print."""
    try:
        result = ask(os.path.join(run_dir, API_SOCKET), "status")
    except OSError as error:
        print(f"mcp-concentrator: no daemon answers in {run_dir} ({error.strerror}); is it started?", file=sys.stderr)
        return EXIT_NOT_RUNNING
    except ApiError as error:
        print(f"mcp-concentrator: {error}", file=sys.stderr)
        return EXIT_FAILED
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        print_status(result)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
