"""Discovery with the real programs: a DHCP server on one end of a wire, udhcpc with the shipped hook on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cpe_mcp.discovery.candidates import CandidateTable, Line
from cpe_mcp.discovery.dhcp_files import DhcpFiles
from cpe_mcp.discovery.dhcp_options import push_dhcp4
from cpe_mcp.discovery.lease import Lease
from cpe_mcp.lab.namespaces import create, enter, ip_batch, remove
from cpe_mcp.settings.router import DiscoverySettings

PROGRAMS = ("dnsmasq", "udhcpc", "busybox")
pytestmark = [
    pytest.mark.netns,
    pytest.mark.requirement("5.2.1-a"),
    *(pytest.mark.skipif(shutil.which(program) is None, reason=f"needs the program {program}") for program in PROGRAMS),
]

HOOK = Path(__file__).parents[2] / "files/etc/udhcpc.user.d/60-cpe-mcp"
ISP, CPE = (f"cpemcp-{os.getpid()}-{host}" for host in ("isp", "cpe"))
DEVICE = "eth0"
LEASE_S = 600
TWO_MCPS = [("192.0.2.1", "192.0.2.2"), ("198.51.100.1",)]

SCRIPT = f"""\
#!{shutil.which("busybox")} ash
# What netifd's script does to the same effect: the logical name, the address, then every hook in a subshell.
export INTERFACE=wan
case "$1" in
	deconfig) ip addr flush dev "$interface" ;;
	bound | renew) ip addr replace "$ip/$mask" dev "$interface" ;;
