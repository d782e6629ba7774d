"""The LuCI app in a real browser against real LuCI, rpcd and ubus; screenshots stay in build/screenshots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import luci_answers as answers
import pytest
from luci_world import VIEWER, LuciWorld
from webdriver import Browser, needed

pytestmark = pytest.mark.openwrt

PHONE = (360, 740)
DESK = (1280, 900)
TWO_WANS = (
    ("global", "global", {"enabled": "1"}),
    ("wan", "dsl", {"interface": "wan", "device": "eth1"}),
    ("wan", "lte", {"interface": "wwan", "device": "wwan0", "preference": "20"}),
    ("concentrator", "home", {"address": ["203.0.113.5"], "subscriber": "alice", "key": "x"}),
)
APPLIED_S = 30.0
"""LuCI waits some seconds on purpose before it asks whether the router is still reachable."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LuciWorld]:
    """One root for all: it takes seconds to come up."""
    needed()
    world = LuciWorld(tmp_path_factory.mktemp("luci"))
    yield world
    world.close()


@pytest.fixture
def world(started: LuciWorld) -> Iterator[LuciWorld]:
    """Two WANs, a daemon that answers, a desk's screen in light colours; every script error fails the test."""
    started.configure(*TWO_WANS)
    started.daemon.answers = answers.everything()
    started.daemon.calls.clear()
    started.daemon.start()
    browser = started.browser
    assert browser is not None
    browser.size(*DESK)
    browser.dark(False)
    browser.wait(lambda: started.answers("status"), "the daemon on the bus")
    yield started
    started.daemon.stop()


def _no_complaints(browser: Browser) -> None:
    assert [text for text in browser.complaints() if "favicon" not in text] == []


def _fits(browser: Browser) -> None:
    """Nothing has to be moved sideways."""
    wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], f"the page is {wide[0]} px wide on a screen of {wide[1]} px"


@pytest.mark.requirement("X-8")
@pytest.mark.requirement("Y-7")
def test_overview_shows_lines_graphs_and_proof(world: LuciWorld) -> None:
    browser = world.open("overview")
    browser.wait_text("dsl", "#cpe-wans")
    wans = browser.text("#cpe-wans")
    assert "18 ms" in wans
    assert "waits, ready to take over" in wans
    assert "This download (272 MB, 203.0.113.80) used dsl 63 % and lte 37 %." in browser.text("#cpe-proofs")
    assert "used dsl alone" in browser.text("#cpe-proofs")
    assert browser.count(".cpe-plot polygon") == 4
    assert "home" in browser.text("#cpe-concentrator")
    assert "by key" in browser.text("#cpe-authentication")
    _no_complaints(browser)
    world.shoot("overview-light")


@pytest.mark.requirement("X-9")
@pytest.mark.requirement("Y-8")
def test_overview_says_which_line_removes_multipath(world: LuciWorld) -> None:
    status = answers.status()
    evidence = {
        "seen": "subflows",
        "count": 0,
        "of": 8,
        "text": "x",
        "words": {"code": "seen-subflows", "args": [0, 8]},
    }
    found = {"state": "removed", "reason": "access-strips", "text": "x", "evidence": [evidence]}
    status["wans"][1]["mptcp"] = found
    status["fallbacks"] = {"lte": {"mptcp-stripped": 7}}
    world.daemon.answers["status"] = status
    browser = world.open("overview")
    browser.wait_text("this access network removes Multipath TCP", "[data-wan=lte] [data-mptcp=access-strips]")
    assert "0 of 8 subflows that are established now" in browser.text("[data-wan=lte]")
    assert "gets through" in browser.text("[data-wan=dsl]")
    assert "7 connections over lte were plain TCP" in browser.text("#cpe-package [data-fallback=lte]")
    _no_complaints(browser)
    world.shoot("overview-stripped")


