"""What is heard of nftables, and how nft is asked. That the kernel tells so is seen in the namespaces."""

from __future__ import annotations

import socket
import struct
import subprocess
from typing import Any

import pytest

from cpe_mcp.kernel import nft_events, nft_table
from cpe_mcp.kernel.netlink import HEADER, OVERRUN, push_attribute

pytestmark = pytest.mark.unit

NEWTABLE, DELTABLE, DELRULE, NEWSETELEM, NEWGEN = 0, 2, 8, 12, 15
SUBSYSTEM = 10 << 8


def message(kind: int, table: str) -> bytes:
    body = struct.pack("!BBH", 1, 0, 0) + push_attribute(1, table.encode() + bytes(1)) + push_attribute(2, bytes(4))
    return HEADER.pack(HEADER.size + len(body), SUBSYSTEM | kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("table", "messages", "expected"),
    [
        ("ours", [message(DELTABLE, "ours")], True),
        ("ours", [message(NEWTABLE, "fw4"), message(DELRULE, "ours")], True),
        ("ours", [message(DELTABLE, "fw4"), message(DELTABLE, "ours2")], False),
        ("ours", [message(NEWSETELEM, "ours"), message(NEWGEN, "")], False),
        ("", [message(DELTABLE, "fw4")], True),
        ("", [message(NEWSETELEM, "fw4"), message(NEWGEN, "")], False),
    ],
)
def test_changes_are_told_of_and_what_comes_and_goes_is_not(table: str, messages: list[bytes], expected: bool) -> None:
    told: list[None] = []
    events = nft_events.NftEvents(lambda: told.append(None), table)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        for one in messages:
            far.send(one)
        events._readable(near)
    assert bool(told) is expected
    assert events._matters(OVERRUN, b""), "what was lost may have been of ours"


def test_nft_is_asked_for_no_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be 65,536 of them in a set, and nft would read them all."""
    asked: list[list[str]] = []

    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        return subprocess.CompletedProcess(argv, 0, '{"nftables": []}', "")

    monkeypatch.setattr(subprocess, "run", run)
    assert nft_table.counters("ours") == {}
    assert nft_table.listing("ours")
    assert len(asked) == 2
    assert all("-t" in argv[: argv.index("list")] for argv in asked)


def test_without_nft_nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert nft_table.counters("ours") == {}
    assert nft_table.listing("ours") == ""
