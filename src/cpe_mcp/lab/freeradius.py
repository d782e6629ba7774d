"""A configuration directory for FreeRADIUS 3: subscribers, source addresses, and nothing else of a real site.

Only files are written in here; who starts the server, and in which namespace, is the caller's business. Modules and
standard dictionaries are those of the installed package; its own configuration is neither read nor changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from cpe_mcp.aaa.attributes import Concentrator, push_concentrator
from cpe_mcp.aaa.dictionary import vendor_dictionary_text

PROGRAM = "freeradius"
MODULE_DIR = "/usr/lib/freeradius"
DICTIONARY_DIR = "/usr/share/freeradius"
DEFAULT_PORT = 1812
DETAIL = "detail"
"""In its directory: the accounting records that it has taken."""
LISTEN_ALL = (("0.0.0.0", DEFAULT_PORT), ("::", DEFAULT_PORT))

DHCP_ATTRIBUTES = "ATTRIBUTE DHCPv6-Options 245.3 octets\nATTRIBUTE DHCPv4-Options 245.4 octets\n"
"""Of RFC 9445; FreeRADIUS 3.2.1 has the type and not yet the attributes."""

EXEC_MODULE = "mcp_handle"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class RadiusUser(NamedTuple):
    """One entry of the users file: a subscriber by name, or a source address by its text."""

    name: str
    password: str
    accept: bool = True
    message: str = ""
    """Reply-Message."""
    session_timeout_s: int | None = None
    concentrators: tuple[Concentrator, ...] = ()
    """(addresses, port or 0) of each, one CPE-MCP-Concentrator attribute each."""
    user: str = ""
    """User-Name in the Accept: whose source address this is."""
    down_mbit: int = 0
    up_mbit: int = 0
    scheme: str = ""
    key: bytes = b""
    handle: bytes = b""
    classes: tuple[bytes, ...] = ()
    reply: tuple[str, ...] = ()
    """Further attributes of the answer, as the users file has them."""


class TlsListener(NamedTuple):
    """RADIUS over TLS: only routers with a certificate of ``ca`` are heard."""

    address: str
    port: int
    ca: str
    cert: str
    key: str


def write_config(
    directory: str,
    *,
    secret: str,
    clients: Sequence[str],
    users: Sequence[RadiusUser] = (),
    address_users: Sequence[RadiusUser] = (),
    enterprise: int,
    listen: Sequence[tuple[str, int]] = LISTEN_ALL,
    sign_replies: bool = True,
    tls: TlsListener | None = None,
    accounting: Sequence[tuple[str, int]] = (),
    post_auth_program: str = "",
) -> list[str]:
    """Write the configuration into ``directory`` and return the command that runs the server in the foreground.

    ``clients`` are the addresses or prefixes that may ask; every request must carry a Message-Authenticator. ``users``
    are subscribers, ``address_users`` source addresses (``name`` is the address, ``password`` the concentrators'
    common one). ``sign_replies=False`` leaves Message-Authenticator out of the answers, as servers did before
    CVE-2024-3596. What comes to ``accounting`` stands in the file ``detail``. ``post_auth_program`` is a command line, with
    FreeRADIUS' own expansions, that prints attributes for each Accept. The server prints "Ready to process requests"
    on standard output when it is. Raises OSError.
    """
    files = {
        "dictionary": DHCP_ATTRIBUTES + vendor_dictionary_text(enterprise),
        "users": "\n".join(_user(user) for user in (*users, *address_users)),
        "radiusd.conf": _radiusd(directory, secret, clients, listen, sign_replies, tls, accounting, post_auth_program),
    }
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for name, text in files.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)
    return [PROGRAM, "-f", "-l", "stdout", "-n", "radiusd", "-d", directory, "-D", DICTIONARY_DIR]


def _user(user: RadiusUser) -> str:
    check = f"Cleartext-Password := {_quoted(user.password)}" if user.accept else "Auth-Type := Reject"
    reply = []
    if user.message:
        reply.append(f"Reply-Message = {_quoted(user.message)}")
    if user.accept:
        if user.user:
            reply.append(f"User-Name = {_quoted(user.user)}")
        if user.session_timeout_s is not None:
            reply.append(f"Session-Timeout = {user.session_timeout_s}")
        for name, mbit in (("Down", user.down_mbit), ("Up", user.up_mbit)):
            if mbit:
                reply.append(f"CPE-MCP-{name}-Mbit = {mbit}")
        if user.scheme:
            reply.append(f"CPE-MCP-Scheme = {_quoted(user.scheme)}")
        if user.key:
            reply.append(f"CPE-MCP-Subscriber-Key = 0x{user.key.hex()}")
        if user.handle:
            reply.append(f"CPE-MCP-Handle = 0x{user.handle.hex()}")
        reply += [f"Class += 0x{value.hex()}" for value in user.classes]
        for concentrator in user.concentrators:
            reply.append(f"CPE-MCP-Concentrator += 0x{push_concentrator(concentrator).hex()}")
    reply += user.reply
    return f"{_quoted(user.name)} {check}\n" + ",\n".join(f"\t{line}" for line in reply) + "\n"


def _radiusd(
    directory: str,
    secret: str,
    addresses: Sequence[str],
    listen: Sequence[tuple[str, int]],
    sign_replies: bool,
    tls: TlsListener | None,
    accounting: Sequence[tuple[str, int]],
    post_auth_program: str,
) -> str:
    program_module = _exec_module(post_auth_program) if post_auth_program else ""
    run_program = EXEC_MODULE if post_auth_program else ""
    sign = "update reply {\n Message-Authenticator := 0x00\n }" if sign_replies else ""
    listeners = "".join(
        f"listen {{\n type = {kind}\n {'ipv6addr' if ':' in address else 'ipaddr'} = {address}\n port = {port}\n}}\n"
        for kind, places in (("auth", listen), ("acct", accounting))
        for address, port in places
    )
    clients = "".join(
        f"client c{number} {{\n {'ipv6addr' if ':' in address else 'ipaddr'} = {address}\n"
        f" secret = {_quoted(secret)}\n require_message_authenticator = yes\n}}\n"
        for number, address in enumerate(addresses)
    )
    if tls is not None:
        listeners += _tls_listener(tls)
        clients += _tls_clients(addresses)
    return f"""\