@pytest.mark.requirement("X-5")
def test_overview_shows_quotas_and_corrects_them(world: LuciWorld) -> None:
    status = world.daemon.answers["status"]
    over = {"used_gb": 50.26, "limit_gb": 50.0, "percent": 100.5, "soft_percent": 80, "state": "over"}
    over |= {"text": "used up: last resort", "resets_on": "2026-12-15"}
    status["wans"][1] |= {"state": "out of quota", "reason": "wan-out-of-quota", "place": "absent", "quota": over}
    browser = world.open("overview")
    browser.wait_text("50.3 GB of 50 GB (100 %)", "[data-wan=lte]")
    shown = browser.text("[data-wan=lte]")
    assert "its monthly volume is used up" in shown
    assert "2026-12-15" in shown
    assert browser.count("[data-wan=lte] [data-quota=over]") == 1
    assert browser.count("[data-wan=dsl] [data-quota]") == 0, "it has none"
    browser.click("[data-wan=lte] [data-act=quota]")
    browser.wait_text("Used volume of lte", ".modal")
    browser.type("#cpe-used", "12,5")
    world.shoot("overview-quota")
    browser.click(".modal [data-act=confirm]")
    browser.wait(lambda: world.daemon.asked("quota") == [{"wan": "lte", "used_gb": "12.5"}], "the question")
    browser.wait(lambda: browser.count("body.modal-overlay-active") == 0, "the end of the dialog")
    _no_complaints(browser)


def test_overview_says_why_something_does_not_work(world: LuciWorld) -> None:
    status = world.daemon.answers["status"]
    status["wans"][1] |= {
        "state": "dead",
        "reason": "wan-silent",
        "usable": False,
        "detail": "3 probes lost",
        "down_mbit": 0,
    }
    status |= {"proxy": False, "reason": "no-concentrator", "concentrators": [], "warnings": ["something odd"]}
    status["sources"] = [{"source": "dhcp4", "interface": "wan", "concentrators": [], "expires_s": None, "used": False,
                          "discarded": "its length is not a multiple of four", "unconfirmed": ["203.0.113.66"],
                          "reason": "unconfirmed"}]  # fmt: skip
    status["radius"] |= {"enabled": True, "reason": "not-authorized", "detail": "wrong password", "asks_again_s": 21.0}
    browser = world.open("overview")
    browser.wait_text("the link is up but nothing comes back over it: 3 probes lost", "[data-wan=lte]")
    assert "not used" in browser.text("[data-wan=lte]")
    assert "no concentrator is known or usable" in browser.text("#cpe-package")
    assert "something odd" in browser.text("#cpe-package")
    assert "Ask your operator" in browser.text("#cpe-concentrator")
    assert "not a multiple of four" in browser.text("#cpe-concentrator")
    assert "DHCP wan names 203.0.113.66, which is not used" in browser.text("#cpe-concentrator")
    assert "RADIUS refused this subscriber" in browser.text("#cpe-authentication")
    assert "21 s" in browser.text("#cpe-authentication")
    world.shoot("overview-trouble")


@pytest.mark.requirement("5.3-b")
@pytest.mark.requirement("X-13")
def test_overview_shows_what_radius_orders_and_what_waits(world: LuciWorld) -> None:
    world.daemon.answers["status"]["radius"] = answers.radius()
    browser = world.open("overview")
    browser.wait_text("RADIUS has accepted this router.", "#cpe-authentication")
    shown = browser.text("#cpe-authentication")
    for line in (
        "192.0.2.20:1812, UDP",
        "48 min",
        "36 min",
        "↓ 100 Mbit/s ↑ no limit",
        "12 sent, 2 waiting, 0 lost",
        "Accounting records wait: 192.0.2.20:1813 over lte did not answer",
        "2 carried out, 1 refused",
        "3 of another time, 1 from unknown addresses",
    ):
        assert line in shown
    assert shown.count("carried out") == 2, "no Disconnect-Request came, so there is no row of them"
    _no_complaints(browser)
    world.shoot("overview-radius")


