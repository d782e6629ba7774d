"""The Convert Cookie: layout, MAC, epochs, handles, and the challenge that tells the time."""

from __future__ import annotations

import hmac

import pytest

from cpe_mcp.aaa import mac as module
from cpe_mcp.aaa.cookie import (
    CHALLENGE,
    EPOCH_S,
    NO_CREDENTIAL,
    OPERATOR,
    OWN_TABLE,
    CookieError,
    Credential,
    epoch_of,
    is_proven,
    make_challenge,
    make_cookie,
    make_handle,
    own_credential,
    own_handle,
    pull_cookie,
    read_handle,
    time_of,
    whole_epoch,
)

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-16")]

KEY = "correct horse battery staple"
ALICE = own_credential("alice", KEY)
SECRET = b"shared by the concentrators of one operator"
NOW = 1_800_000_123.0
HANDED = make_handle("alice", SECRET, NOW + 3600)


@pytest.mark.parametrize("octets", [0, 1, 63, 64, 65, 200])
def test_the_mac_is_that_of_the_standard_library(octets: int) -> None:
    key, message = b"k" * octets, b"message" * octets
    assert module.mac(key, message) == hmac.digest(key, message, "sha256")


def test_the_layout_is_as_documented() -> None:
    cookie = make_cookie(ALICE, NOW, b"8 octets")
    epoch = int(NOW) // 300
    assert len(cookie) == 44
    assert cookie[:4] == bytes([2, 0]) + (epoch & 0xFFFF).to_bytes(2, "big")
    handle = hmac.digest(KEY.encode(), b"cpe-mcp convert handle 2\0" + epoch.to_bytes(8, "big") + b"alice", "sha256")
    assert cookie[4:20] == handle[:16]
    assert cookie[20:28] == b"8 octets"
    proof = hmac.digest(KEY.encode(), b"cpe-mcp convert cookie 2\0" + epoch.to_bytes(8, "big") + cookie[:28], "sha256")
    assert cookie[28:] == proof[:16]


@pytest.mark.parametrize("credential", [ALICE, HANDED, HANDED._replace(handle=b"x" * 255)])
def test_a_cookie_is_read_back_and_proven_in_its_epoch_only(credential: Credential) -> None:
    cookie = make_cookie(credential, NOW)
    assert len(cookie) % 4 == 0, "the Cookie TLV counts in words"
    parts = pull_cookie(cookie)
    assert parts is not None
    assert parts.kind == (OPERATOR if credential.handle else OWN_TABLE)
    assert parts.handle == (credential.handle or own_handle("alice", ALICE.key, epoch_of(NOW)))
    assert is_proven(parts, credential.key, epoch_of(NOW))
    assert not is_proven(parts, credential.key, epoch_of(NOW) + 65536), "the same 16 bits, 227 days later"
    assert not is_proven(parts, credential.key + b"x", epoch_of(NOW))
    assert not is_proven(parts, b"", epoch_of(NOW))


def test_no_two_connections_have_the_same_cookie_and_no_two_epochs_the_same_handle() -> None:
    one, other, later = (make_cookie(ALICE, unix_s) for unix_s in (NOW, NOW, NOW + EPOCH_S))
    assert one != other
    assert one[4:20] == other[4:20]
    assert one[4:20] != later[4:20]
    assert b"alice" not in one


@pytest.mark.parametrize("credential", [ALICE, HANDED])
def test_every_octet_counts(credential: Credential) -> None:
    cookie = make_cookie(credential, NOW)
    for at in range(len(cookie)):
        parts = pull_cookie(cookie[:at] + bytes((cookie[at] ^ 1,)) + cookie[at + 1 :])
        assert parts is None or not is_proven(parts, credential.key, epoch_of(NOW)), f"octet {at}"


def test_a_cut_or_longer_or_foreign_cookie_is_none() -> None:
    for credential in (ALICE, HANDED):
        cookie = make_cookie(credential, NOW)
        assert all(pull_cookie(cookie[:size]) is None for size in range(len(cookie)))
        assert pull_cookie(cookie + bytes(4)) is None
    assert pull_cookie(bytes.fromhex("a0a1a2a3a4a5a6a7")) is None
    assert pull_cookie(make_challenge(NOW)) is None
    assert pull_cookie(b"\x01" + make_cookie(ALICE, NOW)[1:]) is None, "version 1"
    assert pull_cookie(bytes([2, OPERATOR, 0, 0, 0]) + bytes(27)) is None, "a handle of no octets"


def test_the_epoch_is_found_beside_the_present_one_and_across_the_turn_of_its_16_bits() -> None:
    assert [whole_epoch(low, 65536) for low in (0, 65535, 1, 2, 65534)] == [65536, 65535, 65537, None, None]
    assert whole_epoch(65535, 0) is None, "there is no epoch before 1970"


def test_a_challenge_tells_the_time_and_nothing_else_does() -> None:
    challenge = make_challenge(NOW)
    assert challenge == bytes([2, CHALLENGE]) + int(NOW).to_bytes(6, "big")
    assert time_of(challenge) == int(NOW)
    for other in (b"", challenge[:-1], challenge + b"\0", b"\1" + challenge[1:], b"an opaque cookie"):
        assert time_of(other) is None


@pytest.mark.requirement("Y-9")
@pytest.mark.parametrize("name", ["a", "alice", "sixteen octets..", "n" * 200, "müller@example.net"])
def test_concentrators_read_in_a_handle_what_aaa_has_put_there(name: str) -> None:
    made = make_handle(name, SECRET, NOW)
    read = read_handle(made.handle, SECRET)
    assert read is not None
    assert read == (name, int(NOW), made.key)
    assert len(name) < 4 or name.encode() not in made.handle, "a letter may be there by chance"
    assert len(made.handle) <= 255
    assert make_handle(name, SECRET, NOW).handle != made.handle, "it says nothing of the one before"


def test_with_another_secret_or_other_octets_a_handle_has_another_key() -> None:
    made = make_handle("alice", SECRET, NOW)
    for handle, secret in (
        (made.handle, SECRET + b"x"),
        (made.handle[:-1] + bytes([made.handle[-1] ^ 1]), SECRET),
        (bytes([made.handle[0] ^ 1]) + made.handle[1:], SECRET),
    ):
        read = read_handle(handle, secret)
        assert read is None or read.key != made.key
    assert read_handle(made.handle, b"") is None
    assert read_handle(made.handle[:27], SECRET) is None


@pytest.mark.parametrize(("name", "key"), [("", KEY), ("a" * 201, KEY), ("alice", "")])
def test_settings_that_make_no_cookie_are_named(name: str, key: str) -> None:
    with pytest.raises(CookieError, match="subscriber"):
        own_credential(name, key)


def test_what_makes_no_handle() -> None:
    for name, secret, expires in (("", SECRET, NOW), ("a\n", SECRET, NOW), ("a", b"", NOW), ("a", SECRET, 2.0**32)):
        with pytest.raises(CookieError):
            make_handle(name, secret, expires)


def test_without_a_credential_there_is_no_cookie_and_no_key_is_printed() -> None:
    assert make_cookie(NO_CREDENTIAL, NOW) == b""
    for credential in (ALICE, HANDED):
        assert "correct" not in f"{credential!r} {credential}"
        assert credential.key.hex() not in f"{credential!r} {credential}"
