"""What the kernel says to endpoints, and that the keeper lives with it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from relay_world import inside, run

from cpe_mcp.kernel.mptcp import MptcpNetlink
from cpe_mcp.kernel.netlink import NetlinkError
from cpe_mcp.paths.observed import FLAG_SUBFLOW, DeviceView, Endpoint
from cpe_mcp.paths.reconcile import wanted_endpoints
from cpe_mcp.upstream.endpoint_keeper import EndpointKeeper

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-4")]


@pytest.fixture
def namespace() -> Iterator[str]:
    """With one device, w1."""
    name = f"endpoints-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "add", "w1", "type", "veth", "peer", "name", "w1peer")
        with inside(name):
            yield name
    finally:
        run("ip", "netns", "delete", name)


def refusal(kernel: MptcpNetlink, endpoint: Endpoint) -> int:
    with pytest.raises(NetlinkError) as caught:
        kernel.add(endpoint)
    return caught.value.errno or 0


def test_an_id_or_an_address_is_there_once_and_there_are_eight(namespace: str) -> None:
    kernel = MptcpNetlink()
    kernel.add(Endpoint(2, "2001:db8:1::2", 0, FLAG_SUBFLOW))
    assert refusal(kernel, Endpoint(2, "2001:db8:7::2", 0, FLAG_SUBFLOW)) == errno.EBUSY
    assert refusal(kernel, Endpoint(9, "2001:db8:1::2", 0, FLAG_SUBFLOW)) == errno.EEXIST
    for number in range(249, 256):
        kernel.add(Endpoint(number, f"10.1.0.{number}", 0, FLAG_SUBFLOW))
    assert refusal(kernel, Endpoint(1, "10.2.0.2", 0, FLAG_SUBFLOW)) == errno.ERANGE
    kernel.close()


def test_a_line_with_a_new_address_and_then_a_new_device(namespace: str) -> None:
    """Beside somebody else's endpoint that has the id of this line."""
    complaints: list[str] = []
    keeper, kernel = EndpointKeeper(complaints.append), MptcpNetlink()
    kernel.add(Endpoint(1, "10.7.0.1", socket.if_nametoindex("lo"), 1))

    def addresses(view: DeviceView) -> set[str]:
        keeper.apply(wanted_endpoints(["dsl"], {"dsl": view}, ["dsl"], []), {view.ifindex})
        return {row.address for row in kernel.endpoints()} - {"10.7.0.1"}

    index = socket.if_nametoindex("w1")
    view = DeviceView("w1", index, True, "10.1.0.2", "2001:db8:1::2", (), "10.1.0.1", "fe80::1")
    assert addresses(view) == {"10.1.0.2", "2001:db8:1::2"}
    renumbered = view._replace(address6="2001:db8:7::2")
    assert addresses(renumbered) == {"10.1.0.2", "2001:db8:7::2"}
    run("ip", "-n", namespace, "link", "delete", "w1")
    run("ip", "-n", namespace, "link", "add", "w1", "type", "veth", "peer", "name", "w1peer")
    again = socket.if_nametoindex("w1")
    assert again != index
    other = renumbered._replace(ifindex=again, address4="10.1.0.3", address6="2001:db8:8::2")
    assert addresses(other) == {"10.1.0.3", "2001:db8:8::2"}
    keeper.delete_all({again})
    assert [row.address for row in kernel.endpoints()] == ["10.7.0.1"]
    assert not complaints
    keeper.close()
    kernel.close()