def test_overview_refreshes_with_two_questions(world: LuciWorld) -> None:
    browser = world.open("overview")
    browser.wait_text("18 ms", "#cpe-wans")
    world.daemon.calls.clear()
    world.daemon.answers["status"]["wans"][0]["rtt_ms"] = 77.0
    browser.wait_text("77 ms", "#cpe-wans")
    methods = [name for name, _ in world.daemon.calls]
    assert set(methods) <= {"status", "history", "records"}
    whole = methods[methods.index("status") :]  # of the refresh that ran at the clearing the rest may have come
    assert whole.count("history") <= whole.count("status") <= 2
    assert methods.count("history") <= 3


@pytest.mark.parametrize("page", ["overview", "connections", "rules", "settings", "diagnostics"])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_on_a_phone(world: LuciWorld, page: str, dark: bool) -> None:
    assert world.browser is not None
    world.browser.size(*PHONE, phone=True)
    world.browser.dark(dark)
    browser = world.open(page)
    browser.wait(lambda: browser.count("#view .cbi-section"), "content")
    _fits(browser)
    _no_complaints(browser)
    world.shoot(f"{page}-phone-{'dark' if dark else 'light'}")


@pytest.mark.parametrize("page", ["overview", "connections", "rules", "settings", "diagnostics"])
def test_pages_in_dark_colours(world: LuciWorld, page: str) -> None:
    assert world.browser is not None
    world.browser.dark(True)
    browser = world.open(page)
    browser.wait(lambda: browser.count("#view .cbi-section"), "content")
    assert browser.run("return document.documentElement.getAttribute('data-darkmode')") == "true"
    world.shoot(f"{page}-dark")


@pytest.mark.requirement("X-8")
def test_connections_can_be_seen_filtered_and_ended(world: LuciWorld) -> None:
    browser = world.open("connections")
    browser.wait(lambda: browser.count(".cpe-flow[data-flow]") == 3, "three connections")
    assert answers.HOSTILE in browser.text("#cpe-flows"), "a name is text"
    assert browser.run("return window.hacked") is None
    browser.click('[data-flow="0:7"] [data-act=details]')
    browser.wait_text("198.51.100.2:41002", "#cpe-flows")
    browser.wait_text("What else is known of its lines", "#cpe-flows")
    assert "dsl" in browser.text('[data-flow="0:7"] [data-verdict=wan-full]')
    assert "carries about the most" in browser.text('[data-flow="0:7"] [data-verdict=wan-full]')
    assert "window 12" in browser.text('[data-flow="0:7"] .cpe-subflows')
    assert {"id": "0:7"} in world.daemon.asked("why")
    world.shoot("connections-light")
    browser.click("button[data-sort=down]")
    order = browser.run("return [...document.querySelectorAll('[data-flow]')].map(e => e.dataset.flow)")
    assert order == ["0:7", "0:8", "0:9"]
    browser.type("#cpe-filter", "1.31")
    browser.wait(lambda: browser.count(".cpe-flow[data-flow]") == 1, "one connection")
    browser.wait(lambda: {"limit": 200, "filter": "1.31"} in world.daemon.asked("flows"), "the daemon to filter")
    browser.type("#cpe-filter", "")
    browser.run("document.querySelector('#cpe-filter').dispatchEvent(new Event('input'))")
    browser.wait(lambda: browser.count(".cpe-flow[data-flow]") == 3, "all again")
    browser.click('[data-flow="0:9"] [data-act=drop]')
    browser.wait_text("ends at once", ".modal")
    browser.click(".modal [data-act=confirm]")
    browser.wait(lambda: world.daemon.asked("drop") == [{"id": "0:9"}], "the question to drop")
    _no_complaints(browser)


