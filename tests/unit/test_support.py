"""The support report: secrets are planted everywhere, and must be found nowhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from test_answers_parts import RECORD, status, wan_row

from cpe_mcp.settings import parse_router
from cpe_mcp.upstream.support import MASK, mask, secrets_of, shortened
from cpe_mcp.upstream.support_parts import gather

pytestmark = pytest.mark.unit

KEY, SECRET, PASSWORD = 'wonder\'land "x"\\', "radius-ge\u00e9heim", "hunter2"
SECRETS = (KEY, SECRET, PASSWORD)
SETTINGS = f"""
config wan 'dsl'
	option device 'eth1'

config concentrator 'mine'
	list address '198.51.100.1'
	option subscriber 'alice'
	option key '{KEY.replace("'", "'" + chr(92) + "''")}'

config radius 'radius'
	option enabled '1'
	list server '192.0.2.9'
	option secret '{SECRET}'
	option username 'alice@isp'
	option password '{PASSWORD}'
"""


def written(**changes: Any) -> str:
    """A report in which every text that comes from elsewhere holds a secret."""
    leaking = status(
        warnings=[f"section concentrator 'mine': {KEY!r} is odd"],
        radius={"enabled": True, "accepted": False, "text": "no", "detail": f"Reply-Message: {PASSWORD} or {SECRET}"},
        sources=[{"source": "dhcp4", "interface": "wan", "discarded": f"bad bytes {KEY.encode().hex()}"}],
        wans=[{**wan_row("dsl", "eth1"), "detail": json.dumps({"key": KEY, "secret": SECRET}), "networks": []}],
        concentrators=[],
    )
    row = {"stage": "authenticate", "ok": False, "detail": f"{SECRET} refused", "next": f"not {PASSWORD}"}
    arguments: dict[str, Any] = {
        "status": leaking,
        "stages": [row],
        "live": [],
        "finished": [{**RECORD._asdict(), "server": "2001:db8:1:2::80"}],
        "secrets": ["learnt-by-radius"],
        "full": False,
        **changes,
    }
    return asyncio.run(gather(parse_router(SETTINGS), **arguments))


def forms(secret: str) -> set[str]:
    return {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        secret.encode().hex(),
        secret.replace("'", "'" + chr(92) + "''"),
    }


@pytest.mark.requirement("X-2")
@pytest.mark.parametrize("full", [False, True])
def test_no_secret_is_in_the_report(full: bool) -> None:
    report = written(full=full)
    for secret in SECRETS:
        for form in forms(secret):
            assert form not in report
    assert report.count(MASK) >= 8, "what was masked should be seen to be there"


def test_the_report_has_what_helps() -> None:
    report = written()
    for title in ("about", "check", "settings", "status", "paths", "finished connections", "policy rules", "sysctl"):
        assert f"== {title} ==" in report
    for word in ("6.6.0", "alice@isp", "FAIL authenticate", "lookup 254", '"device": "eth1"'):
        assert word in report


def test_people_and_what_they_visit_are_shortened_unless_asked() -> None:
    report = written()
    for address in ("192.168.1.2", "2001:db8:1:2::80", "203.0.113.2"):
        assert address not in report
    assert "192.168.1.x" in report
    assert "2001:db8:1:x" in report
    assert '"address4": "203.0.113.x"' in report
    full = written(full=True)
    for address in ("192.168.1.2", "2001:db8:1:2::80", "203.0.113.2"):
        assert address in full


def test_an_address_inside_another_is_not_taken_for_it() -> None:
    wans = [{**wan_row("dsl", "eth1"), "address4": "10.1.0.1", "detail": "10.1.0.10 10.1.0.1:443 110.1.0.1 10.1.0.1."}]
    assert "10.1.0.10 10.1.0.x:443 110.1.0.1 10.1.0.x." in written(status=status(wans=wans))


def test_short_secrets_are_masked_as_words_only() -> None:
    assert mask("a bad idea: a, 'a', key=a", ["a"]) == f"{MASK} bad idea: {MASK}, '{MASK}', key={MASK}"


def test_a_secret_that_holds_another_goes_as_a_whole() -> None:
    assert mask("password1 password", ["password", "password1"]) == f"{MASK} {MASK}"


def test_secrets_of_the_settings_are_all_found() -> None:
    assert sorted(secrets_of(parse_router(SETTINGS))) == sorted(SECRETS)


@pytest.mark.parametrize(
    ("address", "short"),
    [
        ("192.0.2.55", "192.0.2.x"),
        ("2001:db8:aa:bb::1", "2001:db8:aa:x"),
        ("::1", "0:0:0:x"),
        ("", ""),
        ("a name", "a name"),
    ],
)
def test_shortened(address: str, short: str) -> None:
    assert shortened(address) == short
