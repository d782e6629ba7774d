"""The limits of requirement 7.2-a in one list, how often each was reached, and when that is worth a line in the log. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cpe_mcp.policy import concentrator_rules as rules
from cpe_mcp.relay import limits
from cpe_mcp.settings import ConcentratorSettings
from cpe_mcp.settings.option import declared_options

LOG_EVERY_S = 60.0
"""Between two lines about one limit: an attack must not fill the log."""


class Limit(NamedTuple):
    """One of them."""

    name: str
    section: str
    option: str
    """Where its value is set; "" for what is not a number."""
    text: str
    """What happened when it was reached."""


LIMITS = (
    Limit(rules.FRAGMENTS, "limits", "filter", "TCP fragments dropped"),
    Limit(
        rules.SIDE,
        "limits",
        "filter",
        "packets from the Internet's side to a listener for customers refused (facing of interface and listener)",
    ),
    Limit(rules.FORGED, "limits", "filter", "handshakes from forged source addresses dropped"),
    Limit(rules.SOURCE, "limits", "source_rate", "handshakes dropped: too many from one address"),
    Limit(rules.PREFIX, "limits", "prefix_rate", "handshakes dropped: too many from one prefix"),
    Limit(rules.STRANGERS, "limits", "stranger_rate", "handshakes dropped: too many from addresses of no subscriber"),
    Limit(limits.HALF_OPEN, "global", "half_open_max", "oldest unauthenticated connections reset: too many"),
    Limit(
        limits.HALF_OPEN_PREFIX,
        "limits",
        "half_open_prefix",
        "oldest unauthenticated connections reset: too many of one prefix",
    ),
    Limit(limits.QUESTIONS, "limits", "question_rate", "unknown peers told to come later: too many"),
    Limit(
        limits.QUESTIONS_PREFIX,
        "limits",
        "question_prefix_rate",
        "unknown peers told to come later: too many of one prefix",
    ),
    Limit(limits.ERRORS, "limits", "error_rate", "strangers reset without an error message: too many"),
    Limit(
        limits.ERRORS_PREFIX,
        "limits",
        "error_prefix_rate",
        "strangers reset without an error message: too many of one prefix",
    ),
    Limit(limits.SUBSCRIBER_RATE, "limits", "subscriber_rate", "flows refused: their subscriber opens too many"),
    Limit(
        limits.SUBSCRIBER_CONNECTIONS,
        "limits",
        "subscriber_connections",
        "flows refused: their subscriber has too many",
    ),
)


def reached(counters: Mapping[str, int], dropped: Mapping[str, int]) -> dict[str, int]:
    """How often each limit was reached, by name: the workers' counters and the border's."""
    return {row.name: dropped.get(row.name, 0) + counters.get(limits.LIMIT_PREFIX + row.name, 0) for row in LIMITS}


def rows(settings: ConcentratorSettings, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """For ``status``: each limit with its value, its unit and how often it was reached."""
    sections = {"global": settings.general, "limits": settings.limits}
    return [
        {
            "name": row.name,
            "option": f"{row.section}.{row.option}",
            "value": getattr(sections[row.section], row.option),
            "unit": declared_options(type(sections[row.section]))[row.option].unit,
            "count": counts[row.name],
            "text": row.text,
        }
        for row in LIMITS
    ]


class LimitWatch:
    """Says what to log."""

    def __init__(self) -> None:
        self._told = {row.name: 0 for row in LIMITS}
        self._told_at: dict[str, float] = {}

    def news(self, counts: Mapping[str, int], now: float) -> list[str]:
        """Lines about limits that were reached since they were last told of, each limit at most once in LOG_EVERY_S."""
        lines = []
        for row in LIMITS:
            more = counts[row.name] - self._told[row.name]
            if more <= 0 or now - self._told_at.get(row.name, now - LOG_EVERY_S) < LOG_EVERY_S:
                continue
            self._told[row.name], self._told_at[row.name] = counts[row.name], now
            lines.append(f"{more} {row.text} (section {row.section}, option {row.option})")
        return lines