def test_one_click_leaves_a_site_to_plain_forwarding(world: LuciWorld) -> None:
    world.configure(*TWO_WANS, ("rule", "", {"name": "before", "action": "proxy"}))
    browser = world.open("connections")
    browser.wait(lambda: browser.count('[data-flow="0:7"]'), "the connection")
    browser.click('[data-flow="0:7"] [data-act=direct]')
    browser.wait_text("Servers see the address of the concentrator", ".modal")
    world.shoot("connections-direct")
    browser.click(".modal [data-act=confirm]")
    rule = browser.wait(lambda: next(
        (row for row in world.settings().values() if row.get("dest") == ["203.0.113.80"]), None
    ), "the rule in the settings", APPLIED_S)  # fmt: skip
    assert rule["action"] == "direct"
    rules = sorted((row[".index"], row["name"]) for row in world.settings().values() if row[".type"] == "rule")
    assert [name for _, name in rules] == ["Direct: 203.0.113.80", "before"], "the first rule that matches decides"
    browser.wait_text("Configuration changes applied", timeout_s=APPLIED_S)


@pytest.mark.requirement("Y-10")
def test_diagnostics(world: LuciWorld) -> None:
    browser = world.open("diagnostics")
    browser.wait(lambda: browser.count(".cpe-stage") == 6, "the stages")
    assert browser.count(".cpe-stage[data-ok='0']") == 1
    assert "Next: check that it runs" in browser.text("[data-stage=connect]")
    browser.type("#cpe-dest", "example.com")
    browser.click("#cpe-why")
    browser.wait_text("203.0.113.80:443 goes over all WANs", "#cpe-why-answer")
    shown = browser.text("#cpe-why-answer")
    for words in (
        "concentrator home: no other is known",
        "first line dsl: its preference is the best",
        "a warm connection",
    ):
        assert words in shown
    assert "[2001:db8:50::80]:443 goes directly" in browser.text("#cpe-why-answer")
    assert world.daemon.asked("why") == [{"dest": "example.com", "port": 443}]
    world.daemon.answers["speedtest"] = lambda args: answers.speed("running")
    browser.click("#cpe-speed-start")
    browser.wait(lambda: browser.count("#cpe-speed .cbi-progressbar"), "progress")
    world.daemon.answers["speedtest"] = answers.speed("done")
    browser.wait_text("Download: 79 Mbit/s together, 94 %", "#cpe-speed-conclusion")
    assert {"action": "start", "wan": ""} in world.daemon.asked("speedtest")
    browser.click("#cpe-support-make")
    browser.wait_text("cpe-mcp 0.3.0", "#cpe-support")
    assert browser.run("return fetch(document.querySelector('#cpe-support-save').href).then(r => r.text())") == (
        "cpe-mcp 0.3.0\nkey ********\n"
    )
    _no_complaints(browser)
    world.shoot("diagnostics-light")


def test_settings_are_saved_and_checked_in_the_page(world: LuciWorld) -> None:
    browser = world.open("settings")
    field = "#widget\\.cbid\\.cpe-mcp\\.global\\.workers"
    browser.wait(lambda: browser.count(field), "the field workers")
    world.shoot("settings-light")
    browser.run("document.querySelector('[data-tab=advanced] a, .cbi-tabmenu [data-tab=advanced] a').click()")
    browser.type(field, "99")
    browser.run("document.querySelector(arguments[0]).blur()", field)
    browser.wait(lambda: browser.count(f"{field}.cbi-input-invalid"), "the refusal of 99")
    browser.type(field, "2")
    browser.run("document.querySelector(arguments[0]).blur()", field)
    browser.wait(lambda: not browser.count(f"{field}.cbi-input-invalid"), "2 to be right")
    _save_and_apply(browser)
    browser.wait(lambda: world.settings()["global"].get("workers") == "2", "the setting", APPLIED_S)
    browser.wait_text("Configuration changes applied", timeout_s=APPLIED_S)
    saved = world.settings()
    assert saved["dsl"] == saved["dsl"] | {"interface": "wan", "device": "eth1"}
    assert saved["home"]["key"] == "x"
    assert "pool_size" not in saved["global"], "defaults are not written"


