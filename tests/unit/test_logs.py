"""Severities on two streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def test_good_news_go_to_standard_output_and_trouble_to_standard_error() -> None:
    code = (
        "import logging; from cpe_mcp.control.logs import log_to_streams\n"
        "log_to_streams('prog'); logging.getLogger().setLevel('INFO')\n"
        "log = logging.getLogger('x'); log.debug('no'); log.info('up'); log.warning('hm'); log.error('oh')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "prog: INFO: up\n"
    assert done.stderr == "prog: WARNING: hm\nprog: ERROR: oh\n"
