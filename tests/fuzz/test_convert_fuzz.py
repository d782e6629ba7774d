"""Invariant: any bytes into either half, whole or one by one, give events or PeerError and nothing else, and the same ones."""

from __future__ import annotations

import random

import pytest

from cpe_mcp.convert import Client, Converter, Established, PeerError, RequestReceived

pytestmark = pytest.mark.fuzz

SEEDS = 20_000
"""About three seconds."""
BEGINNINGS = (
    b"",
    b"\x01",
    b"\x01\x06\x22\x63",
    b"\x01\x06\x22\x63\x0a\x05",
    b"\x01\x09\x22\x63\x16\x03\x00\x00",
    b"\x01\x02\x22\x63",
    b"\x01\x01\x22\x63",
    b"\x01\x03\x22\x63\x15\x02",
)
TYPES = (0, 1, 10, 20, 21, 22, 30, 99)


def garbage(seed: int) -> bytes:
    """Random bytes behind a plausible beginning, or random TLVs in a right header."""
    dice = random.Random(seed)
    if dice.random() < 0.5:
        return dice.choice(BEGINNINGS) + dice.randbytes(dice.randrange(60))
    body = b""
    for _ in range(dice.randrange(4)):
        words = dice.randrange(7)
        body += bytes([dice.choice(TYPES), words]) + dice.randbytes(max(2, 4 * words - 2))
    words = dice.choice([1 + len(body) // 4, dice.randrange(256)])
    return bytes([1, words % 256]) + b"\x22\x63" + body


def feed_converter(pieces: list[bytes]) -> tuple[str, object]:
    converter = Converter()
    try:
        for index, piece in enumerate(pieces):
            for event in converter.receive_data(piece):
                if isinstance(event, RequestReceived):
                    return "request", (event._replace(trailing=event.trailing + b"".join(pieces[index + 1 :])))
    except PeerError as error:
        return "error", (str(error), len(error.reply) % 4)
    return "waiting", None


def feed_client(pieces: list[bytes]) -> tuple[str, object]:
    client = Client()
    client.connect(bytes(15) + b"\x02", 80)
    try:
        for index, piece in enumerate(pieces):
            answer = client.receive_data(piece)
            if answer is not None:
                rest = b"".join(pieces[index + 1 :])
                trailing = answer.trailing + rest if isinstance(answer, Established) else b""
                return type(answer).__name__, (trailing, answer[1:])
    except PeerError as error:
        return "error", str(error)
    return "waiting", None


@pytest.mark.parametrize("feed", [feed_converter, feed_client])
def test_garbage(feed: object) -> None:
    assert callable(feed)
    outcomes = set()
    for seed in range(SEEDS):
        data = garbage(seed)
        whole = feed([data])
        assert feed([bytes([octet]) for octet in data]) == whole, data.hex()
        outcomes.add(whole[0])
    assert len(outcomes) >= 3, f"the garbage was too dull: {outcomes}"