def test_a_line_is_changed_in_its_own_page(world: LuciWorld) -> None:
    browser = world.open("settings")
    browser.wait(lambda: browser.count("#cbi-cpe-mcp-wan"), "the lines")
    browser.run("document.querySelector('.cbi-tabmenu [data-tab=wan] a').click()")
    row = "#cbi-cpe-mcp-wan .cbi-section-table-row[data-sid=lte]"
    browser.wait(lambda: "eth1" in browser.text("#cbi-cpe-mcp-wan"), "the table")
    world.shoot("settings-wans")
    browser.click(f"{row} .cbi-button-edit")
    browser.wait(lambda: browser.count(".modal .cbi-map"), "the line's own page")
    world.shoot("settings-wan-edit")
    browser.run(
        "const e = document.querySelector('.modal select[id*=\"lte.role\"]');"
        "e.value = 'backup'; e.dispatchEvent(new Event('change', { bubbles: true }))"
    )
    browser.click(".modal .cbi-button-positive")
    browser.wait(lambda: not browser.count("body.modal-overlay-active"), "the page to close")
    _save_and_apply(browser)
    browser.wait(lambda: world.settings()["lte"].get("role") == "backup", "the setting", APPLIED_S)
    browser.wait_text("Configuration changes applied", timeout_s=APPLIED_S)
    assert world.settings()["lte"] == world.settings()["lte"] | {"interface": "wwan", "device": "wwan0"}


def _save_and_apply(browser: Browser) -> None:
    browser.run("document.querySelector('.cbi-page-actions .cbi-button-apply').click()")


def test_rules_are_shown_in_order(world: LuciWorld) -> None:
    world.configure(
        *TWO_WANS,
        ("rule", "", {"name": "bank", "action": "direct", "domain": ["bank.example"]}),
        ("rule", "", {"name": "games", "action": "block", "mac": ["00:53:00:12:34:56"], "dest_port": ["8000-8100"]}),
    )
    browser = world.open("rules")
    browser.wait_text("to bank.example", "#view")
    text = browser.text("#view")
    assert "port 8000-8100, from 00:53:00:12:34:56" in text
    assert text.index("bank") < text.index("games")
    _no_complaints(browser)
    world.shoot("rules-light")
    browser.click(".cbi-section-table-row .cbi-button-edit")
    browser.wait(lambda: browser.count(".modal .cbi-map"), "the rule's own page")
    for label in ("Name", "Enabled", "Action", "Domains", "Ports"):
        assert label in browser.text(".modal")
    world.shoot("rules-edit")
    browser.size(*PHONE, phone=True)
    browser = world.open("rules")
    browser.wait_text("to bank.example", "#view")
    _fits(browser)
    world.shoot("rules-phone")
    browser.click(".cbi-section-table-row .cbi-button-edit")
    browser.wait(lambda: browser.count(".modal .cbi-map"), "the rule's own page")
    _fits(browser)
    world.shoot("rules-edit-phone")


