# make demo   the network in a box: one download over two access networks, and a report; writes build/demo.json
# make test   the whole suite: style, types, tests
# make lint   style and types only
# make bench  figures against others, side by side
# make docs   the manual as web pages, in build/site; they need no network
#
# Each installs what is missing on a Debian machine (as root) and asks for nothing that is there.

VENV := .venv
BIN := $(VENV)/bin

# What the lab and the tests run. Python is added only where the machine's own cannot make a virtual environment.
PACKAGES := iproute2 nftables dnsmasq-base udhcpc busybox isc-dhcp-client freeradius nginx-light curl iperf3
TEST_PACKAGES := shellcheck
BENCH_PACKAGES := apache2-utils haproxy mptcpize
PYTHON_PACKAGES := $(shell python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv)

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint docs generate clean venv packages
.NOTPARALLEL:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: packages venv
	@mkdir -p build
	$(BIN)/cpe-mcp-lab run demo --json build/demo.json

test: packages lint
	@tools/debian-packages $(TEST_PACKAGES)
	$(BIN)/pytest -m "not bench"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: packages venv
	@tools/debian-packages $(BENCH_PACKAGES)
	$(BIN)/python tests/bench/bench_relay.py --json build/bench.json

docs:
	@tools/debian-packages $(PYTHON_PACKAGES)
	@tools/venv build/docs-venv docs
	build/docs-venv/bin/mkdocs build --quiet --strict --site-dir build/site

# The files that are made from the settings' declarations; tests hold the committed ones to it.
generate: venv
	$(BIN)/python -m cpe_mcp.settings.sample router > files/etc/config/cpe-mcp
	$(BIN)/python -m cpe_mcp.settings.sample concentrator > files/concentrator/etc/config/mcp-concentrator
	for side in router concentrator; do \
	    sed -i '/^## `config/,$$d' docs/manual/settings-$$side.md && \
	    $(BIN)/python -m cpe_mcp.settings.sample $$side --table >> docs/manual/settings-$$side.md || exit 1; \
	done

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

packages:
	@tools/debian-packages $(PACKAGES) $(PYTHON_PACKAGES)

venv:
	@tools/debian-packages $(PYTHON_PACKAGES)
	@tools/venv $(VENV)
