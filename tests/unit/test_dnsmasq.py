"""The snippet for dnsmasq, and where it belongs; what dnsmasq makes of it is tested with a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpe_mcp.kernel.dnsmasq import find_directories, has_nftset, snippet
from cpe_mcp.policy.rules import compile_rules
from cpe_mcp.settings.router import RuleSettings

pytestmark = pytest.mark.unit


def lines(*rules: RuleSettings) -> list[str]:
    return [line for line in snippet(compile_rules(rules)).splitlines() if not line.startswith("#")]


def test_without_names_there_is_no_snippet() -> None:
    assert snippet(compile_rules([RuleSettings("rule[0]", dest=("192.0.2.1/32",))])) == ""


def test_a_name_goes_to_the_sets_of_all_rules_that_mean_it() -> None:
    """dnsmasq takes the longest match only."""
    wide = RuleSettings("rule[0]", domain=("example.com",))
    narrow = RuleSettings("rule[1]", domain=("www.example.com",))
    (wide_rule, narrow_rule) = compile_rules([wide, narrow])
    first, second = lines(wide, narrow)
    assert first.startswith("nftset=/example.com/4#inet#cpe_mcp#") or "6#inet#cpe_mcp#" in first
    for family in (4, 6):
        assert f"{family}#inet#cpe_mcp#{wide_rule.name_set(family)}" in first
        assert f"{family}#inet#cpe_mcp#{wide_rule.name_set(family)}" in second
        assert f"{family}#inet#cpe_mcp#{narrow_rule.name_set(family)}" in second
        assert narrow_rule.name_set(family) not in first
    assert lines(wide, narrow) == lines(narrow, wide), "moving a rule is not worth a restart"


def test_no_line_is_longer_than_dnsmasq_reads() -> None:
    domains = tuple(f"{'x' * 60}.{number}.example" for number in range(100))
    assert max(len(line) for line in lines(RuleSettings("rule[0]", domain=domains))) < 1024


def test_the_directory_is_what_the_running_instances_name(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"snippets{number}").mkdir()
        (tmp_path / f"dnsmasq.conf.cfg{number}").write_text(f"port=53\nconf-dir={tmp_path}/snippets{number}/,*.conf\n")
    (tmp_path / "dnsmasq.conf.old").write_text(f"conf-dir={tmp_path}/gone\n")
    found = find_directories("auto", configurations=f"{tmp_path}/dnsmasq.conf*", directories=f"{tmp_path}/none*")
    assert found == [f"{tmp_path}/snippets1", f"{tmp_path}/snippets2"]
    assert find_directories("auto", configurations=f"{tmp_path}/no*", directories=f"{tmp_path}/snip*") == found
    assert find_directories("/etc/dnsmasq.d") == ["/etc/dnsmasq.d"]


@pytest.mark.parametrize(("options", "expected"), [("ipset nftset auth", True), ("ipset no-nftset auth", False)])
def test_whether_dnsmasq_has_nftset_is_what_it_says(tmp_path: Path, options: str, expected: bool) -> None:
    program = tmp_path / "dnsmasq"
    program.write_text(f"#!/bin/sh\necho 'Compile time options: {options}'\n")
    program.chmod(0o755)
    assert has_nftset(str(program)) is expected
    assert has_nftset(str(tmp_path / "none")) is None
