"""RFC 8803, the 0-RTT TCP Convert Protocol: both roles, without sockets and without a clock.

:class:`Client` is the upstream MCP's half, :class:`Converter` the concentrator's. Bytes go in and come out; what to do about
them is the caller's business. :mod:`.tlv` is the vocabulary, :mod:`.wire` its bytes, :mod:`.state` the order of things.
"""

from cpe_mcp.convert.client import Client, Established, Refused
from cpe_mcp.convert.converter import Converter, PrefixReceived, RequestReceived
from cpe_mcp.convert.errors import ConvertError, LocalError, PeerError
from cpe_mcp.convert.tlv import (
    Connect,
    Cookie,
    Error,
    ErrorCode,
    ExtendedTcpHeader,
    Info,
    SupportedTcpExtensions,
    Tlv,
    TlvType,
)
from cpe_mcp.convert.wire import push_message

__all__ = [
    "Client",
    "Connect",
    "ConvertError",
    "Converter",
    "Cookie",
    "Error",
    "ErrorCode",
    "Established",
    "ExtendedTcpHeader",
    "Info",
    "LocalError",
    "PeerError",
    "PrefixReceived",
    "Refused",
    "RequestReceived",
    "SupportedTcpExtensions",
    "Tlv",
    "TlvType",
    "push_message",
]
