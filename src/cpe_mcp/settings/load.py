"""From a settings file to settings: kinds and ranges as the declarations say, and what only holds between options.

Everything that is wrong becomes one :class:`SettingsError` that names file, line, section, option, value and what is
allowed. What is legal but cannot be meant is a warning (:func:`warnings_of`), for the log and ``cpe-mcp check``.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.aaa.ident import USER_MAX, fits
from cpe_mcp.kernel.numbers import CLASSES_MAX, MARK_SUBSCRIBER
from cpe_mcp.paths.scheme import LOWEST_LATENCY, SCHEMES, SINGLE, split_scheme
from cpe_mcp.settings import concentrator, router
from cpe_mcp.settings.concentrator import ConcentratorSettings
from cpe_mcp.settings.hosts import split_host
from cpe_mcp.settings.option import Option, declared_options
from cpe_mcp.settings.radius_ways import TLS, refusal
from cpe_mcp.settings.router import DEFAULT_PRECEDENCE, RouterSettings
from cpe_mcp.settings.uci import Entry, Section, SettingsError, hint, parse


class SectionKind(NamedTuple):
    """Where the sections of one UCI type go."""

    settings: type
    field: str
    many: bool
    """True: any number of named ones, in the order of the file; False: at most one."""
    may_be_anonymous: bool = False
    """With ``many``: a name is not needed. Such settings have a field ``section`` instead of ``name``."""


ROUTER_SECTIONS: dict[str, SectionKind] = {
    "global": SectionKind(router.GlobalSettings, "general", False),
    "wan": SectionKind(router.WanSettings, "wans", True),
    "paths": SectionKind(router.PathsSettings, "paths", False),
    "discovery": SectionKind(router.DiscoverySettings, "discovery", False),
    "concentrator": SectionKind(router.ConcentratorSettings, "concentrators", True),
    "radius": SectionKind(router.RadiusSettings, "radius", False),
    "rule": SectionKind(router.RuleSettings, "rules", True, may_be_anonymous=True),
    "quic": SectionKind(router.QuicSettings, "quic", False),
    "dscp": SectionKind(router.DscpSettings, "dscp", False),
    "logging": SectionKind(router.LoggingSettings, "logging", False),
    "dns": SectionKind(router.DnsSettings, "dns", False),
    "ident": SectionKind(router.IdentSettings, "ident", False),
}
CONCENTRATOR_SECTIONS: dict[str, SectionKind] = {
    "global": SectionKind(concentrator.GlobalSettings, "general", False),
    "listener": SectionKind(concentrator.ListenerSettings, "listeners", True),
    "subscriber": SectionKind(concentrator.SubscriberSettings, "subscribers", True),
    "destinations": SectionKind(concentrator.DestinationSettings, "destinations", False),
    "limits": SectionKind(concentrator.LimitSettings, "limits", False),
    "radius": SectionKind(concentrator.RadiusSettings, "radius", False),
    "dynamic": SectionKind(concentrator.DynamicSettings, "dynamic", False),
    "dynamic_client": SectionKind(concentrator.DynamicClientSettings, "dynamic_clients", True),
    "interface": SectionKind(concentrator.InterfaceSettings, "interfaces", True),
    "filter": SectionKind(concentrator.FilterSettings, "filters", True),
    "address_log": SectionKind(concentrator.AddressLogSettings, "address_log", False),
    "ident": SectionKind(concentrator.IdentSettings, "ident", False),
}

ROUTER_MOVED = {("global", "log_level"): ("logging", "level")}
"""Options that live in another section now; the old place is still read, the new one wins."""

FIRST_DHCP4_CODE = 224
"""Of those for site-specific use (RFC 3942)."""
ANCHOR = re.compile(
    r"(\.|([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?) +[0-9]{1,5} +[0-9]{1,3} +"
    r"(2 +[0-9A-Fa-f]{64}|4 +[0-9A-Fa-f]{96})"
)
"""A DS record with its zone before it."""
FLAG_WORDS = {
    "1": True, "on": True, "yes": True, "true": True,
    "0": False, "off": False, "no": False, "false": False,
}  # fmt: skip
MICROSOFT_ROUTES_CODE = 249
PROXY_AUTODISCOVERY_CODE = 252
TAKEN_DHCP4_CODES = (MICROSOFT_ROUTES_CODE, PROXY_AUTODISCOVERY_CODE)
"""Site-specific codes that clients in the field already understand as something else."""
DEVICE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
"""A network device's name (IFNAMSIZ) that nftables takes between quotes; * at its end would mean several."""
SECRET_MASK = "********"
COOKIE_SECRET_OCTETS = 16
"""128 bits, if they are random."""
DSCP_NAMES = {
    "BE": 0, "DF": 0, "LE": 1, "VA": 44, "EF": 46,
    **{f"CS{n}": 8 * n for n in range(8)},
    **{f"AF{n}{drop}": 8 * n + 2 * drop for n in range(1, 5) for drop in range(1, 4)},
}  # fmt: skip
"""IANA's registry of Differentiated Services Field Codepoints; BE is the usual word for DF."""
DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
DNS_NAME_MAX = 253
"""Octets of a name as text (RFC 1035 section 2.3.4)."""


