"""Asks RADIUS when the session says so, and tells what came of it. One session per set of RADIUS settings."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cpe_mcp.aaa.answer import REJECT, TIMEOUT, RadiusAnswer
from cpe_mcp.aaa.carriers import UDP_PORT, Carrier, UdpCarrier
from cpe_mcp.aaa.radius import RadiusClient, RadiusError
from cpe_mcp.aaa.session import AuthSession
from cpe_mcp.aaa.troubles import Trouble, read, say
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import RouterSettings, split_host
from cpe_mcp.settings.radius_ways import TLS, may_carry, refusal
from cpe_mcp.settings.router import RadiusSettings

if TYPE_CHECKING:
    from cpe_mcp.aaa.dynamic_end import DynamicEnd

log = logging.getLogger(__name__)

BLOCK, PROXY = "block", "proxy"
"""Values of radius.on_reject and radius.on_timeout."""
NET_CLASS = "/sys/class/net"


class Transport(NamedTuple):
    """How questions travel."""

    carrier: Carrier
    port: int
    """Of a server that is set without one."""
    secret: bytes


class AccountingIds(NamedTuple):
    """What accounting calls the sessions of this router."""

    sessions: tuple[str, ...] = ()
    """Acct-Session-Id of the total, and of each WAN."""
    total: str = ""
    """Acct-Multi-Session-Id of them all."""


class Basis(NamedTuple):
    """All that a session depends on: with another one, it begins anew."""

    radius: RadiusSettings
    """Without what is accounting's alone."""
    may_carry: frozenset[str]
    refusal: str
    dhcp_codes: tuple[int, int]
    devices: tuple[str, ...]
    """Of the WANs, in the order of the settings."""
    wans: frozenset[str]
    operator_wans: frozenset[str]
    """Those that are the operator's own network."""


def basis_of(settings: RouterSettings) -> Basis:
    """The part of the settings that this module works by."""
    discovery = settings.discovery
    devices = tuple(wan.device for wan in settings.wans if wan.enabled)
    codes = discovery.dhcp4_code, discovery.dhcp6_code
    wans = frozenset(wan.name for wan in settings.wans if wan.enabled)
    operator_wans = frozenset(wan.name for wan in settings.wans if wan.enabled and wan.operator_network)
    # Accounting follows its own options while the session goes on.
    nothing = RadiusSettings()
    radius = dataclasses.replace(
        settings.radius,
        accounting=nothing.accounting,
        accounting_port=nothing.accounting_port,
        interim_s=nothing.interim_s,
    )
    return Basis(radius, may_carry(settings), refusal(settings), codes, devices, wans, operator_wans)


