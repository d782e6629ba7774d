"""One WAN of the cpe as netifd keeps it on a router: its DHCP clients, address, routes, and what a cut does to them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from cpe_mcp.lab import configs
from cpe_mcp.lab.link import ask_emulator
from cpe_mcp.lab.namespaces import enter, ip_batch, write_sysctls
from cpe_mcp.lab.neighbours import meet
from cpe_mcp.lab.plan import ADDRESSES, PREFIX_LENGTHS, WAN_METRICS, Addresses
from cpe_mcp.lab.processes import Processes, argv_inside

HOOK_DIRECTORY = Path(__file__).parents[3] / "files/etc/udhcpc.user.d"
"""The DHCP hooks that the package installs on a router, in the source tree."""


class Wan:
    """``name`` is link, device and netifd interface in one. ``codes``: of the DHCPv4 and the DHCPv6 option."""

    def __init__(
        self,
        name: str,
        *,
        namespace: str,
        directory: Path,
        run_dir: Path,
        codes: tuple[int, int],
        processes: Processes,
        addresses: Addresses = ADDRESSES,
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._lab_directory = directory
        self._directory = directory / "cpe"
        self._environment = {**os.environ, "INTERFACE": name, "CPE_MCP_RUN_DIR": str(run_dir)}
        self._codes = codes
        self._gateways = addresses.of(f"isp-{name}-access")
        self._processes = processes
        self._clients = (f"udhcpc-{name}", f"dhclient-{name}")
        self._bound4 = self._directory / f"{name}.bound4"
        self._bound6 = self._directory / f"{name}.bound6"

    def write_sysctls(self) -> None:
        """Before the device is set up. The default route of IPv6 comes from the provider's router advertisement,
        although the cpe forwards; the address comes by DHCPv6 only."""
        prefix = f"ipv6.conf.{self._name}"
        values = {
            f"{prefix}.accept_ra": "2",
            f"{prefix}.autoconf": "0",
            f"{prefix}.ra_defrtr_metric": str(WAN_METRICS[self._name]),
            f"{prefix}.router_solicitation_delay": "0",
        }
        write_sysctls(self._namespace, values)

    def start(self) -> None:
        """Start the DHCP clients."""
        name, (code4, code6) = self._name, self._codes
        udhcpc, dhclient = self._clients
        script4 = self._write(udhcpc, configs.udhcpc_script(name, str(HOOK_DIRECTORY), str(self._bound4)), mode=0o700)
        # -R: release when it ends, so that it tells its script to take the address away, as netifd has it.
        argv = [
            "udhcpc",
            "-f",
            "-R",
            "-i",
            name,
            "-s",
            str(script4),
            "-O",
            str(code4),
            "-t",
            "10",
            "-T",
            "1",
            "-A",
            "1",
        ]
        self._processes.start(udhcpc, self._namespace, argv, env=self._environment)
        script6 = self._write(dhclient, configs.dhclient_script(name, code6, str(self._bound6)), mode=0o700)
        config6 = self._write(f"{dhclient}.conf", configs.dhclient_conf(code6))
        leases6 = self._write(f"{dhclient}.leases", "")
        # -D LL: the DUID is made of the MAC address, the same at every start.
        argv = ["dhclient", "-6", "-d", "-D", "LL", "-cf", str(config6), "-lf", str(leases6), "-sf", str(script6)]
        argv += ["-pf", str(self._directory / f"{dhclient}.pid")]
        argv += ["-e", f"CPE_MCP_RUN_DIR={self._environment['CPE_MCP_RUN_DIR']}", name]
        self._processes.start(dhclient, self._namespace, argv, env=self._environment)

    def wait(self) -> None:
        """Until it has its addresses and the default routes of both families, and the hooks have run. Raises LabError."""
        udhcpc, dhclient = self._clients
        for _ in self._processes.waiting(udhcpc):
            if self._bound4.exists():
                break
        with enter(self._namespace):
            for _ in self._processes.waiting(dhclient):
                if self._bound6.exists() and _has_default6(self._name):
                    break
        meet(self._processes, {self._namespace: self._gateways})

    def take_down(self, kind: str) -> None:
        """``down``, ``unplugged`` or ``address``: see :meth:`cpe_mcp.lab.link.Link.cut`."""
        if kind == "down":
            ip_batch(self._namespace, [f"link set {self._name} down"])
        elif kind == "unplugged":
            ask_emulator(str(self._lab_directory), carrier={self._name: False})
        self._stop()
        if kind != "down":  # netifd takes all of IPv6 away too
            write_sysctls(self._namespace, {f"ipv6.conf.{self._name}.disable_ipv6": "1"})

    def bring_up(self, kind: str) -> None:
        """Undo :meth:`take_down`; returns when addresses and routes are back. Raises LabError."""
        if kind == "down":
            ip_batch(self._namespace, [f"link set {self._name} up"])
        elif kind == "unplugged":
            ask_emulator(str(self._lab_directory), carrier={self._name: True})
        if kind != "down":
            write_sysctls(self._namespace, {f"ipv6.conf.{self._name}.disable_ipv6": "0"})
        self.start()
        self.wait()

    def renew(self) -> None:
        """Have the DHCPv4 client ask for its lease again, now; does not wait."""
        os.kill(self._processes.pid(self._clients[0]), signal.SIGUSR1)

    def replace_address4(self, address: str) -> None:
        """Another IPv4 address at once, as a renewal that brings one: the old one goes in the same moment. The options stay."""
        event = {
            **self._options4(),
            "ip": address,
            "mask": PREFIX_LENGTHS.v4,
            "broadcast": "+",
            "router": self._gateways.v4,
            "interface": self._name,
            "lease": str(configs.LEASE_S),
        }
        subprocess.run(
            argv_inside(self._namespace, [str(self._directory / self._clients[0]), "renew"]),
            env={**self._environment, **event},
            check=True,
            capture_output=True,
        )

    def _options4(self) -> dict[str, str]:
        """Those that its last lease brought, as udhcpc gives them to its script."""
        try:
            lines = (Path(self._environment["CPE_MCP_RUN_DIR"]) / "dhcp" / f"{self._name}.v4").read_text().splitlines()
        except OSError:
            return {}
        rows = (line.partition("=") for line in lines)
        return {name: value for name, _, value in rows if name.startswith("opt")}

    def await_address4(self, address: str) -> None:
        """Until it has this address and the default route. Raises LabError."""
        for _ in self._processes.waiting(self._clients[0]):
            routes = self._shown("-4", "route", "show", "default", "dev", self._name)
            if f" {address}/" in self._shown("-4", "-o", "address", "show", "dev", self._name) and routes:
                return

    def _shown(self, *words: str) -> str:
        """What ``ip`` prints; nothing of a device that is not there."""
        argv = argv_inside(self._namespace, ["ip", *words])
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def _stop(self) -> None:
        """Stop the DHCP clients and have their scripts take away what they brought."""
        self._processes.stop(*self._clients)
        script6 = str(self._directory / self._clients[1])
        event = {"reason": "STOP6", "interface": self._name, "old_ip6_address": ADDRESSES.of(f"cpe-{self._name}").v6}
        # dhclient itself says nothing when it is ended, and the address may have gone with the link.
        subprocess.run(
            argv_inside(self._namespace, [script6]),
            env={**self._environment, **event},
            check=False,
            capture_output=True,
        )

    def _write(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        path = self._directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path


def _has_default6(device: str) -> bool:
    """In the calling thread's namespace; the columns are those of proc(5)."""
    rows = [line.split() for line in Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii").splitlines()]
    return any(row[9] == device and row[1] == "00" and row[4].strip("0") for row in rows)
