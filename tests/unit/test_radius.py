"""The RADIUS client against a server made of pyrad's packets, on loopback; and the attributes that carry concentrators."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, AuthPacket

from cpe_mcp.aaa import radius as radius_module
from cpe_mcp.aaa.attributes import (
    AttributeValueError,
    Quota,
    Terms,
    pull_address,
    pull_concentrator,
    pull_concentrators,
    pull_scheme,
    pull_terms,
    push_concentrator,
)
from cpe_mcp.aaa.dictionary import dictionary_text, vendor_dictionary_text
from cpe_mcp.aaa.radius import RadiusAnswer, RadiusClient, RadiusError
from cpe_mcp.paths.snapshot import WanView

pytestmark = pytest.mark.unit

SECRET = b"an honest shared secret"
ENTERPRISE = 64999
VECTOR = bytes.fromhex("1404 04 c0000201 06 20010db8000000000000000000000001")
DSL = WanView("dsl", "eth1", "192.0.2.7", "")
LTE = WanView("lte", "wwan0", "192.0.2.8", "2001:db8::7")
VECTOR_TEXT = (("192.0.2.1", "2001:db8::1"), 5124)


class TestAttributes:
    def test_vector(self) -> None:
        assert push_concentrator(VECTOR_TEXT) == VECTOR
        assert pull_concentrator(VECTOR) == VECTOR_TEXT

    def test_every_truncated_twin_is_refused_or_ends_between_addresses(self) -> None:
        for size in range(len(VECTOR)):
            if size == 7:
                assert pull_concentrator(VECTOR[:size]) == (("192.0.2.1",), 5124)
                continue
            with pytest.raises(AttributeValueError, match=r"CPE-MCP-Concentrator: (cut short|no address)"):
                pull_concentrator(VECTOR[:size])

    def test_unknown_family(self) -> None:
        with pytest.raises(AttributeValueError, match="family 5 at octet 2"):
            pull_concentrator(b"\0\0\5")

    @given(st.binary(max_size=250))
    def test_garbage_gives_a_concentrator_or_the_error(self, value: bytes) -> None:
        with contextlib.suppress(AttributeValueError):
            addresses, port = pull_concentrator(value)
            assert pull_concentrator(push_concentrator((addresses, port))) == (addresses, port)

    @pytest.mark.parametrize("addresses", [(), ("192.0.2.1",) * 50])
    def test_what_cannot_be_said_is_refused(self, addresses: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="addresses make no"):
            push_concentrator((addresses, 0))

    def test_single_addresses(self) -> None:
        assert pull_address(bytes((192, 0, 2, 1)), 4) == (("192.0.2.1",), 0)
        with pytest.raises(AttributeValueError, match="CPE-MCP-Concentrator-IPv6: 4 octets, not 16"):
            pull_address(bytes(4), 16)

    def test_groups_come_first_and_a_bad_one_spoils_only_itself(self) -> None:
        concentrators, errors = pull_concentrators([VECTOR, b"\0\0\7"], [bytes((192, 0, 2, 9))], [bytes(3)])
        assert concentrators == [VECTOR_TEXT, (("192.0.2.9",), 0)]
        assert [error.split(":")[0] for error in errors] == ["CPE-MCP-Concentrator", "CPE-MCP-Concentrator-IPv6"]

    @pytest.mark.requirement("5.6.2-a")
    def test_caps_and_scheme(self) -> None:
        terms, errors = pull_terms([bytes((0, 0, 1, 44))], [bytes(4)], [b"single:lte"])
        assert (terms, errors) == (Terms(300, 0, "single:lte"), [])
        assert pull_terms([], [], []) == (Terms(0, 0, ""), [])

    @pytest.mark.parametrize("size", [0, 1, 3, 5])
    def test_a_cap_of_another_size_is_refused_by_name(self, size: int) -> None:
        terms, errors = pull_terms([bytes(size)], [bytes((0, 0, 0, 7))], [])
        assert (terms, errors) == (Terms(0, 7), [f"CPE-MCP-Down-Mbit: {size} octets, not 4"])

    @pytest.mark.requirement("5.6.2-a")
    @pytest.mark.parametrize(
        "scheme", ["adaptive", "aggregate", "primary-backup", "overflow", "lowest-latency", "single:x"]
    )
    def test_every_scheme(self, scheme: str) -> None:
        assert pull_scheme(scheme.encode()) == scheme

    @pytest.mark.parametrize("value", [b"", b"single", b"single:", b"Adaptive", b"overflow:lte", b"\xff\n", b"x" * 253])
    def test_an_unknown_scheme_spoils_only_itself(self, value: bytes) -> None:
        terms, (error,) = pull_terms([bytes((0, 0, 0, 9))], [], [value])
        assert terms == Terms(9, 0, "")
        assert error.startswith("CPE-MCP-Scheme: '")
        assert "is none of adaptive, aggregate, primary-backup, overflow, lowest-latency, single:WAN" in error
        assert error.isprintable()
        assert len(error) < 200

    @given(st.binary(max_size=250))
    def test_garbage_gives_a_scheme_or_the_error(self, value: bytes) -> None:
        with contextlib.suppress(AttributeValueError):
            assert pull_scheme(value).encode() == value

    def test_the_enterprise_number_is_a_setting(self) -> None:
        dictionary = Dictionary(io.StringIO(dictionary_text(4711)))
        assert dictionary.vendors.GetForward("CPE-MCP") == 4711
        assert vendor_dictionary_text(4711).startswith("VENDOR\t\tCPE-MCP\t\t\t\t4711\n")
        assert "User-Name" not in vendor_dictionary_text(4711)


Handler = Callable[[bytes, Any, "FakeServer"], None]


class FakeServer(asyncio.DatagramProtocol):
    """A RADIUS server that answers by a function of the test; ``heard`` is every request datagram."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.heard: list[tuple[bytes, Any]] = []
        self.port = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.append((data, addr))
        self._handler(data, addr, self)

    def send(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


@contextlib.asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[FakeServer]:
    _, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: FakeServer(handler), local_addr=(host, 0)
    )
    try:
        yield server
    finally:
        server.transport.close()


