"""``python3 -m cpe_mcp.upstream.no_trace``: takes back what a daemon that was killed has left in the kernel, and its files.

Run when the package is removed, after the daemon has stopped; a daemon that stops in peace leaves nothing of this behind.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from cpe_mcp.kernel.dnsmasq import Dnsmasq
from cpe_mcp.kernel.mptcp import MptcpNetlink
from cpe_mcp.kernel.nft import Nft
from cpe_mcp.kernel.routes import RouteKernel
from cpe_mcp.paths.reconcile import plan_routes
from cpe_mcp.settings import RouterSettings, SettingsError, load_router
from cpe_mcp.upstream import quota_file

DEFAULT_CONFIG = "/etc/config/cpe-mcp"


def main(path: str = DEFAULT_CONFIG) -> int:
    """Returns the exit code: 1 when something could not be taken back; the rest was."""
    try:
        settings = load_router(path)
    except SettingsError:
        settings = RouterSettings()
    devices = [wan.device for wan in settings.wans]
    done = [
        _tried("the table of nftables", lambda: Nft().remove()),
        _tried("routes, rules and endpoints", lambda: _remove_from_kernel(devices)),
        _tried("names in dnsmasq", lambda: Dnsmasq().remove(settings.dns.confdir, settings.dns.restart)),
    ]
    shutil.rmtree(settings.general.run_dir, ignore_errors=True)
    done.append(_tried("the file of used volumes", lambda: quota_file.remove(settings.general.state_dir)))
    return 0 if all(done) else 1


def _remove_from_kernel(devices: list[str]) -> None:
    routes = RouteKernel()
    try:
        observed = routes.observe(devices)
        problems = routes.apply(plan_routes(frozenset(), frozenset(), observed))
    finally:
        routes.close()
    ours = {view.ifindex for view in observed.devices.values()}
    mptcp = MptcpNetlink()
    try:
        for endpoint in mptcp.endpoints():
            if endpoint.device_index in ours:
                mptcp.delete(endpoint.id)
    finally:
        mptcp.close()
    if problems:
        raise OSError(problems[0])


def _tried(what: str, action: Callable[[], None]) -> bool:
    try:
        action()
    except (OSError, RuntimeError) as error:
        print(f"cpe-mcp: {what} could not be removed: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
