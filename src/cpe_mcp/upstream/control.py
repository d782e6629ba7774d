"""The upstream MCP's control: takes what path manager, discovery, RADIUS and workers say, and makes one snapshot of it.

Everything that changes anything ends in :meth:`Control.changed`; the snapshot is built once per turn of the event loop, and
sent only when it differs. Answers for people are in :mod:`.answers`; processes, signals and files in :mod:`.daemon`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cpe_mcp.aaa.cookie import NO_CREDENTIAL, Credential
from cpe_mcp.aaa.presenter import Presenter, Presenters
from cpe_mcp.control.frames import (
    ANSWERED,
    CONTROL_SOCKET,
    COUNTERS,
    DEMAND,
    DIRECT,
    DROP,
    DROPPED,
    FLOWS,
    LIST,
    RECORDS,
    SNAPSHOT,
    TROUBLE,
)
from cpe_mcp.control.server import ControlServer, Worker
from cpe_mcp.discovery.candidates import Candidate, CandidateTable, Line
from cpe_mcp.discovery.dns_source import STALE_S
from cpe_mcp.discovery.dns_source import Answer as Answered
from cpe_mcp.discovery.lease import Lease
from cpe_mcp.discovery.trust import Refusals
from cpe_mcp.kernel.mptcp_counters import JOIN_SYN_TX, JOIN_SYNACK_RX, mptcp_counters
from cpe_mcp.paths.snapshot import EMPTY, ConcentratorView, WanView, to_wire
from cpe_mcp.policy.concentrator_health import DEAD, SUSPECT, Answer, ConcentratorHealth
from cpe_mcp.policy.decide import BLOCK
from cpe_mcp.policy.ipv6_proof import Ipv6Proof
from cpe_mcp.policy.masking import shortened
from cpe_mcp.policy.negotiation import REMOVED, UNKNOWN, Joins, Negotiations
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.settings import RouterSettings
from cpe_mcp.upstream.cap_keeper import CapKeeper
from cpe_mcp.upstream.concentrator_asker import ask_over
from cpe_mcp.upstream.ledger import Ledger
from cpe_mcp.upstream.snapshot_builder import build, credential_of, describe_changes, interception

log = logging.getLogger(__name__)

BUSY_S = 30.0
"""What a suggested wait of 0 in Convert Errors 64 and 65 means at least (RFC 8803 section 4.2.8)."""
REFUSED_S = 60.0
"""Pause after Convert Error 32: an operator's change of mind shows within a minute."""
FLOWS_TIMEOUT_S = 1.0
"""For the workers' lists of live flows and other answers; one that is busier than that is reported as silent."""
DIRECT_MAX = 4096
"""Destinations remembered as left to plain forwarding, for ``why``; as many as a port scan may leave behind."""
SETTLED_S = 5.0
"""A WAN that has had its endpoint for less may lack subflows for that reason alone."""
SILENCE = (Reason.CONCENTRATOR_UNREACHABLE, Reason.CONCENTRATOR_TIMEOUT)
"""Troubles that may be the WAN's."""


class Paths(Protocol):
    """What this module needs of :class:`cpe_mcp.upstream.path_manager.PathManager`."""

    def wans(self) -> tuple[WanView, ...]: ...
    def other_wans(self) -> tuple[WanView, ...]: ...
    def scheme(self) -> tuple[str, str]: ...
    def report(self) -> list[dict[str, Any]]: ...
    def warnings(self) -> list[str]: ...
    def names_work(self) -> bool: ...
    def bytes_by_wan(self) -> dict[str, Any]: ...
    def subflow_counts(self) -> dict[str, int]: ...
    def set_used(self, name: str, used_gb: float) -> None: ...
    def set_concentrators(
        self, concentrators: Sequence[tuple[str, int]], others: Sequence[tuple[str, int]] = ()
    ) -> None: ...
    def set_stripping(self, evidence: Mapping[str, str]) -> None: ...
    def set_check_targets(self, targets: Sequence[tuple[str, int, Presenter]]) -> None: ...
    def set_intercept_port(self, port: int) -> None: ...
    def set_interception(self, on: bool, ipv6: bool) -> None: ...
    def cannot_take(self) -> str: ...
    def add_direct(self, address: str, port: int) -> None: ...
    def trouble(self, wan: str, reason: str) -> None: ...