@pytest.mark.requirement("X-3")
@pytest.mark.requirement("X-12")
@pytest.mark.parametrize("phone", [True, False])
def test_first_use_sets_up_lines_concentrator_and_quic(world: LuciWorld, phone: bool) -> None:
    world.configure()
    assert world.browser is not None
    if phone:
        world.browser.size(*PHONE, phone=True)
    browser = world.open("overview")
    browser.wait(lambda: browser.count("#cpe-use-wan"), "the lines")
    assert browser.count("#cpe-use-lan") == 0
    assert browser.count("#cpe-use-wan6") == 0, "it is the same line as wan"
    assert "not encrypted" in browser.text("#cpe-plain")
    assert "YouTube" in browser.text("#cpe-firstuse")
    if browser.run("return document.querySelector('#cpe-use-wwan').checked"):
        browser.click("#cpe-use-wwan")
    browser.wait_text("A second one adds", "#cpe-advice")
    world.shoot(f"first-use-{'phone' if phone else 'light'}")
    assert not browser.run("return document.querySelector('#cpe-address').offsetParent"), "shown only when it is wanted"
    browser.click("#cpe-use-wwan")
    browser.wait_text("With 2 WANs", "#cpe-advice")
    browser.click("#cpe-concentrator-static")
    _save_and_apply(browser)
    browser.wait_text("The address of the concentrator is missing", "#cpe-problem")
    browser.type("#cpe-address", "203.0.113.5")
    browser.type("#cpe-subscriber", "alice")
    browser.type("#cpe-key", "correct horse")
    browser.click("#cpe-quic-reject")
    _fits(browser)
    world.shoot(f"first-use-filled-{'phone' if phone else 'light'}")
    _save_and_apply(browser)
    saved: dict[str, Any] = browser.wait(lambda: (row := world.settings()).get("quic") and row, "settings", APPLIED_S)
    assert saved["quic"]["policy"] == "reject"
    assert saved["wan"] == saved["wan"] | {".type": "wan", "interface": "wan", "device": "eth1", "preference": "10"}
    assert saved["wwan"] == saved["wwan"] | {"device": "wwan0", "preference": "20"}
    assert saved["home"] == saved["home"] | {"address": ["203.0.113.5"], "subscriber": "alice", "key": "correct horse"}
    browser.wait_text("Configuration changes applied", timeout_s=APPLIED_S)
    browser.wait(lambda: browser.count("#cpe-wans"), "the overview after the change", APPLIED_S)


@pytest.mark.parametrize("page", ["overview", "connections", "diagnostics"])
def test_pages_explain_that_the_daemon_is_down(world: LuciWorld, page: str) -> None:
    world.daemon.stop()
    browser = world.open(page)
    browser.wait_text("The multipath daemon is not running.")
    assert browser.count("a[href$='admin/system/startup']")
    assert browser.count(".spinning") == 0
    world.shoot(f"{page}-down")
    if page != "diagnostics":
        world.daemon.start()
        browser.wait(lambda: browser.count("[data-trouble]") == 0, "the page to come back by itself")


def test_settings_work_without_the_daemon(world: LuciWorld) -> None:
    world.daemon.stop()
    browser = world.open("settings")
    browser.wait_text("Use several WANs at once")
    _no_complaints(browser)


def test_a_person_reads_german(world: LuciWorld, tmp_path: Path) -> None:
    if not (world.folder / "usr/lib/lua/luci/i18n/cpe-mcp.de.lmo").exists():
        pytest.skip("po2lmo is not on PATH")
    world.ubus("uci", "set", {"config": "luci", "section": "main", "values": {"lang": "de"}})
    world.ubus("uci", "commit", {"config": "luci"})
    try:
        browser = world.open("overview")
        browser.wait_text("Dieser Download (272 MB, 203.0.113.80)", "#cpe-proofs")
        assert "Gelernt aus\nEinstellungen" in browser.text("#cpe-concentrator")
        world.shoot("overview-german")
        world.daemon.answers["status"]["radius"] = answers.radius()
        browser.wait_text(
            "Abrechnungsdaten warten: 192.0.2.20:1813 (über lte) hat nicht geantwortet", "#cpe-authentication"
        )
        assert "↑ unbegrenzt" in browser.text("#cpe-authentication")
        silent = {"code": "server-no-secret", "args": ["192.0.2.20:1812"]}
        world.daemon.answers["status"]["radius"] |= {"detail": "did not answer", "detail_words": [silent]}
        browser.wait_text("192.0.2.20:1812 hat nicht geantwortet: Läuft er", "#cpe-authentication")
        browser = world.open("diagnostics")
        browser.wait_text("home hat noch keine Verbindung angenommen", "[data-stage=connect]")
        assert "prüfen Sie, ob er läuft" in browser.text("[data-stage=connect]")
        badges = "const all = [...document.querySelectorAll('.cpe-badge')];"
        cut = f"{badges} return all.filter(e => e.clientHeight > 18 || e.scrollWidth > e.clientWidth).map(e => e.innerText)"
        assert browser.run(f"{badges} return all.length") > 3
        assert browser.run(cut) == [], "a badge is one line and holds its word"
        browser = world.open("settings")
        browser.wait(lambda: browser.count("#cbi-cpe-mcp-paths"), "the sections")
        assert "Authentifizierung" in browser.text("#view .cbi-tabmenu"), "as LuCI's own catalogue has it"
        browser.run("document.querySelector('.cbi-tabmenu [data-tab=paths] a').click()")
        wide = "return document.querySelector('#view [data-name=scheme] select').getBoundingClientRect().width"
        assert browser.run(wide) > 300, "the choice is not cut"
    finally:
        world.ubus("uci", "set", {"config": "luci", "section": "main", "values": {"lang": "en"}})
        world.ubus("uci", "commit", {"config": "luci"})


