"""The short-lived process that checks signatures: a question on standard input, the verdict on standard output, both JSON.

Signatures need the package cryptography, which takes more memory than the whole daemon has.

Question: ``{"name": text, "messages": [base64, ...], "anchors": [text, ...], "now": seconds since 1970}``. Verdict:
``{"reason": value of Reason, "detail": text}``, and when it is proven ``records``, ``addresses`` and ``valid_s`` of
:class:`cpe_mcp.discovery.dnssec.Proven`.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

from cpe_mcp.policy.reasons import Reason


def verdict(question: Mapping[str, Any]) -> dict[str, Any]:
    """What comes of a question."""
    try:
        import cryptography  # noqa: F401  # dnspython is there without it, and checks nothing then
        import dns.exception

        from cpe_mcp.discovery.dnssec import NotProven, parse_anchors, prove
    except ImportError as error:
        return {"reason": Reason.DNSSEC_NO_PACKAGE, "detail": str(error)}
    messages = [base64.b64decode(text) for text in question["messages"]]
    try:
        proven = prove(question["name"], messages, parse_anchors(question["anchors"]), question["now"])
    except NotProven as problem:
        return {"reason": problem.reason, "detail": problem.detail}
    except dns.exception.DNSException as error:
        return {"reason": Reason.DNSSEC_BOGUS, "detail": f"an answer cannot be read: {error}"}
    return {"reason": Reason.DNSSEC_VALID, **proven._asdict()}


def main() -> int:
    """One question."""
    print(json.dumps(verdict(json.load(sys.stdin))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