libdir = {MODULE_DIR}
raddbdir = {directory}
run_dir = {directory}
logdir = {directory}
max_requests = 1024
hostname_lookups = no
log {{
 destination = stdout
 auth = yes
 auth_badpass = no
 auth_goodpass = no
}}
security {{
 max_attributes = 200
 reject_delay = 0
 status_server = no
 allow_vulnerable_openssl = yes
}}
thread pool {{
 start_servers = 1
 max_servers = 4
 min_spare_servers = 1
 max_spare_servers = 2
}}
modules {{
 files {{
  filename = {directory}/users
 }}
 pap {{
 }}
 chap {{
 }}
 detail {{
  filename = {directory}/{DETAIL}
  permissions = 0600
 }}
{program_module}}}
{clients}
server default {{
{listeners}
authorize {{
 files
 chap
 pap
}}
authenticate {{
 Auth-Type PAP {{
  pap
 }}
 Auth-Type CHAP {{
  chap
 }}
}}
accounting {{
 detail
}}
post-auth {{
 {run_program}
 {sign}
 Post-Auth-Type REJECT {{
  {sign}
 }}
}}
}}
"""


def _exec_module(program: str) -> str:
    return f"""\
 exec {EXEC_MODULE} {{
  wait = yes
  program = "{program}"
  input_pairs = request
  output_pairs = reply
  shell_escape = yes
  timeout = 5
 }}
"""


def _tls_clients(addresses: Sequence[str]) -> str:
    """Their secret is that of RFC 6614; what proves them is their certificates."""
    clients = "".join(
        f" client t{number} {{\n  {'ipv6addr' if ':' in address else 'ipaddr'} = {address}\n"
        "  proto = tls\n  secret = radsec\n }\n"
        for number, address in enumerate(addresses)
    )
    return f"clients tls_clients {{\n{clients}}}\n"


def _tls_listener(tls: TlsListener) -> str:
    family = "ipv6addr" if ":" in tls.address else "ipaddr"
    return f"""\
listen {{
 type = auth+acct
 {family} = {tls.address}
 port = {tls.port}
 proto = tcp
 clients = tls_clients
 tls {{
  private_key_file = {tls.key}
  certificate_file = {tls.cert}
  ca_file = {tls.ca}
  require_client_cert = yes
  tls_min_version = "1.2"
  tls_max_version = "1.3"
 }}
}}
"""


def _quoted(text: str) -> str:
    """Text in single quotes, where nothing is expanded. Raises ValueError for control characters: the file has lines."""
    if _CONTROL.search(text):
        raise ValueError(f"{text!r} cannot be written into FreeRADIUS's configuration: it has control characters")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