def load_router(path: str) -> RouterSettings:
    """Read ``/etc/config/cpe-mcp`` or a file like it. Raises SettingsError, also when it cannot be read."""
    return parse_router(_read(path), path)


def load_concentrator(path: str) -> ConcentratorSettings:
    """Read ``/etc/config/mcp-concentrator`` or a file like it. Raises SettingsError, also when it cannot be read."""
    return parse_concentrator(_read(path), path)


def parse_router(text: str, file: str = "cpe-mcp") -> RouterSettings:
    """:func:`load_router` without the reading; ``file`` is what messages call it."""
    fields, sections = _build(text, file, ROUTER_SECTIONS, ROUTER_MOVED)
    settings = RouterSettings(**fields)
    _check_router(settings, _Complaints(file, sections))
    return settings


def parse_concentrator(text: str, file: str = "mcp-concentrator") -> ConcentratorSettings:
    """:func:`load_concentrator` without the reading; ``file`` is what messages call it."""
    fields, sections = _build(text, file, CONCENTRATOR_SECTIONS)
    settings = ConcentratorSettings(**fields)
    _check_concentrator(settings, _Complaints(file, sections))
    return settings


def warnings_of(settings: RouterSettings | ConcentratorSettings) -> list[str]:
    """What is allowed but leaves the user without what they probably wanted, one sentence each."""
    if isinstance(settings, RouterSettings):
        if not any(wan.enabled for wan in settings.wans):
            return ["no wan section is enabled: every connection is left to plain forwarding"]
        unprotected, warnings = refusal(settings), []
        if unprotected:
            warnings.append(unprotected)
        radius = settings.radius
        if radius.enabled and radius.dynamic and not any(wan.enabled and wan.operator_network for wan in settings.wans):
            warnings.append(
                "option dynamic of section radius does nothing: no enabled wan section has operator_network '1'"
            )
        return warnings
    keyed = bool(settings.general.cookie_secret) or any(row.enabled and row.key for row in settings.subscribers)
    return [
        f"listener '{listener.name}' faces the Internet, where a key is needed, and no enabled subscriber has one: "
        "nobody is served there"
        for listener in settings.listeners
        if listener.facing == "internet" and not keyed
    ]