def parse(data: bytes) -> Any:
    return AuthPacket(packet=data, secret=SECRET, dict=Dictionary(io.StringIO(dictionary_text(ENTERPRISE))))


def reply_to(data: bytes, code: int = AccessAccept, *, signed: bool = True, **attributes: Any) -> bytes:
    reply = parse(data).CreateReply(message_authenticator=signed, **attributes)
    reply.code = code
    raw: bytes = reply.ReplyPacket()
    return raw


def reply_of(request: Any) -> bytes:
    raw: bytes = request.CreateReply().ReplyPacket()
    return raw


def client(*ports: int, host: str = "127.0.0.1", tries: int = 2, timeout_s: float = 0.15, **more: Any) -> RadiusClient:
    return RadiusClient(
        [(host, port) for port in ports],
        SECRET,
        timeout_s=timeout_s,
        tries=tries,
        enterprise=ENTERPRISE,
        nas_identifier="test-nas",
        **more,
    )


def ask(radius: RadiusClient) -> Awaitable[RadiusAnswer]:
    return radius.authenticate(
        username="alice",
        password="wonderland",
        calling_station="00-00-5E-00-53-01",
        wans=(DSL, LTE),
    )


def accept(data: bytes, addr: Any, server: FakeServer) -> None:
    server.send(reply_to(data), addr)


