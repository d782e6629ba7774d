"""A line is cut in the middle of a download, and comes back."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from cpe_mcp.lab.measure import longest_gap, rate_mbit, recovery_s, size_of
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES, LINK_NAMES, next_address
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Scenario, judged, prepared
from cpe_mcp.lab.scenarios.limits import path_checks
from cpe_mcp.lab.scenarios.main_job import line_bytes
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Content, Download, Talk, answers, greeting_server

CUTS = ("silent", "down")
UNPLUGGED = ("dsl", "unplugged")
"""The row of a line that loses its carrier."""
QUIET_TALKS = 3
"""Conversations that say nothing while the line is cut, beside the download."""
TALK_PORT = 2222
TALK_TIMEOUT_S = 5.0
STRIKES_S = 1.0
"""A pause that begins later than this after the trouble is another one; recovery does not wait for its end."""
CARRIES_SHARE = 0.3
"""Of its own rate: from there on a line counts as carrying."""
SAMPLE_S = 0.1
RETURN_TIMEOUT_S = 10.0
"""For a restored line to carry again: DHCP takes up to 2 s, ``return_s`` 1 s, the rest is the busy line's."""
ROW_TIMEOUT_S = 40.0
IPV4_ONLY: Mapping[str, Any] = {"dhcp6_mcp": None}
"""Arguments of Lab where an IPv4 address changes: a line without one for a moment gets warm connections over IPv6, which do not
feel the next change."""
CONTENT_S = 12.0
"""Of both lines: longer than the longest row."""


class Timing(NamedTuple):
    """Of one row; all in s."""

    before_s: float = 3.0
    """From the start of the download to the cut: slower lines have joined by then and are through slow start."""
    cut_s: float = 3.0
    after_s: float = 2.0
    """How much longer the download takes once both lines carry again."""

    def size(self, both_mbit: float, remaining_mbit: float) -> int:
        """Of a download that lasts about so long."""
        return size_of(both_mbit, self.before_s + self.after_s) + size_of(remaining_mbit, self.cut_s)


DEFAULT_TIMING = Timing()


def down_rates(report: Mapping[str, Any]) -> dict[str, float]:
    """Plain TCP's Mbit/s over each line alone. Raises LabError when it was not measured."""
    try:
        return {name: wan["tcp_mbit"]["down"] for name, wan in report["wans"].items()}
    except KeyError:
        raise LabError("the lines were not measured alone, so there is nothing to compare with") from None


