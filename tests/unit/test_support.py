"""The support report: secrets are planted everywhere, and must be found nowhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from test_answers_parts import RECORD, status, wan_row

from cpe_mcp.aaa.cookie import Credential
from cpe_mcp.policy.rules import compile_rules
from cpe_mcp.settings import parse_router
from cpe_mcp.upstream import support_parts
from cpe_mcp.upstream.support import MASK, mask, secrets_of
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
	option username 'alison@isp'
	option password '{PASSWORD}'

config ident 'ident'
	option user 'carla@home'

config rule 'annas_phone'
	option name 'Anna at night'
	list domain '*.clinic.example'
	list dest '198.51.100.77'
	list src '192.168.1.20'
	list src '2001:db8:7:5601::20'
	list mac '00:53:00:12:34:56'

config rule
	option name 'dsl'
	list dest_port '5000'
"""
NFT = """
	counter named_annas_phone { packets 7 bytes 420 }
	chain rules {
		ip daddr @@SET@ counter name named_annas_phone return
		ether saddr { 00:53:00:12:34:56, 00:53:00:00:00:01 } ip daddr 198.51.100.77 return comment "Anna at night"
		ip saddr { 192.168.1.20, 192.168.1.64/26 } ip6 saddr 2001:db8:7:5601::20 ip6 daddr 2001:db8:7:5600::/56 return
		ip daddr { 10.0.0.0/8, 198.51.100.1, 192.168.0.0/16 } return
"""
NAME_SET = compile_rules(parse_router(SETTINGS).rules)[0].name_set(4)
"""A hash of domains, which whoever suspects one can compute."""
GRANTED = Credential(key=b"granted-by-radius\x00\xff", handle=b"\x01handle-of-radius\xfe")
PEOPLE = {
    "alison@isp",
    "carla@home",
    "alice",
    "annas_phone",
    "Anna at night",
    "clinic.example",
    NAME_SET,
    "198.51.100.77",
    "192.168.1.2",
    "192.168.1.20",
    "192.168.1.64",
    "2001:db8:7:5601",
    "2001:db8:7:5600",
    "00:53:00:12:34:56",
    "00:53:00:00:00:01",
    "203.0.113.2",
    "192.0.2.80",
    "2001:db8:1:2::80",
}
"""Whom the report is about, and where they went."""


@pytest.fixture(autouse=True)
def _nft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_parts, "table_listing", lambda: NFT.replace("@SET@", NAME_SET))


def written(**changes: Any) -> str:
    """A report in which every text that comes from elsewhere holds a secret."""
    leaking = status(
        warnings=[f"section concentrator 'mine': {KEY!r} is odd"],
        radius={"enabled": True, "accepted": False, "text": "no", "detail": f"Reply-Message: {PASSWORD} or {SECRET}"},
        sources=[{"source": "dhcp4", "interface": "wan", "discarded": f"bad bytes {KEY.encode().hex()}"}],
        wans=[
            {
                **wan_row("dsl", "eth1"),
                "detail": json.dumps({"key": KEY, "secret": SECRET}),
                "networks": ["2001:db8:7:5600::/56", "203.0.113.0/24"],
            }
        ],
        fallback=f"{GRANTED.key.hex()} {GRANTED.handle.hex()} {bytes(GRANTED.key)!r} {bytes(GRANTED.handle)!r}",
        concentrators=[{"name": "mine", "addresses": ["198.51.100.1"], "subscriber": "alice"}],
    )
    row = {"stage": "authenticate", "ok": False, "detail": f"{SECRET} refused alison@isp", "next": f"not {PASSWORD}"}
    arguments: dict[str, Any] = {
        "status": leaking,
        "stages": [row],
        "live": [RECORD._asdict()],
        "finished": [{**RECORD._asdict(), "server": "2001:db8:1:2::80"}],
        "granted": GRANTED,
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
    for octets in (GRANTED.key, GRANTED.handle):
        assert octets.hex() not in report
        assert repr(octets)[2:-1] not in report
    assert report.count(MASK) >= 12, "what was masked should be seen to be there"


def test_the_report_has_what_helps() -> None:
    report = written()
    for title in ("about", "check", "settings", "status", "paths", "finished connections", "policy rules", "sysctl"):
        assert f"== {title} ==" in report
    for word in ("6.6.0", "FAIL authenticate", "lookup 254", '"device": "eth1"', '"name": "dsl"', "10.0.0.0/8"):
        assert word in report


def test_people_and_what_they_visit_are_shortened_unless_asked() -> None:
    report = written()
    assert {word for word in PEOPLE if word in report} == set()
    for short in ("192.168.1.x", "2001:db8:1:x", '"address4": "203.0.113.x"', "2001:db8:7:x/56", "00:53:00:x"):
        assert short in report
    assert report.count("198.51.100.1") > 1, "servers of the operator are shown"
    assert "192.0.2.9" in report
    full = written(full=True)
    assert {word for word in PEOPLE if word not in full} == set()


def test_every_address_in_a_text_is_shortened() -> None:
    wans = [{**wan_row("dsl", "eth1"), "address4": "10.1.0.1", "detail": "10.1.0.10 10.1.0.1:443 110.1.0.1 10.1.0.1."}]
    assert "10.1.0.x 10.1.0.x:443 110.1.0.x 10.1.0.x." in written(status=status(wans=wans))


def test_short_secrets_are_masked_as_words_only() -> None:
    assert mask("a bad idea: a, 'a', key=a", ["a"]) == f"{MASK} bad idea: {MASK}, '{MASK}', key={MASK}"


def test_a_secret_that_holds_another_goes_as_a_whole() -> None:
    assert mask("password1 password", ["password", "password1"]) == f"{MASK} {MASK}"


def test_secrets_of_the_settings_are_all_found() -> None:
    assert sorted(secrets_of(parse_router(SETTINGS))) == sorted(SECRETS)
