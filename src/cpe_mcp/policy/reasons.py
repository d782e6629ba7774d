"""Every reason this project gives for doing something, as data (design D8).

The values travel unchanged into log lines, flow records, ``cpe-mcp status`` and the UI; :data:`TEXTS` is what a person
reads. Add a reason here, never a free text elsewhere.
"""

from __future__ import annotations


class Reason:
    """String constants and not an Enum: they cross process borders as they are, and workers stay small."""

    # the package as a whole
    STARTING = "starting"
    READY = "ready"
    DISABLED = "disabled"
    NO_WAN = "no-wan"
    NO_CONCENTRATOR = "no-concentrator"
    UNCONFIRMED = "unconfirmed"
    NOT_AUTHORIZED = "not-authorized"
    AUTH_TIMEOUT = "auth-timeout"
    AUTH_PENDING = "auth-pending"
    AUTH_UNPROTECTED = "auth-unprotected"
    # whether an answer of DNS is proven
    DNSSEC_VALID = "dnssec-valid"
    DNSSEC_UNSIGNED = "dnssec-unsigned"
    DNSSEC_BOGUS = "dnssec-bogus"
    DNSSEC_EXPIRED = "dnssec-expired"
    DNSSEC_CLOCK = "dnssec-clock"
    DNSSEC_NO_PACKAGE = "dnssec-no-package"
    DNSSEC_FAILED = "dnssec-failed"
    DNSSEC_OFF = "dnssec-off"
    # one flow
    PROXIED = "proxied"
    POOLED = "pooled"
    CONCENTRATOR_UNREACHABLE = "concentrator-unreachable"
    CONCENTRATOR_TIMEOUT = "concentrator-timeout"
    CONCENTRATOR_NONSENSE = "concentrator-nonsense"
    CONCENTRATOR_REFUSED = "concentrator-refused"
    CONCENTRATOR_BUSY = "concentrator-busy"
    SERVER_REFUSED = "server-refused"
    SERVER_UNREACHABLE = "server-unreachable"
    BLOCKED = "blocked"
    NO_IPV6 = "no-ipv6"
    NO_COMMON_FAMILY = "no-common-family"
    CHOICE_UNUSABLE = "choice-unusable"
    NO_WORKER = "no-worker"
    BRIDGE_FILTER = "bridge-filter"
    NOT_GLOBAL = "not-global"
    NOT_TAKEN = "not-taken"
    LEFT_DIRECT = "left-direct"
    WAN_NETWORK = "wan-network"
    OTHER_WAY = "other-way"
    MPTCP_STRIPPED = "mptcp-stripped"
    MPTCP_LOST = "mptcp-lost"
    MPTCP_BLACKHOLE = "mptcp-blackhole"
    RULE_PROXY = "rule-proxy"
    RULE_DIRECT = "rule-direct"
    RULE_BLOCK = "rule-block"
    # one flow, at the concentrator
    COOKIE_WANTED = "cookie-wanted"
    WRONG_COOKIE = "wrong-cookie"
    COOKIE_TIME = "cookie-time"
    REPLAYED_COOKIE = "replayed-cookie"
    COOKIES_FULL = "cookies-full"
    HANDLE_EXPIRED = "handle-expired"
    HANDLE_ENDED = "handle-ended"
    OTHER_SUBSCRIBER = "other-subscriber"
    UNKNOWN_SUBSCRIBER = "unknown-subscriber"
    UNKNOWN_ADDRESS = "unknown-address"
    MALFORMED = "malformed"
    POOL_FULL = "pool-full"
    CONNECTIONS_FULL = "connections-full"
    WITHDRAWN = "withdrawn"
    MOVED = "moved"
    IDENT_FAILED = "ident-failed"
    IDENT_SILENT = "ident-silent"
    TCP_OPTION_UNSUPPORTED = "tcp-option-unsupported"
    DESTINATION_REFUSED = "destination-refused"
    NO_RESOURCES = "no-resources"
    NETWORK_FAILURE = "network-failure"
    IDLE = "idle"
    SPEEDTEST = "speedtest"
    SPEEDTEST_FULL = "speedtest-full"
    # one WAN
    WAN_UP = "wan-up"
    WAN_LINK_DOWN = "wan-link-down"
    WAN_NO_ADDRESS = "wan-no-address"
    WAN_NO_ROUTE = "wan-no-route"
    WAN_SILENT = "wan-silent"
    WAN_HELD_DOWN = "wan-held-down"
    WAN_FLAPPING = "wan-flapping"
    WAN_HIGH_RTT = "wan-high-rtt"
    WAN_QUOTA_SOFT = "wan-quota-soft"
    WAN_OUT_OF_QUOTA = "wan-out-of-quota"
    WAN_NETIFD_DOWN = "wan-netifd-down"
    # why a new connection begins on this WAN, and goes to this concentrator
    FIRST_ONLY = "first-only"
    FIRST_ROLE = "first-role"
    FIRST_QUOTA = "first-quota"
    FIRST_UNMETERED = "first-unmetered"
    FIRST_STRIPS = "first-strips"
    FIRST_PREFERENCE = "first-preference"
    FIRST_LATENCY = "first-latency"
    FIRST_SCHEME = "first-scheme"
    FIRST_FAMILY = "first-family"
    CONCENTRATOR_ONLY = "concentrator-only"
    CONCENTRATOR_FIRST = "concentrator-first"
    CONCENTRATOR_NEXT = "concentrator-next"
    CONCENTRATOR_RULE = "concentrator-rule"
    # whether MPTCP gets through a WAN
    MPTCP_WORKS = "mptcp-works"
    MPTCP_UNKNOWN = "mptcp-unknown"
    ACCESS_STRIPS = "access-strips"
    MPTCP_NOWHERE = "mptcp-nowhere"
    # where a scheme places the WANs
    SCHEME_ROOM = "scheme-room"
    SCHEME_JOINED = "scheme-joined"
    SCHEME_ONE = "scheme-one"
    SCHEME_ALL = "scheme-all"
    SCHEME_PRIMARY = "scheme-primary"
    SCHEME_LATENCY = "scheme-latency"
    SCHEME_SINGLE = "scheme-single"
    SCHEME_RESERVE = "scheme-reserve"
    SCHEME_BOUND = "scheme-bound"
    SCHEME_WAN_UNUSABLE = "scheme-wan-unusable"
    # why a running flow is as fast as it is
    STILL_STARTING = "still-starting"
    ONE_WAN = "one-wan"
    NOT_JOINED = "not-joined"
    WAN_IN_RESERVE = "wan-in-reserve"
    WAN_FULL = "wan-full"
    WAN_LOSSY = "wan-lossy"
    WAN_SLOWER = "wan-slower"
    FLOW_QUIET = "flow-quiet"
    SERVER_SLOW = "server-slow"
    SERVER_FULL = "server-full"
    CLIENT_SLOW = "client-slow"
    CLIENT_FULL = "client-full"
    LAN_FULL = "lan-full"
    WORKER_BUSY = "worker-busy"
    CONCENTRATOR_CAP = "concentrator-cap"
    # why a flow ended
    CLOSED = "closed"
    CLIENT_RESET = "client-reset"
    SERVER_RESET = "server-reset"
    MPTCP_RESET = "mptcp-reset"
    WORKER_STOPPED = "worker-stopped"
    DROPPED = "dropped"
    INTERNAL_ERROR = "internal-error"