Ask = Callable[[Candidate, Sequence[WanView], Presenter], Awaitable[dict[str, Answer]]]
"""Whether a concentrator answers over these WANs."""


class LeftDirect(NamedTuple):
    """A destination whose new connections are forwarded."""

    until: float
    reason: str


class Query:
    """One question to some workers."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.waiting = set(workers)
        self.rows: list[dict[str, Any]] = []
        self.complete = asyncio.Event()

    def heard(self, worker: Worker, rows: Sequence[dict[str, Any]] = (), *, more: bool = False) -> None:
        """A worker answered, or is gone; ``more``: another frame follows."""
        self.rows += rows
        if not more:
            self.waiting.discard(worker)
        if not self.waiting:
            self.complete.set()


class Control:
    """One per daemon. ``authorization`` is "" while RADIUS has accepted or is not asked, else the reason why not."""

    def __init__(
        self, settings: RouterSettings, paths: Paths, *, congestion_controls: Sequence[str], ask: Ask = ask_over
    ) -> None:
        self.settings = settings
        self.paths = paths
        self.candidates = CandidateTable(
            settings.discovery,
            interfaces=trusted_interfaces(settings),
            lines=lines_of(settings),
            concentrators=settings.concentrators,
        )
        self.refusals = Refusals()
        self.authorization = ""
        self.blocks = False
        """Whether what RADIUS does not let through is refused and not forwarded (radius.on_reject, radius.on_timeout)."""
        self.granted = NO_CREDENTIAL
        self.on_refused: Callable[[], None] = lambda: None
        """A concentrator refuses what RADIUS has granted."""
        """What RADIUS gives to prove the subscriber with to concentrators that have no key of their own in the settings."""
        self.presenters = Presenters()
        self.caps = CapKeeper(lambda: self.workers)
        """What RADIUS grants this subscriber."""
        self.snapshot = EMPTY
        self.interception = (False, False)
        self.ipv6_proof = Ipv6Proof()
        self.ledger = Ledger()
        self.negotiations = Negotiations()
        self._joins_before = kernel_joins()
        self._mptcp_told: dict[str, str] = {}
        self._placed: dict[str, float] = {}
        """Since when a WAN has had its endpoint."""
        self.left_direct: dict[tuple[str, int], LeftDirect] = {}
        self.server = ControlServer(
            os.path.join(settings.general.run_dir, CONTROL_SOCKET),
            on_hello=self._on_hello,
            on_frame=self._on_frame,
            on_gone=self._on_gone,
        )
        self.on_rebuilt: Callable[[], None] = lambda: None
        """Called after every look at what is known; anything may be another now."""
        self.on_names: Callable[[tuple[str, ...]], None] = lambda names: None
        """Called when DNS is to be asked for other names."""
        self._names: tuple[str, ...] = ()
        self._congestion_controls = tuple(congestion_controls)
        self.health = ConcentratorHealth()
        self._ask_concentrator = ask
        self._asking: set[asyncio.Task[None]] = set()
        self._queries: dict[int, Query] = {}
        self._queries_made = 0
        self._protected: tuple[tuple[tuple[str, int], ...], ...] | None = None
        self._checked: tuple[ConcentratorView, ...] = ()
        self._scheduled: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handlers: Mapping[str, Callable[[Worker, Any], None]] = {
            RECORDS: self._records,
            COUNTERS: self._counters,
            DIRECT: self._direct,
            TROUBLE: self._trouble,
            ANSWERED: self._answered,
            FLOWS: self._flows,
            DROPPED: self._dropped,
            DEMAND: self.caps.demanded,
        }

    @property
    def now(self) -> float:
        """The event loop's clock, which is time.monotonic()."""
        return asyncio.get_running_loop().time()

    @property
    def workers(self) -> list[Worker]:
        """Those that have said hello, by index."""
        return sorted((worker for worker in self.server.workers if worker.pid), key=lambda worker: worker.index)

    def start(self) -> None:
        """Listen for workers. Raises OSError."""
        self.server.start()
        self.changed()

    def stop(self) -> None:
        """End interception, then leave the workers to themselves."""
        for task in self._asking:
            task.cancel()
        for handle in (self._scheduled, self._timer):
            if handle is not None:
                handle.cancel()
        if self.interception[0]:
            self.interception = (False, False)
            self.paths.set_interception(False, False)
        self.server.close()

    def configure(self, settings: RouterSettings) -> None:
        """Take new settings; what was learnt stays."""
        self.settings = settings
        self.candidates.configure(
            settings.discovery,
            interfaces=trusted_interfaces(settings),
            lines=lines_of(settings),
            concentrators=settings.concentrators,
        )
        self.changed()

    def grant(self, credential: Credential) -> None:
        """What RADIUS has granted to prove the subscriber with; another one is shown to those that refused the last."""
        if credential != self.granted:
            self.granted = credential
            self.candidates.unblock_all(Reason.CONCENTRATOR_REFUSED)
            self.changed()

    def look_at_joins(self) -> None:
        """Whether every WAN has subflows; every few seconds."""
        rows = self.paths.subflow_counts()
        # Not since its state changed: a WAN that is in doubt for a moment keeps its endpoint.
        self._placed = {name: self._placed.get(name, self.now) for name in rows}
        settled = {name: count for name, count in rows.items() if self.now - self._placed[name] >= SETTLED_S}
        self.negotiations.look(self.now, settled)
        told = self.mptcp()
        for name, found in told.items():
            before = self._mptcp_told.get(name, UNKNOWN)
            if found["state"] != before and REMOVED in (before, found["state"]):
                level = logging.WARNING if found["state"] == REMOVED else logging.INFO
                seen = "; ".join(row["text"] for row in found["evidence"])
                log.log(level, "wan %s: %s (%s)", name, found["text"], seen)
            self._mptcp_told[name] = found["state"]
        stripping = {name: found for name, found in told.items() if found["reason"] == Reason.ACCESS_STRIPS}
        self.paths.set_stripping({name: stripped_text(found) for name, found in stripping.items()})

    def mptcp(self) -> dict[str, Any]:
        """By WAN: whether Multipath TCP gets through it, and the evidence."""
        names = [wan.name for wan in self.settings.wans if wan.enabled]
        fallbacks = self.ledger.fallbacks()
        found = self.negotiations.report(self.now, names, Joins(0, 0), fallbacks)
        if any(row["state"] == REMOVED for row in found.values()):  # only then the kernel's counters are worth reading
            sent, answered = kernel_joins()
            joins = Joins(sent - self._joins_before.sent, answered - self._joins_before.answered)
            found = self.negotiations.report(self.now, names, joins, fallbacks)
        return found

    def concentrators(self) -> dict[str, Any]:
        """Every known one and what each source said, ready for JSON; see :meth:`CandidateTable.status`."""
        now = self.now
        status = self.candidates.status(now)
        for row in status["concentrators"]:
            row.setdefault("reason", "")
            row.setdefault("wait_s", None)
            health = row["health"] = self.health.report(row["name"], now)
            if row["usable"] and health["state"] == DEAD:
                row |= {"usable": False, "reason": Reason.CONCENTRATOR_UNREACHABLE, "wait_s": health["asks_again_s"]}
            row["text"] = "usable" if row["usable"] else TEXTS.get(row["reason"], row["reason"])
            row["reaches_ipv6"] = self.ipv6_proof.reaches(row["name"], now)
        return status

    async def live_flows(self, limit: int, text: str = "") -> tuple[list[dict[str, Any]], int]:
        """The newest live flows of all workers with ``text`` in them, and how many workers did not answer in time.

        Each flow's ``id`` is ``WORKER:NUMBER``, as :meth:`drop` takes it.
        """
        query = await self._ask(self.workers, LIST, {"limit": limit, "filter": text})
        flows = sorted(query.rows, key=lambda flow: float(flow["started"]), reverse=True)
        return flows[:limit], len(query.waiting)

    async def live_flow(self, index: int, number: int) -> dict[str, Any] | None:
        """One live flow; None: that worker has no such flow, or is not there."""
        query = await self._ask(self._of_index(index), LIST, {"flow": number})
        return query.rows[0] if query.rows else None

    async def drop(self, index: int, number: int) -> bool:
        """End a live flow. False: that worker has no such flow, or is not there."""
        query = await self._ask(self._of_index(index), DROP, {"flow": number})
        return any(row["dropped"] for row in query.rows)

    def _of_index(self, index: int) -> list[Worker]:
        return [worker for worker in self.workers if worker.index == index]

    async def _ask(self, workers: Sequence[Worker], kind: str, payload: Mapping[str, Any]) -> Query:
        """Ask these workers, and wait a moment for all to answer."""
        self._queries_made += 1
        number = self._queries_made
        query = self._queries[number] = Query(workers)
        for worker in workers:
            worker.send(kind, {**payload, "id": number})
        try:
            if workers:
                async with asyncio.timeout(FLOWS_TIMEOUT_S):
                    await query.complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._queries[number]
        return query

    def learn_dhcp(self, interface: str, family: int, lease: Lease | None) -> None:
        """A DHCP client's hook wrote or removed a lease file."""
        own = [address for wan in self.paths.wans() for address in (wan.address4, wan.address6) if address]
        before = self.candidates.candidates(self.now)
        self.candidates.learn_dhcp(interface, family, lease, self.now, own=own)
        for row in self.candidates.status(self.now)["sources"]:
            if row["discarded"] and (row["source"], row["interface"]) == (f"dhcp{family}", interface):
                log.warning("DHCP answer on %s: %s; the value before is kept", interface, row["discarded"])
        after = self.candidates.candidates(self.now)
        if before != after:
            log.info("concentrators: %s", ", ".join(candidate.name for candidate in after) or "none")
        self.changed()

    def learn_dns(self, name: str, answer: Answered) -> None:
        """DNS answered."""
        before = self.candidates.candidates(self.now)
        own = {address for wan in self.paths.wans() for address in (wan.address4, wan.address6) if address}
        mcps = tuple(row for row in answer.mcps if own.isdisjoint(row[0]))
        until = self.now + min(answer.ttl_s + STALE_S, answer.valid_s)
        self.candidates.learn_dns(name, mcps, until, dnssec=answer.dnssec, detail=answer.detail, now=self.now)
        after = self.candidates.candidates(self.now)
        if before != after:
            log.info("concentrators: %s", ", ".join(candidate.name for candidate in after) or "none")
        self.changed()

    def dns_failed(self, name: str, why: str) -> None:
        """DNS did not answer."""
        known = [row for row in self.candidates.status(self.now)["sources"] if row["interface"] == name]
        if not known or known[0]["discarded"] != why:
            log.warning("DNS for %s: %s%s", name, why, "; the answer before is kept" if known else "")
        self.candidates.dns_failed(name, why)
        self.changed()

    def concentrators_unheard(self, addresses: frozenset[str]) -> None:
        """None of these answers probes over any WAN: whoever has one of them is dead, without being asked again."""
        wans = {wan.name: Answer(False, 0.0, "no answer to probes") for wan in self.paths.wans()}
        for candidate in self.candidates.candidates(self.now):
            if wans and not addresses.isdisjoint(candidate.addresses) and self.health.is_usable(candidate.name):
                self.health.asked(candidate.name, wans, self.now)
                log.warning("concentrator %s is dead (no answer to probes over %s)", candidate.name, ", ".join(wans))
        self.changed()

    def concentrators_heard(self, addresses: frozenset[str]) -> None:
        """One of them is heard again: their service is asked soon."""
        for candidate in self.candidates.candidates(self.now):
            if not addresses.isdisjoint(candidate.addresses):
                self.health.heard(candidate.name, self.now)
        self.changed()

    # The snapshot ---------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something may be different: look once at the end of this turn of the loop."""
        if self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._scheduled = None
        now = self.now
        known = self.candidates.candidates(now)
        self.health.keep({candidate.name: candidate for candidate in known}, now)
        self.presenters.keep([candidate.name for candidate in known])
        self.ipv6_proof.keep({candidate.name: candidate.addresses for candidate in known})
        # Lines are probed by their way to the first one.
        self._protect(sorted(known, key=lambda row: not self.health.is_usable(row.name)))
        self._ask_due(known)
        usable = [row for row in self.candidates.usable(now) if self.health.is_usable(row.name)]
        self._tell_refused(now)
        names = self.candidates.dns_names(now)
        if names != self._names:
            self._names = names
            self.on_names(names)
        snapshot = build(
            self.settings,
            generation=self.snapshot.generation,
            wans=self.paths.wans(),
            other_wans=self.paths.other_wans(),
            scheme=self.paths.scheme(),
            usable=usable,
            left_alone="" if usable else self._left_alone(now),
            authorization=self.authorization,
            blocks=self.blocks,
            granted=self.granted,
            reaches_ipv6=lambda name: self.ipv6_proof.reaches(name, now),
            congestion_controls=self._congestion_controls,
        )
        checked = () if self.authorization else snapshot.concentrators
        if checked != self._checked:
            self._checked = checked
            self.paths.set_check_targets(
                [
                    (address, row.port, self.presenters.of(row.name, row.credential))
                    for row in checked
                    for address in row.addresses
                ]
            )
        if snapshot != self.snapshot:
            for line in describe_changes(self.snapshot, snapshot):
                log.info("%s", line)
            self.snapshot = snapshot._replace(generation=snapshot.generation + 1)
            self.server.broadcast(SNAPSHOT, to_wire(self.snapshot))
        self._intercept(interception(self.snapshot, workers=len(self.workers)))
        self._wake_at(
            self.candidates.next_change(now),
            self.health.next_wake(),
            self.ipv6_proof.next_change(now),
            self.refusals.next_change(now),
        )
        self.on_rebuilt()

    def _left_alone(self, now: float) -> str:
        """Why the best known concentrator is not usable."""
        for candidate in self.candidates.candidates(now):
            block = self.candidates.block_of(candidate.name, now)
            if block is not None:
                return block.reason
            if not self.health.is_usable(candidate.name):
                return Reason.CONCENTRATOR_UNREACHABLE
        return Reason.UNCONFIRMED if self.candidates.refused(now) else ""

    def _tell_refused(self, now: float) -> None:
        """Once each: somebody may want to draw this home's traffic to a machine of theirs, or a setting is missing."""
        for refusal in self.refusals.look(self.candidates.refused(now), now):
            log.warning(
                "%s %s names concentrator %s, which is not used: %s (manual: Secure discovery)",
                refusal.source,
                refusal.interface,
                ", ".join(refusal.addresses),
                TEXTS[refusal.reason],
            )

    def _ask_due(self, known: Sequence[Candidate]) -> None:
        """Ask those that are due; what they answer leads back to :meth:`changed`."""
        if not self.settings.general.enabled:
            return
        for candidate in known:
            if candidate.name not in self.health.due(self.now):
                continue
            self.health.asking(candidate.name)
            task = asyncio.get_running_loop().create_task(self._ask_one(candidate))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_one(self, candidate: Candidate) -> None:
        name, before = candidate.name, self.health.state(candidate.name)
        presenter = self.presenters.of(name, credential_of(candidate, self.granted))
        answers = await self._ask_concentrator(candidate, self._wans_to_ask(before), presenter)
        self.health.asked(name, answers, self.now)
        after = self.health.state(name)
        if before != after and after == DEAD:
            details = ", ".join(f"{wan}: {answer.detail}" for wan, answer in answers.items())
            log.warning("concentrator %s is dead (%s)", name, details)
        elif before == DEAD and after != DEAD:
            log.info("concentrator %s answers again", name)
        self.changed()

    def _wans_to_ask(self, state: str) -> tuple[WanView, ...]:
        """All that carry when somebody waits for the answer; else those whose bytes cost nothing. Of a dead one where there
        are no such: the best."""
        if state == SUSPECT:
            return self.paths.wans()
        metered = {wan.name for wan in self.settings.wans if wan.is_metered()}
        free = [wan for wan in (*self.paths.wans(), *self.paths.other_wans()) if wan.name not in metered]
        return tuple(free) or (self.paths.wans()[:1] if state == DEAD else ())

    def _protect(self, candidates: Sequence[Candidate]) -> None:
        """LAN hosts are kept away from every concentrator, also from one that is left alone now, and from those of lesser
        sources (5.3-f)."""
        listed = tuple((address, candidate.port) for candidate in candidates for address in candidate.addresses)
        others = tuple(row for row in self.candidates.endpoints(self.now) if row not in listed)
        if (listed, others) != self._protected:
            self._protected = listed, others
            self.paths.set_concentrators(listed, others)

    def _intercept(self, wanted: tuple[bool, bool]) -> None:
        if self.paths.cannot_take() and self.snapshot.fallback != BLOCK:
            wanted = (False, False)  # what is taken would vanish
        if wanted == self.interception:
            return
        self.interception = wanted
        on, ipv6 = wanted
        if on:
            log.info("new connections are taken: IPv4%s", " and IPv6" if ipv6 else " only")
        else:
            log.info("new connections are forwarded: %s", TEXTS[self.not_taken_reason()])
        self.paths.set_interception(on, ipv6)

    def not_taken_reason(self) -> str:
        """Why interception is off; "" while it is on."""
        if self.interception[0]:
            return ""
        if not self.snapshot.proxy:
            return self.snapshot.reason
        return self.paths.cannot_take() or Reason.NO_WORKER

    def _wake_at(self, *times: float | None) -> None:
        """Rebuild when time alone will have changed something."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((time for time in times if time is not None), default=None)
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self.changed)

    # Workers --------------------------------------------------------------------------------------------------------

    def _on_hello(self, worker: Worker) -> None:
        log.info("relay worker %d (pid %d) is connected", worker.index, worker.pid)
        worker.send(SNAPSHOT, to_wire(self.snapshot))
        self.caps.joined(worker)
        if worker.port:
            self.paths.set_intercept_port(worker.port)
        self.changed()

    def _on_gone(self, worker: Worker) -> None:
        if worker.pid:
            log.info("relay worker %d (pid %d) is gone", worker.index, worker.pid)
            self.negotiations.forget_worker(worker.pid)
            self.caps.left(worker)
        for query in self._queries.values():
            query.heard(worker)
        self.changed()

    def _on_frame(self, worker: Worker, kind: str, payload: Any) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            return
        try:
            handler(worker, payload)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("relay worker %d sent a %s frame of another shape: %r", worker.index, kind, error)

    def _records(self, worker: Worker, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            record = self.ledger.add(row, worker.index)
            self._prove_ipv6(record)
            if self.settings.logging.flows:
                from cpe_mcp.upstream.flow_log import log_flow

                log_flow(record, self.settings.logging)

    def _prove_ipv6(self, record: FlowRecord) -> None:
        if record.family != 6 or not record.concentrator:
            return
        trusted = self.ipv6_proof.reaches(record.concentrator, self.now)
        if record.end == Reason.SERVER_UNREACHABLE:
            self.ipv6_proof.unreachable(record.concentrator, record.server, self.now)
        elif record.first_byte_ms >= 0 or record.end == Reason.SERVER_REFUSED:
            self.ipv6_proof.reached(record.concentrator)
        if trusted != self.ipv6_proof.reaches(record.concentrator, self.now):
            self.changed()

    def _counters(self, worker: Worker, counters: Mapping[str, int]) -> None:
        worker.counters = {str(name): int(value) for name, value in counters.items()}
        self.negotiations.count(worker.pid, worker.counters)

    def _direct(self, worker: Worker, payload: Mapping[str, Any]) -> None:
        address, port, reason = str(payload["address"]), int(payload["port"]), str(payload["reason"])
        self.paths.add_direct(address, port)
        log.debug("%s port %d is left to plain forwarding: %s", shortened(address), port, TEXTS.get(reason, reason))
        if len(self.left_direct) >= DIRECT_MAX:
            self.left_direct.pop(next(iter(self.left_direct)))
        self.left_direct.pop((address, port), None)
        self.left_direct[address, port] = LeftDirect(self.now + self.settings.general.direct_s, reason)

    def _trouble(self, worker: Worker, payload: Mapping[str, Any]) -> None:
        name, wan, reason = str(payload["concentrator"]), str(payload["wan"]), str(payload["reason"])
        wait_s, detail = float(payload["wait_s"]), str(payload["detail"])
        if reason == Reason.CONCENTRATOR_NONSENSE:
            self._leave_alone(name, self.settings.discovery.nonsense_s, reason, detail)
        elif reason == Reason.CONCENTRATOR_BUSY:
            self._leave_alone(name, wait_s or BUSY_S, reason, detail)
        elif reason == Reason.CONCENTRATOR_REFUSED:
            self._leave_alone(name, REFUSED_S, reason, detail)
            if self.granted.key:
                self.on_refused()
        elif reason in SILENCE:
            log.debug("%s over %s: %s (%s)", name, wan, TEXTS[reason], detail)
            if self.health.is_usable(name):  # else it is known that the WAN is not to blame
                self.paths.trouble(wan, reason)
            self.health.silent(name, self.now, f"{wan}: {detail}")
            self.changed()

    def _leave_alone(self, name: str, wait_s: float, reason: str, detail: str) -> None:
        if name not in {candidate.name for candidate in self.candidates.candidates(self.now)}:
            return  # a worker may be one snapshot behind
        known = self.candidates.block_of(name, self.now)
        if known is None or known.reason != reason:
            log.warning("concentrator %s is left alone for %.0f s: %s (%s)", name, wait_s, TEXTS[reason], detail)
        self.candidates.blocked(name, self.now + wait_s, reason)
        self.changed()

    def _answered(self, worker: Worker, payload: Mapping[str, Any]) -> None:
        self.health.heard(str(payload["concentrator"]), self.now)
        self.changed()

    def _flows(self, worker: Worker, payload: Mapping[str, Any]) -> None:
        query = self._queries.get(int(payload["id"]))
        if query is not None:
            rows = [{**flow, "id": f"{worker.index}:{flow['id']}"} for flow in payload["flows"]]
            query.heard(worker, rows, more=bool(payload.get("more")))

    def _dropped(self, worker: Worker, payload: Mapping[str, Any]) -> None:
        query = self._queries.get(int(payload["id"]))
        if query is not None:
            query.heard(worker, [{"dropped": bool(payload["dropped"])}])


def stripped_text(row: Mapping[str, Any]) -> str:
    """The first thing that was seen."""
    return next((str(seen["text"]) for seen in row["evidence"]), str(row["text"]))


def kernel_joins() -> Joins:
    """The kernel's counters of joins; zeros where it does not tell."""
    try:
        counters = mptcp_counters()
    except OSError:
        counters = {}
    return Joins(counters.get(JOIN_SYN_TX, 0), counters.get(JOIN_SYNACK_RX, 0))


def lines_of(settings: RouterSettings) -> dict[str, Line]:
    """netifd's interface -> its WAN; ``wan6`` and ``wan_6`` are the IPv6 twins of ``wan``, as OpenWrt names them."""
    lines = {wan.interface or wan.name: Line(wan.name, wan.trust_dhcp) for wan in settings.wans if wan.enabled}
    for interface in settings.discovery.interface:
        twin = lines.get(re.sub(r"(?<=[^_])_?6$", "", interface))
        if twin is not None:
            lines.setdefault(interface, twin)
    return lines


def trusted_interfaces(settings: RouterSettings) -> tuple[str, ...]:
    """netifd's names of the interfaces whose DHCP answers are looked at, best first."""
    wans = [wan.interface or wan.name for wan in settings.wans if wan.enabled]
    return settings.discovery.interface or tuple(wans)