class Authenticator:
    """``on_change()`` is called whenever :meth:`reason` or :attr:`accept` may be another; ``wans()`` gives those that are up,
    best first; ``accounting_ids()``: under which accounting tells of them. Raises RadiusError when the settings cannot work."""

    def __init__(
        self,
        settings: RouterSettings,
        *,
        wans: Callable[[], Sequence[WanView]],
        on_change: Callable[[], None],
        accounting_ids: Callable[[], AccountingIds] = AccountingIds,
    ) -> None:
        self.basis = basis_of(settings)
        self._settings = settings.radius
        self._wans = wans
        self._on_change = on_change
        self._accounting_ids = accounting_ids
        self._hurried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        self._session: AuthSession | None = None
        self._dynamic: DynamicEnd | None = None
        self._is_superseded = self._is_rearmed = False
        if self._settings.enabled:
            self._client = _client(self._settings, self.basis.dhcp_codes)
            self._session = AuthSession(retry_s=self._settings.retry_s, now=asyncio.get_running_loop().time())
            if self._settings.dynamic:
                self._dynamic = self._dynamic_end()

    def start(self) -> None:
        """Begin to ask, unless the question would go in the clear where others listen."""
        if self._session is None:
            return
        if self.basis.refusal:
            log.warning("%s", self.basis.refusal)
        else:
            self._task = asyncio.get_running_loop().create_task(self._run(self._session))
            self.follow_wans()

    async def stop(self) -> None:
        """Ask no more, and be told nothing more."""
        if self._dynamic is not None:
            self._dynamic.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hurry(self) -> None:
        """A WAN came up: the next answer may be another one."""
        self._hurried.set()

    def doubt(self) -> None:
        """A concentrator refuses what the Accept in force has brought: there may be something newer."""
        if self._session is not None and self._session.accept is not None:
            self._session.doubt(asyncio.get_running_loop().time())
            self._rearm()

    def inherit(self, other: Authenticator) -> None:
        """Of the one with the settings before: which requests of dynamic authorization it has had."""
        if self._dynamic is not None and other._dynamic is not None:
            self._dynamic.inherit(other._dynamic)

    def follow_wans(self) -> None:
        """Addresses have come or gone."""
        if self._dynamic is not None and self._task is not None:
            own = [wan for wan in self._wans() if wan.name in self.basis.operator_wans]
            places = [(address, wan.device) for wan in own for address in (wan.address4, wan.address6) if address]
            self._dynamic.follow(places, self._settings.dynamic_port)

    def replace(self, accept: RadiusAnswer, *, is_new_time: bool) -> None:
        """A CoA-Request has changed the Accept in force."""
        if self._session is not None:
            self._is_superseded = self._is_superseded or self._session.is_asking
            self._session.replace(accept, asyncio.get_running_loop().time(), is_new_time=is_new_time)
            self._rearm()

    def withdraw(self) -> None:
        """A Disconnect-Request: as a Reject. An answer that is on its way is of before."""
        if self._session is not None:
            self._is_superseded = self._is_superseded or self._session.is_asking
            ended = (say("session-ended"),)
            answer = RadiusAnswer(REJECT, read(ended), troubles=ended)
            self._session.answered(answer, asyncio.get_running_loop().time())
            self._rearm()

    def ways(self) -> list[WanView]:
        """The WANs over which the question may go now."""
        return [wan for wan in self._wans() if wan.name in self.basis.may_carry]

    def reason(self) -> str:
        """ "" when flows may be proxied, else why not: a value of Reason."""
        reason = self._standing()
        if self._settings.on_timeout == PROXY and reason != Reason.NOT_AUTHORIZED:
            return ""
        return reason

    def blocks(self) -> bool:
        """Whether connections that may not be proxied are refused and not forwarded."""
        reason = self.reason()
        how = self._settings.on_reject if reason == Reason.NOT_AUTHORIZED else self._settings.on_timeout
        return bool(reason) and how == BLOCK

    def _standing(self) -> str:
        if self._session is None:
            return ""
        if self.basis.refusal:
            return Reason.AUTH_UNPROTECTED
        view = self._session.view(asyncio.get_running_loop().time())
        return "" if view.may_proxy else view.reason

    @property
    def accept(self) -> RadiusAnswer | None:
        """The Accept in force; servers that are silent when it is renewed take nothing away before it runs out."""
        return self._session.accept if self._session is not None else None

    @property
    def scheme(self) -> str:
        """The distribution scheme that the Accept in force orders; "": that of the settings."""
        accept = self.accept
        return accept.scheme if accept is not None else ""

    @property
    def until(self) -> float | None:
        """When the Accept in force runs out; None: it does not, or there is none."""
        return self._session.until if self._session is not None else None

    def status(self) -> dict[str, Any]:
        """For people, ready for JSON."""
        if self._session is None:
            return {"enabled": False, "accepted": False, "reason": "", "text": "not asked", "detail": "", "server": ""}
        now = asyncio.get_running_loop().time()
        view = self._session.view(now)
        standing, ask_at = self._standing(), self._ask_at(self._session)
        answer = self._session.answer
        troubles: tuple[Trouble, ...] = answer.troubles if answer is not None else ()
        if standing and not view.detail and not self._can_ask():
            troubles = (say("question-no-way"),)
        return {
            "enabled": True,
            "accepted": not standing,
            "reason": standing or view.reason,
            "text": TEXTS[standing] if standing else "accepted",
            "detail": self.basis.refusal or view.detail or read(troubles),
            "detail_words": [] if self.basis.refusal else [*troubles],
            "transport": self._settings.transport,
            "server": answer.server if answer is not None else "",
            "expires_s": None if self._session.until is None else round(self._session.until - now, 1),
            "asks_again_s": None if ask_at is None or self.basis.refusal else round(max(0.0, ask_at - now), 1),
            "counters": dict(self._client.counters),
            "dynamic": self._dynamic.status() if self._dynamic is not None else None,
        }

    async def _run(self, session: AuthSession) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._tell(session)
            due = [time for time in (self._ask_at(session), session.until) if time is not None]
            try:
                async with asyncio.timeout_at(min(due, default=None)):
                    await self._hurried.wait()
            except TimeoutError:
                pass
            else:
                self._hurried.clear()
                if self._is_rearmed:
                    self._is_rearmed = False
                elif not session.view(loop.time()).may_proxy:
                    session.hurry(loop.time())
            ask_at = self._ask_at(session)
            if ask_at is not None and ask_at <= loop.time():
                session.asked()
                answer = await self._answer(session)
                if self._is_superseded:
                    self._is_superseded = False
                else:
                    session.answered(answer, loop.time())

    def _ask_at(self, session: AuthSession) -> float | None:
        """When the next question is due; None: it cannot be asked, and :meth:`hurry` will tell when it can."""
        return session.ask_at(asyncio.get_running_loop().time()) if self._can_ask() else None

    def _can_ask(self) -> bool:
        return self._client.asks_here or bool(self.ways())

    async def _answer(self, session: AuthSession) -> RadiusAnswer:
        """Ask; an Accept that runs out meanwhile is no more from that moment on."""
        loop = asyncio.get_running_loop()
        question = loop.create_task(self._ask())
        try:
            while not question.done():
                left_s = None if session.until is None else max(0.0, session.until - loop.time())
                done, _ = await asyncio.wait({question}, timeout=left_s)
                if not done:
                    self._tell(session)
            return question.result()
        finally:
            question.cancel()

    async def _ask(self) -> RadiusAnswer:
        try:
            return await self._client.authenticate(
                username=self._settings.username,
                password=self._settings.password,
                calling_station=self._calling_station(),
                wans=self._wans(),
                ways=self.ways(),
            )
        except RadiusError as error:
            return RadiusAnswer(TIMEOUT, str(error))

    def _rearm(self) -> None:
        """Times and state are others: look again, without asking for it. A question that is open does not keep it from being
        told."""
        if self._session is not None:
            self._tell(self._session)
        self._is_rearmed = True
        self._hurried.set()

    def _dynamic_end(self) -> DynamicEnd:
        """Loaded only where it is used: most routers are never reached."""
        from cpe_mcp.aaa.dynamic import Nas
        from cpe_mcp.aaa.dynamic_end import DynamicEnd
        from cpe_mcp.upstream.dynamic import ABILITIES, RouterSession, rules

        def nas() -> Nas:
            return Nas(self._settings.nas_identifier, self._addresses())

        session = RouterSession(
            self,
            username=self._settings.username,
            wans=self.basis.wans,
            addresses=self._addresses,
            calling_station=self._calling_station,
            accounting_ids=self._accounting_ids,
        )
        return DynamicEnd(rules(self._settings), nas=nas, abilities=ABILITIES, sessions=session)

    def _addresses(self) -> list[str]:
        return [address for wan in self._wans() for address in (wan.address4, wan.address6) if address]

    def _calling_station(self) -> str:
        return self._settings.calling_station or hardware_address(self.basis.devices)

    def _tell(self, session: AuthSession) -> None:
        """Log a new state once, and have it looked at."""
        view = session.view(asyncio.get_running_loop().time())
        if view.reason != self._reason:
            self._reason = view.reason
            if view.may_proxy:
                log.info("RADIUS: accepted%s", f" ({view.detail})" if view.detail else "")
            else:
                log.info("RADIUS: %s%s", TEXTS[view.reason], f" ({view.detail})" if view.detail else "")
        self._on_change()


