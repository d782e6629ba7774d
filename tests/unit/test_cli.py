"""``cpe-mcp`` against a daemon that says what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.cli.main import COMMANDS, main
from cpe_mcp.control.api import ApiServer
from cpe_mcp.control.ask import ApiError
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = pytest.mark.unit

FLOW = {
    "client": "192.168.1.2",
    "client_port": 4000,
    "server": "192.0.2.80",
    "server_port": 443,
    "action": "proxy",
    "reason": "pooled",
    "concentrator": "mine",
    "wan": "dsl",
    "bytes_down": 5_000_000,
    "bytes_up": 1000,
    "duration_s": 3.0,
    "end": "",
    "pooled": True,
    "first_byte_ms": 21.0,
    "id": "0:17",
    "mptcp": True,
    "fallback": "",
    "down_mbit": 12.5,
    "up_mbit": 0.2,
    "verdict": "wan-full",
    "verdict_text": "dsl: it is full",
    "bytes_by_wan": {"dsl": {"down": 3_100_000, "up": 500}, "lte": {"down": 1_900_000, "up": 0}},
}
SUBFLOW = {
    "wan": "lte",
    "local": "10.2.0.1:41000",
    "remote": "198.51.100.1:5124",
    "backup": True,
    "rtt_ms": 51.2,
    "bytes_down": 1_900_000,
    "bytes_up": 0,
    "retransmits": 3,
    "cwnd": 20,
}
RULE = {"name": "video", "section": "rule[1]", "action": "proxy"}
WHY = {
    "destination": "192.0.2.80",
    "port": 443,
    "action": "proxy",
    "concentrator": "mine",
    "wan": "dsl",
    "concentrator_text": "no other is known",
    "wan_text": "its preference is the best",
    "scheme": "adaptive",
    "scheme_text": "the best WAN has room",
    "warm": True,
    "rule": {"name": "", "section": "", "action": ""},
    "reasons": [{"reason": "proxied", "text": "carried"}],
}


@contextlib.contextmanager
def daemon(directory: Path, answers: dict[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    """Serves the answers in a thread; gives the questions that came."""
    asked: list[tuple[str, Any]] = []
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    def method(name: str) -> Any:
        async def answer(args: Any) -> Any:
            asked.append((name, dict(args)))
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return answer

    server = ApiServer(str(directory / API_SOCKET), {name: method(name) for name in answers})

    def serve() -> None:
        loop.run_until_complete(server.start())
        ready.set()
        loop.run_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait(5)
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(server.close())
        loop.close()


def test_without_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(tmp_path), "status"]) == 3
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "not running" in error
    assert "/etc/init.d/cpe-mcp start" in error


@pytest.mark.parametrize("order", ["before", "after"])
def test_json_is_the_daemons_own_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], order: str) -> None:
    """Options are taken before the command and after it."""
    options = ["--json", "--run-dir", str(tmp_path)]
    rows: dict[str, Any] = {"concentrators": [], "sources": []}
    with daemon(tmp_path, {"concentrators": rows}):
        main([*options, "concentrators"] if order == "before" else ["concentrators", *options])
    assert json.loads(capsys.readouterr().out) == rows


@pytest.mark.requirement("X-6")
def test_concentrators_with_what_each_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    health = {
        "state": "dead",
        "since_s": 12.0,
        "detail": "no answer to the handshake",
        "deaths": 2,
        "asks_again_s": 3.0,
    }
    health["wans"] = [
        {"name": "dsl", "answers": False, "rtt_ms": 0.0, "detail": "no answer to the handshake", "ago_s": 4},
        {"name": "lte", "answers": True, "rtt_ms": 41.5, "detail": "", "ago_s": 70},
    ]
    row = {"name": "near", "addresses": ["192.0.2.7"], "port": 5124, "source": "static", "usable": False}
    row |= {"reaches_ipv6": True, "text": "dead", "wait_s": 3.0, "service_class": ["gaming"], "health": health}
    source: dict[str, Any] = {
        "source": "dns",
        "interface": "_x._tcp.example.net",
        "discarded": "192.0.2.53 over wan does not answer",
    }
    source |= {"unconfirmed": ["203.0.113.66"], "reason": "unconfirmed", "text": "nobody confirms it", "detail": "ask"}
    with daemon(tmp_path, {"concentrators": {"concentrators": [row], "sources": [source]}}):
        assert main(["--run-dir", str(tmp_path), "concentrators"]) == 1, "none is usable"
    shown = capsys.readouterr().out
    for words in (
        "near: only for rules that want gaming, or it by name",
        "near: dead for 12 s: no answer to the handshake",
        "near over dsl: no answer to the handshake (4 s ago)",
        "near over lte: answers in 41.5 ms (70 s ago)",
        "died 2 times",
        "warning: dns _x._tcp.example.net: 192.0.2.53 over wan does not answer",
        "warning: dns _x._tcp.example.net names 203.0.113.66, not used: nobody confirms it (ask)",
    ):
        assert words in shown


def test_flows_are_a_table_with_the_subflows_below_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fallen = {**FLOW, "id": "0:16", "fallback": "mptcp-stripped", "verdict": "mptcp-stripped", "subflows": []}
    flows = [{**FLOW, "subflows": [SUBFLOW]}, fallen]
    with daemon(tmp_path, {"flows": {"flows": flows, "silent_workers": 1}}) as asked:
        assert main(["--run-dir", str(tmp_path), "flows", "--limit", "5", "--filter", "lte"]) == 0
    assert asked == [("flows", {"limit": 5, "filter": "lte"})]
    lines = capsys.readouterr().out.splitlines()
    for word in ("0:17", "192.168.1.2:4000", "192.0.2.80:443", "mine", "5.0 MB"):
        assert word in lines[1]
    assert lines[2] == "    now 12.5 Mbit/s down, 0.2 up; wan-full: dsl: it is full"
    assert lines[3] == (
        "    lte: 10.2.0.1:41000 -> 198.51.100.1:5124, 1.9 MB down, 0 B up, RTT 51 ms, cwnd 20, 3 retransmits, backup"
    )
    assert lines[4].startswith("0:16")
    assert "; mptcp-stripped: " in lines[5]
    assert lines[6].startswith("1 workers did not answer")


@pytest.mark.requirement("5.6.3-b")
def test_flows_tell_at_length_what_was_chosen_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {**FLOW, "scheme": "adaptive", "scheme_reason": Reason.SCHEME_JOINED, "subflows": [SUBFLOW]}
    direct = {**FLOW, "action": "direct", "reason": Reason.CONCENTRATOR_TIMEOUT, "scheme": "", "subflows": []}
    with daemon(tmp_path, {"flows": {"flows": [chosen, direct]}}):
        assert main(["--run-dir", str(tmp_path), "flows", "--long"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["--run-dir", str(tmp_path), "flows"]) == 0
        assert "scheme" not in capsys.readouterr().out
    assert lines[3] == f"    proxy, pooled: {TEXTS[Reason.POOLED]}"
    assert lines[4] == f"    scheme adaptive, {Reason.SCHEME_JOINED}: {TEXTS[Reason.SCHEME_JOINED]}"
    assert lines[8] == f"    direct, concentrator-timeout: {TEXTS[Reason.CONCENTRATOR_TIMEOUT]}"
    assert len(lines) == 9


@pytest.mark.requirement("X-9")
def test_paths_say_what_was_seen_where_multipath_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works = {"state": "works", "reason": "mptcp-works", "text": "it gets through", "evidence": [{"text": "8 of 8"}]}
    removed = {"state": "removed", "reason": "access-strips", "text": "removed", "evidence": [{"text": "3 of 3 plain"}]}
    row = {"device": "eth1", "usable": True, "text": "up", "place": "carrying", "rtt_ms": 20.0, "down_mbit": 1.0}
    row |= {"up_mbit": 0.0, "address4": "", "address6": "", "bytes_down": 1, "bytes_up": 1}
    quota = {"used_gb": 12.345, "limit_gb": 50.0, "percent": 24.6}
    wans = [
        {**row, "name": "dsl", "mptcp": works, "quota": {**quota, "limit_gb": 0}},
        {**row, "name": "lte", "mptcp": removed, "quota": quota},
    ]
    answer = {"wans": wans, "scheme": {"name": "adaptive", "reason": "", "text": "room"}}
    with daemon(tmp_path, {"paths": answer}):
        assert main(["--run-dir", str(tmp_path), "paths"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "works" in lines[1]
    assert "none" in lines[1]
    assert "removed" in lines[2]
    assert "12.3 of 50 GB (24 %)" in lines[2]
    assert lines[4:] == ["lte: access-strips: removed", "    3 of 3 plain"]


@pytest.mark.requirement("X-5")
def test_quotas_are_shown_and_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"wan": "lte", "used_gb": 0.0071, "limit_gb": 0.01, "percent": 71.0, "text": "not used up"}
    row |= {"resets_on": "2026-12-01"}
    with daemon(tmp_path, {"quota": {"quotas": [row]}}) as asked:
        assert main(["--run-dir", str(tmp_path), "quota"]) == 0
        assert main(["--run-dir", str(tmp_path), "quota", "lte", "--used", "0.0071"]) == 0
        assert main(["--run-dir", str(tmp_path), "quota", "--used", "3"]) == 2
    assert asked == [("quota", {"wan": "", "used_gb": ""}), ("quota", {"wan": "lte", "used_gb": "0.0071"})]
    shown = capsys.readouterr()
    for word in ("lte", "0.007 of 0.01 GB (71 %)", "2026-12-01", "not used up"):
        assert word in shown.out.splitlines()[1]
    assert "--used takes the name of a WAN" in shown.err


@pytest.mark.parametrize("command", [["records"], ["flows", "--finished"]])
def test_records_say_what_each_wan_carried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    with daemon(tmp_path, {"records": {"flows": [{**FLOW, "end": "closed"}]}}) as asked:
        assert main(["--run-dir", str(tmp_path), *command]) == 0
    assert asked == [("records", {"limit": 100, "filter": ""})]
    assert "dsl 62 %, lte 38 %" in capsys.readouterr().out


@pytest.mark.parametrize(("action", "code"), [("proxy", 0), ("direct", 1)])
def test_why(tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, code: int) -> None:
    answers = [WHY, {**WHY, "destination": "2001:db8::80", "action": action, "rule": RULE}]
    with daemon(tmp_path, {"why": {**WHY, "name": "www.example", "answers": answers}}) as asked:
        argv = ["why", "www.example:8443", "--client", "192.168.1.2", "--run-dir", str(tmp_path)]
        assert main(argv) == code
    assert asked == [("why", {"dest": "www.example", "port": 8443, "client": "192.168.1.2"})]
    shown = capsys.readouterr().out
    assert "192.0.2.80:443: proxy by mine, first over dsl" in shown
    assert f"[2001:db8::80]:443: {action}" in shown
    chosen = (
        "concentrator mine: no other",
        "wan dsl: its preference",
        "scheme adaptive: the best",
        "a warm connection",
    )
    assert all(f"  {words}" in shown for words in chosen)
    assert shown.count("rule") == len(["rule video", "rule[1]"])
    assert "  rule video (rule[1]): proxy" in shown


def test_why_of_a_running_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [{"reason": "wan-in-reserve", "text": "waits", "wan": "lte"}, {"reason": "x", "text": "y", "wan": ""}]
    with daemon(tmp_path, {"why": {"flow": {**FLOW, "subflows": [SUBFLOW]}, "reasons": reasons}}) as asked:
        assert main(["--run-dir", str(tmp_path), "why", "--flow", "0:17"]) == 0
    assert asked == [("why", {"id": "0:17"})]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "192.0.2.80:443: proxy, 5.0 MB down so far (13.3 Mbit/s on average)"
    assert lines[3:] == ["  lte: wan-in-reserve: waits", "  x: y"]
    assert main(["--run-dir", str(tmp_path), "why"]) == 2


@pytest.mark.parametrize(("dropped", "code"), [(True, 0), (False, 1)])
def test_drop(tmp_path: Path, dropped: bool, code: int) -> None:
    with daemon(tmp_path, {"drop": {"dropped": dropped}}) as asked:
        assert main(["--run-dir", str(tmp_path), "drop", "0:17"]) == code
    assert asked == [("drop", {"id": "0:17"})]


def test_check_tells_failures_from_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"stage": "wan", "ok": True, "detail": "dsl", "next": "", "info": False}
    note = {"stage": "sqm", "ok": True, "detail": "SQM shapes eth1", "next": "keep it", "info": True}
    with daemon(tmp_path, {"check": {"stages": [good, note]}}):
        assert main(["--run-dir", str(tmp_path), "check"]) == 0
    assert capsys.readouterr().out == "ok    wan: dsl\n--    sqm: SQM shapes eth1\n      note: keep it\n"
    bad = {"stage": "join", "ok": False, "detail": "none on lte", "next": "look", "info": False}
    with daemon(tmp_path, {"check": {"stages": [good, bad]}}):
        assert main(["--run-dir", str(tmp_path), "check"]) == 1
    assert "FAIL  join: none on lte\n      next: look" in capsys.readouterr().out


def test_support_is_the_report_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, {"support": {"report": "== about ==\nx\n"}}) as asked:
        assert main(["--run-dir", str(tmp_path), "support"]) == 0
    assert asked == [("support", {"full": False})]
    assert capsys.readouterr().out == "== about ==\nx\n"


def test_what_is_not_needed_is_not_imported() -> None:
    """The command starts in a blink also on a slow router: no asyncio, no settings, no netlink library."""
    program = "import sys, cpe_mcp.cli.main; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "cpe_mcp.settings", "pyroute2", "msgpack", "cpe_mcp.upstream.metrics"} & set(shown)


@pytest.mark.requirement("X-2")
def test_manual_page_and_completion_have_every_command_and_option() -> None:
    """The list of both is the parser's own help."""
    root = Path(__file__).parents[2]
    page = (root / "docs/man/cpe-mcp.8").read_text().replace("\\-", "-")
    completion = (root / "files/usr/share/bash-completion/completions/cpe-mcp").read_text()
    for name in COMMANDS:
        for place, text in (("manual page", page), ("completion", completion)):
            assert re.search(rf"\b{name}\b", text), f"{name} is not in the {place}"
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            main([name, "--help"])
        for option in set(re.findall(r"--[a-z-]+", shown.getvalue())) - {"--help"}:
            for place, text in (("manual page", page), ("completion", completion)):
                assert option in text, f"{option} of {name} is not in the {place}"


