"""``cpe-mcp-lab``: the network in a box from the command line. Argument parsing and wiring only."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpe_mcp.lab import state
from cpe_mcp.lab.link import DEFAULT_LINKS, LinkSpec
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab, check_machine
from cpe_mcp.lab.plan import HOSTS, LINK_NAMES, netns_name

DOWN_TIMEOUT_S = 30.0
"""For the process that keeps a lab up to take it down; it takes about 0.2 s."""
POLL_S = 0.05
CONCENTRATORS = (1, 2)
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done and as it should be, 1 a scenario's result is ``fail``, 2 it could not be done."""
    options = _parser().parse_args(argv)
    try:
        done: int = options.command(options)
    except (LabError, OSError) as error:
        print(f"cpe-mcp-lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return done


def _list(options: argparse.Namespace) -> int:
    from cpe_mcp.lab.scenarios import SCENARIOS

    width = max(map(len, SCENARIOS))
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:{width}}  {scenario.summary}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from cpe_mcp.lab.scenarios import SCENARIOS

    if options.scenario not in SCENARIOS:
        raise LabError(f"scenario {options.scenario}: there are {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[options.scenario]
    run = scenario.run
    if options.seconds is not None:
        if scenario.lasting is None:
            raise LabError(f"scenario {options.scenario} takes as long as it takes: --seconds is not for it")
        run = scenario.lasting(options.seconds)
    check_machine()
    report: dict[str, Any] = {}
    try:
        run(_lab_options(options, scenario.links), report)
    finally:
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if report.get("result") == "pass" else 1


def _up(options: argparse.Namespace) -> int:
    """Bring the lab up in a process of its own, the keeper, which stays until ``down``."""
    check_machine()
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(reading)
        _keep(options, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8") as pipe:
            problem = pipe.read()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)
        os.waitpid(keeper, 0)
        raise
    if problem != UP:
        os.waitpid(keeper, 0)
        raise LabError(problem or "the lab ended before it was up")
    name = options.name
    print(f"lab {name} is up: {', '.join(HOSTS)}")
    print(f"  cpe-mcp-lab shell --name {name} client1")
    print(f"  cpe-mcp status --run-dir {Lab(name).cpe_run_dir}")
    print(f"  cpe-mcp-lab down --name {name}")
    return 0


UP = "up"
"""What the keeper says when the lab is up; anything else is what is wrong."""


def _keep(options: argparse.Namespace, writing: int) -> None:
    """The keeper's life; does not return."""
    os.setsid()
    said = UP
    code = 0
    try:
        with Lab(**_lab_options(options)) as lab:
            if not options.bare:
                for number in CONCENTRATORS:
                    lab.start_concentrator(number)
                lab.start_cpe()
            null = os.open(os.devnull, os.O_RDWR)
            os.write(writing, said.encode())
            for descriptor in (0, 1, 2, writing):  # the terminal and the pipe are no longer ours
                os.dup2(null, descriptor)
            while True:
                signal.pause()
    except Exception as error:
        code, said = 2, f"{error}" if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
    except SystemExit:
        pass  # down: the signal handler of Lab
    finally:
        os._exit(code)


def _down(options: argparse.Namespace) -> int:
    check_machine()
    directory = state.directory_of(options.name)
    if not directory.exists():
        raise LabError(f"no lab {options.name} is up")
    owner = state.owner_of(options.name)
    if not owner:  # it was killed
        state.release(options.name)
        return 0
    os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while directory.exists():
        if time.monotonic() > deadline:
            raise LabError(f"process {owner}, which keeps lab {options.name} up, does not end; kill it and try again")
        time.sleep(POLL_S)
    return 0


def _shell(options: argparse.Namespace) -> int:
    if not state.owner_of(options.name):
        raise LabError(f"no lab {options.name} is up; cpe-mcp-lab up --name {options.name}")
    command = options.argv or [os.environ.get("SHELL", "/bin/sh")]
    # Programs of this package are found although its virtual environment may not be the shell's.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    os.execvp("ip", ["ip", "netns", "exec", netns_name(options.name, options.host), *command])


def _lab_options(options: argparse.Namespace, own: Mapping[str, LinkSpec] = DEFAULT_LINKS) -> dict[str, Any]:
    """Arguments of :class:`Lab`: what was typed, over lines of the scenario's own."""
    links = {}
    for name in LINK_NAMES:
        typed: dict[str, float | None] = {
            "loss_percent": getattr(options, f"loss_{name}"),
            "queue_ms": getattr(options, f"queue_{name}"),
        }
        if (line := getattr(options, name)) is not None:
            typed |= dict(zip(("down_mbit", "up_mbit", "rtt_ms"), line, strict=True))
        given = {option: value for option, value in typed.items() if value is not None}
        links[name] = replace(own.get(name, DEFAULT_LINKS[name]), **given)
    given_too = {"package_congestion_control": options.congestion_control} if options.congestion_control else {}
    return {"name": options.name, "links": links, **given_too}


def _line(text: str) -> tuple[float, float, float]:
    try:
        down, up, rtt = (float(part) for part in text.split("/"))
        if not (down > 0 and up > 0 and rtt >= 0):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not DOWN/UP/RTT in Mbit/s, Mbit/s and ms, as in 100/40/20"
        ) from None
    return down, up, rtt


def _percent(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 100:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 1 <= float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a time in s, 1 or more")


def _milliseconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a time in ms")


def _parser() -> argparse.ArgumentParser:
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="lab", help="which lab (default lab); a second one runs beside the first")
    lines = argparse.ArgumentParser(add_help=False)
    for name in LINK_NAMES:
        spec = DEFAULT_LINKS[name]
        default = (spec.down_mbit, spec.up_mbit, spec.rtt_ms)
        shown = "/".join(f"{value:g}" for value in default)
        help_ = f"Mbit/s down, up, and RTT in ms (default {shown}, or what the scenario is about)"
        lines.add_argument(f"--{name}", type=_line, metavar="DOWN/UP/RTT", help=help_)
        lines.add_argument(f"--loss-{name}", type=_percent, metavar="PERCENT", help="random loss each way (default 0)")
        lines.add_argument(
            f"--queue-{name}", type=_milliseconds, metavar="MS", help="queue each way (default one RTT, at least 30 ms)"
        )
    lines.add_argument(
        "--congestion-control", default="", metavar="NAME", help="of this package's daemons: auto, bbr or cubic"
    )
    parser = argparse.ArgumentParser(
        prog="cpe-mcp-lab",
        description="A network in a box: a home router with two access networks, and what is behind.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="the scenarios")
    command.set_defaults(command=_list)
    command = commands.add_parser("run", parents=[named, lines], help="run a scenario in a lab of its own")
    command.add_argument("scenario", metavar="SCENARIO")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    command.add_argument(
        "--seconds", type=_seconds, metavar="S", help="how long its load lasts, for scenarios that can be made longer"
    )
    command.set_defaults(command=_run)
    command = commands.add_parser("up", parents=[named, lines], help="bring a lab up and leave it running")
    command.add_argument("--bare", action="store_true", help="without this package's daemons: plain forwarding")
    command.set_defaults(command=_up)
    command = commands.add_parser("shell", parents=[named], help="a shell, or a command, on a host of the lab")
    command.add_argument("host", choices=HOSTS, metavar="HOST", help=", ".join(HOSTS))
    command.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="instead of a shell")
    command.set_defaults(command=_shell)
    command = commands.add_parser("down", parents=[named], help="take a lab down")
    command.set_defaults(command=_down)
    return parser


if __name__ == "__main__":
    sys.exit(main())