TEXTS: dict[str, str] = {
    Reason.STARTING: "the daemon is starting",
    Reason.READY: "connections use all healthy WANs",
    Reason.DISABLED: "switched off in the settings (global.enabled)",
    Reason.NO_WAN: "no managed WAN is usable",
    Reason.NO_CONCENTRATOR: "no concentrator is known or usable",
    Reason.UNCONFIRMED: "a concentrator is announced, but by a source that is not trusted alone, and no second one confirms it",
    Reason.NOT_AUTHORIZED: "RADIUS refused this subscriber",
    Reason.AUTH_TIMEOUT: "no RADIUS server answered",
    Reason.AUTH_PENDING: "waiting for the RADIUS answer",
    Reason.AUTH_UNPROTECTED: "RADIUS is not asked over UDP on lines that are not the operator's own (wan.operator_network, "
    "radius.transport)",
    Reason.DNSSEC_VALID: "the answer is proven by its signatures",
    Reason.DNSSEC_UNSIGNED: "the answer, or a delegation above it, is not signed",
    Reason.DNSSEC_BOGUS: "a signature is wrong, so the answer may be forged",
    Reason.DNSSEC_EXPIRED: "a signature has run out",
    Reason.DNSSEC_CLOCK: "the signatures begin later than this router's clock shows: is its time set?",
    Reason.DNSSEC_NO_PACKAGE: "signatures cannot be checked: the package python3-cryptography is not installed",
    Reason.DNSSEC_FAILED: "the check of the signatures came to no end",
    Reason.DNSSEC_OFF: "signatures are not checked (discovery.dnssec)",
    Reason.PROXIED: "carried over Multipath TCP",
    Reason.POOLED: "carried over Multipath TCP on a warm connection",
    Reason.CONCENTRATOR_UNREACHABLE: "the concentrator did not accept a connection",
    Reason.CONCENTRATOR_TIMEOUT: "the concentrator did not answer in time",
    Reason.CONCENTRATOR_NONSENSE: "the concentrator's answer was not Convert",
    Reason.CONCENTRATOR_REFUSED: "the concentrator does not know this subscriber (Convert Error 32)",
    Reason.CONCENTRATOR_BUSY: "the concentrator asked to be left alone for a while (Convert Error 64 or 65)",
    Reason.SERVER_REFUSED: "the server refused the connection (Convert Error 96)",
    Reason.SERVER_UNREACHABLE: "the server cannot be reached from the concentrator (Convert Error 97)",
    Reason.BLOCKED: "no concentrator serves this flow and the settings forbid a direct connection",
    Reason.NO_IPV6: "the concentrator has shown that it does not reach IPv6 servers",
    Reason.NO_COMMON_FAMILY: "no usable WAN has an address of the concentrator's family",
    Reason.CHOICE_UNUSABLE: "no concentrator of that name or service class, which its rule wants, is usable now",
    Reason.BRIDGE_FILTER: "the kernel filters bridged packets (br_netfilter), and what is taken from a bridge would be lost",
    Reason.NO_WORKER: "no relay worker is connected, so no connection is taken",
    Reason.NOT_GLOBAL: "the destination is not a global address, and only those are taken (global.intercept)",
    Reason.NOT_TAKEN: "the settings say that no connection is taken (global.intercept)",
    Reason.LEFT_DIRECT: "it failed through the concentrator a short time ago and is left to plain forwarding",
    Reason.WAN_NETWORK: "the destination is in a network directly behind a WAN, and those are never taken",
    Reason.OTHER_WAY: "the route to it does not leave by a managed WAN, and only that is taken",
    Reason.MPTCP_STRIPPED: "the concentrator was reached over plain TCP only: the handshake came back without MPTCP",
    Reason.MPTCP_LOST: "the connection to the concentrator fell back to plain TCP while it ran",
    Reason.MPTCP_BLACKHOLE: "the concentrator was reached over plain TCP only: packets with MPTCP in them vanished on the way",
    Reason.RULE_PROXY: "a rule takes it",
    Reason.RULE_DIRECT: "a rule leaves it to plain forwarding",
    Reason.RULE_BLOCK: "a rule refuses it",
    Reason.COOKIE_WANTED: "this listener wants a cookie",
    Reason.WRONG_COOKIE: "the cookie is forged, or no cookie of ours",
    Reason.COOKIE_TIME: "the cookie is of another time: the router was told what time it is and comes again",
    Reason.REPLAYED_COOKIE: "the cookie was used before: somebody has copied it",
    Reason.COOKIES_FULL: "no more cookies can be remembered, so none is taken until old ones are too old to be used again",
    Reason.HANDLE_EXPIRED: "the handle in the cookie has run out, and the router has not asked RADIUS for another one",
    Reason.HANDLE_ENDED: "a Disconnect-Request has ended the handle in the cookie, and the router has not got another one",
    Reason.OTHER_SUBSCRIBER: "the cookie is not of the subscriber whose address this is",
    Reason.UNKNOWN_SUBSCRIBER: "the cookie was made with the key of no subscriber that this concentrator knows",
    Reason.UNKNOWN_ADDRESS: "the source address is in no subscriber's prefixes, and RADIUS is not asked",
    Reason.MALFORMED: "the peer's Convert message was malformed",
    Reason.POOL_FULL: "the subscriber has as many warm connections as it may have",
    Reason.CONNECTIONS_FULL: "the subscriber has as many connections as it may have",
    Reason.WITHDRAWN: "RADIUS has ended the subscriber's session (Disconnect-Request)",
    Reason.MOVED: "RADIUS has sent the subscriber to other concentrators (CoA-Request)",
    Reason.IDENT_FAILED: "the router at this address did not confirm by Ident who it is",
    Reason.IDENT_SILENT: "the router at this address has not answered Ident yet",
    Reason.TCP_OPTION_UNSUPPORTED: "a TCP option was asked for that this concentrator cannot send",
    Reason.DESTINATION_REFUSED: "this destination is not reachable through the concentrator",
    Reason.NO_RESOURCES: "the concentrator has no descriptors, memory or ports left",
    Reason.NETWORK_FAILURE: "the concentrator's own network is down",
    Reason.IDLE: "nothing came in time",
    Reason.SPEEDTEST: "a speed test against this concentrator",
    Reason.SPEEDTEST_FULL: "the subscriber runs as many speed tests as it may",
    Reason.WAN_UP: "up",
    Reason.WAN_LINK_DOWN: "the link is down",
    Reason.WAN_NO_ADDRESS: "the WAN has no address",
    Reason.WAN_NO_ROUTE: "the WAN has no default route",
    Reason.WAN_SILENT: "the link is up but nothing comes back over it",
    Reason.WAN_HELD_DOWN: "it answers again and is watched for a moment before it is used",
    Reason.WAN_FLAPPING: "it works again, but went away several times in a row, and is held down for a while",
    Reason.WAN_HIGH_RTT: "its round trip has been several times longer than usual for a while",
    Reason.WAN_QUOTA_SOFT: "its monthly volume is nearly used up, and it is kept for the time when the others fail",
    Reason.WAN_OUT_OF_QUOTA: "its monthly volume is used up, and it is kept as the last resort",
    Reason.WAN_NETIFD_DOWN: "OpenWrt's network daemon (netifd) says that the interface is down",
    Reason.FIRST_ONLY: "no other WAN may begin connections now",
    Reason.FIRST_ROLE: "the others are only for backup",
    Reason.FIRST_QUOTA: "the quota of the others is used up, or nearly",
    Reason.FIRST_UNMETERED: "the others are metered",
    Reason.FIRST_STRIPS: "the others remove Multipath TCP",
    Reason.FIRST_PREFERENCE: "its preference is the best",
    Reason.FIRST_LATENCY: "its round trip is the shortest, or was and is still about that",
    Reason.FIRST_SCHEME: "the scheme puts it first",
    Reason.FIRST_FAMILY: "the WANs before it have no address of the concentrator's family",
    Reason.CONCENTRATOR_ONLY: "no other is known",
    Reason.CONCENTRATOR_FIRST: "it is the first of the list",
    Reason.CONCENTRATOR_NEXT: "those before it in the list cannot serve this connection now",
    Reason.CONCENTRATOR_RULE: "a rule asks for it",
    Reason.MPTCP_WORKS: "Multipath TCP gets through",
    Reason.MPTCP_UNKNOWN: "nothing has shown yet whether Multipath TCP gets through",
    Reason.ACCESS_STRIPS: "this access network removes Multipath TCP; over another WAN it gets through",
    Reason.MPTCP_NOWHERE: "Multipath TCP does not get through, and no other WAN shows that it could",
    Reason.SCHEME_ROOM: "the best WAN has room, so the others wait",
    Reason.SCHEME_JOINED: "the best WAN is full, so others carry too",
    Reason.SCHEME_ONE: "only this WAN is healthy",
    Reason.SCHEME_ALL: "all healthy WANs carry at once",
    Reason.SCHEME_PRIMARY: "the best WAN carries, the others wait for its failure",
    Reason.SCHEME_LATENCY: "the WAN with the shortest round trip carries",
    Reason.SCHEME_SINGLE: "only the chosen WAN carries",
    Reason.SCHEME_RESERVE: "no normal WAN is healthy, so the reserve carries",
    Reason.SCHEME_BOUND: "a rule has bound it to this WAN: it uses no other, also when this one fails",
    Reason.SCHEME_WAN_UNUSABLE: "the WAN that its rule names is not usable now",
    Reason.STILL_STARTING: "it is young: no line is full yet, and slower ones join when the fast one is",
    Reason.ONE_WAN: "there is only one WAN",
    Reason.NOT_JOINED: "this WAN is usable and carries no subflow of this connection",
    Reason.WAN_IN_RESERVE: "this WAN waits as backup, because the faster ones are not busy",
    Reason.WAN_FULL: "this WAN carries about the most that is known to fit into it",
    Reason.WAN_LOSSY: "this WAN loses packets on the way to the concentrator",
    Reason.WAN_SLOWER: "there is more to send than this WAN takes, and it has carried more before",
    Reason.FLOW_QUIET: "nothing is transferred at the moment",
    Reason.SERVER_SLOW: "the server, or its way to the concentrator, sends no faster; the WANs have room",
    Reason.SERVER_FULL: "the server, or its way from the concentrator, takes no more",
    Reason.CLIENT_SLOW: "the device sends no faster; the WANs have room",
    Reason.CLIENT_FULL: "the device reads no faster: its receive window is full",
    Reason.LAN_FULL: "the LAN or the Wi-Fi to the device carries no more",
    Reason.WORKER_BUSY: "the router's CPU is at its limit",
    Reason.CONCENTRATOR_CAP: "this is the rate that the concentrator grants",
    Reason.CLOSED: "closed by both ends",
    Reason.CLIENT_RESET: "reset by the LAN client",
    Reason.SERVER_RESET: "reset by the server",
    Reason.MPTCP_RESET: "the connection to the concentrator was reset",
    Reason.WORKER_STOPPED: "the relay worker was stopped",
    Reason.DROPPED: "ended by hand (cpe-mcp drop)",
    Reason.INTERNAL_ERROR: "an error in the relay worker ended it; the log of the worker has the details",
}
