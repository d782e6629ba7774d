"""The hardware address of a LAN device, as the router's neighbour table has it."""

from __future__ import annotations

ARP_TABLE = "/proc/net/arp"
NOT_KNOWN = "00:00:00:00:00:00"


def hardware_address(address: str, table: str = ARP_TABLE) -> str:
    """Lower case with colons, "" when it is not known. IPv4 only: the kernel shows IPv6 neighbours by netlink alone, and a
    device that has a rule can be asked about by its IPv4 address."""
    try:
        with open(table, encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields and fields[0] == address and fields[3] != NOT_KNOWN:
                    return fields[3].lower()
    except (OSError, IndexError):
        pass
    return ""
