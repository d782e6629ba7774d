"""Settings of the router's side: ``/etc/config/cpe-mcp``. One dataclass per section type, one field per option."""

from __future__ import annotations

from dataclasses import dataclass

from cpe_mcp.settings.option import option

DEFAULT_SERVICE_PORT = 5124
"""Where a concentrator listens. Never assigned by IANA; what a public dissector uses for Convert (design D12)."""
DEFAULT_INTERCEPT_PORT = 5125
"""Where the workers take intercepted connections. Local to the router; one above the service port, no other meaning."""
DEFAULT_DHCP4_CODE = 224
"""First code of the site-specific range 224-254 (RFC 3942); none was ever assigned for this (design D12)."""
DEFAULT_DHCP4_NAME_CODE = 225
"""The next one of the same range."""
DEFAULT_DHCP6_CODE = 65001
"""High unassigned DHCPv6 option code (design D12)."""
DEFAULT_PRECEDENCE = ("static", "radius", "dhcp", "dns")
"""What the user wrote wins; what AAA says of a subscriber beats what DHCP says to everybody (as RFC 9445 has it); DNS, which
says the same to everybody too, comes last."""
TRUST_STATIC, TRUST_RADIUS, TRUST_DNSSEC, TRUST_DHCP, TRUST_DNS = "static", "radius", "dnssec", "dhcp", "dns"
NOBODY = "none"
TRUST_CHOICES = (TRUST_STATIC, TRUST_RADIUS, TRUST_DNSSEC, TRUST_DHCP, TRUST_DNS, NOBODY)
DEFAULT_TRUST_ALONE = (TRUST_STATIC, TRUST_RADIUS, TRUST_DNSSEC)
"""Those that nobody on the way can forge: what the user wrote, what RADIUS signed, what a zone signed."""
DEFAULT_SECOND_SOURCE = (TRUST_STATIC, TRUST_RADIUS, TRUST_DNSSEC, TRUST_DHCP)
"""DHCP too: that of one WAN confirms that of another one, since an attacker has one access network and seldom two."""
DNSSEC_VALIDATE, DNSSEC_RESOLVER, DNSSEC_OFF = "validate", "resolver", "off"
ROOT_ANCHORS = (
    ". 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ". 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
)
"""The root zone's key signing keys of 2017 and 2024, as IANA publishes them (root-anchors.xml)."""
DEFAULT_ENTERPRISE = 32473
"""The enterprise number reserved for examples (RFC 5612); operators put their own."""
GB = 10**9
"""Bytes of a gigabyte, as contracts count."""


