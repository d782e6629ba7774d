"""FreeRADIUS' radclient, as an operator's side sends CoA- and Disconnect-Requests with it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from cpe_mcp.lab.freeradius import DICTIONARY_DIR

PROGRAM = "radclient"


def send(
    namespace: str,
    directory: Path,
    target: str,
    kind: str,
    *attributes: str,
    secret: str,
    tries: int = 3,
) -> str:
    """Signed and with a timestamp; returns the answer as radclient prints it, "" when there is none. ``directory`` has the
    server's dictionary."""
    always = (f"Event-Timestamp = {int(time.time())}", "Message-Authenticator = 0x00")
    argv = [
        PROGRAM,
        "-x",
        "-r",
        str(tries),
        "-t",
        "0.5",
        "-d",
        str(directory),
        "-D",
        DICTIONARY_DIR,
        target,
        kind,
        secret,
    ]
    result = subprocess.run(
        ["ip", "netns", "exec", namespace, *argv],
        input=", ".join((*attributes, *always)) + "\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    # Its errors have the name of the answer that it had hoped for.
    return result.stdout.partition("Received ")[2]
