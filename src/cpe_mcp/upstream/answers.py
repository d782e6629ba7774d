"""What ``cpe-mcpd`` answers to ``cpe-mcp`` and the UI: the methods of its question socket. Nothing changes in here but by
``reload``, ``drop`` and ``quota``.

What is asked seldom is imported when it is asked: a daemon that nobody asks stays small.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cpe_mcp
from cpe_mcp.control.api import ApiError, Method
from cpe_mcp.paths.quality import begins_last
from cpe_mcp.policy.quota import WITHIN
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import SettingsError, warnings_of
from cpe_mcp.upstream.control import Control
from cpe_mcp.upstream.history import INTERVAL_S, History

if TYPE_CHECKING:
    from cpe_mcp.policy.first import Standing
    from cpe_mcp.upstream.speedtest import SpeedTest
    from cpe_mcp.upstream.why import Facts

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Result = TypeVar("Result")

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
FILTER_MAX = 255
"""Characters; longer than any name or address."""
RESOLVE_S = 5.0
"""For the name of ``why``: what a person waits for."""
METHOD_S = 8.0
"""For the programs that ``check`` and ``support`` run; the asker gives up after 10 s."""


class Radius(Protocol):
    """What this module needs of :class:`cpe_mcp.upstream.authenticator.Authenticator`, and of the Ident responder."""

    def status(self) -> dict[str, Any]: ...


class Answers:
    """``radius()`` gives today's authenticator; ``reload()`` reads the settings again and raises SettingsError;
    ``accounting()`` is what is shown of that."""

    def __init__(
        self,
        control: Control,
        settings_path: str,
        *,
        radius: Callable[[], Radius],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        accounting: Callable[[], dict[str, Any] | None] = lambda: None,
        ident: Callable[[], Radius | None] = lambda: None,
    ) -> None:
        self._control = control
        self._settings_path = settings_path
        self._radius = radius
        self._reload = reload
        self._accounting = accounting
        self._ident = ident
        self._started = control.now
        self._speedtest: SpeedTest | None = None
        self.rates = History()
        """Fed by the daemon, once a second."""

    def methods(self) -> dict[str, Method]:
        """By name, for the ApiServer."""
        return {
            "status": self.status,
            "paths": self.paths,
            "history": self.history,
            "flows": self.flows,
            "records": self.records,
            "concentrators": self.concentrators,
            "why": self.why,
            "check": self.check,
            "drop": self.drop,
            "quota": self.quota,
            "support": self.support,
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
            "warnings": [*warnings_of(control.settings), *control.paths.warnings()],
            "uptime_s": round(control.now - self._started, 1),
            "enabled": control.settings.general.enabled,
            "proxy": snapshot.proxy,
            "reason": snapshot.reason,
            "text": TEXTS[snapshot.reason],
            "fallback": snapshot.fallback,
            "generation": snapshot.generation,
            "congestion_control": snapshot.congestion_control,
            "lossy_congestion_control": snapshot.lossy_congestion_control,
            "lossy_flows": _sum(counters, "robust"),
            "scheme": self._scheme(),
            "quic": control.settings.quic.policy,
            "interception": {"on": on, "ipv6": ipv6, "reason": not_taken, "text": TEXTS.get(not_taken, "")},
            "wans": self._wans(),
            "concentrators": found["concentrators"],
            "sources": found["sources"],
            "radius": {
                **self._radius().status(),
                "cap": dict(zip(("down_mbit", "up_mbit"), control.caps.mbit, strict=True)),
                "accounting": self._accounting(),
            },
            "ident": ident.status() if (ident := self._ident()) is not None else None,
            "pool": {
                "size": snapshot.pool_size * len(counters),
                **{name: _sum(counters, f"pool_{name}") for name in ("ready", "plain", "taken", "missed", "died")},
            },
            "live": _sum(counters, "live"),
            "workers": [
                {"index": worker.index, "pid": worker.pid, "counters": worker.counters} for worker in control.workers
            ],
            "totals": control.ledger.totals(),
            "fallbacks": control.ledger.fallbacks(),
            "handshakes": control.negotiations.totals(),
        }

    async def paths(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The WANs in full."""
        return {"wans": self._wans(), "scheme": self._scheme()}

    def _scheme(self) -> dict[str, str]:
        snapshot = self._control.snapshot
        return {
            "name": snapshot.scheme,
            "reason": snapshot.scheme_reason,
            "text": TEXTS.get(snapshot.scheme_reason, ""),
        }

    async def history(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """What each WAN carried in the last minutes, for the graph."""
        return {"interval_s": INTERVAL_S, "wans": self.rates.wans()}

    async def flows(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Live flows with their subflows; ``limit``, ``filter``."""
        flows, silent = await self._control.live_flows(_limit(args), _filter(args))
        self._complete(flows)
        return {"flows": flows, "silent_workers": silent}

    async def records(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Finished flows; ``limit``, ``filter``."""
        return {"flows": self._control.ledger.last(_limit(args), _filter(args))}

    async def drop(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """End the live flow ``id`` with a reset."""
        return {"dropped": await self._control.drop(*_flow_id(args))}

    async def quota(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The WANs that have a quota; ``wan``: only this one, and ``used_gb``: what it has used is this much."""
        wan = args.get("wan") or ""
        if not isinstance(wan, str):
            raise ApiError("wan is the name of a WAN")
        if args.get("used_gb") not in (None, ""):
            used_gb = _gigabytes(args["used_gb"])
            try:
                self._control.paths.set_used(wan, used_gb)
            except ValueError as error:
                raise ApiError(str(error)) from None
        rows = [
            {"wan": row["name"], **row["quota"]} for row in self._control.paths.report() if row["quota"]["limit_gb"]
        ]
        if wan and wan not in [row["wan"] for row in rows]:
            raise ApiError(f"{wan!r} is no WAN with a quota; there are: {', '.join(r['wan'] for r in rows) or 'none'}")
        return {"quotas": [row for row in rows if wan in ("", row["wan"])]}

    async def concentrators(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Every known concentrator and what each source said."""
        return self._control.concentrators()

    async def why(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """What a new connection to ``dest`` (address or name), ``port``, from ``client`` gets.

        For a name the answer is that of its first address, and ``answers`` has one for each. With ``id`` in place of
        ``dest``: why this live flow is as fast as it is, ``{"flow": ..., "reasons": [...]}``.
        """
        from cpe_mcp.upstream.why import explain

        if args.get("id"):
            return await self._why_flow(args)
        port, client = _port(args), str(args.get("client") or "")
        if client and not _is_address(client):
            raise ApiError("client is the IPv4 or IPv6 address of a LAN device")
        name, addresses = await _resolved(str(args.get("dest") or ""))
        answers = [explain(address, port, client, self._facts(address, port, client, name)) for address in addresses]
        return {**answers[0], "name": name, "answers": answers}

    async def check(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The self-test, stage by stage, and what else on this router has a say."""
        return {"stages": await self._stages()}

    async def support(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The support report; ``full`` leaves names and addresses as they are. Secrets are never in it."""
        from cpe_mcp.upstream.support_parts import gather

        status, stages = await self.status({}), await self._stages()
        live, _ = await self._control.live_flows(10)
        report = gather(
            self._control.settings,
            status=status,
            stages=stages,
            live=live,
            finished=self._control.ledger.last(20),
            granted=self._control.granted,
            secrets=[row.key for row in self._control.candidates.candidates(self._control.now)],
            full=bool(args.get("full")),
        )
        return {"report": await _in_time(report)}

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

    async def _why_flow(self, args: Mapping[str, Any]) -> dict[str, Any]:
        from cpe_mcp.upstream.why_flow import explain_flow

        flow = await self._control.live_flow(*_flow_id(args))
        if flow is None:
            raise ApiError(f"there is no live connection {args['id']}")
        self._complete([flow])
        return {"flow": flow, "reasons": explain_flow(flow, self._wans())}

    def _complete(self, flows: list[dict[str, Any]]) -> None:
        """What the workers do not know: whether a WAN is backup now, what its settings say, and so the verdict."""
        from cpe_mcp.policy.verdict import evidence_of, judge

        wans = {row["name"]: row for row in self._control.paths.report()}
        known = {wan.name: (wan.rate_down_mbit, wan.rate_up_mbit) for wan in self._control.settings.wans}
        for flow in flows:
            for subflow in flow.setdefault("subflows", []):
                subflow["local"] = _endpoint(subflow["local"], subflow.pop("local_port"))
                subflow["remote"] = _endpoint(subflow["remote"], subflow.pop("remote_port"))
                # Backup is a flag of the endpoint: all subflows of a WAN have it, or none; plain TCP knows no backup.
                subflow["backup"] = bool(flow["mptcp"] and wans.get(subflow["wan"], {}).get("backup"))
            verdict = judge(evidence_of(flow, wans, known_mbit=known, cap_mbit=self._control.caps.mbit))
            for subflow in flow["subflows"]:
                for name in ("segments_in", "segment_bytes", "unacked", "lost"):  # only what is made of them is of use
                    subflow.pop(name, None)
            flow["verdict"], flow["verdict_wans"] = verdict.reason, list(verdict.wans)
            flow["verdict_text"] = verdict.text()

    def _facts(self, address: Address, port: int, client: str, name: str) -> Facts:
        from cpe_mcp.kernel.hardware_address import hardware_address
        from cpe_mcp.kernel.routing_view import way_to
        from cpe_mcp.policy.rules import compile_rules
        from cpe_mcp.upstream.why import Facts

        control = self._control
        left = control.left_direct.get((str(address), port))
        wans = control.paths.report()
        try:
            device: str | None = way_to(str(address)).device
        except OSError:
            device = None
        return Facts(
            snapshot=control.snapshot,
            takes=control.interception,
            not_taken=control.not_taken_reason(),
            intercept=control.settings.general.intercept,
            wan_networks=tuple(network for row in wans for network in row.get("networks", ())),
            devices=tuple(row["device"] for row in wans),
            device=device,
            left_direct=left.reason if left is not None and left.until > control.now else "",
            rules=compile_rules(control.settings.rules) if control.settings.general.enabled else (),
            names=(name.lower().rstrip("."),) if name and control.paths.names_work() else (),
            mac=hardware_address(client) if client else "",
            order=self._standings(),
            known=tuple(candidate.name for candidate in control.candidates.candidates(control.now)),
            warm=_sum([worker.counters for worker in control.workers], "pool_ready"),
        )

    def _standings(self) -> tuple[Standing, ...]:
        from cpe_mcp.policy.first import Standing

        settings = {wan.name: wan for wan in self._control.settings.wans}
        quotas = {row["name"]: row["quota"]["state"] for row in self._control.paths.report()}
        mptcp = self._control.mptcp()
        views = self._control.snapshot.wans
        strips = {v.name: v.name in mptcp and mptcp[v.name]["reason"] == Reason.ACCESS_STRIPS for v in views}
        last = begins_last(strips)
        return tuple(
            Standing(
                view.name,
                wan.role == "backup",
                wan.is_metered(),
                wan.preference,
                quotas.get(view.name, WITHIN),
                view.name in last,
            )
            for view in views
            if (wan := settings.get(view.name)) is not None
        )

    async def _stages(self) -> list[dict[str, Any]]:
        from cpe_mcp.kernel.nft_view import table_listing
        from cpe_mcp.upstream import neighbours
        from cpe_mcp.upstream.check import Evidence, check

        status = await self.status({})
        lan = self._control.settings.general.lan
        looks = asyncio.to_thread(table_listing), asyncio.to_thread(neighbours.look, lan)
        table, seen = await _in_time(asyncio.gather(*looks))
        evidence = Evidence(self._subflows(status["wans"]), table, self._control.ledger.last(LIMIT_MAX))
        return [*check(status, evidence), *neighbours.describe(seen, status["wans"])]

    def _subflows(self, wans: list[dict[str, Any]]) -> dict[str, int]:
        """Established subflows to the known concentrators by WAN, as the kernel lists them."""
        from cpe_mcp.kernel.subflows import SubflowDump
        from cpe_mcp.paths.observed import TCP_ESTABLISHED

        candidates = self._control.candidates.candidates(self._control.now)
        remotes = {(address, candidate.port) for candidate in candidates for address in candidate.addresses}
        names = {address: wan["name"] for wan in wans for address in (wan["address4"], wan["address6"]) if address}
        counts = dict.fromkeys(names.values(), 0)
        dump = SubflowDump()
        try:
            for subflow in dump.read(remotes):
                if subflow.state == TCP_ESTABLISHED and subflow.local in names:
                    counts[names[subflow.local]] += 1
        except OSError:
            return {}
        finally:
            dump.close()
        return counts

    def _wans(self) -> list[dict[str, Any]]:
        """The path manager's report with each WAN's bytes, and whether MPTCP gets through."""
        usable = {wan.name: wan for wan in self._control.paths.wans()}
        carried = self._control.paths.bytes_by_wan()
        mptcp = self._control.mptcp()
        rows = []
        for row in self._control.paths.report():
            wan = usable.get(row["name"])
            up, down = carried.get(row["name"], (None, None))
            rows.append(
                {
                    **row,
                    "usable": wan is not None,
                    "mptcp": mptcp[row["name"]],
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


def _flow_id(args: Mapping[str, Any]) -> tuple[int, int]:
    """Worker and number of ``id``. Raises ApiError."""
    match = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,15})", str(args.get("id", "")))
    if match is None:
        raise ApiError("id is missing or none: flows shows the id of each connection, such as 0:17")
    return int(match[1]), int(match[2])


def _gigabytes(value: Any) -> float:
    """Raises ApiError. ubus has it as a text: a number there is an integer or a double, and refused as the other one."""
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,9})?", text):
        raise ApiError(f"used_gb is a number of gigabytes such as 12.5, not {text!r}")
    return float(text)


def _filter(args: Mapping[str, Any]) -> str:
    """Raises ApiError."""
    text = args.get("filter") or ""
    if not isinstance(text, str) or len(text) > FILTER_MAX:
        raise ApiError("filter is a text: part of a client, destination, concentrator, WAN or action")
    return text


def _port(args: Mapping[str, Any]) -> int:
    """Raises ApiError."""
    port = args.get("port") or 443
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise ApiError("port is a number from 1 to 65535")
    return port


async def _resolved(dest: str) -> tuple[str, list[Address]]:
    """``(name, addresses)`` of an address (name "") or a name. Raises ApiError. The resolver works in a thread."""
    if not dest:
        raise ApiError("dest is missing: an address or a name")
    try:
        address = ipaddress.ip_address(dest)
    except ValueError:
        pass
    else:
        return "", [getattr(address, "ipv4_mapped", None) or address]
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(dest, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise ApiError(f"the name {dest!r} has no address: the resolver did not answer in {RESOLVE_S:.0f} s") from None
    except (OSError, ValueError) as error:  # ValueError: a label too long, a NUL
        detail = error.strerror if isinstance(error, OSError) else "this is not a name"
        raise ApiError(f"the name {dest!r} has no address: {detail}") from None
    texts = dict.fromkeys(str(row[4][0]).partition("%")[0] for row in found)
    return dest, [ipaddress.ip_address(text) for text in texts]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


async def _in_time(work: Awaitable[Result]) -> Result:
    """Raises ApiError when it takes too long."""
    try:
        async with asyncio.timeout(METHOD_S):
            return await work
    except TimeoutError:
        raise ApiError(f"the kernel's tools did not answer in {METHOD_S:.0f} s") from None
