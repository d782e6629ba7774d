"""What is taken and what is left alone (design D13, D17): one question each, seen from the hosts of the lab."""

from __future__ import annotations

from typing import Any

from cpe_mcp.lab.configs import PORT_FORWARD_PORT
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import count_proxied, flows_to
from cpe_mcp.lab.scenarios.transfer import HTTP_PORT, Content, Download, Talk, connect, greeting_server
from cpe_mcp.settings.router import DEFAULT_SERVICE_PORT

MODEM_PORT = 80
GREETING_PORT = 22
CLOSED_TIMEOUT_S = 1.0
"""For a connection that should not come about; the longest way takes 50 ms."""
IPV6_TIMEOUT_S = 20.0


def concentrator_port(lab: Lab) -> dict[str, str]:
    """What a LAN host meets at the concentrator's service port (requirement 5.3-f), by family: ``open``, ``refused``
    or ``dropped``."""
    seen = {}
    for family, address in zip(("ipv4", "ipv6"), lab.addresses.concentrator1, strict=True):
        try:
            connect(lab, "client1", address, DEFAULT_SERVICE_PORT, timeout_s=CLOSED_TIMEOUT_S).close()
            seen[family] = "open"
        except TimeoutError:
            seen[family] = "dropped"
        except OSError:
            seen[family] = "refused"
    return seen


def modem_page(lab: Lab) -> bool:
    """Whether a WAN-connected address, as a modem's page, is reached from the LAN and not through the package."""
    modem = lab.addresses.isp_dsl_access.v4
    with greeting_server(lab, "isp-dsl", modem, MODEM_PORT), Talk(lab, "client1", modem, MODEM_PORT) as talk:
        return talk.seen_as == lab.addresses.cpe_dsl.v4 and not flows_to(lab, modem, MODEM_PORT)


def port_forward(lab: Lab) -> bool:
    """Whether a server on the LAN is reached from outside, and sees who asks."""
    inside, outside = lab.addresses.client2.v4, lab.addresses.cpe_dsl.v4
    with (
        greeting_server(lab, "client2", inside, PORT_FORWARD_PORT),
        Talk(lab, "server", outside, PORT_FORWARD_PORT) as talk,
    ):
        return talk.seen_as == lab.addresses.server.v4


def greeting(lab: Lab) -> dict[str, Any]:
    """A server that speaks first: how long its greeting takes, and whether it came through the concentrator."""
    server = lab.addresses.server.v4
    with greeting_server(lab, "server", server, GREETING_PORT), Talk(lab, "client1", server, GREETING_PORT) as talk:
        return {"ms": talk.greeting_ms, "proxied": talk.seen_as == lab.addresses.concentrator1.v4}


def ipv6_download(lab: Lab, content: Content, size: int) -> dict[str, Any]:
    """A download from the server's IPv6 address: content, and whether it went through the package."""
    received = Download(lab, size, address=lab.addresses.server.v6).wait(IPV6_TIMEOUT_S)
    if received.error:
        raise LabError(received.error)
    return {
        "sha256_ok": received.sha256 == content.sha256(size),
        "mbit": round(received.mbit, 1),
        "proxied": count_proxied(lab, lab.addresses.server.v6, HTTP_PORT) > 0,
    }
