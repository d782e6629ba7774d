"""``cpe-mcpd``: the router's control daemon. Wiring only: settings, signals, and who hears of whose changes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import cpe_mcp
from cpe_mcp.aaa.cookie import CookieError, own_credential
from cpe_mcp.aaa.radius import RadiusError
from cpe_mcp.bus.service import BusService
from cpe_mcp.control.api import ApiServer
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.control.logs import log_to_streams, set_level
from cpe_mcp.discovery.dhcp_files import DhcpFiles
from cpe_mcp.discovery.dns_source import DnsSource, Way
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.settings import RouterSettings, SettingsError, load_router, warnings_of
from cpe_mcp.upstream.accounting import Accounting
from cpe_mcp.upstream.announcer import Announcer
from cpe_mcp.upstream.answers import Answers
from cpe_mcp.upstream.authenticator import AccountingIds, Authenticator, basis_of
from cpe_mcp.upstream.chronicle import Chronicle
from cpe_mcp.upstream.control import Control
from cpe_mcp.upstream.netifd_watch import NetifdWatch
from cpe_mcp.upstream.path_manager import PathManager
from cpe_mcp.upstream.terms import granted_by, unknown_wans, with_terms

if TYPE_CHECKING:
    from cpe_mcp.upstream.ident import IdentResponder

log = logging.getLogger("cpe_mcp")

DEFAULT_CONFIG = "/etc/config/cpe-mcp"
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
AVAILABLE_CONGESTION_CONTROLS = "/proc/sys/net/ipv4/tcp_available_congestion_control"
STARTED_WITH = ("workers", "intercept_port", "run_dir")
"""Options of section global that processes are started with: the init script's business, whose reload ends with our SIGHUP."""