def _rules_in_order(world: LuciWorld) -> list[str]:
    rows = [row for row in world.settings().values() if row[".type"] == "rule"]
    return [row["name"] for row in sorted(rows, key=lambda row: int(row[".index"]))]


def test_rules_are_dragged_into_another_order(world: LuciWorld) -> None:
    names = ("apple", "banana", "cherry")
    world.configure(*TWO_WANS, *(("rule", "", {"name": name, "action": "direct"}) for name in names))
    assert _rules_in_order(world) == [*names]
    browser = world.open("rules")
    browser.wait_text("cherry", "#view")
    first, _, last = (name for name, row in world.settings().items() if row[".type"] == "rule")
    browser.drag(f"[data-sid={first}] .drag-handle", f"[data-sid={last}]")
    browser.wait(
        lambda: browser.text("#view").index("cherry") < browser.text("#view").index("apple"), "the row to move"
    )
    _save_and_apply(browser)
    browser.wait(lambda: _rules_in_order(world) == ["banana", "cherry", "apple"], "the order in the file", APPLIED_S)
    browser.wait_text("Configuration changes applied", timeout_s=APPLIED_S)


@pytest.fixture
def viewed(world: LuciWorld) -> Iterator[LuciWorld]:
    """Seen by a login that may not write."""
    world.allow_viewer()
    world.log_in(VIEWER)
    yield world
    world.log_in()


CHANGES = ("[data-act=drop]", "[data-act=direct]", "[data-act=quota]", "#cpe-speed-start", "#cpe-support-make")
"""What sends something that a login with read rights alone may not send."""


UBUS_DENIED = 6
"""Permission denied: rpcd's word for a configuration that the session may not read."""
RPC_DENIED = -32002
"""uhttpd's word for a call that the session's access lists do not have."""


def _asked(browser: Browser, name: str, method: str, args: dict[str, Any]) -> dict[str, Any]:
    """What the router answers to a question that the page's session puts without the page."""
    script = """
        const params = [L.env.sessionid, arguments[0], arguments[1], arguments[2]];
        const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'call', params: params });
        return fetch(L.env.ubuspath, { method: 'POST', body: body }).then(r => r.json());
    """
    answer: dict[str, Any] = browser.run(script, name, method, args)
    return answer


