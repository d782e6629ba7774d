"""One RADIUS exchange inside TLS (RFC 6614), in a process that lives for that long: the daemon itself is without OpenSSL.

``python3 -m cpe_mcp.aaa.tls_child FD CA CERT KEY NAME TIMEOUT_S``: FD is a TCP connection to the server, CA, CERT and KEY
are PEM files, NAME is what the server's certificate has to be for, a host name or an address. Requests come on standard
input, the answers go to standard output, as many as there were requests. Nothing secret is an argument. On standard error
one line says what went wrong, and the exit code is 1.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Sequence

HEADER_OCTETS = 20
MAX_PACKET_BYTES = 4096
"""RFC 2865 section 3."""
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME; see :func:`exchange`."""
EXIT_OK, EXIT_FAILED = 0, 1


class TlsFailure(Exception):
    """What went wrong, in one line for people."""


def main(argv: Sequence[str] | None = None) -> int:
    """See above."""
    fd, ca, cert, key, name, timeout_s = sys.argv[1:] if argv is None else argv
    try:
        answers = exchange(
            socket.socket(fileno=int(fd)), split(sys.stdin.buffer.read()), ca, cert, key, name, float(timeout_s)
        )
    except TlsFailure as failure:
        print(failure, file=sys.stderr)
        return EXIT_FAILED
    sys.stdout.buffer.write(b"".join(answers))
    return EXIT_OK


def exchange(
    connection: socket.socket, requests: Sequence[bytes], ca: str, cert: str, key: str, name: str, timeout_s: float
) -> list[bytes]:
    """The answers to ``requests``. Raises TlsFailure.

    The server proves itself by a certificate of ``ca`` that is for ``name``, we by ours. A router without a clock boots
    with an old date, for which a good certificate is not valid yet; so its begin is not looked at, and its end is, here.
    """
    try:
        import ssl
    except ImportError:
        raise TlsFailure("Python's ssl module is not installed (package python3-openssl)") from None
    deadline = time.monotonic() + timeout_s
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # knows no certificate authority but the one of the settings
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= NO_CHECK_TIME
    for option, path in (("tls_ca", ca), ("tls_cert", cert), ("tls_key", key)):
        _check_readable(option, path, private=option == "tls_key")
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError):
        raise TlsFailure(f"radius.tls_ca {ca} holds no certificate in PEM") from None
    try:
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError, ssl.SSLError):
        raise TlsFailure(
            f"radius.tls_cert {cert} and radius.tls_key {key} are no certificate and its key in PEM"
        ) from None
    connection.settimeout(timeout_s)
    try:
        with context.wrap_socket(connection, server_hostname=name) as tls:
            ends = ssl.cert_time_to_seconds(str((tls.getpeercert() or {}).get("notAfter", "")))
            if ends < time.time():
                raise TlsFailure("its certificate has expired")
            answers = []
            for request in requests:
                tls.settimeout(max(0.01, deadline - time.monotonic()))
                tls.sendall(request)
                answers.append(_receive(tls))
            return answers
    except ssl.SSLCertVerificationError as error:
        raise TlsFailure(f"its certificate is not accepted: {error.verify_message}") from None
    except TimeoutError:
        raise TlsFailure("it did not answer in time") from None
    except ssl.SSLError as error:
        alert = (error.reason or "").lower().replace("_", " ") or str(error)
        raise TlsFailure(f"TLS failed: {alert}; does the server accept this router's certificate?") from None
    except (ConnectionResetError, BrokenPipeError) as error:  # may overtake the alert that says why (TLS 1.3)
        raise TlsFailure(
            f"it reset the connection ({error.strerror}); does it accept this router's certificate?"
        ) from None
    except OSError as error:
        raise TlsFailure(f"the connection broke ({error.strerror or error})") from None


def split(data: bytes) -> list[bytes]:
    """A row of RADIUS packets, one by one. Raises TlsFailure."""
    packets = []
    while data:
        size = int.from_bytes(data[2:4], "big")
        if not HEADER_OCTETS <= size <= min(MAX_PACKET_BYTES, len(data)):
            raise TlsFailure(f"no RADIUS packet: its length says {size}, {len(data)} octets are there")
        packets.append(data[:size])
        data = data[size:]
    return packets


def _receive(tls: socket.socket) -> bytes:
    """One packet: its own length tells where it ends (RFC 6614 section 2.5)."""
    data = b""
    while len(data) < 4 or len(data) < int.from_bytes(data[2:4], "big"):
        missing = int.from_bytes(data[2:4], "big") - len(data) if len(data) >= 4 else 4 - len(data)
        more = tls.recv(missing)
        if not more:
            raise TlsFailure("it closed the connection without an answer: does it know this router's certificate?")
        data += more
        if len(data) >= 4 and not HEADER_OCTETS <= int.from_bytes(data[2:4], "big") <= MAX_PACKET_BYTES:
            raise TlsFailure("what it sent is no RADIUS packet")
    return data


def _check_readable(option: str, path: str, *, private: bool) -> None:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise TlsFailure(f"radius.{option} {path} cannot be read ({error.strerror})") from None
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TlsFailure(f"radius.{option} {path} may be read by others: chmod 600 {path}")


if __name__ == "__main__":
    sys.exit(main())
