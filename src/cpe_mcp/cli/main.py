"""``cpe-mcp``: asks the running ``cpe-mcpd`` and prints for people, or with ``--json`` for programs.

Exit codes: 0 it works (for ``why``: the connection is proxied; for ``check``: every stage passed; for ``drop``: it ended),
1 it does not or the daemon said no, 2 wrong usage, 3 the daemon is not running.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cpe_mcp.cli import speedtest
from cpe_mcp.cli.radius_lines import counted, radius_lines
from cpe_mcp.cli.table import amount, duration, endpoint, table
from cpe_mcp.control.ask import ApiError, ask
from cpe_mcp.control.places import API_SOCKET

EXIT_OK, EXIT_NO, EXIT_USAGE, EXIT_NOT_RUNNING = 0, 1, 2, 3

DEFAULT_PORT = 443
"""Of ``why DEST`` without a port: what most connections go to."""
FLOWS_LIMIT = 100
DEFAULT_RUN_DIR = "/var/run/cpe-mcp"
"""The default of global.run_dir; importing the settings for it would take as long as everything else here."""

Ask = Callable[..., Any]
"""``ask(method, **args) -> result``"""
Command = Callable[[Ask, argparse.Namespace], tuple[Any, str, int]]
"""Returns the result for ``--json``, the text for people, and the exit code."""


class UsageError(Exception):
    """Arguments that make no question."""


def status(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """State of the package: proxying or not, and why."""
    result = ask("status")
    pool, totals, taken = result["pool"], result["totals"], result["interception"]
    wans = [wan["name"] for wan in result["wans"] if wan["usable"]]
    concentrators = [row["name"] for row in result["concentrators"] if row["usable"]]
    families = "IPv4 and IPv6" if taken["ipv6"] else "IPv4 only"
    lines = {
        "State": f"{'proxying' if result['proxy'] else 'plain forwarding'}: {result['text']}",
        "Interception": f"on, {families}" if taken["on"] else f"off: {taken['text']}",
        "WANs": ", ".join(wans) or "none usable",
        "Scheme": f"{result['scheme']['name']}: {result['scheme']['text']}",
        "Concentrators": ", ".join(concentrators) or "none usable",
        **radius_lines(result),
        "Workers": f"{len(result['workers'])} connected, {pool['ready']} warm connections ready",
        "Flows": f"{result['live']} live, {totals['flows']} finished{_by_action(totals['by_action'])}",
        "Bytes": f"{amount(totals['bytes_down'])} down, {amount(totals['bytes_up'])} up",
        **_ident_line(result),
        "Settings": result["settings"],
    }
    head = f"cpe-mcp {result['version']}, Linux {result['kernel']}, up {duration(result['uptime_s'])}"
    text = [head, *(f"{name + ':':<15}{value}" for name, value in lines.items())]
    text += [
        f"warning: {count} connections over {wan} were plain TCP: {reason}"
        for wan, reasons in result["fallbacks"].items()
        for reason, count in reasons.items()
    ]
    text += [f"warning: {line}" for wan in result["wans"] for line in _mptcp_lines(wan)[:1]]
    text += [f"warning: {warning}" for warning in result["warnings"]]
    works = result["proxy"] and taken["on"]
    return result, "\n".join(text), EXIT_OK if works else EXIT_NO


def _ident_line(status: Mapping[str, Any]) -> dict[str, str]:
    """Where concentrators may ask, and how many did, if they may at all."""
    ident = status.get("ident")
    if not ident:
        return {}
    return {"Ident": f"answered at {', '.join(ident['addresses']) or 'no address'}: {counted(ident['counters'])}"}


def paths(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """The WANs: what is known of each, and the bytes it carried."""
    result = ask("paths")
    columns = {
        "name": "WAN",
        "device": "device",
        "state": "state",
        "usable": "usable",
        "text": "reason",
        "part": "part",
        "volume": "quota",
        "rtt": "RTT",
        "loss": "loss",
        "load": "Mbit/s now",
        "multipath": "MPTCP",
        "address4": "IPv4",
        "address6": "IPv6",
        "down": "down",
        "up": "up",
    }
    rows = [
        {
            **row,
            "part": row["place"] or "none",
            "volume": _volume(row["quota"]) if row["quota"]["limit_gb"] else "none",
            "multipath": row["mptcp"]["state"],
            "rtt": f"{row['rtt_ms']:.0f} ms",
            "loss": "" if row.get("loss_percent") is None else f"{row['loss_percent']:g} %",
            "load": f"{row['down_mbit']:.1f} down, {row['up_mbit']:.1f} up",
            "down": _amount(row["bytes_down"]),
            "up": _amount(row["bytes_up"]),
        }
        for row in result["wans"]
    ]
    evidence = [line for row in result["wans"] for line in _mptcp_lines(row)]
    scheme = f"scheme {result['scheme']['name']}: {result['scheme']['text']}"
    text = "\n".join([table(rows, columns), scheme, *evidence]) if rows else "no WAN is configured"
    return result, text, EXIT_OK if any(row["usable"] for row in rows) else EXIT_NO


def flows(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """Live connections, newest first: what holds each back, and its subflows; --finished: the last ones that ended; --long:
    what was chosen for each, and why."""
    if arguments.finished:
        return records(ask, arguments)
    result = ask("flows", limit=arguments.limit, filter=arguments.filter)
    lines = []
    columns = {"id": "id", **FLOW_COLUMNS}
    rows = [_flow_row(row) for row in result["flows"]]
    listed = table(rows, columns).splitlines() if rows else ["none"]
    lines.append(listed[0])
    for row, line in zip(result["flows"], listed[1:], strict=False):
        lines.append(line)
        lines.append(_verdict_line(row))
        lines += _choice_lines(row) if arguments.long else []
        lines += [_subflow_line(subflow) for subflow in row["subflows"]]
    if result.get("silent_workers"):
        lines.append(f"{result['silent_workers']} workers did not answer in time; their connections are not listed")
    return result, "\n".join(lines), EXIT_OK


def records(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """The last finished connections, newest first, with how they ended and what each WAN carried of them."""
    result = ask("records", limit=arguments.limit, filter=arguments.filter)
    rows = [
        {**_flow_row(row), "wans": _shares(row["bytes_by_wan"]), "over": row["fallback"]} for row in result["flows"]
    ]
    columns = {**FLOW_COLUMNS, "wan": "first WAN", "wans": "WANs used", "end": "ended", "over": "plain TCP"}
    return result, table(rows, columns) if rows else "none", EXIT_OK


def _concentrator_health(row: dict[str, Any]) -> list[str]:
    """What is known of one beyond the table; nothing of one that is well and has not been asked."""
    lines = []
    if row["service_class"]:
        lines.append(f"  {row['name']}: only for rules that want {', '.join(row['service_class'])}, or it by name")
    health = row["health"]
    if health["state"] != "up":
        lines.append(f"  {row['name']}: {health['state']} for {health['since_s']:.0f} s: {health['detail']}")
    for wan in health["wans"]:
        said = f"answers in {wan['rtt_ms']} ms" if wan["answers"] else wan["detail"]
        lines.append(f"  {row['name']} over {wan['name']}: {said} ({wan['ago_s']} s ago)")
    if health["deaths"] > 1:
        lines.append(f"  {row['name']}: died {health['deaths']} times in the last 10 minutes")
    return lines


def concentrators(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """The concentrators that are known, best first, and where each came from."""
    result = ask("concentrators")
    rows = result["concentrators"]
    columns = {
        "name": "concentrator",
        "addresses": "addresses",
        "port": "port",
        "source": "source",
        "usable": "usable",
        "reaches_ipv6": "IPv6",
        "text": "state",
        "wait_s": "wait (s)",
    }
    lines = [table(rows, columns) if rows else "no concentrator is known"]
    for row in rows:
        lines += _concentrator_health(row)
    lines += [
        f"warning: {row['source']} {row['interface']}: {row['discarded']}"
        for row in result["sources"]
        if row["discarded"]
    ]
    lines += [
        f"warning: {row['source']} {row['interface']} names {', '.join(row['unconfirmed'])}, not used: {row['text']}"
        + (f" ({row['detail']})" if row["detail"] else "")
        for row in result["sources"]
        if row["unconfirmed"]
    ]
    return result, "\n".join(lines), EXIT_OK if any(row["usable"] for row in rows) else EXIT_NO


def why(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """What a new connection to DEST gets, and why; with --flow, why a running one is not faster."""
    if arguments.flow:
        return _why_flow(ask, arguments.flow)
    if not arguments.destination:
        raise UsageError("why takes a destination, or --flow ID")
    host, port = split_destination(arguments.destination)
    result = ask("why", dest=host, port=port, client=arguments.client)
    lines = []
    for answer in result["answers"]:
        target = endpoint(answer["destination"], answer["port"])
        over = f" by {answer['concentrator']}, first over {answer['wan']}" if answer["action"] == "proxy" else ""
        lines.append(f"{target}: {answer['action']}{over}")
        if answer["action"] == "proxy":
            lines += [
                f"  {what} {answer[what]}: {answer[f'{what}_text']}" for what in ("concentrator", "wan", "scheme")
            ]
            lines.append("  a warm connection is ready for it" if answer["warm"] else "  it opens a new connection")
        if answer["rule"]["section"]:
            lines.append(f"  rule {answer['rule']['name']} ({answer['rule']['section']}): {answer['rule']['action']}")
        lines += [f"  {reason['reason']}: {reason['text']}" for reason in answer["reasons"]]
    proxied = all(answer["action"] == "proxy" for answer in result["answers"])
    return result, "\n".join(lines), EXIT_OK if proxied else EXIT_NO


def _why_flow(ask: Ask, number: str) -> tuple[Any, str, int]:
    result = ask("why", id=number)
    flow = result["flow"]
    rate = 8e-6 * flow["bytes_down"] / flow["duration_s"] if flow["duration_s"] else 0.0
    head = (
        f"{endpoint(flow['server'], flow['server_port'])}: {flow['action']}, {amount(flow['bytes_down'])} down so far"
    )
    lines = [f"{head} ({rate:.1f} Mbit/s on average)", _verdict_line(flow), *map(_subflow_line, flow["subflows"])]
    for row in result["reasons"]:
        lines.append(f"  {row['wan'] + ': ' if row['wan'] else ''}{row['reason']}: {row['text']}")
    return result, "\n".join(lines), EXIT_OK if flow["action"] == "proxy" else EXIT_NO


def check(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """A self-test, stage by stage, with the next step where one fails."""
    result = ask("check")
    lines = []
    for row in result["stages"]:
        verdict = "--  " if row.get("info") else "ok  " if row["ok"] else "FAIL"
        lines.append(f"{verdict}  {row['stage']}: {row['detail']}")
        if row["next"]:
            lines.append(f"      {'note' if row.get('info') else 'next'}: {row['next']}")
    return result, "\n".join(lines), EXIT_OK if all(row["ok"] for row in result["stages"]) else EXIT_NO


def drop(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """End a live connection; its ID is what flows shows."""
    result = ask("drop", id=arguments.id)
    if result["dropped"]:
        return result, "ended", EXIT_OK
    return result, f"there is no live connection {arguments.id}", EXIT_NO


def quota(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """The volumes that the WANs have used of their quotas; with WAN --used, set one to what your operator counts."""
    if arguments.used and not arguments.wan:
        raise UsageError("--used takes the name of a WAN: cpe-mcp quota WAN --used GB")
    result = ask("quota", wan=arguments.wan, used_gb=arguments.used)
    columns = {"wan": "WAN", "volume": "used", "text": "state", "resets_on": "begins anew on"}
    rows = [{**row, "volume": _volume(row)} for row in result["quotas"]]
    return result, table(rows, columns) if rows else "no WAN has a quota (option quota_gb of its section)", EXIT_OK


def support(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """A report for whoever helps: everything above, no secrets; names masked and addresses shortened unless --full."""
    result = ask("support", full=arguments.full)
    return result, result["report"].rstrip("\n"), EXIT_OK


def metrics(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """The figures as Prometheus text."""
    from cpe_mcp.upstream.metrics import exposition

    result = ask("status")
    return result, exposition(result).rstrip("\n"), EXIT_OK


def reload(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """Have the daemon read its settings again; running connections go on."""
    result = ask("reload")
    lines = ["settings read again" if result["changed"] else "settings read again, nothing has changed"]
    lines += [f"for /etc/init.d/cpe-mcp reload to apply: {name}" for name in result["needs_init"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return result, "\n".join(lines), EXIT_OK


FLOW_COLUMNS = {
    "from": "client",
    "to": "server",
    "action": "action",
    "reason": "reason",
    "concentrator": "concentrator",
    "wan": "first WAN",
    "down": "down",
    "up": "up",
    "age": "duration",
}

COMMANDS: dict[str, Command] = {
    "status": status,
    "paths": paths,
    "flows": flows,
    "records": records,
    "concentrators": concentrators,
    "check": check,
    "why": why,
    "drop": drop,
    "quota": quota,
    "support": support,
    "metrics": metrics,
    "speedtest": speedtest.run,
    "reload": reload,
}


def split_destination(text: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``IPV6`` or ``[IPV6]:PORT``. Raises UsageError."""
    match = re.fullmatch(r"\[([^]]+)\](?::(.*))?", text) or re.fullmatch(r"([^:]+)(?::(.*))?", text)
    host, port = (match[1], match[2]) if match else (text, None)
    if not re.fullmatch(r"[^\s\[\]/]+", host):
        raise UsageError(f"{text!r} is neither a name nor an address; with a port: NAME:PORT or [IPV6]:PORT")
    if port is None:
        return host, DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UsageError(f"{text!r}: {port!r} is not a port from 1 to 65535")
    return host, int(port)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code (see the module)."""
    defaults = argparse.Namespace(json=False, run_dir=DEFAULT_RUN_DIR)
    arguments = _parser().parse_args(argv, defaults)
    path = os.path.join(arguments.run_dir, API_SOCKET)

    def ask_daemon(method: str, **args: Any) -> Any:
        return ask(path, method, args)

    try:
        result, text, code = COMMANDS[arguments.command](ask_daemon, arguments)
    except UsageError as error:
        print(f"cpe-mcp: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ApiError as error:
        print(f"cpe-mcp: {error}", file=sys.stderr)
        return EXIT_NO
    except TimeoutError:
        print(f"cpe-mcp: cpe-mcpd is there ({path}) but does not answer; its log says what it does", file=sys.stderr)
        return EXIT_NO
    except PermissionError:
        print(f"cpe-mcp: {path} is for root only: run this command as root", file=sys.stderr)
        return EXIT_NO
    except OSError as error:
        print(
            f"cpe-mcp: cpe-mcpd is not running ({path}: {error.strerror}); start it with "
            "/etc/init.d/cpe-mcp start, or cpe-mcpd --config /etc/config/cpe-mcp --foreground",
            file=sys.stderr,
        )
        return EXIT_NOT_RUNNING
    try:
        print(json.dumps(result, indent=2) if arguments.json else text, flush=True)
    except BrokenPipeError:  # the reader (head, less) has seen enough; Python must not write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _parser() -> argparse.ArgumentParser:
    # Before the command or after it; SUPPRESS keeps the second parser from overwriting what the first one saw.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print the daemon's answer as JSON")
    common.add_argument("--run-dir", metavar="DIR", help=f"where the daemon's sockets are (default {DEFAULT_RUN_DIR})")
    parser = argparse.ArgumentParser(
        prog="cpe-mcp",
        parents=[common],
        description="Shows what the Multipath TCP proxy of this router does, and why.",
        epilog="Exit codes: 0 it works, 1 it does not (or the daemon said no), 2 usage, 3 the daemon is not running.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, parents=[common], help=command.__doc__, description=command.__doc__)
        if name in ("flows", "records"):
            sub.add_argument("--filter", default="", metavar="TEXT", help="client, server, concentrator, WAN or action")
            sub.add_argument("--limit", type=_count, default=FLOWS_LIMIT, metavar="N", help="at most N (default 100)")
        if name == "flows":
            sub.add_argument("--finished", action="store_true", default=False, help="those that ended last")
            sub.add_argument("--long", action="store_true", default=False, help="what was chosen for each, and why")
        elif name == "why":
            sub.add_argument("destination", nargs="?", metavar="DEST[:PORT]", help="name or address; [IPV6]:PORT")
            sub.add_argument("--flow", default="", metavar="ID", help="why is this connection not faster")
            sub.add_argument("--client", default="", metavar="ADDRESS", help="asked for this LAN device")
        elif name == "drop":
            sub.add_argument("id", metavar="ID", help="as flows shows it, such as 0:17")
        elif name == "quota":
            sub.add_argument("wan", nargs="?", default="", metavar="WAN", help="only this one")
            sub.add_argument("--used", default="", metavar="GB", help="what it has used since it began, as a number")
        elif name == "speedtest":
            speedtest.add_arguments(sub)
        elif name == "support":
            sub.add_argument("--full", action="store_true", default=False, help="names and addresses as they are")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _flow_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "from": endpoint(row["client"], row["client_port"]),
        "to": endpoint(row["server"], row["server_port"]),
        "down": amount(row["bytes_down"]),
        "up": amount(row["bytes_up"]),
        "age": duration(row["duration_s"]),
    }


def _mptcp_lines(wan: dict[str, Any]) -> list[str]:
    """What is wrong with Multipath TCP on a WAN, then the evidence; nothing where it gets through, or nobody knows."""
    found = wan["mptcp"]
    if found["state"] != "removed":
        return []
    return [f"{wan['name']}: {found['reason']}: {found['text']}", *(f"    {row['text']}" for row in found["evidence"])]


def _verdict_line(row: dict[str, Any]) -> str:
    rates = f"now {row['down_mbit']:.1f} Mbit/s down, {row['up_mbit']:.1f} up"
    sends = f"; sends with {row['congestion_control']}" if row.get("congestion_control") else ""
    return f"    {rates}; {row['verdict']}: {row['verdict_text']}{sends}"


def _choice_lines(row: dict[str, Any]) -> list[str]:
    """What was chosen for a flow when it began, and why: carried or not, and which scheme distributes its bytes."""
    from cpe_mcp.policy.reasons import TEXTS  # most commands do without

    lines = [f"    {row['action']}, {row['reason']}: {TEXTS.get(row['reason'], row['reason'])}"]
    if row.get("scheme"):
        why = row["scheme_reason"]
        lines.append(f"    scheme {row['scheme']}, {why}: {TEXTS.get(why, why)}")
    return lines


def _subflow_line(row: dict[str, Any]) -> str:
    moved = f"{amount(row['bytes_down'])} down, {amount(row['bytes_up'])} up"
    line = f"    {row['wan'] or '?'}: {row['local']} -> {row['remote']}, {moved}"
    line += f", RTT {row['rtt_ms']:.0f} ms, cwnd {row['cwnd']}"
    if row["retransmits"]:
        line += f", {row['retransmits']} retransmits"
    return line + (", backup" if row["backup"] else "")


def _shares(bytes_by_wan: dict[str, dict[str, int]]) -> str:
    """``dsl 63 %, lte 37 %``"""
    sums = {wan: counted["down"] + counted["up"] for wan, counted in bytes_by_wan.items()}
    total = sum(sums.values())
    parts = sorted(sums.items(), key=lambda item: -item[1])
    return ", ".join(f"{wan} {100 * count / total:.0f} %" for wan, count in parts) if total else ""


def _amount(count: int | None) -> str:
    return "" if count is None else amount(count)


def _volume(quota: dict[str, Any]) -> str:
    """``12.3 of 50 GB (24 %)``"""
    return f"{quota['used_gb']:.{3 if quota['limit_gb'] < 1 else 1}f} of {quota['limit_gb']:g} GB ({int(quota['percent'])} %)"


def _by_action(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
    return f" ({listed})" if listed else ""


if __name__ == "__main__":
    sys.exit(main())