def _usable(browser: Browser, selector: str) -> list[str]:
    """What is written on the elements that a person could use."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => !e.disabled).map(e => e.id || e.innerText)"
    )
    found: list[str] = browser.run(script, selector)
    return found


UNSEEN = "Settings hold keys and passwords"


def test_a_login_that_may_only_look_sees_the_state_but_no_settings_and_changes_nothing(viewed: LuciWorld) -> None:
    status = viewed.daemon.answers["status"]
    status["wans"][1]["quota"] |= {"limit_gb": 50, "used_gb": 12.0, "percent": 24.0}
    viewed.configure(*TWO_WANS, ("rule", "", {"name": "bank", "action": "direct", "domain": ["bank.example"]}))
    for page, shown in (
        ("overview", "12.0 GB of 50 GB"),
        ("connections", "203.0.113.80:443"),
        ("rules", UNSEEN),
        ("settings", UNSEEN),
        ("diagnostics", "home has not accepted a connection yet"),
    ):
        browser = viewed.open(page)
        browser.wait_text(shown, "#view")
        browser.wait_text("This login may look but not change anything.", "#view")
        viewed.shoot(f"{page}-readonly")
        assert _usable(browser, ", ".join(CHANGES)) == [], page
        assert _usable(browser, ".cbi-page-actions button") == [], page
        assert _usable(browser, "#view button.cbi-button-add, #view button.cbi-button-remove") == [], page
        _no_complaints(browser)
    for method in ("speedtest", "drop", "quota", "support", "reload"):
        assert _asked(browser, "cpe-mcp", method, {})["error"]["code"] == RPC_DENIED, "not by hand either"
        assert viewed.daemon.asked(method) == []
    assert _asked(browser, "cpe-mcp", "status", {})["result"][0] == 0
    # Of network it could: LuCI's own group luci-base-network-status lets it.
    reply = _asked(browser, "uci", "get", {"config": "cpe-mcp"})
    assert reply.get("error", {}).get("code") == RPC_DENIED or reply["result"] == [UBUS_DENIED], "keys are in there"
    setting = {"config": "cpe-mcp", "section": "global", "values": {"enabled": "0"}}
    assert _asked(browser, "uci", "set", setting)["error"]["code"] == RPC_DENIED
    viewed.configure()
    status["wans"] = []
    browser = viewed.open("overview")
    browser.wait_text("This login may look but not change anything.", "#cpe-firstuse")
    assert _usable(browser, "#view input, .cbi-page-actions button") == []


def test_an_order_is_kept_and_the_default_of_a_list_is_shown(world: LuciWorld) -> None:
    world.configure(*TWO_WANS, ("discovery", "discovery", {"precedence": ["dns", "dhcp"]}))
    browser = world.open("settings")
    browser.wait(lambda: browser.count("#cbi-cpe-mcp-discovery"), "the section")
    browser.run("document.querySelector('.cbi-tabmenu [data-tab=discovery] a').click()")
    browser.wait_text("default: the concentrators set here, RADIUS, DNS (signed)", "[data-name=trust_alone]")
    world.shoot("settings-discovery")
    browser.click("[data-name=dhcp] input[type=checkbox]")
    _save_and_apply(browser)
    browser.wait(lambda: world.settings()["discovery"].get("dhcp") == "0", "the setting", APPLIED_S)
    assert world.settings()["discovery"]["precedence"] == ["dns", "dhcp"], "what was not touched is as it was"
    browser.wait_text("Configuration changes applied", timeout_s=APPLIED_S)


def test_every_part_of_the_settings_fits_on_a_phone(world: LuciWorld) -> None:
    assert world.browser is not None
    world.browser.size(*PHONE, phone=True)
    browser = world.open("settings")
    browser.wait(lambda: browser.count("#cbi-cpe-mcp-wan"), "the lines")
    tabs = "return [...document.querySelectorAll(arguments[0])].map(e => e.dataset.tab)"
    click = "document.querySelector(arguments[0]).click()"
    parts = browser.run(tabs, ".cbi-map > .cbi-tabmenu > [data-tab]")
    assert {"wan", "concentrator", "discovery", "radius", "paths"} <= {*parts}
    advanced = 0
    for part in parts:
        browser.run(click, f".cbi-map > .cbi-tabmenu > [data-tab={part}] a")
        inner = f".cbi-section[data-tab={part}] .cbi-tabmenu > [data-tab{{}}]"
        for tab in browser.run(tabs, inner.format("")) or [""]:
            if tab:
                browser.run(click, f"{inner.format(f'={tab}')} a")
                advanced += tab == "advanced"
            _fits(browser)
    assert advanced >= 4, "the tabs within were seen too"
