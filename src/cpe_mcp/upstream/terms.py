"""What an Accept says of the WANs, put into the settings: from there on it takes the way that the user's own values take.

The user's file is never changed. Where both say something the stricter one holds: a user may spend less than the operator
grants, and never more.
"""

from __future__ import annotations

import dataclasses

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.cookie import NO_CREDENTIAL, Credential
from cpe_mcp.settings.router import RouterSettings, WanSettings


def with_terms(settings: RouterSettings, accept: RadiusAnswer | None) -> RouterSettings:
    """The settings in force. What names no WAN of the settings changes nothing, see :func:`unknown_wans`."""
    if accept is None or not accept.quotas:
        return settings
    quotas = {quota.wan: quota for quota in accept.quotas}

    def granted(wan: WanSettings) -> WanSettings:
        quota = quotas.get(wan.name)
        if quota is None or 0 < wan.quota_gb <= quota.gb:
            return wan
        return dataclasses.replace(wan, quota_gb=quota.gb, quota_day=quota.day or wan.quota_day)

    return dataclasses.replace(settings, wans=tuple(granted(wan) for wan in settings.wans))


def granted_by(accept: RadiusAnswer | None) -> Credential:
    """What the subscriber is proven with to concentrators: key and handle, or nothing while one of them is missing."""
    if accept is None or not accept.subscriber_key or not accept.handle:
        return NO_CREDENTIAL
    return Credential("", bytes(accept.subscriber_key), accept.handle)


def unknown_wans(settings: RouterSettings, accept: RadiusAnswer | None) -> list[str]:
    """Names of WANs that the Accept gives a quota and the settings do not have."""
    known = {wan.name for wan in settings.wans}
    return sorted({quota.wan for quota in accept.quotas} - known) if accept is not None else []