def silent(data: bytes, addr: Any, server: FakeServer) -> None:
    pass


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class TestRequests:
    def test_what_a_router_sends(self) -> None:
        async def scenario() -> None:
            async with serving(accept) as server:
                await ask(client(server.port))
            data = server.heard[0][0]
            assert data[20] == 80, "Message-Authenticator is the first attribute"
            request = parse(data)
            assert request.verify_message_authenticator()
            assert request["User-Name"] == ["alice"]
            assert request.PwDecrypt(request[2][0]) == "wonderland"
            assert request["Service-Type"] == ["Framed-User"]
            assert request["NAS-Identifier"] == ["test-nas"]
            assert request["NAS-Port-Type"] == ["Virtual"]
            assert request["Calling-Station-Id"] == ["00-00-5E-00-53-01"]
            assert request["Framed-IP-Address"] == ["192.0.2.7"]
            assert request["Framed-IPv6-Address"] == ["2001:db8::7"]
            assert request["CPE-MCP-WAN-Address"] == ["dsl 192.0.2.7", "lte 192.0.2.8", "lte 2001:db8::7"]

        asyncio.run(scenario())

    def test_chap_sends_a_digest_under_a_fresh_challenge_and_no_password(self) -> None:
        async def scenario() -> None:
            async with serving(accept) as server:
                radius = client(server.port, chap=True)
                await ask(radius)
                await ask(radius)
            requests = [parse(data) for data, _ in server.heard]
            for request in requests:
                assert request.VerifyChapPasswd("wonderland")
                assert not request.VerifyChapPasswd("wonderland2")
                assert "User-Password" not in request
                assert len(request[60][0]) == 16
            assert requests[0][60] != requests[1][60]

        asyncio.run(scenario())

    @pytest.mark.requirement("5.3-d")
    @pytest.mark.parametrize(
        ("address", "attribute", "text"),
        [
            ("192.0.2.7", "Framed-IP-Address", "192.0.2.7"),
            ("2001:DB8:0::7", "Framed-IPv6-Address", "2001:db8::7"),
        ],
    )
    def test_what_a_concentrator_sends(self, address: str, attribute: str, text: str) -> None:
        async def scenario() -> None:
            async with serving(accept) as server:
                await client(server.port).authorize_address(address, password="pw")
            request = parse(server.heard[0][0])
            assert request["User-Name"] == [text]
            assert request[attribute] == [text]
            assert request["Service-Type"] == ["Call-Check"]
            assert request.PwDecrypt(request[2][0]) == "pw"

        asyncio.run(scenario())

    def test_a_retransmission_is_the_same_packet_from_the_same_port_and_another_request_is_not(self) -> None:
        async def scenario() -> None:
            async with serving(silent) as server:
                radius = client(server.port, tries=3, timeout_s=0.03)
                await ask(radius)
                await ask(radius)
            first, second = server.heard[:3], server.heard[3:]
            assert len({packet for packet, _ in first}) == 1
            assert len({source for _, source in first}) == 1
            assert first[0][0][4:20] != second[0][0][4:20], "Request Authenticators are unique"
            assert first[0][1] != second[0][1], "source ports are per request"
            assert radius.counters == {"requests": 2, "retransmissions": 4}

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"servers": []}, "radius.server is empty"),
            ({"servers": [("radius.example", 1812)]}, "radius.server 'radius.example' is no IP address"),
            ({"secret": b""}, "radius.secret is empty"),
            ({"nas_identifier": ""}, "radius.nas_identifier is empty"),
        ],
    )
    def test_settings_that_cannot_work_are_named(self, wrong: dict[str, Any], message: str) -> None:
        settings: dict[str, Any] = {
            "servers": [("192.0.2.1", 1812)],
            "secret": SECRET,
            "timeout_s": 1,
            "tries": 1,
            "enterprise": ENTERPRISE,
            "nas_identifier": "x",
        }
        with pytest.raises(RadiusError, match=message):
            RadiusClient(**settings | wrong)

    @pytest.mark.parametrize(
        ("username", "password", "message"),
        [
            ("", "x", "radius.username is empty"),
            ("x" * 254, "x", "radius.username has 254 octets, RADIUS takes at most 253"),
            ("x", "ü" * 65, "radius.password has 130 octets, RADIUS takes at most 128"),
        ],
    )
    def test_credentials_that_do_not_fit_are_named(self, username: str, password: str, message: str) -> None:
        with pytest.raises(RadiusError, match=message):
            asyncio.run(client(1812).authenticate(username=username, password=password))