def transport_of(settings: RadiusSettings) -> Transport:
    """As the settings say. What TLS takes is loaded only where it is used."""
    if settings.transport != TLS:
        return Transport(
            UdpCarrier(timeout_s=settings.timeout_s, tries=settings.tries), UDP_PORT, settings.secret.encode()
        )
    from cpe_mcp.aaa.tls_carrier import TLS_PORT, TLS_SECRET, TlsCarrier, TlsFiles

    files = TlsFiles(settings.tls_ca, settings.tls_cert, settings.tls_key, settings.tls_name)
    return Transport(TlsCarrier(files, timeout_s=settings.timeout_s), TLS_PORT, TLS_SECRET)


def _client(settings: RadiusSettings, dhcp_codes: tuple[int, int]) -> RadiusClient:
    """Raises RadiusError."""
    transport = transport_of(settings)
    return RadiusClient(
        [split_host(host, transport.port) for host in settings.server],
        transport.secret,
        timeout_s=settings.timeout_s,
        tries=settings.tries,
        enterprise=settings.enterprise,
        nas_identifier=settings.nas_identifier,
        carrier=transport.carrier,
        chap=settings.method == "chap",
        dhcp_codes=dhcp_codes,
    )


def hardware_address(devices: Sequence[str], net_class: str = NET_CLASS) -> str:
    """That of the first device that has one, as RFC 3580 section 3.21 writes it; "": none has."""
    for device in devices:
        try:
            with open(os.path.join(net_class, device, "address"), encoding="ascii") as file:
                address = file.read().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", address) and set(address) != {"0", ":"}:
            return address.upper().replace(":", "-")
    return ""
