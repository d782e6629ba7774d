# make demo   the network in a box: one download over two access networks, and a report; writes build/demo.json
# make test   the whole suite: style, types, tests
# make lint   style and types only
# make bench  figures against others, side by side
# make ipk    installable packages for OpenWrt 24.10 (opkg), in build/packages; no SDK is needed
# make apk    the same for OpenWrt 25.12 and later; needs apk-tools 3 (apk) on PATH
# make docs   the manual as web pages, in build/site; they need no network
#
# Each installs what is missing on a Debian machine (as root) and asks for nothing that is there.

VENV := .venv
BIN := $(VENV)/bin
LUCI := luci/luci-app-cpe-mcp

# What the lab and the tests run. Python is added only where the machine's own cannot make a virtual environment.
PACKAGES := iproute2 nftables dnsmasq-base udhcpc busybox isc-dhcp-client freeradius nginx-light curl iperf3
TEST_PACKAGES := shellcheck openssl freeradius-utils knot
BENCH_PACKAGES := apache2-utils haproxy mptcpd mptcpd-plugins mptcpize
PYTHON_PACKAGES := $(shell python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv)

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint ipk apk docs generate clean venv packages
.NOTPARALLEL:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: packages venv
	@mkdir -p build
	$(BIN)/cpe-mcp-lab run demo --json build/demo.json

test: packages lint
	@tools/debian-packages $(TEST_PACKAGES)
	@if command -v node >/dev/null; then node --test tests/luci/; \
	    else echo "node is not installed: the LuCI app's own modules are not tested"; fi
	$(BIN)/pytest -m "not bench"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: packages venv
	@tools/debian-packages $(BENCH_PACKAGES)
	$(BIN)/python tests/bench/bench_relay.py --json build/bench.json
	$(BIN)/python tests/bench/bench_router.py --json build/bench.json
	$(BIN)/python tests/bench/bench_paths.py --json build/bench.json

# PYTHON=3.14 is for a router with another Python than that release has.
ipk apk: venv
	$(BIN)/python tools/packages/make_packages.py $@ $(if $(PYTHON),--python $(PYTHON))

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
	$(BIN)/python tools/luci_declared.py options > $(LUCI)/htdocs/luci-static/resources/cpe-mcp/declared.js
	$(BIN)/python tools/luci_declared.py reasons > $(LUCI)/htdocs/luci-static/resources/cpe-mcp/reasons.js
	$(BIN)/python tools/luci_declared.py selftest > $(LUCI)/htdocs/luci-static/resources/cpe-mcp/selftest.js
	$(BIN)/python tools/luci_pot.py > $(LUCI)/po/templates/cpe-mcp.pot

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

packages:
	@tools/debian-packages $(PACKAGES) $(PYTHON_PACKAGES)

venv:
	@tools/debian-packages $(PYTHON_PACKAGES)
	@tools/venv $(VENV)