@dataclass(frozen=True, slots=True)
class GlobalSettings:
    """``config global 'global'``: the package as a whole."""

    enabled: bool = option("flag", True, "Switches the whole package on or off; off leaves plain forwarding.")
    workers: int = option("integer", 1, "Relay worker processes.", low=1, high=16)
    lan: tuple[str, ...] = option("text", ("br-lan",), "Devices whose connections are taken.", many=True)
    intercept: str = option(
        "choice",
        "global",
        "Which destinations are taken: global addresses only, any that leaves by a managed WAN, or none but what a "
        "rule takes.",
        choices=("global", "any", "none"),
    )
    mptcp_syn: str = option(
        "choice",
        "proxy",
        "What happens to a LAN connection that asks for MPTCP itself: proxied like any other, or passed untouched.",
        choices=("proxy", "pass"),
    )
    intercept_port: int = option(
        "integer", DEFAULT_INTERCEPT_PORT, "Local port of the relay workers.", low=1, high=65535
    )
    fallback: str = option(
        "choice",
        "direct",
        "What a connection gets when no concentrator serves it: a direct connection, or none.",
        choices=("direct", "block"),
    )
    direct_s: float = option(
        "number",
        300.0,
        "How long a destination that failed through the concentrator is left to plain forwarding.",
        low=1,
        high=86400,
        unit="s",
    )
    pool_size: int = option("integer", 8, "Warm connections each worker keeps ready; 0 for none.", low=0, high=256)
    pool_idle_s: float = option(
        "number", 240.0, "Age at which a warm connection is replaced.", low=1, high=3600, unit="s"
    )
    connect_timeout_s: float = option(
        "number", 3.0, "For the handshake with the concentrator.", low=0.1, high=60, unit="s"
    )
    reply_timeout_s: float = option("number", 10.0, "For the Convert reply.", low=0.5, high=120, unit="s")
    congestion_control: str = option(
        "text",
        "auto",
        "TCP congestion control towards the concentrator; auto: the kernel's own, and bbr where lines lose packets.",
    )
    run_dir: str = option("text", "/var/run/cpe-mcp", "Directory of sockets and runtime state, in RAM.")
    state_dir: str = option(
        "text",
        "/etc/cpe-mcp",
        "Directory, on flash, of what has to survive a reboot: the used volume of WANs with a quota, written once an hour at "
        "most.",
    )
    metrics_s: float = option(
        "number",
        0.0,
        "How often cpe-mcp.prom is written to run_dir, for the textfile collector of a Prometheus exporter; 0: never.",
        low=0,
        high=3600,
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class WanSettings:
    """``config wan 'NAME'``: one access network the package may use."""

    name: str = ""
    enabled: bool = option("flag", True, "Whether this WAN is used.")
    device: str = option("text", "", "Network device, for example eth1 or wwan0. Required.")
    interface: str = option("text", "", "netifd's name of the interface, for example wan; empty: same as the section.")
    preference: int = option(
        "integer", 10, "Lower is preferred for first subflows; equal ones are ordered by RTT.", low=0, high=1000
    )
    role: str = option(
        "choice",
        "normal",
        "normal: used when worthwhile; backup: used only when no normal WAN is healthy.",
        choices=("normal", "backup"),
    )
    operator_network: bool = option(
        "flag",
        False,
        "The operator's own, closed network, where nobody else listens: only over such WANs RADIUS is asked without TLS.",
    )
    metered: bool = option(
        "flag",
        False,
        "Its bytes cost money: it has no subflow until it is needed, not even an idle one. A WAN with a quota is always "
        "metered.",
    )
    quota_gb: float = option(
        "number",
        0.0,
        "Volume of one month, both directions and all traffic of the device together, 1 GB = 10^9 bytes; 0: no quota. When it "
        "is used up, the WAN is the last resort.",
        low=0,
        high=1000000,
        unit="GB",
    )
    quota_day: int = option(
        "integer",
        1,
        "Day of the month on which the quota begins anew; in a shorter month, its last day.",
        low=1,
        high=31,
    )
    quota_soft_percent: int = option(
        "integer",
        80,
        "Share of the quota from which on the WAN is used as if its role were backup; 100: no such step.",
        low=1,
        high=100,
        unit="%",
    )
    trust_dhcp: bool = option(
        "flag",
        False,
        "Concentrators that this WAN's DHCP names are used without anybody's confirmation. For an access network where nobody "
        "but the operator can answer DHCP.",
    )
    rate_down_mbit: float = option(
        "number", 0.0, "Known download rate; 0: learnt from traffic.", low=0, high=100000, unit="Mbit/s"
    )
    rate_up_mbit: float = option(
        "number", 0.0, "Known upload rate; 0: learnt from traffic.", low=0, high=100000, unit="Mbit/s"
    )

    def is_metered(self) -> bool:
        """Whether its bytes cost money."""
        return self.metered or self.quota_gb > 0

    def quota_bytes(self) -> int:
        """0 is none."""
        return round(self.quota_gb * GB)


@dataclass(frozen=True, slots=True)
class PathsSettings:
    """``config paths 'paths'``: how WANs are judged and used."""

    scheme: str = option(
        "scheme",
        "adaptive",
        "Who carries. adaptive: the best WAN, and all while it is busy; aggregate: all at once; primary-backup: the best WAN "
        "alone; overflow: unmetered WANs first, the next one joins when those before it are full; lowest-latency: the WAN "
        "with the shortest round trip alone; single:WAN: that WAN and no other, also when it fails.",
    )
    busy_percent: float = option(
        "number", 70.0, "Load of the carrying WANs at which the next ones join.", low=10, high=100, unit="%"
    )
    busy_s: float = option("number", 0.3, "How long that load must last.", low=0.1, high=60, unit="s")
    idle_percent: float = option(
        "number", 50.0, "Load, of what fewer WANs can carry, at which the last ones leave.", low=1, high=99, unit="%"
    )
    idle_s: float = option("number", 4.0, "How long that must last.", low=0.1, high=600, unit="s")
    silent_ms: int = option(
        "integer", 100, "Silence on a line that was carrying traffic before it is probed.", low=20, high=5000, unit="ms"
    )
    return_s: float = option(
        "number", 1.0, "How long a dead line must answer again before it is used.", low=0.3, high=600, unit="s"
    )
    flap_count: int = option(
        "integer", 5, "A WAN that went away so often within flap_window_s is held down; 0: never.", low=0, high=100
    )
    flap_window_s: float = option("number", 120.0, "See flap_count.", low=1, high=86400, unit="s")
    hold_s: float = option(
        "number",
        10.0,
        "How long a flapping WAN is held down at first; each further time twice as long, up to 300.",
        low=1,
        high=300,
        unit="s",
    )
    tune_kernel: bool = option(
        "flag",
        True,
        "Set the kernel's TCP buffers (net.ipv4.tcp_rmem, tcp_wmem), and keep it from switching Multipath TCP off for an "
        "hour (net.mptcp.blackhole_timeout). The log names each change.",
    )


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """``config discovery 'discovery'``: where concentrators are learnt from."""

    dhcp: bool = option("flag", True, "Take concentrators from DHCP options.")
    precedence: tuple[str, ...] = option(
        "choice",
        DEFAULT_PRECEDENCE,
        "Where concentrators are learnt from, best first: the first one that names any gives the whole list. A source that is "
        "left out is not used.",
        choices=DEFAULT_PRECEDENCE,
        many=True,
    )
    dhcp_override: bool = option(
        "flag", False, "Old way to write the precedence radius, dhcp, static, dns. Not together with precedence."
    )
    trust_alone: tuple[str, ...] = option(
        "choice",
        DEFAULT_TRUST_ALONE,
        "Sources whose word is enough: an address that another source names is used only when a second one names it too. "
        "dnssec is DNS with a valid signature, dns is DNS without; none: everything needs a second source.",
        choices=TRUST_CHOICES,
        many=True,
    )
    second_source: tuple[str, ...] = option(
        "choice",
        DEFAULT_SECOND_SOURCE,
        "Sources that count as the second one; for DHCP it is that of another WAN. none: only sources of trust_alone are used.",
        choices=TRUST_CHOICES,
        many=True,
    )
    dns_name: tuple[str, ...] = option(
        "domain",
        (),
        "Names whose DNS SRV records name concentrators, such as _convert._tcp.example.net; empty: DNS is not asked.",
        many=True,
    )
    dns_server: tuple[str, ...] = option(
        "address", (), "Resolvers that are asked for them; empty: those that the WANs' DHCP named.", many=True
    )
    dnssec: str = option(
        "choice",
        DNSSEC_VALIDATE,
        "Who checks the signatures of DNS. validate: this package, from trust_anchor down (package python3-cryptography); "
        "resolver: a validating resolver on this router, which dns_server names; off: nobody, and no answer counts as signed.",
        choices=(DNSSEC_VALIDATE, DNSSEC_RESOLVER, DNSSEC_OFF),
    )
    trust_anchor: tuple[str, ...] = option(
        "text",
        ROOT_ANCHORS,
        "Keys that are trusted without a proof, as the DS record of a zone: ZONE KEYTAG ALGORITHM DIGESTTYPE DIGEST. Set, it "
        "replaces the root zone's.",
        many=True,
    )
    dhcp4_code: int = option("integer", DEFAULT_DHCP4_CODE, "DHCPv4 option code; not 249 or 252.", low=224, high=254)
    dhcp4_name_code: int = option(
        "integer",
        DEFAULT_DHCP4_NAME_CODE,
        "DHCPv4 option code of a domain whose SRV records (_convert._tcp below it) name concentrators, 224 to 254; 0: none.",
        low=0,
        high=254,
    )
    dhcp6_code: int = option("integer", DEFAULT_DHCP6_CODE, "DHCPv6 option code.", low=1, high=65535)
    interface: tuple[str, ...] = option(
        "text", (), "netifd interfaces whose DHCP answers are looked at; empty: those of every WAN.", many=True
    )
    service_port: int = option(
        "integer", DEFAULT_SERVICE_PORT, "Port of concentrators found without one (DHCP, RADIUS).", low=1, high=65535
    )
    prefer: str = option(
        "choice", "ipv4", "Address family tried first where a concentrator has both.", choices=("ipv4", "ipv6")
    )
    nonsense_s: float = option(
        "number", 60.0, "How long a concentrator that answered nonsense is left alone.", low=1, high=86400, unit="s"
    )


@dataclass(frozen=True, slots=True)
class ConcentratorSettings:
    """``config concentrator 'NAME'``: a static concentrator. Static ones win over discovered ones."""

    name: str = ""
    enabled: bool = option("flag", True, "Whether it is used.")
    address: tuple[str, ...] = option("address", (), "Addresses of this one concentrator, best first.", many=True)
    port: int = option("integer", DEFAULT_SERVICE_PORT, "Its service port.", low=1, high=65535)
    subscriber: str = option(
        "text", "", "Name of the subscriber in the concentrator's table; empty: no cookie.", private=True
    )
    key: str = option("secret", "", "Key shared with the concentrator for that subscriber.")
    foreign: bool = option(
        "flag", False, "A converter of another make: a warm connection to it stays silent until it has a flow."
    )
    service_class: tuple[str, ...] = option(
        "text",
        (),
        "Serves only connections whose rule names one of these words, or this section, as its concentrator; without: serves "
        "all others.",
        many=True,
    )


@dataclass(frozen=True, slots=True)
class RadiusSettings:
    """``config radius 'radius'``: how the router proves who it is."""

    enabled: bool = option("flag", False, "Ask RADIUS before any connection is taken.")
    server: tuple[str, ...] = option("host", (), "RADIUS servers, ADDRESS or ADDRESS:PORT, in order.", many=True)
    transport: str = option(
        "choice",
        "udp",
        "udp: port 1812, and only over WANs with operator_network; tls: RADIUS over TLS (RFC 6614), port 2083, over any WAN.",
        choices=("udp", "tls"),
    )
    secret: str = option("secret", "", "Secret shared with the RADIUS servers; TLS needs none.")
    username: str = option("text", "", "Subscriber name.", private=True)
    password: str = option("secret", "", "Subscriber password.")
    method: str = option(
        "choice",
        "pap",
        "How the password is proven. pap: encrypted with the secret; chap: as a digest, for which the server has to know it "
        "in clear text.",
        choices=("pap", "chap"),
    )
    tls_ca: str = option("text", "", "File, PEM: the authority that the servers' certificates come from.")
    tls_cert: str = option("text", "", "File, PEM: this router's own certificate.")
    tls_key: str = option("text", "", "File, PEM: its key. Nobody but root may read it.")
    tls_name: str = option(
        "text", "", "Host name that the servers' certificates have to be for; empty: the address that is asked."
    )
    on_reject: str = option(
        "choice",
        "direct",
        "After a Reject: plain forwarding, or no new connections.",
        choices=("direct", "block"),
    )
    on_timeout: str = option(
        "choice",
        "direct",
        "While no server has answered: plain forwarding, no new connections (block), or as if it had accepted (proxy), for "
        "concentrators that decide by themselves.",
        choices=("direct", "block", "proxy"),
    )
    calling_station: str = option(
        "text", "", "Calling-Station-Id sent in requests; empty: the hardware address of the first WAN that has one."
    )
    nas_identifier: str = option("text", "cpe-mcp", "NAS-Identifier sent in requests.")
    timeout_s: float = option("number", 2.0, "For one try.", low=0.1, high=60, unit="s")
    tries: int = option("integer", 3, "Tries per server.", low=1, high=10)
    retry_s: float = option(
        "number", 30.0, "Pause before asking again after Reject or timeout.", low=1, high=86400, unit="s"
    )
    enterprise: int = option(
        "integer",
        DEFAULT_ENTERPRISE,
        "Enterprise number of the attributes that carry concentrators.",
        low=1,
        high=2**32 - 1,
    )
    accounting: bool = option(
        "flag", False, "Tell these servers how long and how much each WAN is used, while they accept this subscriber."
    )
    accounting_port: int = option(
        "integer", 1813, "Their UDP port for that; with TLS it is the one of all questions.", low=1, high=65535
    )
    interim_s: float = option(
        "number",
        600.0,
        "Between two interim records of accounting, unless the Accept says it.",
        low=60,
        high=86400,
        unit="s",
    )
    dynamic: bool = option(
        "flag",
        False,
        "Take CoA- and Disconnect-Requests (RFC 5176), on the addresses of WANs with operator_network only; elsewhere the port "
        "stays closed.",
    )
    dynamic_client: tuple[str, ...] = option(
        "address", (), "Who may send them, with the same secret; empty: the RADIUS servers.", many=True
    )
    dynamic_port: int = option("integer", 3799, "UDP port for them.", low=1, high=65535)


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """``config rule``: what happens to some of the connections. The first rule that matches decides, in the order of the
    file; a rule without a condition matches everything. Of each condition one value is enough, and all conditions that are
    set must hold; ``domain`` and ``dest`` are one condition (the destination), and so are ``mac`` and ``src`` (the device).
    """

    section: str = ""
    """How messages call the section: its name, or ``rule[2]`` as ``uci show`` counts."""
    name: str = option(
        "text", "", "What this rule is called in replies and pages; empty: same as the section.", private=True
    )
    enabled: bool = option("flag", True, "Whether this rule is used.")
    action: str = option(
        "choice",
        "direct",
        "proxy: carried over all WANs even if the settings would not take it; direct: plain forwarding; block: refused.",
        choices=("proxy", "direct", "block"),
    )
    fallback: str = option(
        "choice",
        "global",
        "With action proxy, when no concentrator serves the connection: as section global says, or refused.",
        choices=("global", "block"),
    )
    concentrator: str = option(
        "text",
        "",
        "With action proxy: name or service class of the concentrator that is asked first; empty: the first of the list.",
    )
    scheme: str = option(
        "rule-scheme",
        "",
        "With action proxy: each connection is bound to one WAN, the one with the shortest round trip (lowest-latency) or "
        "that WAN (single:WAN); empty: the scheme of section paths.",
    )
    domain: tuple[str, ...] = option(
        "domain",
        (),
        "Destinations by name, every name below it too. Needs a dnsmasq that has nftset.",
        many=True,
        private=True,
    )
    dest: tuple[str, ...] = option("prefix", (), "Destination addresses or prefixes.", many=True)
    dest_port: tuple[str, ...] = option("ports", (), "Destination ports.", many=True)
    proto: tuple[str, ...] = option(
        "choice", (), "Protocols; without one and without dest_port, any.", choices=("tcp", "udp"), many=True
    )
    mac: tuple[str, ...] = option("mac", (), "Hardware addresses of LAN devices.", many=True)
    src: tuple[str, ...] = option("prefix", (), "Addresses or prefixes of LAN devices.", many=True)
    dscp: tuple[int, ...] = option("dscp", (), "DSCP of the first packet, as the LAN device sent it.", many=True)

    def label(self) -> str:
        """What people call the rule."""
        return self.name or self.section


@dataclass(frozen=True, slots=True)
class QuicSettings:
    """``config quic 'quic'``: what happens to QUIC, which no TCP proxy can carry."""

    policy: str = option(
        "choice",
        "forward",
        "forward: over the best WAN alone; reject: UDP port 443 is refused wherever TCP would be taken, so that browsers "
        "use TCP, over all WANs, at once.",
        choices=("forward", "reject"),
    )


@dataclass(frozen=True, slots=True)
class DscpSettings:
    """``config dscp 'dscp'``: the DSCP of proxied connections, on the leg to the concentrator and back to the device."""

    mode: str = option(
        "choice",
        "preserve",
        "preserve: that of the LAN device's first packet; set: always value; off: 0.",
        choices=("preserve", "set", "off"),
    )
    value: int = option("dscp", 0, "What mode set writes.")
    map: tuple[str, ...] = option(
        "dscp-map", (), "With preserve: write TO where the device wrote FROM, as FROM:TO.", many=True
    )


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """``config logging 'logging'``: what is written to the system log."""

    level: str = option(
        "choice", "info", "Least severity that is logged.", choices=("debug", "info", "warning", "error")
    )
    flows: bool = option("flag", False, "One line for each connection that has ended.")
    mask: bool = option("flag", True, "Leave the last part of addresses out of those lines.")


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """``config dns 'dns'``: the dnsmasq that tells the addresses of the names in rules."""

    confdir: str = option(
        "text", "auto", "Directory that dnsmasq reads snippets from; auto: what OpenWrt's dnsmasq says it is."
    )
    restart: str = option(
        "text",
        "/etc/init.d/dnsmasq restart",
        "Command that makes dnsmasq read its snippets again, run only when ours has changed; empty: none.",
    )


@dataclass(frozen=True, slots=True)
class IdentSettings:
    """``config ident 'ident'``: whether concentrators may ask whose a connection is (Ident, RFC 1413, TCP port 113)."""

    enabled: bool = option(
        "flag",
        False,
        "Answer the concentrators, on every WAN, about this router's connections to them. Others find the port closed.",
    )
    user: str = option(
        "text",
        "",
        "What they are told; empty: the name that is set for the subscriber at that concentrator, or the user name of section "
        "radius.",
        private=True,
    )


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """The whole of ``/etc/config/cpe-mcp``."""

    general: GlobalSettings = GlobalSettings()
    paths: PathsSettings = PathsSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    radius: RadiusSettings = RadiusSettings()
    wans: tuple[WanSettings, ...] = ()
    concentrators: tuple[ConcentratorSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    quic: QuicSettings = QuicSettings()
    dscp: DscpSettings = DscpSettings()
    logging: LoggingSettings = LoggingSettings()
    dns: DnsSettings = DnsSettings()
    ident: IdentSettings = IdentSettings()
