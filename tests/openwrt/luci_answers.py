"""What the daemon says in the tests of the pages: two lines, one concentrator, some connections."""

from __future__ import annotations

import math
import time
from typing import Any

SAMPLES = 180


def status() -> dict[str, Any]:
    """Everything works: dsl in use, lte waits."""
    return {
        "version": "0.3.0",
        "kernel": "6.12.30",
        "settings": "/etc/config/cpe-mcp",
        "warnings": [],
        "uptime_s": 7384.2,
        "enabled": True,
        "proxy": True,
        "reason": "ready",
        "text": "connections use all healthy WANs",
        "fallback": "direct",
        "generation": 12,
        "congestion_control": "bbr",
        "quic": "forward",
        "interception": {"on": True, "ipv6": False, "reason": "", "text": ""},
        "wans": [
            wan("dsl", "eth1", rtt_ms=18.4, down_mbit=47.31, up_mbit=2.2, capacity_down_mbit=49.8, capacity_up_mbit=9.6,
                address4="192.0.2.2", address6="2001:db8:1::2", bytes_down=18_310_000_000, bytes_up=912_000_000),
            wan("lte", "wwan0", rtt_ms=43.0, down_mbit=21.9, up_mbit=0.8, capacity_down_mbit=38.2, capacity_up_mbit=18.0,
                address4="198.51.100.2", backup=True, place="backup", bytes_down=2_450_000_000, bytes_up=130_000_000),
        ],
        "concentrators": [
            {"name": "home", "addresses": ["203.0.113.5"], "port": 5124, "source": "static", "interface": "",
             "subscriber": "alice", "foreign": False, "usable": True, "reason": "", "wait_s": None, "text": "usable",
             "reaches_ipv6": False, "service_class": [],
             "health": {"state": "up", "since_s": 7000.0, "detail": "", "deaths": 0, "asks_again_s": None, "wans": [
                 {"name": "dsl", "answers": True, "rtt_ms": 18.4, "detail": "", "ago_s": 12}]}},
        ],
        "sources": [],
        "radius": {
            "enabled": False, "accepted": False, "reason": "", "text": "not asked", "detail": "", "server": "",
            "cap": {"down_mbit": 0, "up_mbit": 0},
            "accounting": {"enabled": False, "sessions": 0, "sent": 0, "waiting": 0, "lost": 0, "trouble": "",
                           "trouble_words": []},
        },
        "pool": {"size": 8, "ready": 8, "plain": 0, "taken": 41, "missed": 1, "died": 0},
        "live": 3,
        "workers": [{"index": 0, "pid": 4711, "counters": {}}],
        "totals": {},
        "fallbacks": {},
        "handshakes": {},
        "scheme": {"name": "adaptive", "reason": "scheme-room", "text": "the best WAN has room, so the others wait"},
    }  # fmt: skip


def wan(name: str, device: str, **others: Any) -> dict[str, Any]:
    """One healthy WAN."""
    row = {
        "name": name, "device": device, "state": "up", "reason": "wan-up", "detail": "", "since_s": 7000.0, "rtt_ms": 0.0,
        "down_mbit": 0.0, "up_mbit": 0.0, "capacity_down_mbit": 0.0, "capacity_up_mbit": 0.0, "backup": False,
        "place": "carrying", "metered": False, "subflows": 8,
        "mptcp": {"state": "works", "reason": "mptcp-works", "text": "Multipath TCP gets through", "evidence": []},
        "address4": "", "address6": "", "usable": True, "text": "up", "bytes_up": 0, "bytes_down": 0,
        "quota": {"used_gb": 0.0, "limit_gb": 0, "percent": 0.0, "soft_percent": 80, "state": "within", "text": "not used up",
                  "resets_on": ""},
    }  # fmt: skip
    return row | others


