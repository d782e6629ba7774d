"""Octets of a stranger in place of a cookie, a handle or a challenge: refused, never an exception."""

from __future__ import annotations

import random

import pytest

from cpe_mcp.aaa.cookie import make_cookie, make_handle, own_credential, read_handle
from cpe_mcp.aaa.presenter import Presenter
from cpe_mcp.concentrator.cookie_checker import TAKEN, CookieChecker

pytestmark = pytest.mark.unit

NOW = 1.8e9
SECRET = b"shared by the concentrators"
ALICE = own_credential("alice", "wonderland-and-back")


def test_no_octets_raise_and_none_are_taken() -> None:
    draw = random.Random(5)
    checker = CookieChecker({"alice": ALICE.key}, SECRET)
    presenter = Presenter(ALICE, lambda: NOW)
    good = [make_cookie(ALICE, NOW), make_cookie(make_handle("bob", SECRET, NOW + 60), NOW)]
    for _ in range(20_000):
        data = bytearray(draw.choice(good)) if draw.random() < 0.7 else bytearray(draw.randbytes(draw.randrange(80)))
        if data and draw.random() < 0.9:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        if draw.random() < 0.3:
            data = data[: draw.randrange(len(data) + 1)] + draw.randbytes(draw.randrange(8))
        octets = bytes(data)
        if octets in good:
            continue
        assert checker.check(octets, NOW, NOW).outcome != TAKEN
        read_handle(octets, SECRET)
        presenter.refused(octets, octets[:8], 0.0)
        presenter.cookie(0.0)
    assert checker.remembered() == 0
