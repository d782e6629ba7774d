"""The keyed Convert Cookie."""

from __future__ import annotations

import pytest

from cpe_mcp.aaa.cookie import CookieError, check_cookie, make_cookie, subscriber_of

pytestmark = pytest.mark.unit

KEY = "correct horse battery staple"


@pytest.mark.requirement("X-16")
@pytest.mark.parametrize("name", ["a", "al", "ali", "alice", "line 7/3", "Zoë", "x" * 255])
def test_a_cookie_names_and_proves_its_subscriber(name: str) -> None:
    cookie = make_cookie(name, KEY)
    assert len(cookie) % 4 == 0, "the Cookie TLV counts in words"
    assert subscriber_of(cookie) == name
    assert check_cookie(cookie, KEY)


def test_the_layout_is_stable() -> None:
    assert make_cookie("alice", "k").hex() == "0105616c696365" + "61e228d6c72e95d7d25a414416c2d840" + "00"


def test_another_key_or_no_key_proves_nothing() -> None:
    cookie = make_cookie("alice", KEY)
    assert not check_cookie(cookie, KEY + "x")
    assert not check_cookie(cookie, "")


def test_a_name_cannot_be_exchanged() -> None:
    cookie = make_cookie("alice", KEY)
    assert not check_cookie(cookie.replace(b"alice", b"alicf"), KEY)


def test_every_changed_octet_is_noticed() -> None:
    cookie = make_cookie("alice", KEY)
    for at in range(len(cookie)):
        forged = cookie[:at] + bytes((cookie[at] ^ 1,)) + cookie[at + 1 :]
        assert not check_cookie(forged, KEY), f"octet {at}"


def test_every_truncated_twin_is_refused() -> None:
    cookie = make_cookie("alice", KEY)
    for size in range(len(cookie)):
        assert subscriber_of(cookie[:size]) is None
        assert not check_cookie(cookie[:size], KEY)
    assert subscriber_of(cookie + bytes(4)) is None


def test_a_foreign_cookie_has_no_subscriber() -> None:
    assert subscriber_of(bytes.fromhex("a0a1a2a3a4a5a6a7")) is None
    assert subscriber_of(b"\x01\x02\xff\xfe" + bytes(16)) is None, "not UTF-8"


@pytest.mark.parametrize(("name", "key"), [("", KEY), ("x" * 256, KEY), ("alice", "")])
def test_settings_that_make_no_cookie_are_named(name: str, key: str) -> None:
    with pytest.raises(CookieError, match="subscriber"):
        make_cookie(name, key)
