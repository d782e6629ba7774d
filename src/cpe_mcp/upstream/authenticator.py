"""Asks RADIUS when the session says so, and tells what came of it. One session per set of RADIUS settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from cpe_mcp.aaa.answer import TIMEOUT, RadiusAnswer
from cpe_mcp.aaa.radius import RadiusClient, RadiusError
from cpe_mcp.aaa.session import AuthSession
from cpe_mcp.policy.reasons import TEXTS
from cpe_mcp.settings import split_host
from cpe_mcp.settings.router import RadiusSettings

log = logging.getLogger(__name__)

RADIUS_PORT = 1812
"""RFC 2865 section 3."""


class Authenticator:
    """``on_change()`` is called whenever :meth:`reason` or :attr:`answer` may be another; ``addresses()`` gives the
    WANs' own, as a hint for the server. Raises RadiusError when the settings cannot work."""

    def __init__(
        self, settings: RadiusSettings, *, addresses: Callable[[], Sequence[str]], on_change: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._on_change = on_change
        self._hurried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        self._session: AuthSession | None = None
        if settings.enabled:
            self._client = RadiusClient(
                [split_host(host, RADIUS_PORT) for host in settings.server],
                settings.secret.encode(),
                timeout_s=settings.timeout_s,
                tries=settings.tries,
                enterprise=settings.enterprise,
                nas_identifier=settings.nas_identifier,
            )
            self._session = AuthSession(retry_s=settings.retry_s, now=asyncio.get_running_loop().time())

    def start(self) -> None:
        """Begin to ask."""
        if self._session is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._session))

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hurry(self) -> None:
        """A WAN came up: the next answer may be another one."""
        self._hurried.set()

    def reason(self) -> str:
        """ "" when flows may be proxied, else why not: a value of Reason."""
        if self._session is None:
            return ""
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
        ask_at = self._session.ask_at(now)
        answer = self._session.answer
        return {
            "enabled": True,
            "accepted": view.may_proxy,
            "reason": view.reason,
            "text": "accepted" if view.may_proxy else TEXTS[view.reason],
            "detail": view.detail,
            "server": answer.server if answer is not None else "",
            "expires_s": None if self._session.until is None else round(self._session.until - now, 1),
            "asks_again_s": None if ask_at is None else round(max(0.0, ask_at - now), 1),
            "counters": dict(self._client.counters),
        }

    async def _run(self, session: AuthSession) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._tell(session)
            due = [time for time in (session.ask_at(loop.time()), session.until) if time is not None]
            try:
                async with asyncio.timeout_at(min(due, default=None)):
                    await self._hurried.wait()
            except TimeoutError:
                pass
            else:
                self._hurried.clear()
                if not session.view(loop.time()).may_proxy:
                    session.hurry(loop.time())
            ask_at = session.ask_at(loop.time())
            if ask_at is not None and ask_at <= loop.time():
                session.asked()
                session.answered(await self._ask(), loop.time())

    async def _ask(self) -> RadiusAnswer:
        try:
            return await self._client.authenticate(
                username=self._settings.username, password=self._settings.password, addresses=self._addresses()
            )
        except RadiusError as error:
            return RadiusAnswer(TIMEOUT, str(error))

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
