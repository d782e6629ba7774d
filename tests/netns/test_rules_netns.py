"""The user's rules on a real kernel: what they take, leave alone and refuse, against the pure matcher, and across reloads."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import (
    CLIENT4,
    CLIENT6,
    CONCENTRATOR,
    INTERCEPT_PORT,
    SERVER4,
    SERVER6,
    SERVICE_PORT,
    World,
    inside,
    run,
)

from cpe_mcp.kernel.nft import Nft
from cpe_mcp.policy.decide import BLOCK, DIRECT, PROXY
from cpe_mcp.policy.rules import Packet, Rule, compile_rules, first_match
from cpe_mcp.relay.sockets import listen_transparent
from cpe_mcp.settings.router import (
    DnsSettings,
    GlobalSettings,
    PathsSettings,
    QuicSettings,
    RouterSettings,
    RuleSettings,
    WanSettings,
)
from cpe_mcp.upstream.path_manager import PathManager

pytestmark = pytest.mark.netns

OTHER4, OTHER6 = "10.9.1.2", "2001:db8:c1::2"
"""A second server of each family."""
PORTS = (8001, 8002)
RANDOM_RULE_SETS = 12
ASKED_PER_SET = 10


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("rules"), "rule", bare=True)
    try:
        for address in (f"{OTHER4}/32", f"{OTHER6}/128"):
            run("ip", "-n", world.far, "address", "add", address, "dev", "lo")
        run("ip", "-n", world.router, "route", "add", "default", "via", "10.2.0.2", "metric", "50")
        run("ip", "-6", "-n", world.router, "route", "add", "default", "via", "2001:db8:2::2", "metric", "2000")
        for address in (SERVER4, OTHER4, SERVER6, OTHER6):
            for port in PORTS:
                world.serve(lambda connection: connection.sendall(b"direct"), address, port)
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def taken(world: World) -> Iterator[None]:
    """A transparent listener in the router that answers ``taken``."""
    plain: list[socket.socket] = []
    with inside(world.router):
        for family in (socket.AF_INET, socket.AF_INET6):
            plain.append(socket.socket(fileno=listen_transparent(family, INTERCEPT_PORT).detach()))

    def serve(listener: socket.socket) -> None:
        listener.setblocking(True)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"taken")

    for listener in plain:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
    yield
    for listener in plain:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def settings(*rules: RuleSettings, quic: str = "forward", **general: object) -> RouterSettings:
    return RouterSettings(
        general=GlobalSettings(**{"lan": ("lan",), "intercept": "any", **general}),  # type: ignore[arg-type]
        paths=PathsSettings(tune_kernel=False),
        wans=(WanSettings(name="one", device="w1", preference=1), WanSettings(name="two", device="w2", preference=2)),
        rules=rules,
        quic=QuicSettings(policy=quic),
    )


@contextlib.asynccontextmanager
async def managed(start: RouterSettings):  # type: ignore[no-untyped-def]
    manager = PathManager(start, on_change=lambda: None)
    await manager.start()
    try:
        manager.set_concentrators([(CONCENTRATOR, SERVICE_PORT)])
        manager.set_interception(True, True)
        yield manager
    finally:
        await manager.stop()


def ask(world: World, packet: Packet) -> str:
    """What a connection of the LAN client gets: ``taken``, ``direct`` or ``refused``."""
    family = socket.AF_INET6 if ":" in packet.dest else socket.AF_INET
    with inside(world.client), socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        if family == socket.AF_INET6:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, packet.dscp << 2)
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, packet.dscp << 2)
        try:
            client.connect((packet.dest, packet.port))
            return client.recv(100).decode()
        except (ConnectionRefusedError, PermissionError):
            return "refused"


async def asked(world: World, dest: str, port: int = PORTS[0], **fields: object) -> str:
    return await asyncio.to_thread(ask, world, Packet(dest, port, **fields))  # type: ignore[arg-type]


def client_mac(world: World) -> str:
    argv = ["ip", "netns", "exec", world.client, "cat", "/sys/class/net/lan/address"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.requirement("X-7")
def test_each_action_in_both_families_and_the_first_match_wins(world: World, taken: None) -> None:
    rules = (
        RuleSettings("rule[0]", action="direct", dest=(f"{SERVER4}/32", f"{SERVER6}/128"), dest_port=("8001",)),
        RuleSettings("rule[1]", action="block", dest=(f"{SERVER4}/32", f"{SERVER6}/128")),
        RuleSettings("rule[2]", action="proxy", dest=(f"{OTHER4}/32",)),
        RuleSettings("rule[3]", action="block", dest=(f"{OTHER4}/32",), enabled=True),
    )

    async def body() -> None:
        async with managed(settings(*rules)) as manager:
            for server, other in ((SERVER4, OTHER4), (SERVER6, OTHER6)):
                assert await asked(world, server, 8001) == "direct"
                assert await asked(world, server, 8002) == "refused"
                assert await asked(world, other) == "taken"
            manager.set_interception(False, False)
            assert await asked(world, SERVER4, 8001) == "direct"
            assert await asked(world, SERVER4, 8002) == "refused", "a block holds while nothing is taken"
            assert await asked(world, OTHER4) == "direct"
            counted = manager.rule_counters()
            assert counted["rule_0"] >= 3
            assert counted["rule_1"] >= 3
            assert counted["rule_2"] == 1
            assert counted["rule_3"] == 0

    with inside(world.router):
        asyncio.run(body())


@pytest.mark.requirement("X-7")
def test_a_rule_takes_what_the_settings_would_not(world: World, taken: None) -> None:
    rule = RuleSettings("rule[0]", action="proxy", dest=(f"{SERVER4}/32",))

    async def body() -> None:
        for intercept in ("global", "none"):  # the servers of this test have addresses that are not global
            async with managed(settings(rule, intercept=intercept)):
                assert await asked(world, SERVER4) == "taken", intercept
                assert await asked(world, OTHER4) == "direct", intercept
                # 2001:db8::/32 lies in 2000::/3, which is all that the kernel's rules look at.
                assert await asked(world, SERVER6) == ("taken" if intercept == "global" else "direct"), intercept

    with inside(world.router):
        asyncio.run(body())


@pytest.mark.requirement("X-7")
def test_rules_for_a_device_and_for_a_dscp(world: World, taken: None) -> None:
    async def body() -> None:
        async with managed(settings()) as manager:
            for condition in ({"mac": (client_mac(world),)}, {"src": (f"{CLIENT4}/32", f"{CLIENT6}/128")}):
                rule = RuleSettings("tv", action="direct", **condition)
                await manager.configure(settings(rule))
                assert await asked(world, SERVER4) == "direct"
                assert await asked(world, SERVER6) == "direct"
            await manager.configure(settings(RuleSettings("tv", action="direct", mac=("00:53:00:00:00:01",))))
            assert await asked(world, SERVER4) == "taken"
            await manager.configure(settings(RuleSettings("voice", action="direct", dscp=(46,))))
            assert await asked(world, SERVER4, dscp=46) == "direct"
            assert await asked(world, SERVER6, dscp=46) == "direct"
            assert await asked(world, SERVER4, dscp=34) == "taken"
            await manager.configure(settings(RuleSettings("off", action="block"), enabled=False))
            manager.set_interception(False, False)
            assert await asked(world, SERVER4) == "direct", "switched off, rules are too"

    with inside(world.router):
        asyncio.run(body())


def udp(world: World, dest: str, port: int) -> str:
    """What a browser's QUIC socket sees: an answer, ``refused`` at once, or ``silence``."""
    family = socket.AF_INET6 if ":" in dest else socket.AF_INET
    with inside(world.client), socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.connect((dest, port))
        started = time.monotonic()
        try:
            client.send(b"initial")
            return client.recv(100).decode()
        except ConnectionRefusedError:
            assert time.monotonic() - started < 0.2
            return "refused"
        except PermissionError:  # admin-prohibited, as Linux tells it
            return "prohibited"
        except OSError as error:
            return "silence" if isinstance(error, TimeoutError) else f"error {error.errno}"