class Trouble(NamedTuple):
    """What happens to a line."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    """Returns when the line is as good as before."""
    is_immediate: bool = True
    """It strikes when it begins; else when the longest gap begins."""
    carried: Callable[[], int] | None = None
    """Bytes that count as carried by the line afterwards; None: all that it delivers to the router."""


def cut_line(
    lab: Lab, content: Content, report: Mapping[str, Any], wan: str, cut: str, timing: Timing = DEFAULT_TIMING
) -> dict[str, Any]:
    """One row: cut ``wan`` in mid-download, put it back, and wait until it carries again. Raises LabError, OSError."""
    link = lab.link(wan)
    return trouble_line(lab, content, report, wan, Trouble(cut, partial(link.cut, cut), link.restore), timing)


def trouble_line(
    lab: Lab,
    content: Content,
    report: Mapping[str, Any],
    wan: str,
    trouble: Trouble,
    timing: Timing = DEFAULT_TIMING,
    *,
    quiet_talks: int = QUIET_TALKS,
    download: Callable[[Lab, int], Download] = Download,
    return_timeout_s: float = RETURN_TIMEOUT_S,
) -> dict[str, Any]:
    """One row: ``wan`` gets into trouble in mid-download and out of it, until it carries again. Raises LabError, OSError.

    ``report`` has what plain TCP reached over each line alone. ``gap_ms`` is the longest time without a byte between
    trouble and restoration, and ``gap_at_ms`` tells when it began, from the trouble on; ``recovery_ms`` counts from the trouble
    (None: never), ``return_ms`` from the restoration, ``back_ms`` from when the line itself was back, its address and routes
    included.
    """
    rates = down_rates(report)
    remaining = sum(rate for name, rate in rates.items() if name != wan)
    size = min(content.size, timing.size(sum(rates.values()), remaining))
    server = lab.addresses.server.v4
    with greeting_server(lab, "server", server, TALK_PORT), contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(lab, "client1", server, TALK_PORT)) for _ in range(quiet_talks)]
        running = download(lab, size)
        time.sleep(timing.before_s)
        cut_at = time.monotonic()
        try:
            trouble.begin()
            time.sleep(max(0.0, cut_at + timing.cut_s - time.monotonic()))
        finally:
            restored_at = time.monotonic()
            trouble.end()
            whole_s = time.monotonic() - restored_at
        carried = trouble.carried or (lambda: line_bytes(lab, "down")[wan])
        return_s = _await_return(carried, rates[wan], lambda: running.is_running, restored_at, return_timeout_s)
        received = running.wait(ROW_TIMEOUT_S)
        if return_s is None:  # the download was over before the line was back
            return_s = _return_with_new_download(
                carried, rates[wan], download(lab, content.size), restored_at, return_timeout_s
            )
        lost = sum(not answers(talk, TALK_TIMEOUT_S) for talk in talks) + bool(received.error)
    until = max(restored_at, cut_at + DEFAULT_TIMING.cut_s)  # a trouble that ends at once leaves its gap behind it
    ended = min(until, received.arrivals[-1][0]) if received.arrivals else until
    gap = longest_gap(received.arrivals, cut_at, max(ended, cut_at))
    struck_at, pause = cut_at, gap
    if trouble.is_immediate:
        pause = longest_gap(received.arrivals, cut_at, max(ended, cut_at), begins_by=cut_at + STRIKES_S)
    else:
        struck_at = gap[0]
    recovery = recovery_s(received.arrivals, struck_at, remaining, not_before=pause[1])
    return {
        "wan": wan,
        "cut": trouble.name,
        "gap_ms": round(1000 * (gap[1] - gap[0])),
        "gap_at_ms": round(1000 * (gap[0] - cut_at)),
        "recovery_ms": None if recovery is None else round(1000 * recovery),
        "sha256_ok": received.sha256 == content.sha256(size),
        "connections_lost": lost,
        "connections": 1 + len(talks),
        "return_ms": None if return_s is None else round(1000 * return_s),
        "back_ms": None if return_s is None else round(1000 * max(0.0, return_s - whole_s)),
        "mbit_before": round(rate_mbit(received.arrivals, cut_at - 1, cut_at), 1),
        "mbit_second_after": round(rate_mbit(received.arrivals, cut_at + 1, cut_at + 2), 1),
        "mbit_remaining": round(remaining, 1),
        "error": received.error,
    }


def _await_return(
    carried: Callable[[], int],
    rate: float,
    may_go_on: Callable[[], bool],
    restored_at: float,
    timeout_s: float,
) -> float | None:
    """When, counted from the restoration, the line carries again; None when it did not while it could."""
    last = carried(), time.monotonic()
    while may_go_on() and time.monotonic() < restored_at + timeout_s:
        time.sleep(SAMPLE_S)
        now = carried(), time.monotonic()
        if now[0] - last[0] >= size_of(CARRIES_SHARE * rate, now[1] - last[1]):
            return now[1] - restored_at
        last = now
    return None


def _return_with_new_download(
    carried: Callable[[], int], rate: float, download: Download, restored_at: float, timeout_s: float
) -> float | None:
    """The same, with a download of its own that keeps the lines busy."""
    try:
        return _await_return(carried, rate, lambda: download.is_running, restored_at, timeout_s)
    finally:
        download.stop()


def all_cuts(
    lab: Lab, stages: Stages, report: dict[str, Any], content: Content, timing: Timing = DEFAULT_TIMING
) -> None:
    """Every line in every way; fills ``failover``."""
    rows: list[dict[str, Any]] = report.setdefault("failover", [])
    for wan in LINK_NAMES:
        for cut in CUTS:
            row = stages.do(
                f"cut {wan} ({cut}) in mid-download", partial(cut_line, lab, content, report, wan, cut, timing)
            )
            if row is not None:
                rows.append(row)


def address_changes(lab: Lab, stages: Stages, report: dict[str, Any], content: Content) -> None:
    """A line gets another address, in the two ways there are; adds to ``failover``."""
    rows: list[dict[str, Any]] = report.setdefault("failover", [])
    for wan, trouble, timing in (
        ("dsl", _renewed(lab, "dsl"), Timing(cut_s=1.0, after_s=6.0)),
        ("dsl", _replaced(lab, "dsl", ADDRESSES.cpe_dsl.v4), Timing(cut_s=0.0, after_s=4.0)),  # back to its first
        ("lte", _replaced(lab, "lte", next_address("lte")), Timing(cut_s=0.0, after_s=5.0)),
    ):
        row = stages.do(
            f"{wan} gets another address ({trouble.name}) in mid-download",
            partial(trouble_line, lab, content, report, wan, trouble, timing),
        )
        if row is not None:
            rows.append(row)


def _renewed(lab: Lab, wan: str) -> Trouble:
    """The DHCP server refuses the renewal and gives another address; udhcpc waits 3 s before it asks for that."""

    def begin() -> None:
        lab.wan(wan).renew()

    address = lab.offer_next_address(wan)
    return Trouble("renewed", begin, lambda: lab.wan(wan).await_address4(address), is_immediate=False)


def _replaced(lab: Lab, wan: str, address: str) -> Trouble:
    """Another address in the same moment; what the line still delivers to the old one is not carried."""
    return Trouble(
        "replaced",
        lambda: lab.wan(wan).replace_address4(address),
        lambda: None,
        carried=lambda: received_at(lab, address),
    )


def received_at(lab: Lab, address: str) -> int:
    """Payload bytes that the router's TCP connections with this local address have received."""
    shown = lab.run("cpe", ["ss", "--no-header", "--tcp", "--info", "--numeric", "src", address]).stdout
    return sum(int(count) for count in re.findall(r"\bbytes_received:(\d+)", shown))


