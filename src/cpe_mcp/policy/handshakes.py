"""How the workers' counters of handshakes with concentrators are named: ``handshakes:WAN:OUTCOME``."""

PREFIX = "handshakes"
NEGOTIATED, UNANSWERED = "mptcp", "unanswered"
"""Outcomes; the others are reasons of a fallback to plain TCP."""
