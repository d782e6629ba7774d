"""Byte counters against what the kernel's own tool says, in a namespace of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
from relay_world import inside, run

from cpe_mcp.kernel.device_bytes import DeviceBytes

pytestmark = pytest.mark.netns


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"bytes-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "add", "veth-a", "type", "veth", "peer", "veth-b")
        yield name
    finally:
        run("ip", "netns", "delete", name)


def test_counters_grow_by_what_is_sent_and_strangers_are_left_out(namespace: str) -> None:
    with inside(namespace):
        counters = DeviceBytes()
        try:
            before = counters.read(["lo", "veth-a", "wwan9"])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(bytes(1000), ("127.0.0.1", 9))
            after = counters.read(["lo"])
        finally:
            counters.close()
    assert set(before) == {"lo", "veth-a"}
    assert before["lo"] == before["veth-a"] == (0, 0)
    shown = subprocess.run(
        ["ip", "-n", namespace, "-j", "-s", "link", "show", "lo"], capture_output=True, check=True, text=True
    )
    stats = json.loads(shown.stdout)[0]["stats64"]
    assert after["lo"] == (stats["rx"]["bytes"], stats["tx"]["bytes"])
    assert after["lo"][1] >= 1028