@contextlib.contextmanager
def echo(world: World, *addresses: tuple[str, int]) -> Iterator[None]:
    """UDP servers on the far side."""
    sockets = []
    with inside(world.far):
        for address, port in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.bind((address, port))
            sockets.append(sock)

    def serve(sock: socket.socket) -> None:
        while True:
            try:
                _, peer = sock.recvfrom(2000)
                sock.sendto(b"answer", peer)
            except OSError:
                return

    for sock in sockets:
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.requirement("X-12")
def test_quic_is_forwarded_or_refused_at_once(world: World, taken: None) -> None:
    async def body() -> None:
        async def get(dest: str, port: int) -> str:
            return await asyncio.to_thread(udp, world, dest, port)

        async with managed(settings()) as manager:
            assert await get(SERVER4, 443) == "answer"
            await manager.configure(settings(quic="reject"))
            assert await get(SERVER4, 443) == "refused"
            assert await get(SERVER6, 443) == "refused"
            assert await get(SERVER4, 444) == "answer", "other UDP goes on"
            direct = RuleSettings("rule[0]", action="direct", dest=(f"{OTHER4}/32",))
            await manager.configure(settings(direct, quic="reject"))
            assert await get(OTHER4, 443) == "answer", "what is to be direct keeps its QUIC"
            assert await get(SERVER4, 443) == "refused"
            await manager.configure(settings(quic="reject", intercept="global"))
            assert await get(SERVER4, 443) == "answer", "where TCP is not taken, QUIC is as good"
            await manager.configure(settings(quic="reject"))
            manager.set_interception(False, False)
            assert await get(SERVER4, 443) == "answer", "while nothing is proxied, TCP would not be faster"
            await manager.configure(settings(RuleSettings("rule[0]", action="block", proto=("udp",))))
            assert await get(SERVER4, 444) in ("prohibited", "refused", "error 113", "error 13")

    with echo(world, (SERVER4, 443), (SERVER6, 443), (SERVER4, 444), (OTHER4, 443)), inside(world.router):
        asyncio.run(body())


