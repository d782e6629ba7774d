"""One line of the system log for each connection that has ended (section ``logging``, option ``flows``)."""

from __future__ import annotations

import logging

from cpe_mcp.policy.masking import shortened
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.settings.router import LoggingSettings

log = logging.getLogger("cpe_mcp.flows")
log.setLevel(logging.INFO)  # its own switch: whoever wants these lines need not want all others of this level


def log_flow(record: FlowRecord, settings: LoggingSettings) -> None:
    """Write the line, if the settings want it."""
    if settings.flows:
        log.info("%s", flow_line(record, is_masked=settings.mask))


def flow_line(record: FlowRecord, *, is_masked: bool) -> str:
    """``flow client=... server=... action=... ...``: words without blanks, for programs that read logs."""
    client, server = (shortened(a) if is_masked and a else a for a in (record.client, record.server))
    fields = {
        "client": client if is_masked else f"{client}#{record.client_port}",
        "server": f"{server}#{record.server_port}",
        "action": record.action,
        "reason": record.reason,
        "concentrator": record.concentrator,
        "wan": record.wan,
        "down": record.bytes_down,
        "up": record.bytes_up,
        "seconds": record.duration_s,
        "end": record.end,
    }
    return "flow " + " ".join(f"{name}={value}" for name, value in fields.items() if value != "")
