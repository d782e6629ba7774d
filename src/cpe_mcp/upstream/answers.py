"""What ``cpe-mcpd`` answers to ``cpe-mcp`` and the UI: the methods of its question socket. Nothing changes in here but by
``reload``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import cpe_mcp
from cpe_mcp.control.api import ApiError, Method
from cpe_mcp.policy.decide import DIRECT, PROXY, decide
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import SettingsError, warnings_of
from cpe_mcp.upstream.check import check
from cpe_mcp.upstream.control import Control

if TYPE_CHECKING:
    from cpe_mcp.upstream.speedtest import SpeedTest

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000


class Radius(Protocol):
    """What this module needs of :class:`cpe_mcp.upstream.authenticator.Authenticator`."""

    def status(self) -> dict[str, Any]: ...


class Answers:
    """``radius()`` gives today's authenticator; ``reload()`` reads the settings again and raises SettingsError."""

    def __init__(
        self,
        control: Control,
        settings_path: str,
        *,
        radius: Callable[[], Radius],
        reload: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._control = control
        self._settings_path = settings_path
        self._radius = radius
        self._reload = reload
        self._started = control.now
        self._speedtest: SpeedTest | None = None

    def methods(self) -> dict[str, Method]:
        """By name, for the ApiServer."""
        return {
            "status": self.status,
            "paths": self.paths,
            "flows": self.flows,
            "records": self.records,
            "concentrators": self.concentrators,
            "why": self.why,
            "check": self.check,
            "speedtest": self.speedtest,
            "reload": self.reload,
        }

    async def status(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The whole state in short."""
        control, snapshot = self._control, self._control.snapshot
        on, ipv6 = control.interception
        not_taken = control.not_taken_reason()
        counters = [worker.counters for worker in control.workers]
        found = await self.concentrators({})
        return {
            "version": cpe_mcp.__version__,
            "kernel": os.uname().release,
            "settings": self._settings_path,
            "warnings": warnings_of(control.settings),
            "uptime_s": round(control.now - self._started, 1),
            "enabled": control.settings.general.enabled,
            "proxy": snapshot.proxy,
            "reason": snapshot.reason,
            "text": TEXTS[snapshot.reason],
            "fallback": snapshot.fallback,
            "generation": snapshot.generation,
            "congestion_control": snapshot.congestion_control,
            "interception": {"on": on, "ipv6": ipv6, "reason": not_taken, "text": TEXTS.get(not_taken, "")},
            "wans": self._wans(),
            "concentrators": found["concentrators"],
            "sources": found["sources"],
            "radius": self._radius().status(),
            "pool": {
                "size": snapshot.pool_size * len(counters),
                **{name: _sum(counters, f"pool_{name}") for name in ("ready", "taken", "missed", "died")},
            },
            "live": _sum(counters, "live"),
            "workers": [
                {"index": worker.index, "pid": worker.pid, "counters": worker.counters} for worker in control.workers
            ],
            "totals": control.ledger.totals(),
        }

    async def paths(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The WANs in full."""
        return {"wans": self._wans()}

    async def flows(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Live flows; ``limit``."""
        flows, silent = await self._control.live_flows(_limit(args))
        return {"flows": flows, "silent_workers": silent}

    async def records(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Finished flows; ``limit``."""
        return {"flows": self._control.ledger.last(_limit(args))}

    async def concentrators(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Every known concentrator and what each source said."""
        now = self._control.now
        status = self._control.candidates.status(now)
        for row in status["concentrators"]:
            row.setdefault("reason", "")
            row.setdefault("wait_s", None)
            row["text"] = "usable" if row["usable"] else TEXTS.get(row["reason"], row["reason"])
            row["reaches_ipv6"] = self._control.ipv6_proof.reaches(row["name"], now)
        return status

    async def why(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """What a new connection to ``dest`` (address), ``port`` gets."""
        try:
            address = ipaddress.ip_address(args["dest"])
            port = int(args.get("port", 443))
        except KeyError:
            raise ApiError("dest is missing: an IPv4 or IPv6 address") from None
        except (ValueError, TypeError) as error:
            raise ApiError(f"dest is an IPv4 or IPv6 address and port a number: {error}") from None
        decision = decide(address.version, str(address), port, self._control.snapshot)
        forwarded = self._forwarded(address, port)
        action = DIRECT if forwarded else decision.action
        reasons = [*forwarded, *(reason for reason in decision.reasons if not (forwarded and reason == Reason.PROXIED))]
        proxied = action == PROXY and decision.concentrator is not None and decision.wan is not None
        return {
            "destination": str(address),
            "port": port,
            "family": address.version,
            "action": action,
            "concentrator": decision.concentrator.name if proxied and decision.concentrator else "",
            "wan": decision.wan.name if proxied and decision.wan else "",
            "reasons": [{"reason": reason, "text": TEXTS[reason]} for reason in dict.fromkeys(reasons)],
        }

    async def check(self, args: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The self-test, stage by stage."""
        return check(await self.status({}))

    async def speedtest(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """``action``: start (``wan``: only that one), status, stop."""
        if self._speedtest is None:
            from cpe_mcp.upstream.speedtest import SpeedTest

            self._speedtest = SpeedTest(self._control)
        return await self._speedtest.answer(args)

    async def reload(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Read the settings again."""
        try:
            return await self._reload()
        except SettingsError as error:
            raise ApiError(f"the settings before stay in force: {error}") from None

    def _forwarded(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> list[str]:
        """Why a connection to there would not even be taken; empty when it would."""
        control = self._control
        reasons = []
        if not control.interception[0]:
            reasons.append(control.not_taken_reason())
        elif address.version == 6 and not control.interception[1]:
            reasons.append(Reason.NO_IPV6)
        if control.settings.general.intercept == "none":
            reasons.append(Reason.NOT_TAKEN)
        elif control.settings.general.intercept == "global" and not address.is_global:
            reasons.append(Reason.NOT_GLOBAL)
        left = control.left_direct.get((str(address), port))
        if left is not None and left.until > control.now:
            reasons += [Reason.LEFT_DIRECT, left.reason]
        return reasons

    def _wans(self) -> list[dict[str, Any]]:
        """The path manager's report with each WAN's bytes."""
        usable = {wan.name: wan for wan in self._control.paths.wans()}
        carried = self._control.paths.bytes_by_wan()
        rows = []
        for row in self._control.paths.report():
            wan = usable.get(row["name"])
            up, down = carried.get(row["name"], (None, None))
            rows.append(
                {
                    **row,
                    "usable": wan is not None,
                    "text": TEXTS.get(row.get("reason", ""), row.get("reason", "")),
                    "bytes_up": up,
                    "bytes_down": down,
                }
            )
        return rows


def _sum(counters: list[dict[str, int]], name: str) -> int:
    return sum(row.get(name, 0) for row in counters)


def _limit(args: Mapping[str, Any]) -> int:
    """Raises ApiError."""
    limit = args.get("limit", LIMIT_DEFAULT)
    if not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
        raise ApiError(f"limit is a number from 1 to {LIMIT_MAX}")
    return limit