class Daemon:
    """Everything that runs. Raises SettingsError when the RADIUS settings cannot work."""

    def __init__(self, settings: RouterSettings, path: str) -> None:
        self._settings = settings
        self._path = path
        self._paths = PathManager(settings, on_change=self._paths_changed)
        self._control = Control(settings, self._paths, congestion_controls=congestion_controls())
        self._paths.on_looked = self._control.negotiations.looked
        self._paths.on_unheard = self._control.concentrators_unheard
        self._paths.on_heard = self._control.concentrators_heard
        self._paths.on_hopeless = self._hopeless
        self.hopeless = ""
        """Why it had better be started again."""
        self.on_hopeless: Callable[[], None] = lambda: None
        self._control.on_refused = self._doubt_accept
        self._authenticator = self._new_authenticator(settings)
        self._accounting = Accounting(
            settings.radius,
            radius=lambda: self._authenticator,
            wans=self._wans_up,
            carried=self._paths.bytes_by_wan,
        )
        self._dhcp = DhcpFiles(settings.general.run_dir, self._control.learn_dhcp)
        self._dns = self._new_dns(settings)
        self._reloading = asyncio.Lock()
        self._ident: IdentResponder | None = None
        answers = Answers(
            self._control,
            path,
            radius=lambda: self._authenticator,
            reload=self.reload,
            accounting=self._accounting.status,
            ident=lambda: self._ident,
        )
        self._chronicle = Chronicle(
            answers.rates,
            counters=self._paths.bytes_by_wan,
            look=self._control.look_at_joins,
            status=lambda: answers.status({}),
            metrics=lambda: (settings.general.run_dir, self._settings.general.metrics_s),
        )
        self._api = ApiServer(os.path.join(settings.general.run_dir, API_SOCKET), answers.methods())
        self._bus = BusService(answers.methods())
        self._netifd = NetifdWatch(self._paths.set_interfaces)
        self._bus.on_connected = self._netifd.attach
        self._announcer = Announcer(self._control, radius=lambda: self._authenticator, send=self._bus.send)
        self._control.on_rebuilt = self._announcer.changed
        self._control.on_names = lambda _: self._dns.set_names(self._dns_names(self._settings))
        self._had_wans = self._had_ways = (False, False)
        """Whether there was a usable WAN to ask over, and whether there was any at all."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._unknown_wans: list[str] = []

    async def start(self) -> None:
        """Raises OSError when the kernel or the file system does not let us."""
        self._authorization_changed()
        await self._paths.start()
        self._control.start()
        self._dhcp.start()
        self._dns.start()
        self._authenticator.start()
        self._accounting.start()
        self._chronicle.start()
        await self._api.start()
        self._bus.start()

    async def stop(self) -> None:
        """Leave plain forwarding behind. The workers keep the flows they carry."""
        for task in self._tasks:
            task.cancel()
        self._announcer.stop()
        self._netifd.close()
        await self._bus.stop()
        await self._api.close()
        await self._chronicle.stop()
        if self._ident is not None:
            self._ident.close()
        self._dhcp.close()
        await self._dns.stop()
        await self._accounting.stop()
        await self._authenticator.stop()
        self._control.stop()
        await self._paths.stop()

    async def reload(self) -> dict[str, Any]:
        """Read the settings again and apply what differs; flows go on. Raises SettingsError: the old ones stay."""
        async with self._reloading:
            old, new = self._settings, load_settings(self._path)
            needs_init = [
                f"option {name} of section global"
                for name in STARTED_WITH
                if getattr(old.general, name) != getattr(new.general, name)
            ]
            warnings = warnings_of(new)
            if old != new:
                await self._apply(old, new)
            for line in warnings:
                log.warning("%s", line)
            return {"changed": old != new, "needs_init": needs_init, "warnings": warnings}

    async def _apply(self, old: RouterSettings, new: RouterSettings) -> None:
        authenticator = self._new_authenticator(new) if self._authenticator.basis != basis_of(new) else None
        self._settings = new
        set_level(new.logging.level)
        await self._use_terms()
        self._follow_ident()
        if old.discovery != new.discovery:  # the leases may say something else now
            self._dhcp.close()
            self._dhcp = DhcpFiles(old.general.run_dir, self._control.learn_dhcp)
            self._dhcp.start()
        if old.discovery != new.discovery or old.general.enabled != new.general.enabled:
            await self._dns.stop()
            self._dns = self._new_dns(new)
            self._dns.start()
        if authenticator is not None:
            await self._authenticator.stop()
            authenticator.inherit(self._authenticator)
            self._authenticator = authenticator
            self._control.candidates.learn_radius((), None)
            self._authorization_changed()
            authenticator.start()
        self._accounting.configure(new.radius)
        changed = [
            field.name for field in fields(RouterSettings) if getattr(old, field.name) != getattr(new, field.name)
        ]
        log.info("settings read again: %s", ", ".join(changed))

    def _new_authenticator(self, settings: RouterSettings) -> Authenticator:
        try:
            return Authenticator(
                settings,
                wans=self._wans_to_ask_over,
                on_change=self._authorization_changed,
                accounting_ids=self._accounting_ids,
            )
        except RadiusError as error:
            raise SettingsError(f"{self._path}: {error}") from None

    def _doubt_accept(self) -> None:
        self._authenticator.doubt()

    def _accounting_ids(self) -> AccountingIds:
        return self._accounting.ids()

    def _new_dns(self, settings: RouterSettings) -> DnsSource:
        """Asks nobody unless a name is set or DHCP gives one."""
        return DnsSource(
            self._dns_names(settings),
            servers=settings.discovery.dns_server,
            ways=self._dns_ways,
            on_answer=self._control.learn_dns,
            on_failure=self._control.dns_failed,
            dnssec=settings.discovery.dnssec,
            anchors=settings.discovery.trust_anchor,
        )

    def _dns_names(self, settings: RouterSettings) -> tuple[str, ...]:
        wanted = settings.general.enabled and "dns" in settings.discovery.precedence
        return self._control.candidates.dns_names(self._control.now) if wanted else ()

    def _dns_ways(self) -> list[Way]:
        interfaces = {wan.name: wan.interface or wan.name for wan in self._settings.wans}
        return [
            Way(interfaces.get(wan.name, wan.name), wan.device, wan.address4, wan.address6)
            for wan in self._paths.wans() or self._paths.last_ways()
        ]

    def _wans_up(self) -> list[WanView]:
        return [*self._paths.wans(), *self._paths.other_wans()]

    def _wans_to_ask_over(self) -> list[WanView]:
        """Better one over which no concentrator answers than none: RADIUS may know another concentrator."""
        return self._wans_up() or [*self._paths.last_ways()]

    async def _use_terms(self) -> None:
        """The settings, with what the Accept in force says of the WANs."""
        accept = self._authenticator.accept
        terms = with_terms(self._settings, accept)
        self._control.configure(terms)
        await self._paths.configure(terms)

    async def _take_terms(self) -> None:
        async with self._reloading:
            if self._control.settings != with_terms(self._settings, self._authenticator.accept):
                await self._use_terms()

    def _authorization_changed(self) -> None:
        authenticator = self._authenticator
        self._control.authorization = authenticator.reason()
        self._control.blocks = authenticator.blocks()
        self._paths.set_scheme(authenticator.scheme)
        accept = authenticator.accept
        self._control.grant(granted_by(accept))
        self._control.caps.set(*((accept.down_mbit, accept.up_mbit) if accept is not None else (0, 0)))
        if authenticator.accept is not None:
            self._control.candidates.learn_radius(
                authenticator.accept.concentrators, authenticator.until, authenticator.accept.service_classes
            )
        unknown = unknown_wans(self._settings, accept)
        if unknown and unknown != self._unknown_wans:
            log.warning("RADIUS gives a quota to %s, and there is no such WAN here", ", ".join(unknown))
        self._unknown_wans = unknown
        if self._control.settings != with_terms(self._settings, accept):
            self._background(self._take_terms())
        self._control.changed()

    def _hopeless(self, why: str) -> None:
        if not self.hopeless:
            log.error("ends, to be started again: %s", why)
        self.hopeless = why
        self.on_hopeless()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that is kept from being collected while it runs."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _follow_ident(self) -> None:
        """Answer on the WANs there are, while that is wanted: most routers never load it."""
        wanted = self._settings.ident.enabled and self._settings.general.enabled
        if wanted and self._ident is None:
            from cpe_mcp.kernel.subflows import SubflowDump
            from cpe_mcp.upstream.ident import IdentResponder

            self._ident = IdentResponder(user_at=self._ident_user, dump=SubflowDump)
        if self._ident is not None:
            wans = self._wans_up() if wanted else ()
            self._ident.follow(
                (address, wan.device) for wan in wans for address in (wan.address4, wan.address6) if address
            )

    def _ident_user(self, address: str) -> str | None:
        for candidate in self._control.candidates.candidates(self._control.now):
            if address in candidate.addresses:
                radius = self._settings.radius
                return self._settings.ident.user or candidate.subscriber or (radius.username if radius.enabled else "")
        return None

    def _paths_changed(self) -> None:
        self._follow_ident()
        has_wans = bool(self._paths.wans()), bool(self._dns_ways())
        if is_better(self._had_wans, has_wans):
            self._dns.hurry()
        self._had_wans = has_wans
        self._authenticator.follow_wans()
        up, ways = {wan.name for wan in self._wans_up()}, self._authenticator.ways()
        has_ways = any(wan.name in up for wan in ways), bool(ways)
        if is_better(self._had_ways, has_ways):
            self._authenticator.hurry()
        self._had_ways = has_ways
        self._control.changed()


def is_better(before: tuple[bool, bool], now: tuple[bool, bool]) -> bool:
    """Whether there is something to ask over that there was not."""
    return any(is_there and not was_there for was_there, is_there in zip(before, now, strict=True))


class Options(NamedTuple):
    """The command line."""

    config: str


def main(argv: Sequence[str] | None = None) -> int:
    """``cpe-mcpd [--config FILE] [--foreground]``. Returns the exit code: 0 stopped, 1 cannot run, 2 wrong settings."""
    options = _options(argv)
    try:
        settings = load_settings(options.config)
    except SettingsError as error:
        print(f"cpe-mcpd: {error}", file=sys.stderr)
        return EXIT_USAGE
    log_to_streams("cpe-mcpd")
    set_level(settings.logging.level)
    try:
        return asyncio.run(serve(settings, options.config))
    except SettingsError as error:  # seen only when they are used
        log.error("%s", error)
        return EXIT_USAGE
    except OSError as error:
        log.error("cannot run: %s", error)
        return EXIT_FAILED


async def serve(settings: RouterSettings, path: str) -> int:
    """Run until SIGTERM or SIGINT, or until it had better be started again; SIGHUP reads the settings again.

    Returns the exit code; raises OSError, SettingsError."""
    if _is_running(settings.general.run_dir):
        log.error("another cpe-mcpd runs with %s already", settings.general.run_dir)
        return EXIT_FAILED
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    daemon = Daemon(settings, path)
    daemon.on_hopeless = stopped.set
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, _background(lambda: _reload_logged(daemon)))
    log.info("cpe-mcpd %s with %s", cpe_mcp.__version__, path)
    for warning in warnings_of(settings):
        log.warning("%s", warning)
    try:
        await daemon.start()
        await stopped.wait()
    finally:
        await daemon.stop()
    log.info("stopped")
    return EXIT_FAILED if daemon.hopeless else EXIT_OK


def load_settings(path: str) -> RouterSettings:
    """The settings, with what only shows when they are used. Raises SettingsError."""
    settings = load_router(path)
    for static in settings.concentrators:
        if static.subscriber:
            try:
                own_credential(static.subscriber, static.key)
            except CookieError as error:
                raise SettingsError(f"{path}: section concentrator '{static.name}': {error}") from None
    return settings


def congestion_controls(path: str = AVAILABLE_CONGESTION_CONTROLS) -> list[str]:
    """Those of the running kernel; empty when it does not say."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


def _options(argv: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="cpe-mcpd", description="Control daemon of the router's Multipath TCP proxy.")
    parser.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help=f"settings (default {DEFAULT_CONFIG})")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground, which it always does")
    parser.add_argument("--version", action="version", version=f"cpe-mcpd {cpe_mcp.__version__}")
    return Options(parser.parse_args(argv).config)


def _is_running(run_dir: str) -> bool:
    """Somebody answers at the question socket; a socket left behind by a crash does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.path.join(run_dir, API_SOCKET))
        except OSError:
            return False
    return True


async def _reload_logged(daemon: Daemon) -> None:
    try:
        await daemon.reload()
    except SettingsError as error:
        log.error("the settings before stay in force: %s", error)


def _background(make: Callable[[], Any]) -> Callable[[], None]:
    """A signal handler that runs a coroutine; the set keeps its task from being collected."""
    tasks: set[asyncio.Task[None]] = set()

    def handler() -> None:
        task = asyncio.get_running_loop().create_task(make())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return handler


if __name__ == "__main__":
    sys.exit(main())
