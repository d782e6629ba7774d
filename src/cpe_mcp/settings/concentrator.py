"""Settings of a concentrator: ``/etc/config/mcp-concentrator``. One dataclass per section type, one field per option."""

from __future__ import annotations

from dataclasses import dataclass

from cpe_mcp.settings.option import option
from cpe_mcp.settings.router import DEFAULT_ENTERPRISE, DEFAULT_SERVICE_PORT

ADDRESS, COOKIE, BOTH = "address", "cookie", "both"
"""Values of listener.authorization."""


@dataclass(frozen=True, slots=True)
class GlobalSettings:
    """``config global 'global'``: the concentrator as a whole."""

    workers: int = option("integer", 1, "Relay worker processes.", low=1, high=64)
    connect_timeout_s: float = option("number", 8.0, "For the server's handshake.", low=0.5, high=120, unit="s")
    message_timeout_s: float = option(
        "number",
        5.0,
        "For the rest of a Convert message from a peer that is not authenticated.",
        low=0.5,
        high=60,
        unit="s",
    )
    pool_idle_s: float = option(
        "number", 300.0, "How long an authenticated warm connection may wait for a flow.", low=1, high=7200, unit="s"
    )
    pool_max: int = option("integer", 512, "Warm connections per subscriber.", low=0, high=65535)
    half_open_max: int = option(
        "integer", 1024, "Unauthenticated connections a worker holds at once.", low=1, high=65535
    )
    server_mptcp: bool = option("flag", False, "Offer MPTCP to servers; they may refuse it.")
    max_subflows: int = option("integer", 4, "Additional subflows per connection (kernel limit 8).", low=0, high=8)
    congestion_control: str = option(
        "text",
        "auto",
        "TCP congestion control towards subscribers; auto: the kernel's own, and bbr where lines lose packets.",
    )
    speedtest: bool = option("flag", True, "Serve the speed tests of subscribers' routers; the data goes nowhere else.")
    speedtest_s: float = option("number", 15.0, "A speed test is cut off after this.", low=6, high=300, unit="s")
    public_address: tuple[str, ...] = option(
        "address",
        (),
        "Addresses that lead here through NAT: treated like the concentrator's own.",
        many=True,
    )
    cookie_secret: str = option(
        "secret",
        "",
        "Secret of the operator's concentrators and RADIUS servers, from which each subscriber's key comes (mcp-concentrator "
        "handle); empty: only the subscribers of this file have keys.",
    )
    handle_ttl_s: float = option(
        "number",
        0.0,
        "How long AAA makes handles for (mcp-concentrator handle --ttl): a Disconnect-Request then ends all that a "
        "subscriber may have by now; 0: only those that this concentrator has seen, and earlier ones.",
        low=0,
        high=31536000,
        unit="s",
    )
    tune_kernel: bool = option(
        "flag",
        True,
        "Set the kernel's TCP buffers and what it does with floods of handshakes (net.ipv4.tcp_*), and keep it from "
        "switching Multipath TCP off for an hour (net.mptcp.blackhole_timeout). The log names each change.",
    )
    run_dir: str = option("text", "/run/mcp-concentrator", "Directory of sockets and runtime state.")
    log_level: str = option(
        "choice", "info", "Least severity that is logged.", choices=("debug", "info", "warning", "error")
    )
    metrics_port: int = option("integer", 0, "TCP port of the Prometheus metrics; 0: none.", low=0, high=65535)
    metrics_address: str = option(
        "address", "127.0.0.1", "Local address of the metrics, which everybody may read who reaches it."
    )
    metrics_subscribers: bool = option(
        "flag", False, "Metrics of each subscriber too: they tell who used how much, and are many."
    )


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """``config listener 'NAME'``: where Convert connections are accepted."""

    name: str = ""
    address: tuple[str, ...] = option(
        "address", ("::",), "Local addresses; :: takes both families on every interface.", many=True
    )
    port: int = option("integer", DEFAULT_SERVICE_PORT, "Service port.", low=1, high=65535)
    device: str = option("text", "", "Only on this network device; empty: on all.")
    facing: str = option(
        "choice",
        "internet",
        "internet: the cookie is mandatory; customer: a known source address is enough.",
        choices=("internet", "customer"),
    )
    authorization: str = option(
        "choice",
        "",
        "What a connection needs: a known source address, a cookie (which counts everywhere, and must be right), or both, of "
        "the same subscriber; empty: cookie where it faces the Internet, address where it faces customers.",
        choices=("", ADDRESS, COOKIE, BOTH),
    )

    def needs(self) -> str:
        """What a connection needs: ADDRESS, COOKIE or BOTH."""
        return self.authorization or (COOKIE if self.facing == "internet" else ADDRESS)


