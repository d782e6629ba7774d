"""Severities on two streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def test_good_news_go_to_standard_output_and_trouble_to_standard_error() -> None:
    code = (
        "import logging; from cpe_mcp.control.logs import log_to_streams, set_level\n"
        "log_to_streams('prog'); set_level('info')\n"
        "log = logging.getLogger('cpe_mcp.x'); log.debug('no'); log.info('up'); log.warning('hm'); log.error('oh')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "prog: INFO: up\n"
    assert done.stderr == "prog: WARNING: hm\nprog: ERROR: oh\n"


@pytest.mark.requirement("7.1-a")
def test_libraries_tell_of_trouble_only_whatever_the_level() -> None:
    """pyroute2 writes every message of the kernel at level debug: the addresses of all that there is."""
    code = (
        "import logging; from cpe_mcp.control.logs import log_to_streams, set_level\n"
        "log_to_streams('prog')\n"
        "for level in ('debug', 'error'):\n"
        "    set_level(level)\n"
        "    for name in ('cpe_mcp.x', '__main__', 'pyroute2.netlink', 'asyncio'):\n"
        "        log = logging.getLogger(name); log.debug(name); log.info(name); log.warning(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = [f"prog: {level}: {name}" for name in ("cpe_mcp.x", "__main__") for level in ("DEBUG", "INFO")]
    assert done.stdout.splitlines() == own
    assert [line.rpartition(" ")[2] for line in done.stderr.splitlines()] == [
        *("cpe_mcp.x", "__main__", "pyroute2.netlink", "asyncio"),
    ]
