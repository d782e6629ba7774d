"""Messages computed from RFC 8803's layouts: what they hold, and their bytes. Shared by the Convert tests."""

from __future__ import annotations

import ipaddress

from cpe_mcp.convert import Connect, Cookie, Error, ExtendedTcpHeader, Info, SupportedTcpExtensions, Tlv


def address16(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def octets(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


V1_CONNECT = Connect(address16("192.0.2.33"), 443)
V16A = octets("01062263 0a050050 00000000 00000000 0000ffff 7f000001")
UNKNOWN_TLV = octets("01022263 63010000")

VECTORS: dict[str, tuple[list[Tlv], bytes]] = {
    "V1": ([V1_CONNECT], octets("01062263 0a0501bb 00000000 00000000 0000ffff c0000221")),
    "V2": (
        [Connect(address16("2001:db8::25"), 8080)],
        octets("01062263 0a051f90 20010db8 00000000 00000000 00000025"),
    ),
    "V3": (
        [Connect(address16("198.51.100.7"), 80, octets("1e020402"))],
        octets("01072263 0a060050 00000000 00000000 0000ffff c6336407 1e020402"),
    ),
    "V3b": (
        [Connect(address16("198.51.100.7"), 80, octets("1e020000"))],
        octets("01072263 0a060050 00000000 00000000 0000ffff c6336407 1e020000"),
    ),
    "V4": (
        [V1_CONNECT, Cookie(octets("a0a1a2a3 a4a5a6a7"))],
        octets("01092263 0a0501bb 00000000 00000000 0000ffff c0000221 16030000 a0a1a2a3 a4a5a6a7"),
    ),
    "V5": ([Info()], octets("01022263 01010000")),
    "V6": ([], octets("01012263")),
    "V7": ([SupportedTcpExtensions(bytes([30, 34, 4, 8]))], octets("01032263 15020000 1e220408")),
    "V7b": ([SupportedTcpExtensions(bytes([30]))], octets("01032263 15020000 1e000000")),
    "V8": (
        [ExtendedTcpHeader(octets("020405b4 04020101"))],
        octets("01042263 14030000 020405b4 04020101"),
    ),
    "V9": ([Error(32, b"\0")], octets("01022263 1e012000")),
    "V10": ([Error(97, b"\1")], octets("01022263 1e016101")),
    "V11": ([Error(96, b"\0")], octets("01022263 1e016000")),
    "V12": ([Error(64, bytes([60]))], octets("01022263 1e01403c")),
    "V13": ([Error(0, b"\1")], octets("01022263 1e010001")),
    "V14": ([Error(3, b"\0" + octets("a0a1a2a3 a4a5a6a7"))], octets("01042263 1e030300 a0a1a2a3 a4a5a6a7")),
    "V15": ([Error(33, octets("1e450000 00"))], octets("01032263 1e02211e 45000000")),
    "V16b": ([Error(1, b"\0" + V16A)], octets("01082263 1e070100") + V16A),
    "V17": ([Error(2, b"\0" + UNKNOWN_TLV)], octets("01042263 1e030200") + UNKNOWN_TLV),
}
V18 = VECTORS["V1"][1] + b"GET /"

MALFORMED: dict[str, tuple[bytes, int | None]] = {
    "total length 0": (octets("01002263"), None),
    "TLV length 0": (octets("01022263 01000000"), 1),
    "TLV past the message": (octets("01022263 0a050050"), 1),
    "magic of an early draft": (octets("01060000 0a0501bb 00000000 00000000 0000ffff c0000221"), 1),
    "version 0": (octets("00062263 0a0501bb 00000000 00000000 0000ffff c0000221"), 0),
    "version 2": (octets("02062263 0a0501bb 00000000 00000000 0000ffff c0000221"), 0),
    "Connect twice": (octets("010b2263") + 2 * octets("0a0501bb 00000000 00000000 0000ffff c0000221"), 1),
    "Connect of length 4": (octets("01052263 0a0401bb 00000000 00000000 0000ffff"), 1),
    "loopback (V16a)": (V16A, 1),
    "unknown TLV": (UNKNOWN_TLV, 2),
    "TLV of type 0": (octets("01022263 00010000"), 2),
    "nothing asked": (octets("01012263"), 1),
    "a Converter's TLV": (octets("01032263 15020000 1e000000"), 2),
    "an Error": (octets("01022263 1e016000"), None),
    "multicast": (octets("01062263 0a050050 ff020000 00000000 00000000 00000001"), 1),
    "unspecified": (octets("01062263 0a050050 00000000 00000000 00000000 00000000"), 1),
    "broadcast": (octets("01062263 0a050050 00000000 00000000 0000ffff ffffffff"), 1),
    "port 0": (octets("01062263 0a050000 00000000 00000000 0000ffff c0000221"), 1),
    "option past the TLV": (octets("01072263 0a060050 00000000 00000000 0000ffff c6336407 1e090000"), 1),
    "option with content": (octets("01072263 0a060050 00000000 00000000 0000ffff c6336407 1e04aaaa"), 1),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 1),
}
"""Message -> the Convert error a Converter answers with, None for a bare reset."""
