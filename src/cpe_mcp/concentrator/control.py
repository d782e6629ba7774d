"""The concentrator's control: tells workers what they may do, answers who may use it, keeps count. Wiring only.

Decisions are :mod:`.authorizer`'s and :mod:`.destination_rules`'; processes, signals and files :mod:`.daemon`'s.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import os
import platform
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

import cpe_mcp
from cpe_mcp.aaa.accounting import ADMIN_RESET
from cpe_mcp.aaa.answer import ACCEPT, TIMEOUT, RadiusAnswer
from cpe_mcp.aaa.dynamic import Nas
from cpe_mcp.aaa.dynamic_end import DynamicEnd
from cpe_mcp.aaa.dynamic_packets import plain_address
from cpe_mcp.aaa.ident import Answer as IdentAnswer
from cpe_mcp.aaa.ident_client import Connection
from cpe_mcp.aaa.radius import MAX_PASSWORD_OCTETS, MAX_TEXT_OCTETS, RadiusClient, RadiusError
from cpe_mcp.concentrator import limit_watch
from cpe_mcp.concentrator.accounting import Accounting
from cpe_mcp.concentrator.address_log import AddressLog
from cpe_mcp.concentrator.authorizer import Authorizer
from cpe_mcp.concentrator.border import BorderKeeper, NoBorder
from cpe_mcp.concentrator.connection_counts import ConnectionCounts
from cpe_mcp.concentrator.destination_rules import compile_rows
from cpe_mcp.concentrator.dynamic import ABILITIES, SubscriberSessions
from cpe_mcp.concentrator.dynamic_rules import places, rules
from cpe_mcp.concentrator.figures import BYTES_PER_MBIT, Figures, SubscriberTotals
from cpe_mcp.concentrator.filters import FilterError, FilterHook
from cpe_mcp.concentrator.ident import IdentDesk
from cpe_mcp.concentrator.kernel_setup import congestion_control, own_addresses
from cpe_mcp.concentrator.verdict import Verdict
from cpe_mcp.control.frames import (
    AUTHORIZE,
    AUTHORIZED,
    CAPS,
    CAPS_PER_FRAME,
    CONNECTIONS,
    CONTROL_SOCKET,
    COUNTERS,
    DEMAND,
    FLOWS,
    FORGET,
    LIST,
    RECORDS,
    SETTINGS,
    USAGE,
)
from cpe_mcp.control.server import ControlServer, Worker
from cpe_mcp.kernel.numbers import MARK_SUBSCRIBER
from cpe_mcp.policy.cap_shares import CapShares, Demand, Rates
from cpe_mcp.policy.masking import shortened
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.relay.sockets import pack16
from cpe_mcp.settings import ConcentratorSettings, SettingsError, split_host
from cpe_mcp.settings.concentrator import COOKIE

log = logging.getLogger(__name__)

RADIUS_PORT = 1812
"""RFC 2865."""
NOTHING_YET = {"flows": 0, "bytes_up": 0, "bytes_down": 0}
UPKEEP_S = 10.0
"""Between two looks at our own addresses and at verdicts that have run out."""
FLOWS_TIMEOUT_S = 1.0
GAUGES = ("live", "relaying", "waiting", "half_open", "verdicts", "held_back")
"""Counters of a worker that say what is, not what was: they end with it."""
ASKING_MAX = 256
"""Addresses about which RADIUS is asked at once, one socket each; others are told to come again. As many more are asked about
if RADIUS has accepted them before, so that strangers cannot keep subscribers out."""
ASKING_FULL_S = 1.0
"""When to come again."""
SUBSCRIBERS_MAX = 65536
"""Subscribers whose totals are kept, some 30 MiB; who has finished a connection longest ago goes first."""
UNUSED_CAP_S = 3600.0
"""A cap of somebody whom RADIUS knows no more is kept while connections use it: they may run on for long."""
IDENT_FAILED_S = 10.0
"""How long a worker remembers that Ident confirmed nothing; the control daemon knows for longer, and settings may change."""
IDENT_LATER_S = 1.0
"""The same where no answer came: it may at the next question."""
ROWS_SHOWN = 1000
"""Of each table in ``status``: an answer is one line of at most 4 MiB."""
ENDS_KEPT = 1024
"""Of what AAA has ended; a worker whose channel breaks is back within a second."""
GONE_MAX = 64
"""Workers that have gone and whose counters are kept apart, in case it is only the channel that broke."""


class Control:
    """One per daemon. Raises SettingsError for settings that make no RADIUS request."""

    def __init__(
        self, settings: ConcentratorSettings, *, filters: FilterHook | None = None, border: BorderKeeper | None = None
    ) -> None:
        """``border``: what limits handshakes before TCP and carries out filters; without it nftables is left alone."""
        self.settings = settings
        self._border = border if border is not None else NoBorder()
        self.filters: FilterHook = filters if filters is not None else self._border
        """What carries out Filter-Id."""
        self.started = time.monotonic()
        self._clock_offset_s = time.time() - self.started
        """Cookies go by a clock that never steps, else a step back would have old ones taken again."""
        self.server = ControlServer(
            os.path.join(settings.general.run_dir, CONTROL_SOCKET),
            on_hello=self._hello,
            on_frame=self._frame,
            on_gone=self._worker_gone,
        )
        self.subscribers: dict[str, dict[str, int]] = {}
        self.refusals: collections.Counter[str] = collections.Counter()
        self._asking: dict[str, list[tuple[Worker, dict[str, Any], Verdict | None]]] = {}
        self._ends: collections.deque[tuple[float, dict[str, Any]]] = collections.deque(maxlen=ENDS_KEPT)
        """What AAA has ended lately, and when: for workers that were not reached."""
        self._gone_at: dict[int, float] = {}
        """When the channel of a worker broke, by process id."""
        self._ask_again: set[str] = set()
        """Addresses whose authorization was withdrawn while RADIUS was asked: that answer is of before."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._own: list[str] = []
        self._flow_queries: dict[int, tuple[set[Worker], list[dict[str, Any]], asyncio.Event]] = {}
        self._questions = 0
        self._gone: dict[int, collections.Counter[str]] = {}
        """By process id; 0 holds what is too old to be told apart."""
        self._radius: RadiusClient | None = None
        self._caps = CapShares()
        self._ended: set[str] = set()
        """Subscribers whom RADIUS knows no more, and whose cap is perhaps still used."""
        self._connections = ConnectionCounts()
        self._limit_watch = limit_watch.LimitWatch()
        self.authorizer = Authorizer((), settings.radius)
        self._use(settings)
        self.address_log = AddressLog(settings.address_log)
        self.accounting = Accounting(settings.radius)
        self._ident = IdentDesk(settings.ident)
        sessions = SubscriberSessions(self, now=time.monotonic, unix=time.time)
        self._dynamic = DynamicEnd(rules(settings), nas=self._nas, abilities=ABILITIES, sessions=sessions)
        self._follow_table()

    def start(self) -> None:
        """Serve workers. Raises OSError when the socket cannot be made, SettingsError without the table that they need."""
        self._own = own_addresses()
        self._border.start(self.settings)
        self.server.start()
        self._follow_dynamic()
        self._run(self._upkeep())
        self._run(self._border.keep())

    def stop(self) -> None:
        """Stop serving."""
        for task in list(self._tasks):
            task.cancel()
        self._dynamic.close()
        self._ident.close()
        self._border.remove()
        self.server.close()
        self.address_log.close()

    def configure(self, settings: ConcentratorSettings) -> None:
        """Other settings. Running flows go on; a subscriber that is no longer served gets no new ones.

        Raises SettingsError, and the settings before stay in force.
        """
        self._border.follow(settings)
        try:
            self._use(settings)
        except SettingsError:
            self._border.follow(self.settings)
            raise
        self.address_log.configure(settings.address_log)
        self.accounting.configure(settings.radius)
        self._ident.settings = settings.ident
        self._dynamic.configure(rules(settings))
        self._follow_dynamic()
        self.server.broadcast(SETTINGS, self.worker_settings())
        self.server.broadcast(FORGET, {"all": True})
        self._follow_table()

    def worker_settings(self) -> dict[str, Any]:
        """The ``settings`` frame."""
        general, destinations = self.settings.general, self.settings.destinations
        chosen = congestion_control(general.congestion_control)
        return {
            "listeners": self._listeners(),
            "connect_timeout_s": general.connect_timeout_s,
            "message_timeout_s": general.message_timeout_s,
            "pool_idle_s": general.pool_idle_s,
            "pool_max": general.pool_max,
            "half_open_max": general.half_open_max,
            "half_open_prefix": self.settings.limits.half_open_prefix,
            "limits": {
                **dataclasses.asdict(self.settings.limits),
                "mark": MARK_SUBSCRIBER if self.settings.limits.filter else 0,
            },
            "server_mptcp": general.server_mptcp,
            "congestion_control": chosen.first,
            "lossy_congestion_control": chosen.lossy,
            "destinations": compile_rows(allow=destinations.allow, deny=destinations.deny, own=self.own_addresses()),
            "hairpin": destinations.hairpin,
            "logs_addresses": self.settings.address_log.enabled,
            "accounts": self.accounting.is_on,
            "speedtest_s": general.speedtest_s if general.speedtest else 0.0,
            "public": [
                pack16(socket.AF_INET6 if ":" in text else socket.AF_INET, text) for text in general.public_address
            ],
        }

    def own_addresses(self) -> list[str]:
        """Those of this machine, and those that lead here through NAT."""
        return [*self._own, *self.settings.general.public_address]

    async def status(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Everything a person asks first."""
        now = time.monotonic()
        await self._border.look_aside()
        return {
            "version": cpe_mcp.__version__,
            "kernel": platform.release(),
            "uptime_s": round(now - self.started, 1),
            "listeners": self._listeners(),
            "workers": [{"index": worker.index, "pid": worker.pid} for worker in self.server.workers if worker.pid],
            "counters": self._counters(),
            "subscribers": [
                {"name": name, **totals, "down_mbit": cap[0], "up_mbit": cap[1]}
                for name, totals, cap in self._subscriber_rows(ROWS_SHOWN)
            ],
            "counts": {
                "subscribers": len(self.subscribers),
                "addresses": self.authorizer.counts(now),
                "handles": self.authorizer.handles.counts(now),
            },
            "limits": {
                "filter": self._border.is_on,
                "reached": limit_watch.rows(self.settings, self._reached()),
            },
            "interfaces": [
                {"name": row.name, "device": row.device, "facing": row.facing} for row in self.settings.interfaces
            ],
            "filters": self._border.filter_rows(),
            "table": self._border.table_row(),
            "authorizations": self.authorizer.status(now, ROWS_SHOWN),
            "cookies": {
                "outcomes": dict(self.authorizer.cookies.counters),
                "remembered": self.authorizer.cookies.remembered(),
            },
            "handles": self.authorizer.handles.status(now, ROWS_SHOWN),
            "refusals": [{"reason": r, "text": TEXTS.get(r, r), "count": n} for r, n in self.refusals.most_common()],
            "radius": {
                "enabled": self.settings.radius.enabled,
                "servers": list(self.settings.radius.server),
                "asking": len(self._asking),
                "counters": dict(self._radius.counters) if self._radius is not None else {},
            },
            "address_log": self.address_log.status(),
            "accounting": self.accounting.status(),
            "ident": self._ident.status(),
            "dynamic": {
                "enabled": self.settings.dynamic.enabled,
                "port": self.settings.dynamic.port,
                **self._dynamic.status(),
            },
        }

    def figures(self, *, worker_restarts: int) -> Figures:
        """What the metrics show; a copy, for another thread."""
        settings = self.settings
        subscribers = self._subscriber_rows() if settings.general.metrics_subscribers else ()
        return Figures(
            version=cpe_mcp.__version__,
            kernel=platform.release(),
            uptime_s=round(time.monotonic() - self.started, 1),
            workers=sum(1 for worker in self.server.workers if worker.pid),
            worker_restarts=worker_restarts,
            counters=self._counters(),
            refusals=dict(self.refusals),
            limits=self._reached(),
            cookies=dict(self.authorizer.cookies.counters),
            cookies_remembered=self.authorizer.cookies.remembered(),
            handles=self.authorizer.handles.counts(time.monotonic()),
            radius_enabled=settings.radius.enabled,
            radius=dict(self._radius.counters) if self._radius is not None else {},
            authorizations=self.authorizer.counts(time.monotonic()),
            asking=len(self._asking),
            table=self._border.table_row(),
            filters={row["name"]: row["addresses"] for row in self._border.filter_rows()},
            address_log=(self.address_log.written, self.address_log.failed),
            accounting=self.accounting.status(),
            dynamic=self._dynamic.counters,
            ident=dict(self._ident.counters),
            subscribers=tuple(SubscriberTotals(name, **totals, cap_mbit=cap) for name, totals, cap in subscribers),
        )

    async def flows(self, args: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Live flows of all workers."""
        self._questions += 1
        number, workers = self._questions, {worker for worker in self.server.workers if worker.pid}
        query = self._flow_queries[number] = (workers, [], asyncio.Event())
        self.server.broadcast(LIST, {"id": number, "limit": int(args.get("limit", 100))})
        try:
            async with asyncio.timeout(FLOWS_TIMEOUT_S):
                if workers:
                    await query[2].wait()
        except TimeoutError:
            pass
        del self._flow_queries[number]
        return query[1]

    def _subscriber_rows(self, limit: int | None = None) -> list[tuple[str, dict[str, int], Rates]]:
        """Name, totals and cap in Mbit/s of each who was served or has a cap; at most so many, who was served last first."""
        names = self.subscribers.keys() | set(self._caps.names())
        if limit is not None and len(names) > limit:
            names = set(islice(dict.fromkeys((*reversed(self.subscribers), *self._caps.names())), limit))
        rows = []
        for name in sorted(names):
            down, up = self._caps.cap(name)
            cap_mbit = (down / BYTES_PER_MBIT, up / BYTES_PER_MBIT)
            rows.append((name, self.subscribers.get(name, NOTHING_YET), cap_mbit))
        return rows

    def _counters(self) -> dict[str, int]:
        """Of all workers, those that have gone included: a counter only grows."""
        counters: collections.Counter[str] = collections.Counter()
        for counted in (*self._gone.values(), *(worker.counters for worker in self.server.workers)):
            counters.update(counted)
        return dict(counters)

    def _reached(self) -> dict[str, int]:
        return limit_watch.reached(self._counters(), self._border.dropped)

    def _listeners(self) -> list[dict[str, Any]]:
        return [
            {
                "name": row.name,
                "addresses": list(row.address),
                "port": row.port,
                "device": row.device,
                "facing": row.facing,
                "authorization": row.needs(),
            }
            for row in self.settings.listeners
        ]

    # Frames -----------------------------------------------------------------------------------------------------------

    def _hello(self, worker: Worker) -> None:
        log.info("relay worker %d (pid %d) is here", worker.index, worker.pid)
        # The same process again, whose counters go on, or a new one with an old number: then a counter begins anew.
        self._gone.pop(worker.pid, None)
        worker.send(SETTINGS, self.worker_settings())
        gone_at = self._gone_at.pop(worker.pid, None)
        if gone_at is not None:
            worker.send(FORGET, {"all": True})
            for ended_at, who in self._ends:
                if ended_at >= gone_at:
                    worker.send(FORGET, who)
        self._tell_connections(self._connections.names())

    def _worker_gone(self, worker: Worker) -> None:
        if worker.pid:
            self._gone_at[worker.pid] = time.monotonic()
            while len(self._gone_at) > GONE_MAX:
                del self._gone_at[next(iter(self._gone_at))]
        self._caps.forget_worker(worker.pid)
        self._tell_connections(self._connections.forget_worker(worker.pid))
        if not worker.counters:
            return
        counted = collections.Counter({name: n for name, n in worker.counters.items() if name not in GAUGES})
        self._gone[worker.pid] = counted
        if len(self._gone) > GONE_MAX:
            oldest = next(pid for pid in self._gone if pid)
            self._gone.setdefault(0, collections.Counter()).update(self._gone.pop(oldest))

    def _frame(self, worker: Worker, kind: str, payload: Any) -> None:
        if kind == AUTHORIZE:
            self._authorize(worker, payload)
        elif kind == RECORDS:
            for record in payload:
                self._count(record)
        elif kind == DEMAND:
            self._demanded(worker, payload)
        elif kind == CONNECTIONS:
            self._connections.report(worker.pid, payload)
            self._tell_connections(payload)
        elif kind == USAGE:
            self.accounting.used(payload)
        elif kind == COUNTERS:
            worker.counters = payload
        elif kind == FLOWS and payload["id"] in self._flow_queries:
            waiting, flows, complete = self._flow_queries[payload["id"]]
            flows += payload["flows"]
            if not payload.get("more"):
                waiting.discard(worker)
            if not waiting:
                complete.set()

    def _count(self, record: dict[str, Any]) -> None:
        self.address_log.write(record)
        if record["concentrator"]:
            name = record["concentrator"]
            totals = self.subscribers[name] = self.subscribers.pop(name, dict(NOTHING_YET))
            if len(self.subscribers) > SUBSCRIBERS_MAX:
                del self.subscribers[next(iter(self.subscribers))]
            totals["flows"] += 1
            totals["bytes_up"] += record["bytes_up"]
            totals["bytes_down"] += record["bytes_down"]
        if record["action"] == "block":
            self.refusals[record["reason"]] += 1

    # Authorization ----------------------------------------------------------------------------------------------------

    def _authorize(self, worker: Worker, question: dict[str, Any]) -> None:
        needs = {row.name: row.needs() for row in self.settings.listeners}.get(question["listener"], COOKIE)
        address = question["address"]
        now = time.monotonic()
        verdict = self.authorizer.judge(
            address=address,
            cookie=question["cookie"],
            needs=needs,
            now=now,
            clock_s=now + self._clock_offset_s,
            unix_s=time.time(),
        )
        if isinstance(verdict, Verdict):
            self._answer_identified(worker, question, verdict)
            if needs == COOKIE or verdict.kind != "accept":
                return
            # A cookie is enough here, but where the address counts too it may have terms.
            if self.authorizer.wants_renewal(address, now) or (
                question["cookie"] and self.authorizer.wants_terms(address, verdict.subscriber, now)
            ):
                self._ask_about(address, known=True)
            return
        if self._ask_about(address, known=self.authorizer.is_known(address)):
            self._asking[address].append((worker, question, verdict.proven))
        else:
            full = Verdict("later", "", ASKING_FULL_S, Reason.AUTH_PENDING)
            self._answer(worker, question["id"], address, full)

    def _ask_about(self, address: str, *, known: bool) -> bool:
        """Begin to ask RADIUS, unless that is under way: all who ask about an address get the same answer. False: it is asked
        about too many. ``known``: accepted before."""
        if address not in self._asking:
            if len(self._asking) >= (2 if known else 1) * ASKING_MAX:
                return False
            self._asking[address] = []
            self._run(self._ask_radius(address))
        return True

    async def _ask_radius(self, address: str) -> None:
        while True:
            radius = self._radius
            if radius is None:  # switched off meanwhile
                answer = RadiusAnswer(TIMEOUT, "RADIUS is switched off")
                break
            try:
                answer = await radius.authorize_address(address, password=self.settings.radius.password)
            except (RadiusError, OSError) as error:  # no descriptor is left for its socket
                answer = RadiusAnswer(TIMEOUT, str(error))
            if address not in self._ask_again:
                break
            self._ask_again.discard(address)
        waiting = self._asking.pop(address, [])
        before = self.authorizer.session(address)
        verdict = self.authorizer.learn(address, answer, time.monotonic())
        why = f" ({answer.reason})" if answer.verdict == TIMEOUT else ""  # a Reply-Message may name anybody
        log.debug("RADIUS on %s: %s%s", shortened(address), answer.verdict, why)
        if answer.verdict == ACCEPT:
            names = {verdict.subscriber, *(proven.subscriber for _, _, proven in waiting if proven is not None)}
            for name in names:
                self.accounting.accepted(name, address, answer)
            if verdict.subscriber in self.authorizer.handles:  # served already, by a cookie
                self.set_caps({verdict.subscriber: verdict.cap_mbit})
        self.follow_filters(address)
        if before is not None and verdict._replace(ttl_s=0.0) != before.verdict._replace(ttl_s=0.0):
            self.server.broadcast(FORGET, {"address": address})
        for worker, question, proven in waiting:
            self._answer_identified(worker, question, self.authorizer.both(proven, verdict, address))

    def _answer_identified(self, worker: Worker, question: dict[str, Any], verdict: Verdict) -> None:
        """Ident is asked about who is accepted; only where its answer decides, theirs waits for it."""
        ident, address = self._ident, question["address"]
        if verdict.kind != "accept" or not ident.is_on or "local" not in question:
            self._answer(worker, question["id"], address, verdict)
            return
        local, local_port = question["local"]
        known = ident.follow(Connection(local, local_port, address, question["port"]))
        if not ident.decides(has_cookie=bool(question["cookie"])):
            self._answer(worker, question["id"], address, verdict)
        elif isinstance(known, asyncio.Task):
            self._run(self._await_ident(known, worker, question))
        else:
            self._answer(worker, question["id"], address, self._confirmed(known, address, verdict))

    async def _await_ident(self, task: asyncio.Task[IdentAnswer], worker: Worker, question: dict[str, Any]) -> None:
        """Judged anew when the answer is there: the authorization may have been withdrawn meanwhile."""
        await asyncio.shield(task)  # others may wait for it too
        self._authorize(worker, question)

    def _confirmed(self, answer: IdentAnswer, address: str, verdict: Verdict) -> Verdict:
        if self._ident.confirms(answer, subscriber=verdict.subscriber, address=address):
            return verdict
        if self._ident.is_passing(answer):
            return Verdict("later", "", IDENT_LATER_S, Reason.IDENT_SILENT)
        return Verdict("reject", "", IDENT_FAILED_S, Reason.IDENT_FAILED)

    def forget(self, who: Mapping[str, Any]) -> None:
        """Workers are told so: frame ``forget``. An answer of RADIUS that is on its way is of before."""
        self.server.broadcast(FORGET, dict(who))
        if "end" not in who:
            return
        self._ends.append((time.monotonic(), dict(who)))
        if who.get("address") in self._asking:
            self._ask_again.add(who["address"])
        for waiting in self._asking.values():
            waiting[:] = [(worker, question, _without(proven, who)) for worker, question, proven in waiting]

    def ended(self, subscriber: str) -> None:
        """AAA has ended what this subscriber had: the accounting session is over too."""
        self.accounting.ended(subscriber, ADMIN_RESET)

    def session_id(self, subscriber: str) -> str:
        """His Acct-Session-Id; "" while there is no accounting."""
        return self.accounting.session_id(subscriber)

    def subscriber_of(self, session_id: str) -> str:
        """Whose Acct-Session-Id it is; "" for nobody's."""
        return self.accounting.subscriber_of(session_id)

    def handle_ttl_s(self) -> float:
        """How long AAA makes handles for; 0: it is not known here."""
        return self.settings.general.handle_ttl_s

    def _nas(self) -> Nas:
        addresses = [plain_address(text) for text in self.own_addresses()]
        return Nas(self.settings.radius.nas_identifier, addresses)

    def _follow_dynamic(self) -> None:
        """Open what the settings want; an address of theirs may come later."""
        self._dynamic.follow(places(self.settings), self.settings.dynamic.port)

    def follow_filters(self, *addresses: str) -> None:
        """What the authorizer has of these addresses is carried out, and of those whose session has ended."""
        ended = self.authorizer.take_unfiltered()
        wanted: dict[str, tuple[str, ...]] = dict.fromkeys(ended, ())
        for address in addresses:
            names = self.authorizer.filters_of(address)
            known = tuple(name for name in names if self.filters.knows(name))
            if known != names:
                log.warning(
                    "RADIUS on %s: no filter here for Filter-Id %s",
                    shortened(address),
                    ", ".join(repr(name) for name in names if name not in known),
                )
            if known:
                wanted[address] = known
        if wanted:
            try:
                self.filters.apply(wanted)
            except FilterError as error:
                log.error("filters of %d addresses are not in place: %s", len(wanted), error)
                self.authorizer.unfilter_again(ended)

    def _answer(self, worker: Worker, number: int, address: str, verdict: Verdict) -> None:
        if worker in self.server.workers:
            name = verdict.subscriber
            if verdict.kind == "accept":
                self.accounting.seen(name)
                self.set_caps({name: verdict.cap_mbit})
                if verdict.connections:  # the other workers begin to tell how many they have
                    self._tell_connections([name])
            worker.send(
                AUTHORIZED,
                {
                    "id": number,
                    "address": address,
                    "verdict": verdict.kind,
                    "subscriber": name,
                    "ttl_s": verdict.ttl_s,
                    "cookie": verdict.cookie,
                    "reason": verdict.reason,
                    "caps": self._caps.shares(name, self._worker_pids(), time.monotonic())[worker.pid],
                    "connections": verdict.connections,
                },
            )

    # Caps -------------------------------------------------------------------------------------------------------------

    def _follow_table(self) -> None:
        """Caps of the settings. Those from RADIUS stay until it is asked again."""
        self.set_caps({row.name: (row.down_mbit, row.up_mbit) for row in self.settings.subscribers if row.enabled})

    def set_caps(self, caps_mbit: Mapping[str, Rates]) -> None:
        """Caps of these subscribers, Mbit/s down and up; running flows follow."""
        changed = [
            name
            for name, (down, up) in caps_mbit.items()
            if self._caps.set_cap(name, (down * BYTES_PER_MBIT, up * BYTES_PER_MBIT))
        ]
        self._tell_caps(changed)

    def _drop_caps(self, now: float) -> None:
        """Of those whom RADIUS knows no more, once nothing of theirs runs: names come and go for years."""
        self._ended.update(self.authorizer.take_ended())
        for name in list(self._ended):
            is_back = self.authorizer.is_served(name)
            if not is_back and self._caps.is_used(name, now - UNUSED_CAP_S):
                continue
            self._ended.discard(name)
            if not is_back:
                self.set_caps({name: (0.0, 0.0)})

    def _demanded(self, worker: Worker, demands: dict[str, list[Any]]) -> None:
        now = time.monotonic()
        for name, (down, down_waiting, up, up_waiting) in demands.items():
            self._caps.report(name, worker.pid, Demand(down, down_waiting), Demand(up, up_waiting), now)
        if len(self._worker_pids()) > 1:
            self._tell_caps(demands)

    def _tell_caps(self, names: Iterable[str]) -> None:
        """Shares that are others than the workers know."""
        now, pids = time.monotonic(), self._worker_pids()
        rows: dict[int, dict[str, Rates]] = {pid: {} for pid in pids}
        for name in names:
            for pid, share in self._caps.news(name, pids, now).items():
                rows[pid][name] = share
        for worker in list(self.server.workers):
            told = list(rows.get(worker.pid, {}).items())
            for start in range(0, len(told), CAPS_PER_FRAME):
                worker.send(CAPS, dict(told[start : start + CAPS_PER_FRAME]))

    def _tell_connections(self, names: Collection[str]) -> None:
        """What each worker's others have of these subscribers' connections."""
        rows = list(names)
        for worker in list(self.server.workers):
            for start in range(0, len(rows) if len(self._worker_pids()) > 1 else 0, CAPS_PER_FRAME):
                part = rows[start : start + CAPS_PER_FRAME]
                worker.send(CONNECTIONS, self._connections.elsewhere(worker.pid, part))

    def _worker_pids(self) -> list[int]:
        return [worker.pid for worker in self.server.workers if worker.pid]

    # Upkeep -----------------------------------------------------------------------------------------------------------

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            await self._border.look_aside()
            for line in self._limit_watch.news(self._reached(), time.monotonic()):
                log.warning("limit reached: %s", line)
            for address in self.authorizer.expired(time.monotonic()):
                self.server.broadcast(FORGET, {"address": address})
            self.follow_filters()
            self._drop_caps(time.monotonic())
            self.accounting.tick()
            self._follow_dynamic()
            own = own_addresses()
            if own != self._own:
                self._own = own
                self.server.broadcast(SETTINGS, self.worker_settings())

    def _use(self, settings: ConcentratorSettings) -> None:
        """Raises SettingsError before anything is another."""
        radius = settings.radius
        client = None
        if radius.enabled:
            for name, limit in (("password", MAX_PASSWORD_OCTETS), ("nas_identifier", MAX_TEXT_OCTETS)):
                if len(getattr(radius, name).encode()) > limit:
                    raise SettingsError(f"radius.{name} is too long: RADIUS takes at most {limit} octets")
            try:
                client = RadiusClient(
                    [split_host(server, RADIUS_PORT) for server in radius.server],
                    radius.secret.encode(),
                    timeout_s=radius.timeout_s,
                    tries=radius.tries,
                    enterprise=radius.enterprise,
                    nas_identifier=radius.nas_identifier,
                )
            except RadiusError as error:
                raise SettingsError(str(error)) from None
            if self._radius is not None:
                client.counters.update(self._radius.counters)
        self.settings = settings
        authorizer = Authorizer(settings.subscribers, settings.radius, settings.general.cookie_secret)
        authorizer.inherit(self.authorizer, time.monotonic())
        self.authorizer = authorizer
        self._radius = client

    def _run(self, work: Any) -> None:
        """A task that is kept from being collected while it runs."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _without(proven: Verdict | None, who: Mapping[str, Any]) -> Verdict | None:
    """What a cookie has proven before AAA ended it."""
    if proven is None or proven.subscriber != who.get("subscriber"):
        return proven
    return Verdict("reject", "", 0.0, Reason.MOVED if who["end"] == "warm" else Reason.WITHDRAWN)