def random_rule(dice: random.Random, number: int, mac: str) -> RuleSettings:
    """Any conditions, so that some match and some do not."""

    def some(values: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(dice.sample(values, dice.choice((0, 0, 1, 2)) % (len(values) + 1)))

    return RuleSettings(
        f"rule[{number}]",
        action=dice.choice((PROXY, DIRECT, BLOCK)),
        dest=some((f"{SERVER4}/32", f"{OTHER6}/128", "10.9.1.0/24", "10.9.1.2/31", "2001:db8:c1::/64", "192.0.2.0/24")),  # type: ignore[arg-type]
        domain=some(("one.example", "two.example")),  # type: ignore[arg-type]
        dest_port=some(("8001", "8002", "8000-8001", "443")),  # type: ignore[arg-type]
        proto=some(("tcp", "udp")),  # type: ignore[arg-type]
        mac=some((mac, "00:53:00:00:00:01")),  # type: ignore[arg-type]
        src=some((f"{CLIENT4}/32", "2001:db8:9::/64", "192.0.2.7/32")),  # type: ignore[arg-type]
        dscp=some((0, 46, 34)),  # type: ignore[arg-type]
    )


NAMES = {SERVER4: "www.one.example", SERVER6: "one.example", OTHER4: "two.example"}
"""What dnsmasq would have put into the sets."""


@pytest.mark.requirement("X-7")
@pytest.mark.parametrize("seed", range(RANDOM_RULE_SETS))
def test_the_kernel_and_the_matcher_agree(world: World, taken: None, seed: int) -> None:
    dice = random.Random(seed)
    mac = client_mac(world)
    rules = tuple(random_rule(dice, number, mac) for number in range(dice.randint(1, 5)))
    compiled = compile_rules(rules)
    takes_rest = dice.random() < 0.5
    packets = []
    for _ in range(ASKED_PER_SET):
        dest = dice.choice((SERVER4, OTHER4, SERVER6, OTHER6))
        packets.append(
            Packet(
                dest,
                dice.choice(PORTS),
                source=CLIENT6 if ":" in dest else CLIENT4,
                mac=mac,
                dscp=dice.choice((0, 46, 10)),
                names=(NAMES[dest],) if dest in NAMES else (),
            )
        )

    def expected(packet: Packet) -> str:
        rule = first_match(compiled, packet)
        if rule is None:
            return "taken" if takes_rest else "direct"
        return {PROXY: "taken", DIRECT: "direct", BLOCK: "refused"}[rule.action]

    async def body() -> None:
        async with managed(settings(*rules, intercept="any" if takes_rest else "none")):
            await asyncio.to_thread(resolve, compiled)
            for packet in packets:
                assert await asyncio.to_thread(ask, world, packet) == expected(packet), (packet, rules)

    def resolve(rules: tuple[Rule, ...]) -> None:
        for rule in rules:
            for address, name in NAMES.items():
                if any(name.endswith(domain) for domain in rule.domains):
                    set_name = rule.name_set(6 if ":" in address else 4)
                    with inside(world.router):
                        run("nft", "add", "element", "inet", "cpe_mcp", set_name, f"{{ {address} }}")

    with inside(world.router):
        asyncio.run(body())


@pytest.mark.requirement("X-7")
def test_running_connections_and_learnt_addresses_survive_reloads(world: World, taken: None) -> None:
    """A direct download and a taken one run while rules come, change their order and go."""

    def pour(connection: socket.socket) -> None:
        while True:
            connection.sendall(bytes(4096))
            time.sleep(0.01)

    port = world.serve(pour)
    video = RuleSettings("video", action="proxy", domain=("one.example",))

    async def body() -> None:
        async with managed(
            settings(RuleSettings("rule[0]", action="direct", dest_port=(str(port),)), video)
        ) as manager:
            client = await asyncio.to_thread(world.connect, SERVER4, port)
            (rule,) = compile_rules([video])
            element = ("element", "inet", "cpe_mcp", rule.name_set(4), f"{{ {SERVER4} }}")
            await asyncio.to_thread(run, "ip", "netns", "exec", world.router, "nft", "add", *element)
            received = 0
            for change in (
                (RuleSettings("rule[0]", action="block", dest=(f"{SERVER4}/32",)), video),
                (video,),
                (video, RuleSettings("rule[1]", action="block")),
                (RuleSettings("rule[0]", action="proxy"), dataclasses.replace(video, action="direct")),
            ):
                await manager.configure(settings(*change))
                for _ in range(5):
                    received += len(await asyncio.to_thread(client.recv, 65536))
                await asyncio.to_thread(run, "ip", "netns", "exec", world.router, "nft", "get", *element)
            assert received >= 20
            client.close()
            await manager.configure(settings())
            with pytest.raises(subprocess.CalledProcessError):
                await asyncio.to_thread(run, "ip", "netns", "exec", world.router, "nft", "get", *element)

    with inside(world.router):
        asyncio.run(body())


@pytest.mark.requirement("Y-2")
def test_another_port_in_the_settings_does_not_lead_into_nothing(world: World, taken: None) -> None:
    async def body() -> None:
        async with managed(settings()) as manager:
            await manager.configure(settings(intercept_port=INTERCEPT_PORT + 1))
            assert await asked(world, SERVER4) == "taken"

    with inside(world.router):
        asyncio.run(body())


def test_what_was_left_behind_by_a_crash_is_taken_over(world: World) -> None:
    def tables() -> str:
        argv = ["ip", "netns", "exec", world.router, "nft", "list", "ruleset"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    async def body() -> None:
        async with managed(settings(RuleSettings("old", action="block", domain=("one.example",)))) as manager:
            before = manager._interception._nft
            manager._interception._nft = Nft()  # as a daemon that starts anew
            try:
                await manager.configure(settings(RuleSettings("new", action="direct")))
                listing = await asyncio.to_thread(tables)
                assert "named_new" in listing
                assert "named_old" not in listing
                assert "names_" not in listing
            finally:
                manager._interception._nft.remove()
                manager._interception._nft = before

    with inside(world.router):
        asyncio.run(body())


RESTART = """#!/bin/sh
# What OpenWrt's init script does: stop it, start it.
pid=$(cat {directory}/pid 2>/dev/null) && kill $pid && while readlink /proc/$pid/exe >/dev/null; do sleep 0.02; done
exec dnsmasq --conf-file={directory}/dnsmasq.conf
"""
CONFIGURATION = """
port=53
listen-address=192.168.9.1
bind-interfaces
no-hosts
no-resolv
server=10.9.1.1
pid-file={directory}/pid
user=root
conf-dir={directory}/conf
"""


@pytest.fixture
def resolver(world: World, tmp_path: Path) -> Iterator[DnsSettings]:
    """dnsmasq in the router as OpenWrt runs it, and one on the far side that knows the names."""
    if shutil.which("dnsmasq") is None:
        pytest.skip("needs the program dnsmasq")
    (tmp_path / "conf").mkdir()
    (tmp_path / "dnsmasq.conf").write_text(CONFIGURATION.format(directory=tmp_path))
    restart = tmp_path / "restart"
    restart.write_text(RESTART.format(directory=tmp_path))
    restart.chmod(0o755)
    known = [
        f"--address=/video.example/{SERVER4}",
        f"--address=/video.example/{SERVER6}",
        f"--address=/shop.example/{OTHER4}",
    ]
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--user=root",
        "--no-hosts",
        "--pid-file=",
    ]
    listen = [f"--listen-address={SERVER4}", "--bind-interfaces"]
    upstream = subprocess.Popen(["ip", "netns", "exec", world.far, "dnsmasq", *options, *listen, *known])
    with inside(world.router):
        run(str(restart))
    try:
        yield DnsSettings(confdir=str(tmp_path / "conf"), restart=str(restart))
    finally:
        upstream.terminate()
        upstream.wait()
        with contextlib.suppress(OSError):
            run("kill", (tmp_path / "pid").read_text().strip())


def look_up(world: World, name: str, kind: int = 1) -> str:
    """The one address of a name, asked as a LAN client does. ``kind`` is 1 for A, 28 for AAAA (RFC 1035, RFC 3596)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)
    length, family = (4, socket.AF_INET) if kind == 1 else (16, socket.AF_INET6)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with inside(world.client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("192.168.9.1", 53))
            with contextlib.suppress(OSError):  # it is being restarted
                client.send(question)
                answer = client.recv(512)
                return socket.inet_ntop(family, answer[-length:])  # the only record is the last
    raise AssertionError(f"no answer for {name}")


@pytest.mark.requirement("X-7")
def test_rules_by_name_with_a_real_dnsmasq(world: World, taken: None, resolver: DnsSettings) -> None:
    directory = Path(resolver.confdir)
    video = RuleSettings("video", action="proxy", domain=("video.example",))
    block = RuleSettings("rule[1]", action="block", domain=("shop.example", "ads.video.example"))
    start = dataclasses.replace(settings(video, block, intercept="none"), dns=resolver)

    async def until_other_pid(pid: str) -> str:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if (now := (directory.parent / "pid").read_text()) != pid:
                    return now
            await asyncio.sleep(0.02)
        raise AssertionError("dnsmasq was not restarted")

    async def until_told(wanted: bool) -> None:
        end = time.monotonic() + 5
        while (directory / "cpe-mcp.conf").exists() != wanted:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # and dnsmasq to read it

    async def body() -> None:
        async with managed(start) as manager:
            await until_told(True)
            assert manager.warnings() == []
            assert await asked(world, SERVER4) == "direct", "nobody has looked it up yet"
            assert await asyncio.to_thread(look_up, world, "www.video.example") == SERVER4
            assert await asyncio.to_thread(look_up, world, "video.example", 28) == SERVER6
            assert await asked(world, SERVER4) == "taken"
            assert await asked(world, SERVER6) == "taken"
            assert await asked(world, OTHER4) == "direct"
            assert await asyncio.to_thread(look_up, world, "shop.example") == OTHER4
            assert await asked(world, OTHER4) == "refused"
            pid = (directory.parent / "pid").read_text()
            swapped = dataclasses.replace(block, section="rule[0]")
            await manager.configure(dataclasses.replace(start, rules=(swapped, video)))
            await asyncio.sleep(0.3)
            assert (directory.parent / "pid").read_text() == pid, "the order is not dnsmasq's business"
            assert await asked(world, OTHER4) == "refused"
            assert await asked(world, SERVER4) == "taken"
            await manager.configure(dataclasses.replace(start, rules=()))
            await until_told(False)
            assert await until_other_pid(pid)
        assert list(directory.iterdir()) == [], "no trace"

    with inside(world.router):
        asyncio.run(body())


@pytest.mark.requirement("X-7")
def test_a_dnsmasq_without_nftset_is_left_alone_and_the_user_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenWrt's stock dnsmasq: it would not start any more with the option."""
    stock = tmp_path / "dnsmasq"
    stock.write_text("#!/bin/sh\necho 'Compile time options: IPv6 GNU-getopt no-nftset no-ipset'\n")
    stock.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    (tmp_path / "conf").mkdir()
    names = DnsSettings(confdir=str(tmp_path / "conf"), restart="")
    rule = RuleSettings("rule[0]", name="Video", action="block", domain=("video.example",))

    async def body() -> None:
        async with managed(dataclasses.replace(settings(rule), dns=names)) as manager:
            end = time.monotonic() + 5
            while not manager.warnings():
                assert time.monotonic() < end
                await asyncio.sleep(0.02)
            (line,) = manager.warnings()
            assert "'Video'" in line
            assert "dnsmasq-full" in line
        assert list((tmp_path / "conf").iterdir()) == []

    with inside(world.router):
        asyncio.run(body())