def radius() -> dict[str, Any]:
    """Accepted, with a cap; accounting waits, and changes have come."""
    words = {"code": "server-silent", "args": [{"code": "server-over", "args": ["192.0.2.20:1813", "lte"]}]}
    return {
        "enabled": True, "accepted": True, "reason": "ready", "text": "accepted", "detail": "", "detail_words": [],
        "transport": "udp",
        "server": "192.0.2.20:1812", "expires_s": 2886.4, "asks_again_s": 2166.0, "counters": {"requests": 3},
        "cap": {"down_mbit": 100, "up_mbit": 0},
        "accounting": {"enabled": True, "sessions": 3, "sent": 12, "waiting": 2, "lost": 0,
                       "trouble": "192.0.2.20:1813 over lte did not answer", "trouble_words": [words]},
        "dynamic": {"addresses": ["10.0.0.7"], "peers": [],
                    "counters": {"coa-ack": 2, "coa-nak": 1, "stale": 3, "unknown-peer": 1}},
    }  # fmt: skip


def history() -> dict[str, Any]:
    """Three minutes: lte joins in the middle."""

    def wave(i: int, height: float, start: int) -> float:
        return round(max(0.0, height * (0.9 + 0.1 * math.sin(i / 5))), 1) if i >= start else 0.4

    return {
        "interval_s": 1.0,
        "wans": [
            {
                "name": name,
                "down_mbit": [wave(i, down, start) for i in range(SAMPLES)],
                "up_mbit": [wave(i, up, start) for i in range(SAMPLES)],
            }
            for name, down, up, start in (("dsl", 48.0, 2.2, 20), ("lte", 26.0, 0.9, 80))
        ],
    }


def flow(**others: Any) -> dict[str, Any]:
    """A live one over both lines."""
    row = {
        "id": "0:7", "started": time.time() - 42, "client": "192.168.1.20", "client_port": 50412, "server": "203.0.113.80",
        "server_port": 443, "family": 4, "concentrator": "home", "wan": "dsl", "action": "proxy", "reason": "pooled",
        "pooled": True, "first_byte_ms": 38.0, "bytes_up": 1_200_000, "bytes_down": 184_000_000, "duration_s": 42.0,
        "end": "", "mptcp": True, "fallback": "", "bytes_by_wan": {}, "down_mbit": 35.1, "up_mbit": 0.2,
        "verdict": "wan-full", "verdict_wans": ["dsl"], "verdict_text": "dsl: it is full",
        "scheme": "adaptive", "scheme_reason": "scheme-joined",
        "subflows": [
            {"wan": "dsl", "local": "192.0.2.2:41000", "remote": "203.0.113.5:5124", "backup": False, "rtt_ms": 18.4,
             "cwnd": 10, "down_mbit": 23.0, "up_mbit": 0.1, "bytes_down": 120_000_000, "bytes_up": 1_000_000, "retransmits": 3},
            {"wan": "lte", "local": "198.51.100.2:41002", "remote": "203.0.113.5:5124", "backup": False, "rtt_ms": 43.0,
             "cwnd": 12, "down_mbit": 12.1, "up_mbit": 0.1, "bytes_down": 64_000_000, "bytes_up": 200_000, "retransmits": 0},
        ],
    }  # fmt: skip
    return row | others


HOSTILE = '<img src=x onerror="window.hacked=1">'
"""A name that would be markup where somebody forgets that data is text."""


def flows(args: dict[str, Any]) -> dict[str, Any]:
    """Three, one of them with a hostile name; ``filter`` and ``limit`` as the daemon has them."""
    rows = [
        flow(),
        flow(id="0:8", server="2001:db8:50::80", family=6, client="192.168.1.31", action="direct", reason="no-ipv6",
             concentrator="", subflows=[], bytes_down=2_100_000, started=time.time() - 300, duration_s=300.0, wan=""),
        flow(id="0:9", server="198.51.100.99", client="192.168.1.22", bytes_down=900, bytes_up=400,
             verdict="from-the-future", verdict_text=HOSTILE, subflows=[], started=time.time() - 2, duration_s=2.0, wan="lte"),
    ]  # fmt: skip
    wanted = str(args.get("filter", "")).lower()
    shown = [row for row in rows if wanted in f"{row['client']} {row['server']} {row['wan']} {row['action']}".lower()]
    return {"flows": shown[: int(args.get("limit", 100))], "silent_workers": 0}


LIVE_ONLY = ("subflows", "down_mbit", "up_mbit", "verdict", "verdict_wans", "verdict_text")
"""What a flow has while it runs, and its record has not."""


def record(**others: Any) -> dict[str, Any]:
    """One flow that has ended."""
    return {name: value for name, value in flow(**others).items() if name not in LIVE_ONLY}


