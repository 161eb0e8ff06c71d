# `make` alone prints what there is. Needed: Rust (see rust-version in Cargo.toml), gcc and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps build-deps build dist demo test test-web sim bench bench-deps fuzz lint clean need-rust python

CARGO ?= cargo
# `--no-default-features` leaves etcd out of the control plane: then protoc is not needed to compile.
CARGO_FEATURES ?=
KEEP ?=
FUZZ_SECONDS ?= 60
FUZZED := $(patsubst %/fuzz/Cargo.toml,%,$(wildcard */fuzz/Cargo.toml))
BENCH ?=
SEEDS ?= 1000
FIRST ?= 1

help: ## This list
	@echo "Pilotfish: a sidecar for AI agents. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

deps: ## Install protoc and etcd (apt-get, as root), which compiling and testing the store on etcd take
	@CARGO_FEATURES="$(CARGO_FEATURES)" .ci/deps

build: need-rust build-deps ## Release binaries: target/release/pilotfish-proxy and target/release/pilotfish
	@echo "build: compiling release binaries (a few minutes the first time)"
	$(CARGO) build --release -p pilotfish-proxy
	$(CARGO) build --release -p pilotfish $(CARGO_FEATURES)

dist: build ## What is installed: stripped binaries, a .deb, completions, manual pages, checksums, in dist/
	@command -v dpkg-deb >/dev/null || { echo "dpkg-deb is missing: apt-get install dpkg"; exit 1; }
	@deploy/dist

demo: need-rust build-deps ## Control plane, agents, their sidecars, traffic, tables; KEEP=1 leaves it running
	@echo "demo: compiling the control plane, the sidecar and the agents (some minutes the first time, then seconds)"
	@$(CARGO) build --profile demo -p pilotfish-proxy -p pilotfish -p pilotfish-demo $(CARGO_FEATURES)
	@KEEP=$(KEEP) target/demo/demo

test: need-rust python deps ## Every test
	@echo "test: compiling (a few minutes the first time)"
	@$(CARGO) build --workspace --bins
	@echo "test: running all tests"
	@$(CARGO) test --workspace --no-fail-fast
	@echo "test: all tests passed"

test-web: need-rust build-deps ## The page in Chromium, beside a real mesh; installs chromium and playwright-core if missing
	@.ci/web-deps
	@echo "test-web: compiling"
	@$(CARGO) build -q -p pilotfish -p pilotfish-proxy --bins
	@cd control/tests/web && timeout 300 node --test --test-reporter=spec pure.test.mjs page.test.mjs
	@echo "test-web: passed"

sim: need-rust ## A small mesh on a simulated network: SEEDS (1000) of them from FIRST (1), each run twice
	@$(CARGO) run -q --profile demo -p pilotfish-sim -- --seeds $(SEEDS) --first $(FIRST)

lint: need-rust build-deps ## Format and clippy, warnings are errors; crate arrows if cargo-deny is there
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --offline check bans; \
	else echo "lint: cargo-deny is not here, so deny.toml was not checked (cargo install cargo-deny)"; fi

bench-deps: need-rust ## Install the proxies that `make bench` compares with
	@bench/deps

bench: need-rust build-deps ## Measure pilotfish-proxy and its rivals side by side, about 20 minutes
	@BENCH="$(BENCH)" bench/run

fuzz: need-rust ## Fuzz each parser of outside bytes for FUZZ_SECONDS (60) under libFuzzer
	@if ! $(CARGO) fuzz --version >/dev/null 2>&1; then \
	echo "fuzz: needs cargo-fuzz (cargo install cargo-fuzz) and g++; 'make test' fuzzes 2 s each without them"; exit 1; fi
	@for crate in $(FUZZED); do for target in $$(cd $$crate && $(CARGO) fuzz list); do \
	echo "fuzz: $$crate $$target, $(FUZZ_SECONDS) s"; \
	found=$(CURDIR)/target/fuzz/found/$$crate/$$target; mkdir -p $$found; \
	(cd $$crate && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none --target-dir $(CURDIR)/target/fuzz $$target \
	$$found $(CURDIR)/$$crate/fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 2>&1 | { grep -vE '# Uses|ecommended dictionary' || true; }); done; done

clean: ## Remove everything that was built
	$(CARGO) clean

build-deps:
	@CARGO_FEATURES="$(CARGO_FEATURES)" .ci/deps build

need-rust:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: see https://rustup.rs, or set CARGO=/path/to/cargo"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: apt-get install gcc libc6-dev"; exit 1; }

# The tests that talk gRPC and WebSocket through the sidecar use Python clients, in target/pyvenv, which they make
# themselves from PyPI. As root on Debian this installs what that takes; otherwise it says what is missing.
python:
	@if python3 -c 'import ensurepip, venv' 2>/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "test: installing python3-venv (apt-get) for the gRPC and WebSocket clients"; \
	apt-get install -qq -y python3-venv >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null; }; \
	else echo "test: python3-venv is missing: the tests with gRPC and WebSocket clients will be skipped (apt-get install python3-venv)"; fi
