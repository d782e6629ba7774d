"""From a settings file to settings: kinds and ranges as the declarations say, and what only holds between options.

Everything that is wrong becomes one :class:`SettingsError` that names file, line, section, option, value and what is
allowed. What is legal but cannot be meant is a warning (:func:`warnings_of`), for the log and ``cpe-mcp check``.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.settings import concentrator, router
from cpe_mcp.settings.concentrator import ConcentratorSettings
from cpe_mcp.settings.option import Option, declared_options
from cpe_mcp.settings.router import RouterSettings
from cpe_mcp.settings.uci import Entry, Section, SettingsError, hint, parse


class SectionKind(NamedTuple):
    """Where the sections of one UCI type go."""

    settings: type
    field: str
    many: bool
    """True: any number of named ones, in the order of the file; False: at most one."""


ROUTER_SECTIONS: dict[str, SectionKind] = {
    "global": SectionKind(router.GlobalSettings, "general", False),
    "wan": SectionKind(router.WanSettings, "wans", True),
    "paths": SectionKind(router.PathsSettings, "paths", False),
    "discovery": SectionKind(router.DiscoverySettings, "discovery", False),
    "concentrator": SectionKind(router.ConcentratorSettings, "concentrators", True),
    "radius": SectionKind(router.RadiusSettings, "radius", False),
}
CONCENTRATOR_SECTIONS: dict[str, SectionKind] = {
    "global": SectionKind(concentrator.GlobalSettings, "general", False),
    "listener": SectionKind(concentrator.ListenerSettings, "listeners", True),
    "subscriber": SectionKind(concentrator.SubscriberSettings, "subscribers", True),
    "destinations": SectionKind(concentrator.DestinationSettings, "destinations", False),
    "radius": SectionKind(concentrator.RadiusSettings, "radius", False),
}

FLAG_WORDS = {
    "1": True, "on": True, "yes": True, "true": True,
    "0": False, "off": False, "no": False, "false": False,
}  # fmt: skip
MICROSOFT_ROUTES_CODE = 249
PROXY_AUTODISCOVERY_CODE = 252
TAKEN_DHCP4_CODES = (MICROSOFT_ROUTES_CODE, PROXY_AUTODISCOVERY_CODE)
"""Site-specific codes that clients in the field already understand as something else."""
SECRET_MASK = "********"


def load_router(path: str) -> RouterSettings:
    """Read ``/etc/config/cpe-mcp`` or a file like it. Raises SettingsError, also when it cannot be read."""
    return parse_router(_read(path), path)


def load_concentrator(path: str) -> ConcentratorSettings:
    """Read ``/etc/config/mcp-concentrator`` or a file like it. Raises SettingsError, also when it cannot be read."""
    return parse_concentrator(_read(path), path)


def parse_router(text: str, file: str = "cpe-mcp") -> RouterSettings:
    """:func:`load_router` without the reading; ``file`` is what messages call it."""
    fields, sections = _build(text, file, ROUTER_SECTIONS)
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
        return []
    keyed = any(subscriber.enabled and subscriber.key for subscriber in settings.subscribers)
    return [
        f"listener '{listener.name}' faces the Internet, where a key is needed, and no enabled subscriber has one: "
        "nobody is served there"
        for listener in settings.listeners
        if listener.facing == "internet" and not keyed
    ]


def mask_secrets(settings: RouterSettings | ConcentratorSettings) -> dict[str, Any]:
    """The settings as plain data for status and support reports: a secret that is set reads ``********``."""
    return {field.name: _masked(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def split_host(host: str, default_port: int) -> tuple[str, int]:
    """Address and port of a ``host`` option: ``192.0.2.1``, ``192.0.2.1:1812``, ``2001:db8::1``, ``[2001:db8::1]:1812``.

    Raises ValueError.
    """
    bracketed = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", host)
    if bracketed:
        address, port = str(ipaddress.IPv6Address(bracketed[1])), bracketed[2]
    elif host.count(":") == 1:
        text, port = host.split(":")
        address = str(ipaddress.IPv4Address(text))
    else:
        address, port = str(ipaddress.ip_address(host)), None
    if port is None:
        return address, default_port
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"port {port}")
    return address, int(port)


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
        "choice": "one of " + ", ".join(declared.choices),
        "address": "an IPv4 or IPv6 address",
        "prefix": "an IPv4 or IPv6 prefix such as 192.0.2.0/24, no bits set behind its length",
        "host": "ADDRESS, IPV4:PORT or [IPV6]:PORT",
        "secret": "text",
        "text": "text",
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
        section = self._find(type_, name)
        return self._error(section, section.line, "", problem)

    def option(self, type_: str, name: str, option: str, problem: str) -> SettingsError:
        """About one option; at its last line, or where its section begins when it is not set."""
        section = self._find(type_, name)
        lines = [entry.line for entry in section.entries if entry.name == option]
        return self._error(section, lines[-1] if lines else section.line, f", option {option}", problem)

    def _error(self, section: Section, line: int, option: str, problem: str) -> SettingsError:
        return SettingsError(f"{self._file}:{line}: {_label(section)}{option}: {problem}")

    def _find(self, type_: str, name: str) -> Section:
        """Only what the file holds can be wrong: defaults pass every check."""
        return next(row for row in self._sections if row.type == type_ and name in ("", row.name))


def _label(section: Section) -> str:
    return f"section {section.type} '{section.name}'" if section.name else f"section {section.type}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None


def _build(text: str, file: str, kinds: Mapping[str, SectionKind]) -> tuple[dict[str, Any], tuple[Section, ...]]:
    """Constructor arguments of the whole settings, and the sections they came from."""
    sections = parse(text, file)
    fields: dict[str, Any] = {}
    seen: dict[tuple[str, str], Section] = {}
    for section in sections:
        where = f"{file}:{section.line}: {_label(section)}"
        kind = kinds.get(section.type)
        if kind is None:
            known = hint(section.type, kinds) or "; there are " + ", ".join(kinds)
            raise SettingsError(f"{where}: no such section type{known}")
        if kind.many and not section.name:
            raise SettingsError(f"{where}: needs a name: config {section.type} 'NAME'")
        key = (section.type, section.name if kind.many else "")
        if key in seen:
            what = "name is taken" if kind.many else "only one section of this type is allowed, and there is one"
            raise SettingsError(f"{where}: {what} on line {seen[key].line}")
        seen[key] = section
        values = _values(section, kind.settings, file)
        if kind.many:
            built = kind.settings(name=section.name, **values)
            fields[kind.field] = (*fields.get(kind.field, ()), built)
        else:
            fields[kind.field] = kind.settings(**values)
    return fields, sections


def _values(section: Section, settings: type, file: str) -> dict[str, Any]:
    """Option name -> checked value for the options that the section sets."""
    declared = declared_options(settings)
    values: dict[str, Any] = {}
    first: dict[str, Entry] = {}
    for entry in section.entries:
        where = f"{file}:{entry.line}: {_label(section)}, option {entry.name}"
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
        return str(ipaddress.ip_address(text))
    if option.kind == "prefix":
        return str(ipaddress.ip_network(text))
    if option.kind == "host":
        split_host(text, default_port=1)
    return text


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
    devices: dict[str, str] = {}
    for wan in settings.wans:
        if not wan.device:
            raise complaints.option("wan", wan.name, "device", "is required: the network device, for example eth1")
        if wan.device in devices:
            raise complaints.option("wan", wan.name, "device", f"'{wan.device}' is wan '{devices[wan.device]}' already")
        if wan.device in settings.general.lan:
            raise complaints.option("wan", wan.name, "device", f"'{wan.device}' is in the list lan of section global")
        devices[wan.device] = wan.name
    if settings.paths.idle_percent >= settings.paths.busy_percent:
        raise complaints.option(
            "paths",
            "",
            "idle_percent",
            f"'{plain_number(settings.paths.idle_percent)}' is not allowed; "
            f"less than busy_percent, which is {plain_number(settings.paths.busy_percent)}",
        )
    if settings.discovery.dhcp4_code in TAKEN_DHCP4_CODES:
        raise complaints.option(
            "discovery",
            "",
            "dhcp4_code",
            f"'{settings.discovery.dhcp4_code}' is not allowed; 249 (Microsoft's routes) and 252 (proxy "
            "autodiscovery) are in use for something else",
        )
    for static in settings.concentrators:
        if not static.address:
            raise complaints.option("concentrator", static.name, "address", "is required: list address 'ADDRESS'")
        if static.subscriber and not static.key:
            raise complaints.option("concentrator", static.name, "key", "is required when subscriber is set")
        if static.key and not static.subscriber:
            raise complaints.option("concentrator", static.name, "subscriber", "is required when key is set")
    _require_radius(settings.radius, ("server", "secret", "username"), complaints)


def _check_concentrator(settings: ConcentratorSettings, complaints: _Complaints) -> None:
    _require_radius(settings.radius, ("server", "secret"), complaints)
    owners: dict[str, str] = {}
    for subscriber in settings.subscribers:
        if not subscriber.key and not subscriber.address:
            raise complaints.section("subscriber", subscriber.name, "needs a key or an address")
        for prefix in subscriber.address:
            if owners.setdefault(prefix, subscriber.name) != subscriber.name:
                raise complaints.option(
                    "subscriber", subscriber.name, "address", f"'{prefix}' is subscriber '{owners[prefix]}' already"
                )
    bound: dict[tuple[str, int, str], str] = {}
    for listener in settings.listeners:
        for address in listener.address:
            key = (address, listener.port, listener.device)
            if bound.setdefault(key, listener.name) != listener.name:
                raise complaints.option(
                    "listener",
                    listener.name,
                    "address",
                    f"'{address}' port {listener.port} is taken by listener '{bound[key]}'",
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