class TestAnswers:
    def test_accept(self) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply["Session-Timeout"] = 900
            reply["User-Name"] = "line-0815"
            reply["CPE-MCP-Concentrator-IPv4"] = ["192.0.2.9", "192.0.2.10"]
            reply["CPE-MCP-Concentrator"] = [VECTOR, push_concentrator((("198.51.100.1", "198.51.100.2"), 0))]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                radius = client(server.port)
                answer = await ask(radius)
            assert answer == RadiusAnswer(
                "accept",
                "",
                (
                    VECTOR_TEXT,
                    (("198.51.100.1", "198.51.100.2"), 0),
                    (("192.0.2.9",), 0),
                    (("192.0.2.10",), 0),
                ),
                900.0,
                f"127.0.0.1:{server.port}",
                "line-0815",
            )
            assert radius.counters == {"requests": 1, "answers": 1}

        asyncio.run(scenario())

    def test_an_attribute_that_is_malformed_is_left_out_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply[27] = [b"\0\0\1"]
            reply[(ENTERPRISE, 3)] = [b"\0\0\7", VECTOR]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert (answer.verdict, answer.session_timeout_s, answer.concentrators) == ("accept", None, (VECTOR_TEXT,))

        asyncio.run(scenario())
        assert "Session-Timeout: 3 octets, not 4" in caplog.text
        assert "family 7" in caplog.text

    @pytest.mark.requirement("5.6.3-b")
    def test_service_classes_of_an_accept(self, caplog: pytest.LogCaptureFixture) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply["CPE-MCP-Service-Class"] = ["gaming 192.0.2.7", "video 2001:DB8::1", "gaming", "x 192.0.2.300"]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert answer.service_classes == (("gaming", "192.0.2.7"), ("video", "2001:db8::1"))

        asyncio.run(scenario())
        assert caplog.text.count("is not a word and the address of a concentrator") == 2

    def test_caps_and_scheme_of_an_accept(self, caplog: pytest.LogCaptureFixture) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply["CPE-MCP-Down-Mbit"] = 300
            reply["CPE-MCP-Up-Mbit"] = 40
            reply["CPE-MCP-Scheme"] = ["overflow", "fastest"]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert (answer.verdict, answer.down_mbit, answer.up_mbit, answer.scheme) == ("accept", 300, 40, "overflow")

        asyncio.run(scenario())
        assert "left out of its Accept: CPE-MCP-Scheme: 'fastest' is none of" in caplog.text

    def test_key_handle_and_classes_of_an_accept(self) -> None:
        key = bytes(range(40))
        seen = []

        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply["CPE-MCP-Subscriber-Key"] = [key]
            reply["CPE-MCP-Handle"] = [b"\xffhandle"]
            reply["Class"] = [b"first", b"\0second"]
            seen.append(reply.ReplyPacket())
            server.send(seen[-1], addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert (answer.subscriber_key, answer.handle) == (key, b"\xffhandle")
            assert answer.classes == (b"first", b"\0second")
            assert key[:16] not in seen[0], "on the wire it is encrypted"
            for text in (
                repr(answer),
                str(answer),
                f"{answer}",
                str(answer.subscriber_key),
                f"{answer.subscriber_key}",
            ):
                assert "<40 secret octets>" in text
                assert "01020304" not in text.replace("\\x", "")

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (b"", "0 octets are no salt-encrypted value"),
            (b"x" * 17, "17 octets are no salt-encrypted value"),
            (b"x" * 33, "33 octets are no salt-encrypted value"),
            (15, "15 octets, at least 16 are needed"),
            (0, "0 octets, at least 16 are needed"),
        ],
    )
    def test_a_key_that_is_none_is_left_out_and_never_logged(
        self, value: bytes | int, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            if isinstance(value, int):
                reply["CPE-MCP-Subscriber-Key"] = [b"SECRETSECRETSEC"[:value]]
            else:
                reply[(ENTERPRISE, 8)] = [value]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert (answer.verdict, answer.subscriber_key) == ("accept", None)

        asyncio.run(scenario())
        assert f"CPE-MCP-Subscriber-Key: {said}" in caplog.text
        assert "SECRET" not in caplog.text

    @given(st.binary(max_size=250))
    def test_garbage_gives_a_key_or_the_error(self, value: bytes) -> None:
        radius = client(1812)
        request = radius._request("alice", "pw", "Framed-User")
        reply = request.CreateReply()
        reply[(ENTERPRISE, 8)] = [value]
        key, errors = radius._pull_key(request, reply)
        assert (key is None) == (len(errors) == 1)
        assert key is None or len(key) >= 16

    @pytest.mark.requirement("Y-9")
    def test_standard_attributes_of_dhcp_options(self, caplog: pytest.LogCaptureFixture) -> None:
        """RFC 9445, in fragments: only with codes set, and after the attributes of ours."""

        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply["CPE-MCP-Concentrator-IPv4"] = ["192.0.2.9"]
            reply[245] = [b"\4\x80\xe0\x05\x04\xc0", b"\4\0\0\2\1", b"\4\0\xe0\x03\1\1\1"]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                with_codes = await ask(client(server.port, dhcp_codes=(224, 65001)))
                without = await ask(client(server.port))
            assert without.concentrators == ((("192.0.2.9",), 0),)
            assert with_codes.concentrators == without.concentrators
            assert "DHCPv4-Options: DHCPv4 option 224: list length 1 at octet 5" in caplog.text

        asyncio.run(scenario())

    def test_quotas_of_an_accept(self, caplog: pytest.LogCaptureFixture) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply["CPE-MCP-Quota"] = [
                "lte 50",
                "dsl 0.5 31",
                "lte",
                "lte 0",
                "lte -1",
                "lte 50 32",
                "lte 50 0",
                "x\ty 1",
            ]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert answer.quotas == (Quota("lte", 50.0), Quota("dsl", 0.5, 31))

        asyncio.run(scenario())
        assert caplog.text.count("CPE-MCP-Quota: '") == 6

    def test_another_enterprises_attributes_say_nothing(self) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            reply = parse(data).CreateReply()
            reply[(ENTERPRISE + 1, 3)] = [VECTOR]
            server.send(reply.ReplyPacket(), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                assert (await ask(client(server.port))).concentrators == ()

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        ("code", "message", "reason"),
        [
            (AccessReject, "no contract\nfor this line", "no contract for this line"),
            (AccessReject, "", "Access-Reject"),
            (AccessReject, "x" * 250, "x" * 200),
            (AccessChallenge, "code?", "the server wants a challenge answered: code?"),
        ],
    )
    def test_reject_and_challenge_carry_a_reason(self, code: int, message: str, reason: str) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            attributes: dict[str, Any] = {"Reply_Message": message} if message else {}
            server.send(reply_to(data, code, **attributes), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                answer = await ask(client(server.port))
            assert (answer.verdict, answer.reason) == ("reject", reason)

        asyncio.run(scenario())


class TestIgnored:
    """What does not prove itself is ignored and counted, and the genuine answer after it is still taken."""

    @staticmethod
    def run(make: Callable[[bytes], bytes], kind: str, said: str) -> None:
        def bad_only(data: bytes, addr: Any, server: FakeServer) -> None:
            server.send(make(data), addr)

        def bad_then_good(data: bytes, addr: Any, server: FakeServer) -> None:
            server.send(make(data), addr)
            server.send(reply_to(data, AccessReject), addr)

        async def scenario() -> None:
            async with serving(bad_then_good) as server:
                radius = client(server.port, timeout_s=2)
                assert (await ask(radius)).verdict == "reject"
                assert radius.counters == {"requests": 1, kind: 1, "answers": 1}
            async with serving(bad_only) as server:
                radius = client(server.port, tries=1)
                answer = await ask(radius)
                assert answer.verdict == "timeout"
                assert answer.reason.startswith(f"127.0.0.1:{server.port} ")
                assert said in answer.reason
                assert radius.counters == {"requests": 1, kind: 1}

        asyncio.run(scenario())

    @pytest.mark.requirement("7.3-a")
    def test_an_accept_without_message_authenticator(self) -> None:
        """CVE-2024-3596: its Response Authenticator may be a collision, so that alone proves nothing."""
        self.run(lambda data: reply_to(data, signed=False), "unsigned", "without Message-Authenticator")

    def test_an_accept_with_a_wrong_message_authenticator_and_a_right_response_authenticator(self) -> None:
        def forge(data: bytes) -> bytes:
            head = bytes((AccessAccept, data[1])) + (38).to_bytes(2, "big")
            attributes = bytes((80, 18)) + bytes(16)
            return head + hashlib.md5(head + data[4:20] + attributes + SECRET).digest() + attributes

        self.run(forge, "forged", "radius.secret the same")

    def test_an_accept_made_with_another_secret(self) -> None:
        def forge(data: bytes) -> bytes:
            request = parse(data)
            request.secret = b"another"
            raw: bytes = request.CreateReply().ReplyPacket()
            return raw

        self.run(forge, "forged", "radius.secret the same")

    def test_an_accept_that_carries_a_proxy_state_nobody_sent(self) -> None:
        def forge(data: bytes) -> bytes:
            reply = parse(data).CreateReply()
            reply[33] = [b"x" * 16]
            raw: bytes = reply.ReplyPacket()
            return raw

        self.run(forge, "forged", "radius.secret the same")

    def test_an_accept_replayed_from_an_earlier_question(self) -> None:
        """Genuine, signed, and under this question's Identifier: only its Request Authenticator is another one's."""
        earlier = bytes(range(16))

        def replay(data: bytes) -> bytes:
            old = parse(data[:4] + earlier + data[20:])
            return reply_of(old)

        self.run(replay, "forged", "radius.secret the same")

    def test_a_reject_turned_into_an_accept(self) -> None:
        """As CVE-2024-3596 does it, with the Message-Authenticator that the Reject had."""

        def turn(data: bytes) -> bytes:
            body = reply_to(data, AccessReject)
            head = bytes((AccessAccept,)) + body[1:4]
            return head + hashlib.md5(head + data[4:20] + body[20:] + SECRET).digest() + body[20:]

        self.run(turn, "forged", "radius.secret the same")

    def test_an_answer_to_another_question(self) -> None:
        def other(data: bytes) -> bytes:
            return reply_to(data[:1] + bytes((data[1] ^ 1,)) + data[2:])

        self.run(other, "unexpected", "did not answer")

    def test_another_kind_of_packet(self) -> None:
        self.run(lambda data: reply_to(data, 5), "unexpected", "did not answer")

    @pytest.mark.parametrize("size", [1, 19, 20, 37])
    def test_a_truncated_twin(self, size: int) -> None:
        self.run(lambda data: reply_to(data)[:size], "malformed", "did not answer")

    def test_an_answer_from_another_port(self) -> None:
        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(reply_to(data), addr)

        async def scenario() -> None:
            async with serving(handler) as server:
                radius = client(server.port, tries=1)
                answer = await ask(radius)
            assert answer.verdict == "timeout"
            assert "from another address" in answer.reason
            assert radius.counters == {"requests": 1, "wrong-source": 1}

        asyncio.run(scenario())

    @given(st.binary(max_size=120), st.booleans())
    def test_garbage_is_counted_and_nothing_else(self, garbage: bytes, headed: bool) -> None:
        """From the server's own address, and with a header that fits the question."""
        radius = client(1812)
        request = radius._request("alice", "pw", "Framed-User")
        if headed:
            header = bytes((AccessAccept, request.id)) + (20 + len(garbage)).to_bytes(2, "big")
            garbage = header + bytes(16) + garbage
        assert radius._checked(request, garbage, from_server=True) is None
        assert radius.counters.total() == 1


class TestFailover:
    def test_a_silent_server_is_followed_by_the_next_and_asked_last_for_a_while(self) -> None:
        async def scenario() -> None:
            async with serving(silent) as first, serving(accept) as second:
                radius = client(first.port, second.port, timeout_s=0.05)
                answer = await ask(radius)
                assert (answer.verdict, answer.server) == ("accept", f"127.0.0.1:{second.port}")
                assert len(first.heard) == 2
                await ask(radius)
                assert len(first.heard) == 2, "not asked again so soon"
                assert first.heard[0][0][4:20] != second.heard[0][0][4:20], "Authenticators are not used twice"

        asyncio.run(scenario())

    def test_a_server_that_was_silent_is_the_first_again_later_and_stays_it_when_it_answers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(radius_module, "SILENT_S", 0.2)
        talks = False

        def handler(data: bytes, addr: Any, server: FakeServer) -> None:
            if talks:
                accept(data, addr, server)

        async def scenario() -> None:
            nonlocal talks
            async with serving(handler) as first, serving(accept) as second:
                radius = client(first.port, second.port, timeout_s=0.05, tries=1)
                assert (await ask(radius)).server == f"127.0.0.1:{second.port}"
                talks = True
                assert (await ask(radius)).server == f"127.0.0.1:{second.port}", "remembered as silent"
                await asyncio.sleep(0.25)
                for _ in range(2):
                    assert (await ask(radius)).server == f"127.0.0.1:{first.port}"

        asyncio.run(scenario())

    def test_a_closed_port_is_noticed_at_once(self) -> None:
        async def scenario() -> None:
            closed = free_port()
            async with serving(accept) as second:
                radius = client(closed, second.port, timeout_s=30)
                async with asyncio.timeout(5):
                    answer = await ask(radius)
                assert answer.server == f"127.0.0.1:{second.port}"

        asyncio.run(scenario())

    def test_no_server_at_all(self) -> None:
        async def scenario() -> None:
            closed = free_port()
            async with serving(silent) as server:
                answer = await ask(client(closed, server.port, tries=1, timeout_s=0.05))
            assert answer.verdict == "timeout"
            assert answer.reason == (
                f"127.0.0.1:{closed} is unreachable (Connection refused); "
                f"127.0.0.1:{server.port} did not answer: is it running, does it know this client and the same secret?"
            )
            assert answer.troubles == (
                {"code": "server-unreachable", "args": [f"127.0.0.1:{closed}", "Connection refused"]},
                {"code": "server-no-secret", "args": [f"127.0.0.1:{server.port}"]},
            )

        asyncio.run(scenario())

    def test_ipv6_server(self) -> None:
        async def scenario() -> None:
            async with serving(accept, "::1") as server:
                answer = await ask(client(server.port, host="0::1"))
            assert (answer.verdict, answer.server) == ("accept", f"[0::1]:{server.port}")

        asyncio.run(scenario())

    def test_the_loop_goes_on_meanwhile_and_a_question_can_be_given_up(self) -> None:
        async def scenario() -> None:
            async with serving(silent) as server:
                task = asyncio.ensure_future(ask(client(server.port, timeout_s=60)))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(scenario())