def records(_: dict[str, Any]) -> dict[str, Any]:
    """One large download over both lines, one small one, one upload over one line."""
    return {
        "flows": [
            record(id="0:3", bytes_down=272_000_000, duration_s=31.0, end="closed",
                 bytes_by_wan={"dsl": {"down": 171_400_000, "up": 1}, "lte": {"down": 100_600_000, "up": 1}}),
            record(id="0:2", bytes_down=4000, end="closed", started=time.time() - 100),
            record(id="0:1", bytes_down=1000, bytes_up=64_000_000, end="closed", started=time.time() - 200,
                 bytes_by_wan={"dsl": {"down": 1, "up": 64_000_000}}),
        ]
    }  # fmt: skip


def check() -> dict[str, Any]:
    """Something is wrong with the key."""
    return {
        "stages": [
            {"stage": "settings", "ok": True, "detail": "/etc/config/cpe-mcp", "next": "", "info": False},
            {"stage": "wan", "ok": True, "detail": "dsl, lte", "next": "", "info": False},
            {"stage": "discover", "ok": True, "detail": "home (static)", "next": "", "info": False},
            {"stage": "authenticate", "ok": True, "detail": "not asked", "next": "", "info": False},
            {"stage": "connect", "ok": False, "detail": "home has not accepted a connection yet",
             "next": "check that it runs, and that TCP to its port is not blocked on the way", "info": False,
             "detail_words": {"code": "no-connection-yet", "args": ["home"]},
             "next_words": {"code": "check-port", "args": []}},
            {"stage": "sqm", "ok": True, "detail": "SQM shapes eth1 to 50 / 10 Mbit/s down / up",
             "next": "keep it", "info": True},
        ]
    }  # fmt: skip


def why(args: dict[str, Any]) -> dict[str, Any]:
    """It would go over both; a live one is held back by a line that waits."""
    if "id" in args:
        return {"flow": flow(), "reasons": [{"reason": "wan-in-reserve", "text": "it waits in reserve", "wan": "lte"}]}
    answer = {
        "destination": "203.0.113.80", "port": args.get("port", 443), "client": "", "family": 4, "action": "proxy",
        "concentrator": "home", "wan": "dsl", "rule": {"name": "", "section": "", "action": ""},
        "concentrator_reason": "concentrator-only", "concentrator_text": "no other is known", "warm": True,
        "wan_reason": "first-preference", "wan_text": "its preference is the best", "scheme": "adaptive",
        "scheme_reason": "scheme-room", "scheme_text": "the best WAN has room, so the others wait",
        "reasons": [{"reason": "proxied", "text": "carried over Multipath TCP"}],
    }  # fmt: skip
    other = answer | {"destination": "2001:db8:50::80", "family": 6, "action": "direct"}
    other |= {"wan": "", "concentrator": "", "scheme": "", "warm": False}
    other |= {"reasons": [{"reason": "no-ipv6", "text": "the concentrator does not reach IPv6 servers"}]}
    return answer | {"name": args["dest"], "answers": [answer, other]}


def speed(state: str) -> dict[str, Any]:
    """A test that runs, or is over."""
    done = state == "done"
    rows = [("dsl", "down", 48.2), ("lte", "down", 36.0), ("", "down", 79.4)]
    return {
        "state": state,
        "concentrator": "home",
        "runs": [
            {
                "wan": name,
                "direction": direction,
                "state": "done" if done or i == 0 else "running" if i == 1 else "waiting",
                "progress": 1.0 if done or i == 0 else 0.5 if i == 1 else 0.0,
                "mbit": mbit if done or i < 2 else 0.0,
                "error": "",
            }
            for i, (name, direction, mbit) in enumerate(rows)
        ],
    }


def everything() -> dict[str, Any]:
    """By method."""
    return {
        "status": status(), "paths": {"wans": status()["wans"]}, "history": history(), "flows": flows, "records": records,
        "concentrators": {}, "check": check(), "why": why, "speedtest": speed("done"), "drop": {"dropped": True},
        "quota": {"quotas": []},
        "support": {"report": "cpe-mcp 0.3.0\nkey ********\n"}, "reload": {},
    }  # fmt: skip
