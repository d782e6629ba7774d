"""The WANs as they are kept: watches the kernel, judges each WAN, and makes endpoints, routes, rules and nft follow.

Wiring only. What is wanted is decided in :mod:`cpe_mcp.paths` (pure); what is done, in :mod:`cpe_mcp.kernel`. The one thing
that happens outside the reconciler is urgent: a dead WAN's endpoint is deleted in the handler that learnt of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from cpe_mcp.aaa.presenter import Presenter
from cpe_mcp.kernel.device_bytes import DeviceBytes
from cpe_mcp.kernel.events import KernelEvents
from cpe_mcp.kernel.mptcp_events import MptcpEvents
from cpe_mcp.kernel.mptcp_probe import look
from cpe_mcp.kernel.probe import LIFE_S, Answer, Prober
from cpe_mcp.kernel.routes import RouteKernel
from cpe_mcp.kernel.subflows import SubflowDump
from cpe_mcp.kernel.sysctl import tune
from cpe_mcp.paths.common_silence import silence_of
from cpe_mcp.paths.health import (
    DEAD,
    DEAD_PROBE_S,
    HELD,
    PROBE_SPACING_S,
    RETURNING,
    UNHEARD,
    UP,
    Sampler,
    Silence,
    WanHealth,
)
from cpe_mcp.paths.interfaces import InterfaceView, device_warning
from cpe_mcp.paths.observed import EVENT_SUB_ESTABLISHED, MptcpEvent, Observed
from cpe_mcp.paths.pace import Pace
from cpe_mcp.paths.quality import begins_last
from cpe_mcp.paths.rates import RateMeter
from cpe_mcp.paths.reconcile import carrying, plan_routes, wanted_endpoints, wanted_routes, wanted_rules
from cpe_mcp.paths.scheme import (
    NOWHERE,
    Distribution,
    Distributor,
    Thresholds,
    split_scheme,
)
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.paths.subflow_tracker import Repair, SubflowTracker
from cpe_mcp.policy.handshakes import UNANSWERED
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import RouterSettings
from cpe_mcp.settings.router import PathsSettings
from cpe_mcp.upstream.endpoint_keeper import EndpointKeeper
from cpe_mcp.upstream.interception_keeper import InterceptionKeeper
from cpe_mcp.upstream.quota_keeper import QuotaKeeper
from cpe_mcp.upstream.rounds import Rounds
from cpe_mcp.upstream.tuning import ROUTER
from cpe_mcp.upstream.wan import Wan

log = logging.getLogger(__name__)

BUSY_SAMPLE_S = 0.03
"""Between two looks at the subflows while traffic runs: half of it is added to every detection."""
IDLE_SAMPLE_S, METERED_SAMPLE_S = 0.3, 0.15
"""Between two looks at the byte counters otherwise: how late the first traffic is noticed. The latter where there is a metered
WAN, which is probed once a minute only: with a radio's time to wake up, it is within a second that such a line is known to be
dead to which somebody turns. Each look costs 0.1 ms."""
IDLE_DUMP_S, QUIET_DUMP_S = 1.0, 3.0
"""And at the subflows: while anything moves, and while next to nothing does."""
QUIET_MBIT = 0.004
"""500 octets a second on every WAN: probes and keepalives."""
SAMPLE_SHARE = 0.1
"""With many flows a look takes longer; never spend more of the time on it than this."""
TRAFFIC_MBIT = 0.1
"""Below this on every WAN nothing worth watching closely runs."""
ENDPOINT_CHECK_S = 1.5
"""Between two looks at the endpoints and limits, whose changes by others nothing tells: they are back within 2 s."""
BRIDGE_CHECK_S = 6.0
"""And at the filter of bridged packets, a module that somebody may load."""
SETTLE_S = 0.05
"""Events come in bunches: one round of reconciling for all of them. What is urgent was done in the handler."""
PROBED_MAX = 3
"""Concentrators that one probe is sent to."""
BURST, CHURN_S = 20, 0.5
"""Rounds in quick succession, and the time between two when changes never end: a return or another address takes a handful,
and a routing daemon that changes a route every few milliseconds must not cost more than two looks a second."""
REPAIRS_KEPT = 64
"""Addresses of whose repairs is known. A line that is renumbered every day has another one each time."""
PROBLEMS_KEPT = 256
"""Problems that are not told a second time; they name addresses."""
SLOW_S = 60.0
"""Everything is compared again this often, whatever events said. One look at all routes costs pyroute2 some 30 ms."""


class CheckTarget(NamedTuple):
    """The concentrator that is asked whether Multipath TCP gets through."""

    address: str
    port: int
    presenter: Presenter


class PathManager:
    """See the module. ``on_change`` is called when :meth:`wans` may say something new."""

    def __init__(self, settings: RouterSettings, *, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._wans: dict[str, Wan] = {}
        self._prober = Prober(self._probe_answered)
        self._distributor = Distributor(thresholds(settings.paths))
        self._places: Distribution = NOWHERE
        self._ordered_scheme = ""
        self._interception = InterceptionKeeper(settings, complain=self._complain, on_change=on_change)
        self._quotas = QuotaKeeper(settings)
        self._sampler = Sampler()
        self._next_look = 0.0
        """When the subflows are looked at again, busy or not."""
        self._looks_again = False
        """That is soon, for bytes that the last look found waiting."""
        self._tracker = SubflowTracker()
        self._repairs: dict[str, Repair] = {}
        """By local address."""
        self._concentrators: tuple[tuple[str, int], ...] = ()
        self._others: tuple[tuple[str, int], ...] = ()
        self.on_unheard: Callable[[frozenset[str]], None] = lambda addresses: None
        """Told the addresses of concentrators that answer probes over no WAN."""
        self.on_heard: Callable[[frozenset[str]], None] = lambda addresses: None
        """Told the same when one of them is heard again."""
        self.on_looked: Callable[[str, str], None] = lambda wan, outcome: None
        """Told what a look at Multipath TCP over a WAN has shown: an outcome as the workers count them."""
        self._check_targets: tuple[CheckTarget, ...] = ()
        self._interfaces: Mapping[str, InterfaceView] = {}
        """netifd's, by name; empty where there is no netifd."""
        self._checks: set[asyncio.Task[None]] = set()
        self._told: tuple[object, ...] = ()
        self._unheard: frozenset[str] = frozenset()
        """Addresses of concentrators that answer over no WAN."""
        self._dirty = asyncio.Event()
        self._held = contextlib.AsyncExitStack()
        """What :meth:`start` took, so that :meth:`stop` gives back just that, also after a start that failed halfway."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routes")
        self._problems: dict[str, None] = {}
        self._pace = Pace(BURST, CHURN_S)
        self.on_hopeless: Callable[[str], None] = lambda why: None
        """Told when the WANs have long not been judged, or nothing been reconciled, and trying again does not help."""
        self._watching = Rounds("judging the WANs", self._hopeless)
        self._keeping = Rounds("reconciling with the kernel", self._hopeless)
        self._make_wans()

    # For the daemon ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take hold of the kernel. Raises OSError where it has no MPTCP or we lack the rights."""
        if self._settings.paths.tune_kernel:
            changes, problems = tune(ROUTER)
            for line in changes:
                log.info("kernel: %s", line)
            for line in problems:
                log.warning("kernel: %s", line)
        held = self._held
        self._endpoints = EndpointKeeper(self._complain)
        held.callback(self._endpoints.close)
        held.callback(self._delete_all_endpoints)
        self._subflows = SubflowDump()
        held.callback(self._subflows.close)
        held.callback(self._thread.shutdown)
        self._routes = await self._in_thread(RouteKernel)
        held.push_async_callback(self._remove_routes)
        self._device_bytes = DeviceBytes()
        held.callback(self._device_bytes.close)
        self._quotas.start()
        held.push_async_callback(self._quotas.stop)
        self._count_bytes(time.monotonic())
        held.callback(self._prober.close)
        held.push_async_callback(self._end_checks)
        with contextlib.suppress(OSError):  # before Linux 5.12: a look at the subflows finds the same, later
            self._mptcp_events = MptcpEvents(
                self._endpoints.events_group(), on_event=self._mptcp_event, on_overrun=self._mptcp_overrun
            )
            held.callback(self._mptcp_events.close)
            self._mptcp_events.start()
        self._interception.start()  # later than the routes: it must end before the rule that its packets need
        held.callback(self._interception.remove)
        self._events = KernelEvents(on_lost=self._lost, on_change=self._dirty.set, on_nft=self._nft_touched)
        held.callback(self._events.close)
        self._events.start()
        self._interception.look_at_bridges()
        await self._reconcile()
        held.callback(self._interception.remove_names)
        for work in (self._watch(), self._keep(), self._interception.keep_names()):
            held.push_async_callback(_cancel, asyncio.create_task(work))

    async def stop(self) -> None:
        """Remove every trace but the kernel tuning and the MPTCP limits: they harm nobody, and running flows rely on them."""
        await self._held.aclose()

    def _delete_all_endpoints(self) -> None:
        self._endpoints.delete_all({wan.view.ifindex for wan in self._wans.values() if wan.view is not None})

    async def _remove_routes(self) -> None:
        observed = await self._in_thread(self._routes.observe, [])
        await self._in_thread(self._routes.apply, plan_routes(frozenset(), frozenset(), observed))
        await self._in_thread(self._routes.close)

    async def configure(self, settings: RouterSettings) -> None:
        """Other settings. WANs that are still there keep their state."""
        before, after = ({(w.name, w.device) for w in s.wans if w.enabled} for s in (self._settings, settings))
        for name, _ in before - after:
            self._delete_endpoints(name)  # as long as the old device is known
        self._distributor.configure(thresholds(settings.paths))
        self._settings = settings
        self._quotas.configure(settings)
        self._interception.configure(settings)
        self._make_wans()
        await self._reconcile()
        self._on_change()

    def wans(self) -> tuple[WanView, ...]:
        """Usable WANs, best first."""
        return self._views(self._places.order)

    def other_wans(self) -> tuple[WanView, ...]:
        """Healthy WANs that take no first subflow under the scheme."""
        return self._views(
            [n for n, wan in self._wans.items() if wan.health.is_usable() and n not in self._places.order]
        )

    def last_ways(self) -> tuple[WanView, ...]:
        """While no WAN is usable: those with link, address and route. No concentrator answers over them; others may."""
        if any(wan.health.is_usable() for wan in self._wans.values()):
            return ()
        return self._views([name for name, wan in self._wans.items() if wan.health.state in (DEAD, RETURNING, HELD)])

    def _views(self, names: Iterable[str]) -> tuple[WanView, ...]:
        views = (self._wans[name].worker_view() for name in names)
        return tuple(view for view in views if view is not None)

    def report(self) -> list[dict[str, Any]]:
        """One row per WAN, for people."""
        now = time.monotonic()
        return [
            {
                **wan.row(now),
                "place": self._place(wan.name),
                "backup": wan.name in self._places.backup,
                "quota": self._quotas.report(wan.name),
            }
            for wan in self._wans.values()
        ]

    def set_used(self, name: str, used_gb: float) -> None:
        """See :meth:`QuotaKeeper.correct`. Raises ValueError."""
        self._quotas.correct(name, used_gb)
        self._take_quotas()
        self._turn()

    def subflow_counts(self) -> dict[str, int]:
        """Established subflows of each WAN that carries or is in backup, and over which concentrators are heard: without them
        nothing that is missing says anything of the WAN."""
        placed = self._places.carrying | self._places.backup
        return {
            name: wan.subflows for name, wan in self._wans.items() if name in placed and wan.health.state != UNHEARD
        }

    def bytes_by_wan(self) -> dict[str, tuple[int, int]]:
        """``name -> (up, down)``: all bytes of each WAN's device since the daemon started."""
        return {wan.name: (wan.sent, wan.received) for wan in self._wans.values()}

    def set_concentrators(
        self, concentrators: Sequence[tuple[str, int]], others: Sequence[tuple[str, int]] = ()
    ) -> None:
        """All that may be used, best first, and ``others`` that are known: probes go to the first, and never to ``others``; the
        LAN is kept away from all."""
        self._concentrators, self._others = tuple(concentrators), tuple(others)
        for wan in self._wans.values():
            wan.probe_target = 0
        self._dirty.set()

    def set_interfaces(self, interfaces: Mapping[str, InterfaceView]) -> None:
        """What netifd says now: a reason to look at once."""
        self._interfaces = interfaces
        for line in self._device_warnings():
            self._complain(line)
        self._dirty.set()
        self._on_change()

    def set_stripping(self, evidence: Mapping[str, str]) -> None:
        """WANs that remove Multipath TCP, while others let it through, and how that is known."""
        for wan in self._wans.values():
            before, wan.health.quality.stripped = wan.health.quality.stripped, evidence.get(wan.name, "")
            if bool(before) != bool(wan.health.quality.stripped):
                self._judged(wan, wan.health.state, wan.health.is_usable())
                self._turn()

    def set_check_targets(self, targets: Sequence[tuple[str, int, Presenter]]) -> None:
        """Usable concentrators, best first, as ``(address, port, presenter)``: who may be asked whether MPTCP gets through."""
        self._check_targets = tuple(CheckTarget(*target) for target in targets)

    def set_scheme(self, scheme: str) -> None:
        """What RADIUS orders for this subscriber, in place of the settings' scheme; "" for nothing."""
        if scheme == self._ordered_scheme:
            return
        self._ordered_scheme = scheme
        if scheme and not self._is_possible(scheme):
            log.warning("RADIUS orders scheme %s, and there is no such WAN here: that of the settings counts", scheme)
        self._turn()

    def _is_possible(self, scheme: str) -> bool:
        _, wan = split_scheme(scheme)
        return not wan or wan in self._wans

    def scheme(self) -> tuple[str, str]:
        """``(scheme, reason)`` in force: reason is why the WANs have their places."""
        ordered = self._ordered_scheme
        return ordered if ordered and self._is_possible(ordered) else self._settings.paths.scheme, self._places.reason

    def cannot_take(self) -> str:
        """See :class:`InterceptionKeeper`, this and the following."""
        return self._interception.cannot_take()

    def set_interception(self, on: bool, ipv6: bool) -> None:
        """Take new connections, IPv6 ones too, or leave them to plain forwarding."""
        self._interception.take(on, ipv6)

    def set_intercept_port(self, port: int) -> None:
        """Where a worker listens."""
        self._interception.listens_on(port)

    def add_direct(self, address: str, port: int) -> None:
        """New connections to this server go direct for a while."""
        self._interception.add_direct(address, port)

    def warnings(self) -> list[str]:
        """What the settings ask for and does not take place, one sentence each."""
        failing = [rounds.problem for rounds in (self._watching, self._keeping) if rounds.problem]
        return [*failing, *self._interception.warnings(), *self._device_warnings()]

    def _hopeless(self, why: str) -> None:
        self.on_hopeless(why)

    def _device_warnings(self) -> list[str]:
        lines = [device_warning(wan.name, wan.device, self._interface(wan)) for wan in self._wans.values()]
        return [line for line in lines if line]

    def names_work(self) -> bool:
        """Whether dnsmasq fills the sets of the names in rules."""
        return self._interception.names_work()

    def rule_counters(self) -> dict[str, int]:
        """New connections that met each rule, by the rule's counter name."""
        return self._interception.counters()

    def trouble(self, wan: str, reason: str) -> None:
        """A worker could not reach the concentrator over this WAN."""
        if wan in self._wans:
            self._wans[wan].is_accused = True
            self._wans[wan].health.doubt(time.monotonic(), TEXTS.get(reason, reason))
            self._turn()

    # Judging ----------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Look at the subflows often enough, probe what is due, act on what changed."""
        next_check = next_bridge_check = 0.0
        while True:
            started, wait = time.monotonic(), 0.0
            with self._watching.round():
                if started >= next_check:
                    next_check = started + ENDPOINT_CHECK_S
                    self._apply_endpoints()
                if started >= next_bridge_check:
                    next_bridge_check = started + BRIDGE_CHECK_S
                    self._interception.look_at_bridges()
                self._count_bytes(time.monotonic())
                is_looking = self._is_busy() or started >= self._next_look
                if is_looking:
                    self._next_look = started + (QUIET_DUMP_S if self._is_quiet() else IDLE_DUMP_S)
                    self._looks_again = bool(self._concentrators) and self._look_at_subflows(started)
                    if self._looks_again:
                        self._next_look = started + BUSY_SAMPLE_S
                # While nothing happens and nothing is due there is nothing to judge, only bytes to count.
                if is_looking or self._next_wake_s() <= PROBE_SPACING_S:
                    self._turn()
                    self._repair(time.monotonic())
                pace_s = BUSY_SAMPLE_S if self._looks_again or self._is_busy() else self._idle_sample_s()
                wait = min(pace_s, self._next_wake_s())
            spent = time.monotonic() - started
            await asyncio.sleep(max(wait, spent / SAMPLE_SHARE, 0.005, self._watching.pause_s()))

    def _idle_sample_s(self) -> float:
        is_metered = any(wan.settings.is_metered() for wan in self._wans.values())
        return METERED_SAMPLE_S if is_metered else IDLE_SAMPLE_S

    def _next_wake_s(self) -> float:
        """Until a WAN's health may have something to do."""
        now = time.monotonic()
        return min((wan.health.next_wake(now) for wan in self._wans.values()), default=IDLE_SAMPLE_S)

    def _look_at_subflows(self, now: float) -> bool:
        """Whether to look again soon: bytes were sent and are not acknowledged yet."""
        subflows = self._subflows.read(self._concentrators)
        for local in self._tracker.see(now, subflows):
            for wan in self._wans.values():
                if wan.view is not None and local in (wan.view.address4, wan.view.address6):
                    wan.health.quality.look_again(now)
        samples = self._sampler.take(now, subflows)
        for wan in self._wans.values():
            wan.subflows = 0
            for family in (4, 6):
                sample = samples.get(wan.view.address(family)) if wan.view is not None else None
                if sample is not None:
                    wan.subflows += sample.established
                    wan.health.observe(now, sample)
                    wan.queue.observe(now, sample.delay_s)
            if not wan.subflows:
                wan.health.without_subflows()
        return self._sampler.is_waited_for(now, is_second_look=self._looks_again)

    def _mptcp_event(self, event: MptcpEvent) -> None:
        now = time.monotonic()
        self._tracker.event(now, event)
        if event.kind == EVENT_SUB_ESTABLISHED and not event.is_server:
            for wan in self._wans.values():
                if wan.health.quality.stripped and wan.view is not None and event.local == wan.view.address4:
                    wan.health.quality.look_again(now)  # a join got through
        self._next_look = 0.0

    def _repair(self, now: float) -> None:
        """Connections that run and lack a healthy WAN get it back. One WAN at a time: they live on the others meanwhile."""
        if self._endpoints.pause_s() > 0:
            return
        for wan in self._wans.values():
            if wan.health.state != UP or wan.view is None or self._place(wan.name) not in ("carrying", "backup"):
                continue
            for address in filter(None, (wan.view.address4, wan.view.address6)):
                added_at = self._endpoints.added_at(address)
                if added_at is None:
                    continue
                repair = self._repair_of(address)
                standing = self._tracker.standing(now, address)
                losses = repair.due(now, standing, joined_from=added_at, rtt_s=wan.health.rtt_s)
                if losses:
                    causes = ", ".join(sorted({loss.cause() for loss in losses}))
                    log.info(
                        "wan %s: %d of %d connections lost their subflow (%s): made anew",
                        *(wan.name, len(losses), standing.total, causes),
                    )
                    wan.repairs += 1
                    self._delete_endpoints(wan.name, address)
                    self._dirty.set()
                    return

    def _repair_of(self, address: str) -> Repair:
        """The one that was not asked for longest is forgotten when there are too many."""
        repair = self._repairs.pop(address) if address in self._repairs else Repair()
        self._repairs[address] = repair
        if len(self._repairs) > REPAIRS_KEPT:
            del self._repairs[next(iter(self._repairs))]
        return repair

    def _turn(self) -> None:
        """Probes that are due, verdicts that are ripe, and what follows from them."""
        self._prober.poll()
        now = time.monotonic()
        is_busy, healths = self._is_busy(), self._healths()
        for wan in self._wans.values():
            before, was_usable = wan.health.state, wan.health.is_usable()
            wan.health.is_needed = is_busy
            wan.health.silence = silence_of(wan.name, healths)
            wan.health.tick(now)
            if wan.health.probe_due(now):
                self._probe(wan)
            self._judged(wan, before, was_usable)
            if wan.health.state == UP:
                self._check_mptcp(wan, now)
            elif wan.health.state == UNHEARD and before != UNHEARD:
                self._pardon_others(wan, now)
        self._follow_concentrators(now)
        self._release_held(now)
        self._place_wans(now)
        quotas = [wan.quota for wan in self._wans.values()]
        views = self.wans(), self.other_wans(), self.last_ways()
        told = (*views, self._places.carrying, self._places.reason, quotas)
        if told != self._told:
            self._told = told
            self._on_change()

    def _healths(self) -> dict[str, WanHealth]:
        return {name: wan.health for name, wan in self._wans.items()}

    def _pardon_others(self, wan: Wan, now: float) -> None:
        """This WAN's silence is that of others, too: the concentrators are to blame."""
        healths = self._healths()
        others = [row for row in self._wans.values() if silence_of(row.name, healths) != Silence.OWN]
        for other in others:
            before, was_usable = other.health.state, other.health.is_usable()
            if before != UNHEARD:
                other.health.concentrators_silent(now, f"silent together with {wan.name}")
                self._judged(other, before, was_usable)
        if not self._unheard:
            views = [row.view for row in (wan, *others) if row.view is not None]
            asked = [a for a, _ in self._concentrators if any(view.address(6 if ":" in a else 4) for view in views)]
            self._unheard = frozenset(asked[:PROBED_MAX])
            names = ", ".join(sorted({row.name for row in (wan, *others)}))
            log.warning("no concentrator answers over any WAN (%s); the WANs are not blamed for it", names)
            self.on_unheard(self._unheard)

    def _follow_concentrators(self, now: float) -> None:
        """Once one is heard over one WAN, the silence of others is theirs."""
        if not self._unheard:
            return
        healths = [wan.health for wan in self._wans.values()]
        if any(health.state in (UP, RETURNING, HELD) for health in healths):
            for health in healths:
                health.concentrators_heard(now)
            heard, self._unheard = self._unheard, frozenset()
            log.info("a concentrator is heard again")
            self.on_heard(heard)

    def _release_held(self, now: float) -> None:
        """Better a line that flaps than none."""
        if any(wan.health.is_usable() for wan in self._wans.values()):
            return
        for wan in self._wans.values():
            before = wan.health.state
            wan.health.release(now)
            self._judged(wan, before, was_usable=False)

    def _check_mptcp(self, wan: Wan, now: float) -> None:
        """Look whether MPTCP gets through, where that is due."""
        view, quality = wan.view, wan.health.quality
        if view is None:
            return
        for target in self._check_targets:
            source = view.address(6 if ":" in target.address else 4)
            if source and quality.check_due(now, up_since=wan.health.since, is_metered=wan.settings.is_metered()):
                task = asyncio.get_running_loop().create_task(self._look_at_mptcp(wan, source, target))
                self._checks.add(task)
                task.add_done_callback(self._checks.discard)
                return

    async def _look_at_mptcp(self, wan: Wan, source: str, target: CheckTarget) -> None:
        outcome = await look(
            device=wan.device, source=source, address=target.address, port=target.port, presenter=target.presenter
        )
        wan.health.quality.checked(time.monotonic(), is_answered=outcome not in ("", UNANSWERED))
        log.debug("wan %s: a look at Multipath TCP: %s", wan.name, outcome or "nothing")
        if outcome:
            self.on_looked(wan.name, outcome)

    async def _end_checks(self) -> None:
        for task in list(self._checks):
            await _cancel(task)

    def _place_wans(self, now: float) -> None:
        """Ask the scheme; what it says is in force when this returns."""
        usable = [wan for wan in self._wans.values() if wan.health.is_usable()]
        stripping = begins_last({wan.name: bool(wan.health.quality.stripped) for wan in usable})
        lines = [wan.line(comes_last=wan.name in stripping) for wan in usable]
        before, self._places = self._places, self._distributor.update(now, self.scheme()[0], lines)
        if before[1:4] == self._places[1:4]:
            return
        log.info(
            "carrying: %s; backup: %s; absent: %s (%s)",
            *(", ".join(sorted(names)) or "none" for names in self._places[1:4]),
            TEXTS[self._places.reason],
        )
        for name in (before.absent - self._places.absent) & self._wans.keys():
            self._wans[name].health.ask(now)
        self._apply_endpoints()

    def _place(self, name: str) -> str:
        """``carrying``, ``backup``, ``absent``; "" for a WAN that is not usable."""
        return next((place for place in ("carrying", "backup", "absent") if name in getattr(self._places, place)), "")

    def _judged(self, wan: Wan, before: str, was_usable: bool) -> None:
        health = wan.health
        if was_usable and not health.is_usable():
            if wan.name not in self._carrying():
                self._delete_endpoints(wan.name)  # first of all: the kernel moves the flows within 0.15 s of this
            log.warning("wan %s is %s: %s (%s)", wan.name, health.state, TEXTS[health.reason], health.detail)
            self._dirty.set()
            if health.state == DEAD:
                self._ask_others(wan)
        elif health.is_usable() and not was_usable:
            if before == RETURNING and not health.is_heard_again():
                self._delete_endpoints(wan.name)  # kept as the last one: new subflows are quicker than old timers
            log.info("wan %s is up: %s", wan.name, health.detail)
            self._dirty.set()
        elif before != health.state and health.state == HELD:
            log.warning("wan %s: %s (%s)", wan.name, TEXTS[health.reason], health.detail)
        elif before != health.state:
            log.debug("wan %s: %s -> %s (%s)", wan.name, before, health.state, health.detail)
        complaint, detail = health.quality.complaint()
        if complaint != wan.complaint:
            wan.complaint = complaint
            if complaint and complaint != Reason.ACCESS_STRIPS:  # who finds that out logs it
                log.warning("wan %s works, but %s (%s)", wan.name, TEXTS[complaint], detail)
            elif health.is_usable():
                log.info("wan %s is as it should be again", wan.name)
            self._on_change()

    def _ask_others(self, dead: Wan) -> None:
        """Whether the concentrators live, or it was they who fell silent."""
        for wan in self._wans.values():
            if wan is not dead and wan.health.last_sign() < dead.health.unanswered_from:
                wan.health.ask(time.monotonic())

    def _probe(self, wan: Wan) -> None:
        view = wan.view
        targets = [(a, p) for a, p in self._concentrators if view is not None and view.address(6 if ":" in a else 4)]
        if view is None or not targets:
            wan.health.answered(time.monotonic(), 0.0)  # nothing to ask: the benefit of the doubt
            return
        # The best one first; others too, because a concentrator that is down must not be taken for a dead line. A line
        # that is not in doubt is probed where it answered last.
        if wan.health.state == UP:
            chosen = [wan.probe_target % len(targets)]
        else:
            is_pressing = wan.is_accused or wan.health.probes_out > 1
            chosen = list(range(len(targets)))[: PROBED_MAX if is_pressing else 1]
        is_dead = wan.health.state in (DEAD, UNHEARD)
        for number in chosen:
            address, port = targets[number]
            self._prober.send(
                wan.name,
                device=wan.device,
                source=view.address(6 if ":" in address else 4),
                address=address,
                port=port,
                is_timed=number == 0,
                life_s=max(2 * DEAD_PROBE_S - 0.05, 3 * wan.health.rtt_s) if is_dead else LIFE_S,
            )

    def _probe_answered(self, answer: Answer) -> None:
        wan = self._wans.get(answer.wan)
        if wan is None:
            return
        before, was_usable = wan.health.state, wan.health.is_usable()
        self._prober.drop(answer.wan)
        wan.is_accused = False
        wan.health.answered(time.monotonic(), answer.rtt_s, answer.lost)
        if wan.view is not None:
            family = [a for a, _ in self._concentrators if wan.view.address(6 if ":" in a else 4)]
            wan.probe_target = family.index(answer.address) if answer.address in family else 0
        self._judged(wan, before, was_usable)
        if wan.health.state != before:
            self._turn()

    def _lost(self, index: int, address: str) -> None:
        """Netlink says that a link or an address has gone: no time for a round of reconciling."""
        for wan in self._wans.values():
            view = wan.view
            if view is None or view.ifindex != index:
                continue
            # Whatever is thought of the line: nothing gets through any more, and a device that has gone comes back as
            # another one. Its old address may have an endpoint still when the line has got a second one.
            self._delete_endpoints(wan.name, address)
            if address in ("", view.address4, view.address6):
                was_usable = wan.health.is_usable()
                before = wan.health.state
                if address:
                    wan.view = view = view.without(address)
                if not (address and view.is_ready()):
                    wan.health.absent(time.monotonic(), Reason.WAN_NO_ADDRESS if address else Reason.WAN_LINK_DOWN)
                    self._prober.drop(wan.name)
                self._judged(wan, before, was_usable)
        self._dirty.set()
        self._turn()

    def _is_busy(self) -> bool:
        return any(max(wan.meter.rate) > TRAFFIC_MBIT for wan in self._wans.values())

    def _is_quiet(self) -> bool:
        return all(max(wan.meter.rate) < QUIET_MBIT for wan in self._wans.values())

    def _count_bytes(self, now: float) -> None:
        """Byte counters of the devices, from the namespace this process is in."""
        counters = self._device_bytes.read(wan.device for wan in self._wans.values())
        for wan in self._wans.values():
            if wan.device in counters and wan.count(now, *counters[wan.device]) and wan.settings.is_metered():
                # First bytes after a while over a WAN that is hardly ever probed: does it still live?
                self._next_look = 0.0
        self._quotas.observe(counters)
        self._take_quotas()

    def _take_quotas(self) -> None:
        for wan in self._wans.values():
            wan.quota = self._quotas.state(wan.name)

    # Reconciling ------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Reconcile whenever something changed, and every few seconds whatever happens."""
        while True:
            # Not wait_for: before Python 3.12 it may swallow the cancellation that ends this task.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SLOW_S):
                    await self._dirty.wait()
            await asyncio.sleep(max(SETTLE_S, self._pace.wait_s(time.monotonic())))
            self._pace.took(time.monotonic())
            self._dirty.clear()
            with self._keeping.round():
                await self._reconcile()
            pause_s = max(self._endpoints.pause_s(), self._keeping.pause_s())
            if pause_s > 0:
                await asyncio.sleep(pause_s + 0.01)
                self._dirty.set()

    async def _reconcile(self) -> None:
        names = [wan.device for wan in self._wans.values()]
        observed = await self._in_thread(self._routes.observe, names)
        self._see(observed)
        order = list(self._wans)
        views = {name: wan.view for name, wan in self._wans.items() if wan.view is not None}
        plan = plan_routes(wanted_routes(order, views), wanted_rules(order, views), observed)
        if not plan.is_empty():
            for line in await self._in_thread(self._routes.apply, plan):
                self._complain(f"route not set: {line}")
        # The lines before what is taken: nft takes its time.
        self._turn()
        self._apply_endpoints()
        self._interception.see(
            [(wan.device, wan.view) for wan in self._wans.values()], [*self._concentrators, *self._others]
        )
        await self._in_thread(self._interception.apply)

    def _see(self, observed: Observed) -> None:
        """What the kernel shows becomes presence or absence of each WAN."""
        now = time.monotonic()
        for wan in self._wans.values():
            old, view = wan.view, observed.devices.get(wan.device)
            if old is not None and (view is None or view.ifindex != old.ifindex):
                self._delete_endpoints(wan.name)  # as long as the old device is known
            wan.view = view
            before, was_usable = wan.health.state, wan.health.is_usable()
            if view is None or not view.is_up:
                self._absent(wan, now, Reason.WAN_LINK_DOWN)
            elif not (view.address4 or view.address6):
                self._absent(wan, now, Reason.WAN_NO_ADDRESS)
            elif not view.is_ready():
                self._absent(wan, now, Reason.WAN_NO_ROUTE)
            else:
                wan.health.present(now, can_probe=bool(self._concentrators))
            self._judged(wan, before, was_usable)

    def _absent(self, wan: Wan, now: float, reason: str) -> None:
        """Who knows better why is netifd."""
        interface, before = self._interface(wan), wan.health.reason
        if interface is not None and not interface.is_up:
            wan.health.absent(now, Reason.WAN_NETIFD_DOWN, interface.why_down())
        else:
            wan.health.absent(now, reason)
        if wan.health.reason != before:
            self._on_change()

    def _interface(self, wan: Wan) -> InterfaceView | None:
        return self._interfaces.get(wan.settings.interface or wan.name)

    def _apply_endpoints(self) -> None:
        views = {name: wan.view for name, wan in self._wans.items() if wan.view is not None}
        present = self._carrying() - self._places.absent
        wanted = wanted_endpoints(list(self._wans), views, present, self._places.backup)
        self._endpoints.apply(wanted, {view.ifindex for view in views.values()})

    def _carrying(self) -> frozenset[str]:
        """WANs that are to have endpoints."""
        usable = [name for name, wan in self._wans.items() if wan.health.is_usable()]
        return carrying(usable, [name for name, wan in self._wans.items() if wan.health.state in (DEAD, RETURNING)])

    def _delete_endpoints(self, name: str, address: str = "") -> None:
        """All endpoints of one WAN, or that of one of its addresses, now."""
        view = self._wans[name].view if name in self._wans else None
        if view is None:
            return
        self._endpoints.delete(name, view.ifindex, address)
        self._wans[name].health.without_subflows()

    def _nft_touched(self) -> None:
        """Somebody, maybe we ourselves, changed something in nftables."""
        self._interception.touched()
        self._dirty.set()

    def _mptcp_overrun(self) -> None:
        """Some events were lost: look at what is there."""
        if self._concentrators:
            self._tracker.see(time.monotonic(), self._subflows.read(self._concentrators))

    # Small things -----------------------------------------------------------------------------------------------------

    def _make_wans(self) -> None:
        now = time.monotonic()
        paths = self._settings.paths
        silent_s, return_s = paths.silent_ms / 1000, paths.return_s
        flaps = (paths.flap_count, paths.flap_window_s, paths.hold_s)
        old, self._wans = self._wans, {}
        for wan in self._settings.wans:
            if not wan.enabled:
                continue
            kept = old.get(wan.name)
            if kept is not None and kept.device == wan.device:
                kept.settings = wan
                kept.health.configure(silent_s=silent_s, return_s=return_s, flaps=flaps, is_metered=wan.is_metered())
                self._wans[wan.name] = kept
                continue
            health = WanHealth(silent_s=silent_s, return_s=return_s, now=now, flaps=flaps, is_metered=wan.is_metered())
            meter = RateMeter(known_down_mbit=wan.rate_down_mbit, known_up_mbit=wan.rate_up_mbit)
            self._wans[wan.name] = Wan(wan, health, meter)

    def _complain(self, line: str) -> None:
        """Each problem once, not with every round."""
        if line not in self._problems:
            self._problems[line] = None
            if len(self._problems) > PROBLEMS_KEPT:
                del self._problems[next(iter(self._problems))]
            log.warning("%s", line)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def thresholds(paths: PathsSettings) -> Thresholds:
    """When WANs join and leave."""
    return Thresholds(
        busy_share=paths.busy_percent / 100,
        busy_s=paths.busy_s,
        idle_share=paths.idle_percent / 100,
        idle_s=paths.idle_s,
    )
