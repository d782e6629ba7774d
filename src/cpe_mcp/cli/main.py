"""``cpe-mcp``: asks the running ``cpe-mcpd`` and prints for people, or with ``--json`` for programs.

Exit codes: 0 it works (for ``why``: the connection is proxied; for ``check``: every stage passed), 1 it does not or the
daemon said no, 2 wrong usage, 3 the daemon is not running.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cpe_mcp.cli.table import amount, duration, endpoint, table
from cpe_mcp.control.ask import ApiError, ask
from cpe_mcp.control.frames import API_SOCKET

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
        "Concentrators": ", ".join(concentrators) or "none usable",
        "RADIUS": result["radius"]["text"],
        "Workers": f"{len(result['workers'])} connected, {pool['ready']} warm connections ready",
        "Flows": f"{result['live']} live, {totals['flows']} finished{_by_action(totals['by_action'])}",
        "Bytes": f"{amount(totals['bytes_down'])} down, {amount(totals['bytes_up'])} up",
        "Settings": result["settings"],
    }
    head = f"cpe-mcp {result['version']}, Linux {result['kernel']}, up {duration(result['uptime_s'])}"
    text = [head, *(f"{name + ':':<15}{value}" for name, value in lines.items())]
    text += [f"warning: {warning}" for warning in result["warnings"]]
    works = result["proxy"] and taken["on"]
    return result, "\n".join(text), EXIT_OK if works else EXIT_NO


def paths(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """The WANs: what is known of each, and the bytes it carried."""
    result = ask("paths")
    columns = {
        "name": "WAN",
        "device": "device",
        "usable": "usable",
        "text": "state",
        "part": "part",
        "rtt": "RTT",
        "load": "Mbit/s now",
        "address4": "IPv4",
        "address6": "IPv6",
        "down": "down",
        "up": "up",
    }
    rows = [
        {
            **row,
            "part": "backup" if row["backup"] else "takes part" if row["usable"] else "none",
            "rtt": f"{row['rtt_ms']:.0f} ms",
            "load": f"{row['down_mbit']:.1f} down, {row['up_mbit']:.1f} up",
            "down": _amount(row["bytes_down"]),
            "up": _amount(row["bytes_up"]),
        }
        for row in result["wans"]
    ]
    text = table(rows, columns) if rows else "no WAN is configured"
    return result, text, EXIT_OK if any(row["usable"] for row in rows) else EXIT_NO


def flows(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """Live connections, newest first; with --finished the last ones that ended."""
    result = ask("records" if arguments.finished else "flows", limit=arguments.limit)
    rows = [
        {
            **row,
            "from": endpoint(row["client"], row["client_port"]),
            "to": endpoint(row["server"], row["server_port"]),
            "down": amount(row["bytes_down"]),
            "up": amount(row["bytes_up"]),
            "age": duration(row["duration_s"]),
        }
        for row in result["flows"]
    ]
    columns = {"from": "client", "to": "server", "action": "action", "reason": "reason", "concentrator": "concentrator"}
    columns |= {"wan": "first WAN", "down": "down", "up": "up", "age": "duration"}
    if arguments.finished:
        columns |= {"end": "ended"}
    text = table(rows, columns) if rows else "none"
    if result.get("silent_workers"):
        text += f"\n{result['silent_workers']} workers did not answer in time; their connections are not listed"
    return result, text, EXIT_OK


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
    lines += [f"warning: {row['discarded']}" for row in result["sources"] if row["discarded"]]
    return result, "\n".join(lines), EXIT_OK if any(row["usable"] for row in rows) else EXIT_NO


def why(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """What a new connection to DEST gets, and why."""
    host, port = split_destination(arguments.destination)
    results = [ask("why", dest=address, port=port) for address in addresses_of(host)]
    lines = []
    for result in results:
        target = endpoint(result["destination"], result["port"])
        over = f" by {result['concentrator']}, first over {result['wan']}" if result["action"] == "proxy" else ""
        lines.append(f"{target}: {result['action']}{over}")
        lines += [f"  {reason['reason']}: {reason['text']}" for reason in result["reasons"]]
    proxied = all(result["action"] == "proxy" for result in results)
    return results, "\n".join(lines), EXIT_OK if proxied else EXIT_NO


def check(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """A self-test, stage by stage, with the next step where one fails."""
    result = ask("check")
    lines = []
    for row in result:
        lines.append(f"{'ok  ' if row['ok'] else 'FAIL'}  {row['stage']}: {row['detail']}")
        if row["next"]:
            lines.append(f"      next: {row['next']}")
    return result, "\n".join(lines), EXIT_OK if all(row["ok"] for row in result) else EXIT_NO


def reload(ask: Ask, _: argparse.Namespace) -> tuple[Any, str, int]:
    """Have the daemon read its settings again; running connections go on."""
    result = ask("reload")
    lines = ["settings read again" if result["changed"] else "settings read again, nothing has changed"]
    lines += [f"needs a restart: {name}" for name in result["needs_restart"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return result, "\n".join(lines), EXIT_OK


COMMANDS: dict[str, Command] = {
    "status": status,
    "paths": paths,
    "flows": flows,
    "concentrators": concentrators,
    "why": why,
    "check": check,
    "reload": reload,
}


def split_destination(text: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``IPV6`` or ``[IPV6]:PORT``. Raises UsageError."""
    match = re.fullmatch(r"\[([^]]+)\](?::(.*))?", text) or re.fullmatch(r"([^:]+)(?::(.*))?", text)
    host, port = (match[1], match[2]) if match else (text, None)
    if port is None:
        return host, DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UsageError(f"{text!r}: {port!r} is not a port from 1 to 65535")
    return host, int(port)


def addresses_of(host: str) -> list[str]:
    """The addresses a connection to ``host`` could go to. Raises UsageError when there is none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise UsageError(f"{host!r}: no address ({reason})") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


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
        if name == "flows":
            sub.add_argument("--finished", action="store_true", default=False, help="those that ended last")
            sub.add_argument("--limit", type=_count, default=FLOWS_LIMIT, metavar="N", help="at most N (default 100)")
        elif name == "why":
            sub.add_argument("destination", metavar="DEST[:PORT]", help="name or address; [IPV6]:PORT")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _amount(count: int | None) -> str:
    return "" if count is None else amount(count)


def _by_action(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
    return f" ({listed})" if listed else ""


if __name__ == "__main__":
    sys.exit(main())
