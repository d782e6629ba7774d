"""What a Filter-Id of RADIUS means here: the interface that a filter implementation has.

A filter is a set of rules for one subscriber's source address at the border, named by the operator (RFC 2865 section 5.11).
An implementation that writes to the kernel is an adapter of its own; who has which filter is decided by its callers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Filters = Mapping[str, tuple[str, ...]]
"""Source address -> names of its filters; () takes all of them off."""


class FilterError(Exception):
    """The filters could not be put in place; nothing of them is. For people."""


class FilterHook(Protocol):
    """What carries filters out."""

    def knows(self, name: str) -> bool:
        """Whether there is a filter of this name. Asked before :meth:`apply`, for untrusted text too."""

    def apply(self, filters: Filters) -> None:
        """From now on these addresses have these filters, others keep theirs. All of it or nothing: raises FilterError."""