@dataclass(frozen=True, slots=True)
class InterfaceSettings:
    """``config interface 'NAME'``: which side a network device is on. Over one that faces the Internet listeners that face
    customers are not reached: connections are refused, and counted. A device without such a section is on both sides: a server
    with one device needs none."""

    name: str = ""
    device: str = option("text", "", "The network device.")
    facing: str = option(
        "choice",
        "internet",
        "internet: only listeners that face the Internet are reached over it; customer: all are.",
        choices=("internet", "customer"),
    )


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """``config filter 'NAME'``: what this machine does with packets from source addresses for which RADIUS sends the
    Filter-Id NAME. They are in the sets filter4_NAME and filter6_NAME of the nftables table inet mcp_concentrator."""

    name: str = ""
    mark: int = option(
        "integer", 0, "Bits set in the packets' mark, for your own rules and routes; 0: none.", low=0, high=2**32 - 1
    )
    rule: tuple[str, ...] = option(
        "text", (), "Rules of nftables for these packets, such as tcp dport 25 drop.", many=True
    )


@dataclass(frozen=True, slots=True)
class DestinationSettings:
    """``config destinations 'destinations'``: what subscribers may reach beyond global addresses (design D15)."""

    allow: tuple[str, ...] = option(
        "prefix", (), "Prefixes that are reachable although they are not global.", many=True
    )
    deny: tuple[str, ...] = option("prefix", (), "Prefixes that are never reachable.", many=True)
    hairpin: bool = option("flag", False, "Let one subscriber reach another's source address.")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """``config limits 'limits'``: what strangers and single subscribers may make this machine do (requirement 7.2-a). A burst
    may have as much as comes in two seconds."""

    filter: bool = option(
        "flag", True, "Limit handshakes before TCP sees them, in an nftables table of its own (inet mcp_concentrator)."
    )
    strict_source: bool = option(
        "flag", False, "Drop handshakes whose source has no route back by the device that they came from."
    )
    backlog: int = option(
        "integer",
        4096,
        "Handshakes that may be under way before SYN cookies answer, and connections that wait to be accepted.",
        low=16,
        high=65535,
    )
    prefix_v4: int = option("integer", 24, "Length of the IPv4 prefixes that share limits per prefix.", low=8, high=32)
    prefix_v6: int = option("integer", 56, "Length of the IPv6 prefixes that share limits per prefix.", low=16, high=64)
    source_rate: int = option(
        "integer", 500, "Handshakes of one IPv4 address, or IPv6 /64.", low=1, high=1000000, unit="1/s"
    )
    prefix_rate: int = option(
        "integer",
        2000,
        "Handshakes of one prefix from addresses where no subscriber is served.",
        low=1,
        high=1000000,
        unit="1/s",
    )
    stranger_rate: int = option(
        "integer",
        10000,
        "Handshakes from all addresses where no subscriber is served.",
        low=1,
        high=1000000,
        unit="1/s",
    )
    half_open_prefix: int = option(
        "integer", 256, "Unauthenticated connections of one prefix that a worker holds at once.", low=1, high=65535
    )
    question_rate: int = option(
        "integer",
        2000,
        "Questions of a worker about who somebody is, for addresses where no subscriber was served.",
        low=1,
        high=1000000,
        unit="1/s",
    )
    question_prefix_rate: int = option(
        "integer",
        100,
        "The same for the addresses of one prefix; ten times that where a subscriber was.",
        low=1,
        high=1000000,
        unit="1/s",
    )
    error_rate: int = option(
        "integer",
        200,
        "Convert errors of a worker to peers that are not authenticated; others are reset without one.",
        low=0,
        high=1000000,
        unit="1/s",
    )
    error_prefix_rate: int = option(
        "integer",
        20,
        "The same to the addresses of one prefix; ten times that where a subscriber was.",
        low=0,
        high=1000000,
        unit="1/s",
    )
    subscriber_rate: int = option(
        "integer", 500, "New flows of one subscriber that a worker opens; 0: no limit.", low=0, high=1000000, unit="1/s"
    )
    subscriber_connections: int = option(
        "integer",
        10000,
        "Connections that a worker has for a subscriber without a limit of its own; 0: no limit.",
        low=0,
        high=1000000,
    )