def _cuts_course(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
    content = prepared(lab, stages, report, CONTENT_S, is_measured=False)
    if content is not None:
        all_cuts(lab, stages, report, content)
        wan, cut = UNPLUGGED
        row = stages.do(
            f"{wan} loses its carrier ({cut}) in mid-download",
            partial(cut_line, lab, content, report, wan, cut, Timing(before_s=2.5, cut_s=2.0)),
        )
        report["failover"] += [row] if row is not None else []


def _address_course(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
    content = prepared(lab, stages, report, CONTENT_S, is_measured=False)
    if content is not None:
        address_changes(lab, stages, report, content)


def scenarios() -> list[Scenario]:
    """Cuts, and changes of address."""
    cuts = [*((wan, cut) for wan in LINK_NAMES for cut in CUTS), UNPLUGGED]
    changes = [("dsl", "renewed"), ("dsl", "replaced"), ("lte", "replaced")]
    return [
        Scenario(
            "failover",
            "a line is cut in the middle of a download, each silently and by its link, one by its carrier, and comes back",
            judged(_cuts_course, partial(path_checks, rows_wanted=cuts), **AS_SHIPPED),
        ),
        Scenario(
            "address-change",
            "a line gets another address in the middle of a download, on renewal and all at once",
            judged(_address_course, partial(path_checks, rows_wanted=changes), **AS_SHIPPED, **IPV4_ONLY),
        ),
    ]