def mask_secrets(settings: RouterSettings | ConcentratorSettings) -> dict[str, Any]:
    """The settings as plain data for status and support reports: a secret that is set reads ``********``."""
    return {field.name: _masked(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def allowed(declared: Option) -> str:
    """What an option may be, as messages and the manual say it: ``an integer from 0 to 1000``."""
    if declared.kind in ("integer", "number"):
        assert declared.low is not None
        assert declared.high is not None
        article = "an" if declared.kind == "integer" else "a"
        unit = f", in {declared.unit}" if declared.unit else ""
        return f"{article} {declared.kind} from {plain_number(declared.low)} to {plain_number(declared.high)}{unit}"
    return {
        "flag": "0 or 1 (or off/on, no/yes, false/true)",
        "choice": "one of " + ", ".join(choice or "empty" for choice in declared.choices),
        "address": "an IPv4 or IPv6 address",
        "prefix": "an IPv4 or IPv6 prefix such as 192.0.2.0/24, no bits set behind its length",
        "host": "ADDRESS, IPV4:PORT or [IPV6]:PORT",
        "secret": "text",
        "text": "text",
        "mac": "a hardware address such as 00:53:00:12:34:56",
        "ports": "a port from 1 to 65535, or a range such as 8000-8100",
        "dscp": "a number from 0 to 63, or a name such as EF, AF41, CS1",
        "dscp-map": "FROM:TO, each a number from 0 to 63 or a name such as EF, AF41, CS1",
        "domain": "a domain name such as example.com or *.example.com",
        "scheme": "one of " + ", ".join((*SCHEMES, "single:WAN")),
        "rule-scheme": "lowest-latency or single:WAN",
    }[declared.kind]


def plain_number(value: float) -> str:
    """A number without a superfluous fraction or an exponent: 4294967295, 0.5, 300."""
    return str(int(value)) if value == int(value) else str(value)


class _Complaints:
    """Makes the errors: knows where in the file every section and option stands."""

    def __init__(self, file: str, sections: Iterable[Section]) -> None:
        self._file = file
        self._sections = tuple(sections)

    def section(self, type_: str, name: str, problem: str) -> SettingsError:
        """About a section as a whole."""
        index, section = self._find(type_, name)
        return self._error(section, index, section.line, "", problem)

    def option(self, type_: str, name: str, option: str, problem: str) -> SettingsError:
        """About one option; at its last line, or where its section begins when it is not set."""
        index, section = self._find(type_, name)
        lines = [entry.line for entry in section.entries if entry.name == option]
        return self._error(section, index, lines[-1] if lines else section.line, f", option {option}", problem)

    def _error(self, section: Section, index: int, line: int, option: str, problem: str) -> SettingsError:
        return SettingsError(f"{self._file}:{line}: {_label(section, index)}{option}: {problem}")

    def _find(self, type_: str, name: str) -> tuple[int, Section]:
        """Only what the file holds can be wrong: defaults pass every check."""
        for index, row in enumerate(row for row in self._sections if row.type == type_):
            if not row.name and name == f"{type_}[{index}]":
                return index, row
            if name in ("", row.name):
                return -1, row
        raise LookupError(name)


def _label(section: Section, index: int = -1) -> str:
    """``section wan 'dsl'``; ``section rule[2]`` for an anonymous one of many, counted as UCI does; ``section paths``."""
    if section.name:
        return f"section {section.type} '{section.name}'"
    return f"section {section.type}" if index < 0 else f"section {section.type}[{index}]"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None


def _build(
    text: str,
    file: str,
    kinds: Mapping[str, SectionKind],
    moved: Mapping[tuple[str, str], tuple[str, str]] | None = None,
) -> tuple[dict[str, Any], tuple[Section, ...]]:
    """Constructor arguments of the whole settings, and the sections they came from."""
    sections = _moved(parse(text, file), moved or {})
    fields: dict[str, Any] = {}
    seen: dict[tuple[str, str], Section] = {}
    counted: Counter[str] = Counter()
    for section in sections:
        kind = kinds.get(section.type)
        index = counted[section.type] if kind is not None and kind.may_be_anonymous else -1
        counted[section.type] += 1
        where = f"{file}:{section.line}: {_label(section, index)}"
        if kind is None:
            known = hint(section.type, kinds) or "; there are " + ", ".join(kinds)
            raise SettingsError(f"{where}: no such section type{known}")
        if kind.many and not section.name and not kind.may_be_anonymous:
            raise SettingsError(f"{where}: needs a name: config {section.type} 'NAME'")
        key = (section.type, (section.name or f"{section.type}[{index}]") if kind.many else "")
        if key in seen:
            what = "name is taken" if kind.many else "only one section of this type is allowed, and there is one"
            raise SettingsError(f"{where}: {what} on line {seen[key].line}")
        seen[key] = section
        values = _values(section, kind.settings, file, index)
        if kind.many:
            identity = {"section" if kind.may_be_anonymous else "name": key[1]}
            fields[kind.field] = (*fields.get(kind.field, ()), kind.settings(**identity, **values))
        else:
            fields[kind.field] = kind.settings(**values)
    return fields, sections


def _moved(sections: tuple[Section, ...], moved: Mapping[tuple[str, str], tuple[str, str]]) -> tuple[Section, ...]:
    """The sections with every option at its present place. What stands there already wins."""
    for (old_type, old_name), (new_type, new_name) in moved.items():
        for section in [row for row in sections if row.type == old_type]:
            found = [entry for entry in section.entries if entry.name == old_name]
            if not found:
                continue
            rest = section._replace(entries=tuple(entry for entry in section.entries if entry not in found))
            sections = tuple(rest if row is section else row for row in sections)
            entry = found[-1]._replace(name=new_name)
            target = next((row for row in sections if row.type == new_type), None)
            if target is None:
                sections += (Section(new_type, "", entry.line, (entry,)),)
            elif not any(row.name == new_name for row in target.entries):
                with_it = target._replace(entries=(*target.entries, entry))
                sections = tuple(with_it if row is target else row for row in sections)
    return sections


def _values(section: Section, settings: type, file: str, index: int = -1) -> dict[str, Any]:
    """Option name -> checked value for the options that the section sets."""
    declared = declared_options(settings)
    values: dict[str, Any] = {}
    first: dict[str, Entry] = {}
    for entry in section.entries:
        where = f"{file}:{entry.line}: {_label(section, index)}, option {entry.name}"
        option = declared.get(entry.name)
        if option is None:
            raise SettingsError(f"{where}: no such option{hint(entry.name, declared)}")
        if entry.keyword == "list" and not option.many:
            raise SettingsError(f"{where}: takes one value: write option {entry.name}, not list {entry.name}")
        before = first.setdefault(entry.name, entry)
        if before is not entry and "option" in (entry.keyword, before.keyword):
            more = f": write list {entry.name} for each value" if option.many else ""
            raise SettingsError(f"{where}: is set already on line {before.line}{more}")
        if option.many and not entry.value:
            values.setdefault(entry.name, ())  # uci's way to set a list to nothing
            continue
        try:
            value = _value(option, entry.value)
        except ValueError:
            shown = "the value (not shown)" if option.kind == "secret" else repr(entry.value)
            raise SettingsError(f"{where}: {shown} is not allowed; {allowed(option)}") from None
        values[entry.name] = (*values.get(entry.name, ()), value) if option.many else value
    return values


def _value(option: Option, text: str) -> Any:
    """The value of the declared kind. Raises ValueError."""
    if option.kind == "flag":
        if text.lower() not in FLAG_WORDS:
            raise ValueError(text)
        return FLAG_WORDS[text.lower()]
    if option.kind in ("integer", "number"):
        return _number(option, text)
    if option.kind == "choice":
        if text not in option.choices:
            raise ValueError(text)
        return text
    if option.kind == "address":
        address = ipaddress.ip_address(text)
        return str(getattr(address, "ipv4_mapped", None) or address)
    if option.kind == "prefix":
        return str(ipaddress.ip_network(text))
    if option.kind == "host":
        split_host(text, default_port=1)
    parser = SPECIAL_KINDS.get(option.kind)
    return parser(text) if parser is not None else text


def _mac(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        raise ValueError(text)
    return text.lower().replace("-", ":")


def _ports(text: str) -> str:
    first, last = split_ports(text)
    return str(first) if first == last else f"{first}-{last}"


def split_ports(text: str) -> tuple[int, int]:
    """First and last port of a ``ports`` option: ``443``, ``8000-8100``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(text)
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    if not 1 <= first <= last <= 65535:
        raise ValueError(text)
    return first, last


def _dscp(text: str) -> int:
    known = DSCP_NAMES.get(text.upper())
    if known is not None:
        return known
    if not re.fullmatch(r"[0-9]{1,2}|0[xX][0-9A-Fa-f]{1,2}", text) or int(text, 0 if text[1:2] in "xX" else 10) > 63:
        raise ValueError(text)
    return int(text, 0 if text[1:2] in "xX" else 10)


def _dscp_map(text: str) -> str:
    before, after = split_dscp_map(text)
    return f"{before}:{after}"


def split_dscp_map(text: str) -> tuple[int, int]:
    """FROM and TO of a ``dscp-map`` option: ``EF:AF41``. Raises ValueError."""
    before, colon, after = text.partition(":")
    if not colon:
        raise ValueError(text)
    return _dscp(before), _dscp(after)


def _scheme(text: str) -> str:
    split_scheme(text)
    return text


def _rule_scheme(text: str) -> str:
    if text and split_scheme(text)[0] not in (LOWEST_LATENCY, SINGLE):
        raise ValueError(text)
    return text


def _domain(text: str) -> str:
    """In lower case, punycode, without a leading ``*.`` (a rule always means the names below too) and the last dot."""
    name = text.removeprefix("*.").removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except (UnicodeError, LookupError):  # LookupError: an image without Python's codecs
            raise ValueError(text) from None
    if len(name) > DNS_NAME_MAX or not all(DNS_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(text)
    return name


SPECIAL_KINDS: dict[str, Callable[[str], Any]] = {
    "mac": _mac,
    "ports": _ports,
    "dscp": _dscp,
    "dscp-map": _dscp_map,
    "domain": _domain,
    "scheme": _scheme,
    "rule-scheme": _rule_scheme,
}


def _number(option: Option, text: str) -> int | float:
    pattern, convert = (r"[+-]?[0-9]+", int) if option.kind == "integer" else (r"[+-]?[0-9]+(\.[0-9]+)?", float)
    if not re.fullmatch(pattern, text):
        raise ValueError(text)
    value: int | float = convert(text)
    assert option.low is not None
    assert option.high is not None
    if not option.low <= value <= option.high:
        raise ValueError(text)
    return value


def _check_router(settings: RouterSettings, complaints: _Complaints) -> None:
    for rule in settings.rules:
        if rule.action == "proxy" and rule.proto and "tcp" not in rule.proto:
            problem = "'udp' alone is not allowed with action 'proxy'; only TCP can be proxied"
            raise complaints.option("rule", rule.section, "proto", problem)
        if rule.fallback == "block" and rule.action != "proxy":
            problem = f"'block' is not allowed with action '{rule.action}'; it is about what is proxied"
            raise complaints.option("rule", rule.section, "fallback", problem)
        for name in ("scheme", "concentrator"):
            if getattr(rule, name) and rule.action != "proxy":
                problem = f"is not allowed with action '{rule.action}'; it is about what is proxied"
                raise complaints.option("rule", rule.section, name, problem)
    _check_dscp_map(settings, complaints)
    devices: dict[str, str] = {}
    for wan in settings.wans:
        if not wan.device:
            raise complaints.option("wan", wan.name, "device", "is required: the network device, for example eth1")
        if wan.device in devices:
            raise complaints.option("wan", wan.name, "device", f"'{wan.device}' is wan '{devices[wan.device]}' already")
        if wan.device in settings.general.lan:
            raise complaints.option("wan", wan.name, "device", f"'{wan.device}' is in the list lan of section global")
        devices[wan.device] = wan.name
    _check_scheme(settings, complaints)
    if settings.paths.idle_percent >= settings.paths.busy_percent:
        raise complaints.option(
            "paths",
            "",
            "idle_percent",
            f"'{plain_number(settings.paths.idle_percent)}' is not allowed; "
            f"less than busy_percent, which is {plain_number(settings.paths.busy_percent)}",
        )
    if settings.discovery.dhcp_override and settings.discovery.precedence != DEFAULT_PRECEDENCE:
        problem = "is an old way to write list precedence; leave it out when that is set"
        raise complaints.option("discovery", "", "dhcp_override", problem)
    repeated = [name for name, count in Counter(settings.discovery.precedence).items() if count > 1]
    if repeated:
        raise complaints.option("discovery", "", "precedence", f"'{repeated[0]}' is in the list twice")
    if not settings.discovery.precedence:
        problem = f"is empty, so no concentrator would be used; one or more of {', '.join(DEFAULT_PRECEDENCE)}"
        raise complaints.option("discovery", "", "precedence", problem)
    _check_trust(settings.discovery, complaints)
    for name in ("dhcp4_code", "dhcp4_name_code"):
        code = getattr(settings.discovery, name)
        if code in TAKEN_DHCP4_CODES:
            problem = f"'{code}' is not allowed; 249 (Microsoft's routes) and 252 (proxy autodiscovery) are in use for "
            problem += "something else"
            raise complaints.option("discovery", "", name, problem)
    if 0 < settings.discovery.dhcp4_name_code < FIRST_DHCP4_CODE:
        problem = (
            f"'{settings.discovery.dhcp4_name_code}' is not allowed; an integer from {FIRST_DHCP4_CODE} to 254, or 0"
        )
        raise complaints.option("discovery", "", "dhcp4_name_code", problem)
    if settings.discovery.dhcp4_name_code == settings.discovery.dhcp4_code:
        problem = f"'{settings.discovery.dhcp4_code}' is dhcp4_code already; another code, or 0 for none"
        raise complaints.option("discovery", "", "dhcp4_name_code", problem)
    for static in settings.concentrators:
        if not static.address:
            raise complaints.option("concentrator", static.name, "address", "is required: list address 'ADDRESS'")
        if static.subscriber and not static.key:
            raise complaints.option("concentrator", static.name, "key", "is required when subscriber is set")
        if static.key and not static.subscriber:
            raise complaints.option("concentrator", static.name, "subscriber", "is required when key is set")
    proofs = ("tls_ca", "tls_cert", "tls_key") if settings.radius.transport == TLS else ("secret",)
    _require_radius(settings.radius, ("server", "username", *proofs), complaints)
    if settings.radius.enabled and settings.radius.dynamic and not settings.radius.secret:
        raise complaints.option("radius", "", "secret", "is required when dynamic is on, with TLS too")

    if settings.ident.user and not fits(settings.ident.user):
        problem = (
            f"'{settings.ident.user}' is not printable text of at most {USER_MAX} octets without blanks at its ends"
        )
        raise complaints.option("ident", "", "user", problem)


def _check_trust(discovery: router.DiscoverySettings, complaints: _Complaints) -> None:
    for name in ("trust_alone", "second_source"):
        listed = getattr(discovery, name)
        repeated = [word for word, count in Counter(listed).items() if count > 1]
        if repeated:
            raise complaints.option("discovery", "", name, f"'{repeated[0]}' is in the list twice")
        if router.NOBODY in listed and len(listed) > 1:
            raise complaints.option("discovery", "", name, f"'{router.NOBODY}' is not allowed together with others")
    for anchor in discovery.trust_anchor:
        if not ANCHOR.fullmatch(anchor):
            problem = f"'{anchor}' is not a DS record: ZONE KEYTAG ALGORITHM DIGESTTYPE DIGEST, digest type 2 or 4"
            raise complaints.option("discovery", "", "trust_anchor", problem)
    remote = [server for server in discovery.dns_server if not ipaddress.ip_address(server).is_loopback]
    if discovery.dnssec == router.DNSSEC_RESOLVER and (remote or not discovery.dns_server):
        problem = f"'{discovery.dnssec}' needs a list dns_server with addresses of this router only, such as 127.0.0.1"
        problem += f"; anybody on the way to {remote[0]} could forge its word" if remote else ""
        raise complaints.option("discovery", "", "dnssec", problem)
    if discovery.trust_alone == discovery.second_source == (router.NOBODY,):
        problem = f"and trust_alone are both '{router.NOBODY}', so no concentrator could ever be used"
        raise complaints.option("discovery", "", "second_source", problem)


def _check_scheme(settings: RouterSettings, complaints: _Complaints) -> None:
    names = [row.name for row in settings.wans if row.enabled]
    asked = [("paths", "", settings.paths.scheme), *(("rule", r.section, r.scheme) for r in settings.rules if r.scheme)]
    for type_, section, scheme in asked:
        _, wan = split_scheme(scheme)
        if wan and wan not in names:
            problem = f"'{scheme}' is not allowed; enabled WANs are: {', '.join(names) or 'none'}"
            raise complaints.option(type_, section, "scheme", problem)
    choices = {(rule.scheme, rule.concentrator) for rule in settings.rules if rule.enabled} | {("", "")}
    if 2 * len(choices) > CLASSES_MAX:
        problem = (
            f"there are {len(choices) - 1} different pairs of scheme and concentrator in rules, at most "
            f"{CLASSES_MAX // 2 - 1} are possible"
        )
        raise complaints.section("rule", settings.rules[-1].section, problem)


def _check_dscp_map(settings: RouterSettings, complaints: _Complaints) -> None:
    seen: dict[int, str] = {}
    for row in settings.dscp.map:
        before, _ = split_dscp_map(row)
        if before in seen:
            raise complaints.option("dscp", "", "map", f"'{row}': {before} is written by '{seen[before]}' already")
        seen[before] = row


def _check_concentrator(settings: ConcentratorSettings, complaints: _Complaints) -> None:
    _require_radius(settings.radius, ("server", "secret"), complaints)
    _check_dynamic(settings, complaints)
    address_log = settings.address_log
    if address_log.enabled and not address_log.file and not address_log.syslog:
        raise complaints.option("address_log", "", "file", "is empty and syslog is off, so nothing would be written")
    _check_interfaces(settings, complaints)
    _check_filters(settings, complaints)
    radius = settings.radius
    if radius.accounting and not (radius.server and radius.secret):
        raise complaints.option("radius", "", "accounting", "needs server and secret")
    owners: dict[str, str] = {}
    for subscriber in settings.subscribers:
        if not subscriber.key and not subscriber.address:
            raise complaints.section("subscriber", subscriber.name, "needs a key or an address")
        for prefix in subscriber.address:
            if owners.setdefault(prefix, subscriber.name) != subscriber.name:
                raise complaints.option(
                    "subscriber", subscriber.name, "address", f"'{prefix}' is subscriber '{owners[prefix]}' already"
                )
    if settings.general.cookie_secret and len(settings.general.cookie_secret.encode()) < COOKIE_SECRET_OCTETS:
        raise complaints.option(
            "global", "global", "cookie_secret", f"is too short: at least {COOKIE_SECRET_OCTETS} octets, made at random"
        )
    bound: dict[tuple[str, int, str], str] = {}
    for listener in settings.listeners:
        if listener.facing == "internet" and listener.needs() == concentrator.ADDRESS:
            raise complaints.option(
                "listener",
                listener.name,
                "authorization",
                "'address' is not allowed on a listener that faces the Internet, where addresses prove nothing; "
                "write cookie or both, or facing 'customer'",
            )
        for address in listener.address:
            key = (address, listener.port, listener.device)
            if bound.setdefault(key, listener.name) != listener.name:
                raise complaints.option(
                    "listener",
                    listener.name,
                    "address",
                    f"'{address}' port {listener.port} is taken by listener '{bound[key]}'",
                )
    for (address, port, device), name in bound.items():
        other = bound.get(("::", port, device), name)
        if address == "0.0.0.0" and other != name:  # the kernel would choose the one that happened to be opened first
            text = f"'{address}' port {port} is taken by listener '{other}', whose '::' takes both families"
            raise complaints.option("listener", name, "address", text)


def _check_interfaces(settings: ConcentratorSettings, complaints: _Complaints) -> None:
    devices: dict[str, str] = {}
    for interface in settings.interfaces:
        if not interface.device:
            raise complaints.option("interface", interface.name, "device", "is required")
        if devices.setdefault(interface.device, interface.name) != interface.name:
            text = f"'{interface.device}' is interface '{devices[interface.device]}' already"
            raise complaints.option("interface", interface.name, "device", text)
        if not DEVICE.fullmatch(interface.device):
            text = f"'{interface.device}' is not allowed: must be the name of a network device"
            raise complaints.option("interface", interface.name, "device", text)
        if not settings.limits.filter:
            text = "cannot be held without the nftables table; set filter of section limits to 1"
            raise complaints.option("interface", interface.name, "facing", text)


def _check_filters(settings: ConcentratorSettings, complaints: _Complaints) -> None:
    for row in settings.filters:
        if not row.mark and not row.rule:
            raise complaints.section("filter", row.name, "needs a mark or a rule")
        if row.mark & MARK_SUBSCRIBER:
            text = f"{row.mark:#x} has bit {MARK_SUBSCRIBER:#x} in it, which is the concentrator's own"
            raise complaints.option("filter", row.name, "mark", text)
        for rule in row.rule:
            if not rule.strip() or any(sign in rule for sign in ";\n#"):
                text = f"'{rule}' is not allowed: must be one rule of nftables, without ; and #"
                raise complaints.option("filter", row.name, "rule", text)


def _check_dynamic(settings: ConcentratorSettings, complaints: _Complaints) -> None:
    peers: dict[str, str] = {}
    for client in settings.dynamic_clients:
        if settings.dynamic.enabled and client.enabled and not (client.address and client.secret):
            raise complaints.section("dynamic_client", client.name, "needs an address and a secret")
        for address in client.address:
            if peers.setdefault(address, client.name) != client.name:
                raise complaints.option(
                    "dynamic_client",
                    client.name,
                    "address",
                    f"'{address}' is dynamic_client '{peers[address]}' already",
                )
    radius = settings.radius
    if settings.dynamic.enabled and not settings.dynamic_clients and not (radius.server and radius.secret):
        raise complaints.option(
            "dynamic", "", "enabled", "needs a dynamic_client section, or server and secret of section radius"
        )


def _require_radius(
    radius: router.RadiusSettings | concentrator.RadiusSettings, names: Iterable[str], complaints: _Complaints
) -> None:
    for name in names:
        if radius.enabled and not getattr(radius, name):
            raise complaints.option("radius", "", name, "is required when RADIUS is enabled")


def _masked(part: Any) -> Any:
    """A section, or a tuple of them, as plain data."""
    if isinstance(part, tuple):
        return [_masked(section) for section in part]
    declared = declared_options(type(part))
    row: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name in declared and declared[field.name].kind == "secret":
            value = SECRET_MASK if value else ""
        row[field.name] = list(value) if isinstance(value, tuple) else value
    return row