def test_what_the_daemon_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, {"reload": ApiError("section wan 'dsl': no device")}):
        assert main(["--run-dir", str(tmp_path), "reload"]) == 1
    assert capsys.readouterr().err == "cpe-mcp: section wan 'dsl': no device\n"


@pytest.mark.parametrize("destination", ["", "a b", "192.0.2.1:99999", "192.0.2.1:http", "[2001:db8::1"])
def test_destinations_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], destination: str) -> None:
    with daemon(tmp_path, {"why": {}}):
        assert main(["--run-dir", str(tmp_path), "why", destination]) == 2
    assert capsys.readouterr().err.startswith("cpe-mcp: ")


def test_usage() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nonsense"])
    assert stop.value.code == 2


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    flows = [{**FLOW, "subflows": []}] * 1000  # printed, more than a pipe holds
    with daemon(tmp_path, {"flows": {"flows": flows, "silent_workers": 0}}):
        command = [sys.executable, "-m", "cpe_mcp.cli.main", "--json", "--run-dir", str(tmp_path), "flows"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "{\n", process.stderr.read()
            process.stdout.close()
            assert process.stderr.read() == ""


@pytest.mark.requirement("X-2")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["cpe-mcp", "con"], {"concentrators"}),
        (["cpe-mcp", "--json", "s"], {"status", "speedtest", "support"}),
        (["cpe-mcp", "flows", "--fi"], {"--filter", "--finished"}),
        (["cpe-mcp", "flows", "s"], set()),
        (["cpe-mcp", "--run-dir", "/x", "why", "--c"], {"--client"}),
        (["cpe-mcp", "speedtest", "--wan", ""], {"dsl", "lte"}),
        (["cpe-mcp", "drop", "0:1"], {"0:17", "0:18"}),
    ],
)
def test_completion_in_bash(tmp_path: Path, words: list[str], offered: set[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    command = tmp_path / "cpe-mcp"
    command.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        'paths) printf "WAN device\\ndsl eth1\\nlte wwan0\\n" ;;\n'
        'flows) printf "id client\\n0:17 a\\n    dsl: b\\n0:18 c\\n1:1 d\\n" ;;\n'
        "esac\n"
    )
    command.chmod(0o755)
    completion = Path(__file__).parents[2] / "files/usr/share/bash-completion/completions/cpe-mcp"
    script = (
        f"PATH={tmp_path}:$PATH; COMP_WORDBREAKS=' '; source {completion}; COMP_WORDS=({shlex.join(words)}); "
        f"COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(' '.join(words))}; _cpe_mcp; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    shown = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert set(shown.stdout.split()) == offered