@dataclass(frozen=True, slots=True)
class RadiusSettings:
    """``config radius 'radius'``: who may use this concentrator."""

    enabled: bool = option("flag", False, "Ask RADIUS about source addresses that are not known.")
    server: tuple[str, ...] = option("host", (), "RADIUS servers, ADDRESS or ADDRESS:PORT, in order.", many=True)
    secret: str = option("secret", "", "Secret shared with the RADIUS servers.")
    password: str = option("secret", "", "User-Password sent with an address (RFC 2865 wants one).")
    nas_identifier: str = option("text", "mcp-concentrator", "NAS-Identifier sent in requests.")
    timeout_s: float = option("number", 2.0, "For one try.", low=0.1, high=60, unit="s")
    tries: int = option("integer", 2, "Tries per server.", low=1, high=10)
    positive_s: float = option(
        "number", 3600.0, "How long an Accept without Session-Timeout holds.", low=1, high=604800, unit="s"
    )
    negative_s: float = option("number", 60.0, "How long a Reject holds.", low=1, high=86400, unit="s")
    enterprise: int = option(
        "integer", DEFAULT_ENTERPRISE, "Enterprise number of our RADIUS attributes.", low=1, high=2**32 - 1
    )
    accounting: bool = option("flag", False, "Tell these servers who uses the concentrator, how long and how much.")
    accounting_port: int = option("integer", 1813, "Their UDP port for that.", low=1, high=65535)
    interim_s: float = option(
        "number",
        600.0,
        "How often a session is told of that goes on, unless its Accept says how often; 0: only at its begin and end.",
        low=0,
        high=86400,
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class DynamicSettings:
    """``config dynamic 'dynamic'``: changes and disconnects that AAA sends by itself (RFC 5176)."""

    enabled: bool = option("flag", False, "Take CoA- and Disconnect-Requests.")
    address: tuple[str, ...] = option(
        "address", ("::",), "Local addresses; :: takes both families on every interface.", many=True
    )
    device: str = option("text", "", "Only on this network device; empty: on all.")
    port: int = option("integer", 3799, "UDP port.", low=1, high=65535)
    require_message_authenticator: bool = option(
        "flag", True, "Discard requests without a Message-Authenticator; one that is there is always verified."
    )
    require_timestamp: bool = option(
        "flag", True, "Discard requests without an Event-Timestamp; one that is there is always verified."
    )
    window_s: float = option(
        "number",
        300.0,
        "How far an Event-Timestamp may be from this machine's clock, and how long a retransmission is known as one.",
        low=10,
        high=3600,
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class DynamicClientSettings:
    """``config dynamic_client 'NAME'``: who may send CoA- and Disconnect-Requests. Without such a section these are the
    servers of section radius, with its secret."""

    name: str = ""
    enabled: bool = option("flag", True, "Whether its requests are taken.")
    address: tuple[str, ...] = option("address", (), "Addresses that it sends from.", many=True)
    secret: str = option("secret", "", "Secret shared with it.")


@dataclass(frozen=True, slots=True)
class AddressLogSettings:
    """``config address_log 'address_log'``: which subscriber had which of our addresses and ports, for whom the law asks it
    (RFC 6888 section 4). What is not switched on here is written nowhere."""

    enabled: bool = option("flag", False, "Write a line for each connection that has ended.")
    file: str = option(
        "text", "/var/log/mcp-concentrator/addresses.log", "Where to, readable by its owner only; empty: to no file."
    )
    max_mb: float = option(
        "number", 100.0, "The file is put aside when it is this large.", low=0.01, high=1000000, unit="MB"
    )
    keep: int = option("integer", 10, "Files put aside that are kept; the oldest one is deleted.", low=1, high=10000)
    syslog: bool = option("flag", False, "Write the lines to the system log too, facility local0.")
    destinations: bool = option("flag", False, "Where each connection went to as well: more than RFC 6888 wants.")


IDENT_OFF, IDENT_INFORM, IDENT_REQUIRE = "off", "inform", "require"


@dataclass(frozen=True, slots=True)
class IdentSettings:
    """``config ident 'ident'``: what routers are asked by Ident (RFC 1413, TCP port 113) when the first connection of a source
    address has been accepted. An answer is only as trustworthy as the router that gives it."""

    mode: str = option(
        "choice",
        IDENT_OFF,
        "off: nobody is asked; inform: the answer is shown, and nobody waits for it; require: who comes without a cookie is "
        "served only when the answer is the subscriber's name.",
        choices=(IDENT_OFF, IDENT_INFORM, IDENT_REQUIRE),
    )
    timeout_s: float = option(
        "number",
        2.5,
        "For the answer. A SYN that is lost is sent again after 1 s, so less than that leaves no room for one.",
        low=0.1,
        high=4,
        unit="s",
    )
    remember_s: float = option(
        "number",
        3600.0,
        "How long the answer of an address holds; one without a name for 60 s at most, and with require none at all for 5 s "
        "at first.",
        low=1,
        high=86400,
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class SubscriberSettings:
    """``config subscriber 'NAME'``: who may use this concentrator without RADIUS (design D16)."""

    name: str = ""
    enabled: bool = option("flag", True, "Whether this subscriber is served.")
    key: str = option("secret", "", "Key shared with the subscriber's router; makes the Convert Cookie.")
    address: tuple[str, ...] = option(
        "prefix", (), "Source prefixes that are this subscriber's, on customer-facing listeners.", many=True
    )
    down_mbit: float = option(
        "number",
        0.0,
        "Most that all the subscriber's connections together get, towards the subscriber; 0: no cap.",
        low=0,
        high=1000000,
        unit="Mbit/s",
    )
    up_mbit: float = option(
        "number",
        0.0,
        "The same, from the subscriber; 0: no cap.",
        low=0,
        high=1000000,
        unit="Mbit/s",
    )
    connections: int = option(
        "integer", 0, "Most connections the subscriber may have at once; 0: no limit.", low=0, high=1000000
    )


@dataclass(frozen=True, slots=True)
class ConcentratorSettings:
    """The whole of ``/etc/config/mcp-concentrator``. Nobody is served by default."""

    general: GlobalSettings = GlobalSettings()
    destinations: DestinationSettings = DestinationSettings()
    limits: LimitSettings = LimitSettings()
    radius: RadiusSettings = RadiusSettings()
    dynamic: DynamicSettings = DynamicSettings()
    dynamic_clients: tuple[DynamicClientSettings, ...] = ()
    address_log: AddressLogSettings = AddressLogSettings()
    interfaces: tuple[InterfaceSettings, ...] = ()
    filters: tuple[FilterSettings, ...] = ()
    ident: IdentSettings = IdentSettings()
    listeners: tuple[ListenerSettings, ...] = (ListenerSettings(name="default"),)
    subscribers: tuple[SubscriberSettings, ...] = ()
