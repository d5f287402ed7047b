# `make demo` and `make test` are the whole set-up: each installs what it lacks into .venv.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is kept, whatever the environment says: the tests start hundreds of programs that import the package.
unexport PYTHONDONTWRITEBYTECODE
# What the extension module is built from: it is built anew when one of these changes.
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find src -name '*.rs')

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# Installs what uv.lock says, by names, versions and hashes: from whatever index or mirror uv is set up for here.
LOCKED_INSTALL = $(BIN)/uv export --quiet --frozen --no-emit-project $(1) \
	  | $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --python $(BIN)/python --requirements -

# The dependencies come first and alone: they change less often than the Rust sources.
$(VENV)/.dependencies: uv.lock | $(BIN)/uv
	$(call LOCKED_INSTALL,--all-extras)
	touch $@

$(VENV)/.extension: $(RUST_SOURCES) $(VENV)/.dependencies
	source $(BIN)/activate && maturin develop --quiet --release --uv
	touch $@

.PHONY: build
build: $(VENV)/.extension ## Build the package and install it into .venv

# Against the public index, whatever is set up here: the lock names no other.
LOCK := $(BIN)/uv lock --default-index https://pypi.org/simple
UPGRADE ?=

.PHONY: lock
lock: | $(BIN)/uv ## Bring uv.lock in line with pyproject.toml; UPGRADE=1 takes the newest releases
	$(LOCK) $(if $(UPGRADE),--upgrade)

.PHONY: demo
demo: build ## Run a CodeAgent on the local executor
	$(BIN)/python examples/local_agent.py

.PHONY: format
format: $(VENV)/.dependencies ## Format all sources
	cargo fmt
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: lint
lint: build ## Check format, lints and types
	+$(MAKE) --no-print-directory --jobs=2 lint-rust lint-python

.PHONY: lint-rust
lint-rust: build
	cargo fmt --check
	cargo clippy --quiet --all-targets --no-default-features -- -D warnings
	cargo clippy --quiet --all-targets -- -D warnings

.PHONY: lint-python
lint-python: build
	$(LOCK) --quiet --check --offline || { echo "uv.lock does not fit pyproject.toml: run make lock" >&2; exit 1; }
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml sandkernel._sandkernel

.PHONY: public-api
public-api: build ## Write down what the public sees of the package, which the tests compare with
	$(BIN)/python tests/python/public_api.py --write

.PHONY: test-rust
test-rust: $(VENV)/.dependencies ## Test the Rust core, without Python in it, against real gateways
	SANDKERNEL_TEST_PYTHON=$(abspath $(BIN)/python) cargo test --quiet --no-default-features

.PHONY: test-python
test-python: build ## Test the Python package against real gateways
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

.PHONY: test
test: lint test-rust test-python ## Lint, Rust tests, Python tests

$(VENV)/.bench: $(VENV)/.dependencies
	$(call LOCKED_INSTALL,--only-group bench)
	touch $@

.PHONY: bench
bench: build $(VENV)/.bench ## Measure beside the peers: writes benches/results, table and drawing
	$(BIN)/python benches/python/report.py

.PHONY: bench-quick
bench-quick: build $(VENV)/.bench ## See whether what measures works, in a few runs of each
	$(BIN)/python benches/python/report.py --quick --results $(or $(TMPDIR),/tmp)

.PHONY: bench-rust
bench-rust: ## Measure the codec and the fold
	cargo bench --no-default-features --bench codec --bench fold

FUZZ_SECONDS ?= 60

$(VENV)/.fuzz: $(VENV)/.dependencies
	$(call LOCKED_INSTALL,--only-group fuzz)
	touch $@

.PHONY: fuzz
fuzz: build $(VENV)/.fuzz ## Fuzz the codec, the fold and what reads answers, FUZZ_SECONDS (60) each
	cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
	for target in codec fold; do \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS); \
	done
	for program in fuzz_answers fuzz_replies; do \
	  $(BIN)/python tests/python/$$program.py --seconds $(FUZZ_SECONDS); \
	done

SOAK_SECONDS ?= 120

.PHONY: soak
soak: build ## Run code under random faults, SOAK_SECONDS (120), and count what is lost, doubled or left
	$(BIN)/python tests/python/soak.py --seconds $(SOAK_SECONDS)

.PHONY: floods
floods: build ## Run code that floods and attacks: what it takes of the host goes into docs/limits.md
	$(BIN)/python tests/python/floods.py
	$(BIN)/python tests/python/host_limits.py --write docs/limits.md

# Where the crate is built with counters in it, for the tests of both languages.
COVERAGE := export CARGO_TARGET_DIR=$(abspath target/coverage); eval "$$(cargo llvm-cov show-env --sh 2>/dev/null)";
TESTS ?=

.PHONY: coverage
coverage: build ## Measure which lines of src/ and of the package the tests run
	cargo llvm-cov --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-llvm-cov
	rustup component list --installed | grep --quiet llvm-tools || rustup component add llvm-tools
	$(COVERAGE) cargo llvm-cov clean --workspace
	$(COVERAGE) SANDKERNEL_TEST_PYTHON=$(abspath $(BIN)/python) cargo test --quiet --no-default-features
	# This extension is there in the place of the other one until the end.
	rm $(VENV)/.extension
	$(COVERAGE) source $(BIN)/activate; maturin develop --quiet --uv
	# A test that fails does not keep what the others ran from being reported.
	$(COVERAGE) failed=0; $(BIN)/coverage run -m pytest --timeout 600 $(TESTS) || failed=$$?; \
	cargo llvm-cov report --summary-only --ignore-filename-regex '(tests|benches)/'; \
	$(BIN)/coverage report; \
	exit $$failed
	$(MAKE) build

.PHONY: clean
clean: ## Remove what was built
	cargo clean
	rm -rf $(VENV)
