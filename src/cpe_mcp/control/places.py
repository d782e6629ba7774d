"""Names of the sockets in the run directory. Alone, so that who asks only needs this."""

CONTROL_SOCKET = "control.sock"
"""Where workers connect (frames)."""
API_SOCKET = "api.sock"
"""Where questions are answered (JSON lines)."""
