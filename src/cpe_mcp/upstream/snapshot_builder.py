"""The snapshot as a function of settings and of what is known now. Pure: observing and sending are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cpe_mcp.aaa.cookie import NO_CREDENTIAL, Credential, own_credential
from cpe_mcp.discovery.candidates import Candidate
from cpe_mcp.paths.snapshot import ConcentratorView, Snapshot, WanView
from cpe_mcp.policy.congestion_control import choose
from cpe_mcp.policy.decide import BLOCK, first_wan
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.policy.rules import classes_of, compile_rules
from cpe_mcp.settings.load import split_dscp_map
from cpe_mcp.settings.router import DscpSettings, RouterSettings

"""Keeps a bundle fast when one line loses packets (design D19)."""


def build(
    settings: RouterSettings,
    *,
    generation: int,
    wans: Sequence[WanView],
    scheme: tuple[str, str],
    usable: Sequence[Candidate],
    left_alone: str,
    authorization: str,
    reaches_ipv6: Callable[[str], bool],
    congestion_controls: Sequence[str],
    other_wans: Sequence[WanView] = (),
    blocks: bool = False,
    granted: Credential = NO_CREDENTIAL,
) -> Snapshot:
    """The snapshot of this moment.

    ``wans`` may take first subflows, ``other_wans`` are healthy and may not.
    ``scheme`` is the one in force and why the WANs have their places. ``usable`` are the concentrators worth connecting to,
    best first; ``left_alone`` is the reason why the best known one is not among them when there is none, "" when none is
    known. ``authorization`` is "" while RADIUS has accepted or is not asked, else the reason why not; then, with ``blocks``,
    connections are refused. ``granted`` is what RADIUS has given to prove the subscriber with.
    ``congestion_controls`` are those of the running kernel.
    """
    general = settings.general
    concentrators = tuple(
        ConcentratorView(
            name=candidate.name,
            addresses=candidate.addresses,
            port=candidate.port,
            credential=credential_of(candidate, granted),
            reaches_ipv6=reaches_ipv6(candidate.name),
            foreign=candidate.foreign,
            service_class=candidate.service_class,
        )
        for candidate in usable
    )
    congestion_control = choose(general.congestion_control, congestion_controls)
    reason = _reason(general.enabled, tuple(wans), concentrators, left_alone, authorization)
    return Snapshot(
        generation=generation,
        proxy=reason == Reason.READY,
        reason=reason,
        wans=tuple(wans),
        concentrators=concentrators,
        fallback=BLOCK if blocks and authorization else general.fallback,
        pool_size=general.pool_size,
        pool_idle_s=general.pool_idle_s,
        connect_timeout_s=general.connect_timeout_s,
        reply_timeout_s=general.reply_timeout_s,
        congestion_control=congestion_control.first,
        lossy_congestion_control=congestion_control.lossy,
        scheme=scheme[0],
        scheme_reason=scheme[1],
        other_wans=tuple(other_wans),
        classes=classes_of(compile_rules(settings.rules)),
        dscp=dscp_table(settings.dscp),
    )


def credential_of(candidate: Candidate, granted: Credential) -> Credential:
    """What cookies for it are made of: those of its settings, or what RADIUS has granted. Raises CookieError."""
    if candidate.subscriber:
        return own_credential(candidate.subscriber, candidate.key)
    return NO_CREDENTIAL if candidate.foreign else granted


def dscp_table(settings: DscpSettings) -> tuple[int, ...]:
    """What each DSCP of a LAN client becomes; empty where all become 0."""
    if settings.mode == "preserve":
        table = list(range(64))
        for row in settings.map:
            before, after = split_dscp_map(row)
            table[before] = after
    else:
        table = [settings.value if settings.mode == "set" else 0] * 64
    return tuple(table) if any(table) else ()


def interception(snapshot: Snapshot, *, workers: int) -> tuple[bool, bool]:
    """Whether new connections are taken at all, and IPv6 ones too.

    Taken only while somebody serves them; with ``fallback block`` also while nothing can be proxied, because what must
    not go direct has to be taken to be refused (design D4).
    """
    if not workers or snapshot.reason == Reason.DISABLED:
        return False, False
    if snapshot.fallback == "block":
        return True, True
    if not snapshot.proxy:
        return False, False
    return True, any(
        concentrator.reaches_ipv6 and first_wan(concentrator, snapshot.wans) for concentrator in snapshot.concentrators
    )


def describe_changes(old: Snapshot, new: Snapshot) -> list[str]:
    """What differs that a person wants to read in the log, one line each."""
    lines = []
    if (old.proxy, old.reason) != (new.proxy, new.reason):
        state = "connections are proxied" if new.proxy else "connections are not proxied"
        lines.append(f"{state}: {TEXTS.get(new.reason, new.reason)}")
    for what, before, after in (
        ("usable WANs", [wan.name for wan in old.wans], [wan.name for wan in new.wans]),
        ("usable concentrators", [row.name for row in old.concentrators], [row.name for row in new.concentrators]),
    ):
        if before != after:
            lines.append(f"{what}: {', '.join(after) or 'none'}")
    reached = {row.name: row.reaches_ipv6 for row in old.concentrators}
    for row in new.concentrators:
        if reached.get(row.name, True) != row.reaches_ipv6:
            verdict = "is trusted with IPv6 servers again" if row.reaches_ipv6 else TEXTS[Reason.NO_IPV6]
            lines.append(f"concentrator {row.name}: {verdict}")
    return lines


def _reason(
    enabled: bool,
    wans: tuple[WanView, ...],
    concentrators: tuple[ConcentratorView, ...],
    left_alone: str,
    authorization: str,
) -> str:
    """Why flows are proxied or not; what has to be mended first comes first."""
    if not enabled:
        return Reason.DISABLED
    if not wans:
        return Reason.NO_WAN
    if authorization:
        return authorization
    if not concentrators:
        return left_alone or Reason.NO_CONCENTRATOR
    if not any(first_wan(concentrator, wans) for concentrator in concentrators):
        return Reason.NO_COMMON_FAMILY
    return Reason.READY