esac
( . {HOOK} "$@" )
"""


@pytest.fixture
def wire() -> Iterator[None]:
    create([ISP, CPE])
    try:
        ip_batch(
            ISP,
            [
                f"link add {DEVICE} type veth peer name {DEVICE} netns {CPE}",
                f"link set {DEVICE} up",
                f"addr add 10.0.0.1/24 dev {DEVICE}",
            ],
        )
        ip_batch(CPE, [f"link set {DEVICE} up"])
        yield
    finally:
        remove([ISP, CPE])


@contextlib.contextmanager
def running(namespace: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=10)


@contextlib.contextmanager
def dnsmasq(directory: Path, *options: tuple[int, bytes]) -> Iterator[None]:
    arguments = [f"--dhcp-option-force={code},{value.hex(':')}" for code, value in options]
    with running(
        ISP,
        "dnsmasq",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-ping",
        "--user=root",
        "--pid-file=",
        f"--interface={DEVICE}",
        "--bind-interfaces",
        f"--dhcp-leasefile={directory / 'dnsmasq.leases'}",
        "--dhcp-authoritative",
        f"--dhcp-range=10.0.0.10,10.0.0.20,{LEASE_S}",
        *arguments,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "started" in line, line
        yield


@contextlib.contextmanager
def udhcpc(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    script = run_dir / "dhcp.script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    environment = f"CPE_MCP_RUN_DIR={run_dir}"
    arguments = ["-f", "-i", DEVICE, "-O", "224", "-s", str(script), "-t", "5", "-T", "1", "-A", "1"]
    with running(CPE, "env", environment, "udhcpc", *arguments) as process:
        yield process


class Discovery:
    """What the daemon does with the files: the table, fed by the watch."""

    def __init__(self, run_dir: Path) -> None:
        self.table = CandidateTable(
            DiscoverySettings(), interfaces=["wan"], lines={"wan": Line("wan", is_trusted=True)}
        )
        self.told = 0
        self._files = DhcpFiles(str(run_dir), self._on_change)

    def _on_change(self, interface: str, family: int, lease: Lease | None) -> None:
        self.told += 1
        self.table.learn_dhcp(interface, family, lease, time.monotonic())

    def mcps(self) -> list[tuple[str, ...]]:
        return [candidate.addresses for candidate in self.table.usable(time.monotonic())]

    def ends_in_s(self) -> float:
        end = self.table.next_change(time.monotonic())
        assert end is not None
        return end - time.monotonic()

    def until(self, condition: Callable[[], bool]) -> None:
        """Watch until the condition holds."""

        async def watch() -> None:
            self._files.start()
            try:
                async with asyncio.timeout(10):
                    while not condition():
                        await asyncio.sleep(0.02)
            finally:
                self._files.close()

        asyncio.run(watch())


@pytest.mark.usefixtures("wire")
def test_from_dnsmasq_to_candidates_and_back(tmp_path: Path) -> None:
    """One life: bound, renewed with the same, with another and with a malformed option, released."""
    discovery = Discovery(tmp_path)
    with dnsmasq(tmp_path, (224, push_dhcp4(TWO_MCPS)), (230, b"\0")), udhcpc(tmp_path) as client:
        discovery.until(lambda: discovery.mcps() == TWO_MCPS)
        assert [c.name for c in discovery.table.candidates(time.monotonic())] == ["dhcp4:wan#1", "dhcp4:wan#2"]
        assert LEASE_S - 30 < discovery.ends_in_s() <= LEASE_S

        told = discovery.told
        client.send_signal(signal.SIGUSR1)  # renew
        discovery.until(lambda: discovery.told > told)
        assert discovery.mcps() == TWO_MCPS
    assert (tmp_path / "dhcp" / "wan.v4").exists(), "udhcpc was stopped without a word: the lease goes on"


@pytest.mark.usefixtures("wire")
def test_a_renewal_brings_another_list_then_a_malformed_one_then_none(tmp_path: Path) -> None:
    discovery = Discovery(tmp_path)
    with contextlib.ExitStack() as stack:
        with dnsmasq(tmp_path, (224, push_dhcp4(TWO_MCPS))):
            client = stack.enter_context(udhcpc(tmp_path))
            discovery.until(lambda: discovery.mcps() == TWO_MCPS)
        with dnsmasq(tmp_path, (224, push_dhcp4([("203.0.113.9",)]))):
            client.send_signal(signal.SIGUSR1)
            discovery.until(lambda: discovery.mcps() == [("203.0.113.9",)])
        with dnsmasq(tmp_path, (224, b"\x08\xc0\0\2\1")):
            client.send_signal(signal.SIGUSR1)
            discovery.until(lambda: bool(discovery.table.status(0)["sources"][0]["discarded"]))
            assert discovery.mcps() == [("203.0.113.9",)], "the previous value is kept"
            assert discovery.table.status(0)["sources"][0]["discarded"] == (
                "DHCPv4 option 224: list length 8 at octet 0, only 4 octets follow"
            )
        with dnsmasq(tmp_path):
            client.send_signal(signal.SIGUSR1)
            discovery.until(lambda: discovery.mcps() == [])


@pytest.mark.usefixtures("wire")
def test_release_and_a_server_that_is_gone_withdraw_the_list(tmp_path: Path) -> None:
    discovery = Discovery(tmp_path)
    with dnsmasq(tmp_path, (224, push_dhcp4(TWO_MCPS))), udhcpc(tmp_path) as client:
        discovery.until(lambda: discovery.mcps() == TWO_MCPS)
        client.send_signal(signal.SIGUSR2)  # release: deconfig
        discovery.until(lambda: discovery.mcps() == [])
    (tmp_path / "dhcp" / "wan.v4").write_text("opt224=04c0000201\n")
    with udhcpc(tmp_path):
        discovery.until(lambda: discovery.mcps() == [])
    assert not (tmp_path / "dhcp" / "wan.v4").exists()


ANSWERS = {1: 2, 3: 5}
"""DISCOVER -> OFFER, REQUEST -> ACK (RFC 2132 section 9.6)."""


class LongOptionServer:
    """Answers any DHCP client with one option 224 in as many instances as it takes (RFC 3396): dnsmasq cannot."""

    ADDRESS, SERVER, MASK = (socket.inet_aton(text) for text in ("10.0.0.77", "10.0.0.1", "255.255.255.0"))
    MAGIC = bytes((99, 130, 83, 99))

    def __init__(self, instances: Sequence[bytes]) -> None:
        self._instances = instances
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> LongOptionServer:
        with enter(ISP):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, DEVICE.encode())
        self._socket.bind(("", 67))
        self._socket.settimeout(0.1)
        self._stopped = False
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stopped:
            with contextlib.suppress(TimeoutError):
                request = self._socket.recv(2048)
                kind = request[request.index(self.MAGIC) + 6]  # udhcpc sends option 53 first
                if kind in ANSWERS:
                    self._socket.sendto(self._answer(request, ANSWERS[kind]), ("255.255.255.255", 68))

    def _answer(self, request: bytes, kind: int) -> bytes:
        options: list[tuple[int, bytes]] = [
            (53, bytes((kind,))),
            (54, self.SERVER),
            (51, LEASE_S.to_bytes(4, "big")),
            (1, self.MASK),
            *((224, instance) for instance in self._instances),
        ]
        encoded = b"".join(bytes((code, len(value))) + value for code, value in options)
        head = b"\2" + request[1:12] + bytes(4) + self.ADDRESS + bytes(8) + request[28:44] + bytes(192)
        return head + self.MAGIC + encoded + b"\xff"


@pytest.mark.usefixtures("wire")
def test_an_option_longer_than_255_octets_comes_whole(tmp_path: Path) -> None:
    """Instances are joined by udhcpc (since busybox 1.33) before the hook sees them, wherever they were cut."""
    mcps = [tuple(f"192.0.{block}.{host}" for host in range(1, 41)) for block in (2, 3)]
    value = push_dhcp4(mcps)
    assert len(value) > 255
    discovery = Discovery(tmp_path)
    with LongOptionServer([value[:255], value[255:300], value[300:]]), udhcpc(tmp_path):
        discovery.until(lambda: discovery.mcps() == mcps)
