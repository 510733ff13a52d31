# Walview: `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# What `make demo` runs: make demo ARGS="betting --rate 500 --for 30s"
ARGS ?= betting

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/' | expand -t 12

.PHONY: setup
setup: ## Install what is missing: PostgreSQL, Redis, ClickHouse's engine and its clients, Docker Compose (once; needs root or sudo)
	scripts/setup

.PHONY: build
build: ## Build the programs in release mode
	cargo build --locked --release --workspace --bins

.PHONY: release
release: ## Build them fitted to what they do most: a tenth less CPU a change, twice the time
	scripts/profile-guided

.PHONY: demo
demo: build ## Run everything on this machine; ARGS="betting --rate 500 --for 30s"
	scripts/setup demo
	"$${CARGO_TARGET_DIR:-target}/release/walview" demo $(ARGS)

.PHONY: lint
lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings

# The programs first: the suite starts both as child processes.
.PHONY: test
test: setup lint ## Run the whole suite against real servers
	cargo build --locked --workspace --bins
	cargo test --locked --workspace

# How many expression/row pairs, and schemas with views; SEED=… takes a printed seed back.
PAIRS ?= 3000000
ROUNDS ?= 200

.PHONY: differential
differential: setup ## Random expressions and views against PostgreSQL: PAIRS=3000000; SEED=… repeats
	PAIRS=$(PAIRS) ROUNDS=$(ROUNDS) cargo test --locked --workspace --test oracle -- --nocapture

# The versions of PostgreSQL that are followed.
MATRIX ?= 14 15 16 17 18

.PHONY: test-matrix
test-matrix: setup ## The suites that depend on PostgreSQL's version, on each: MATRIX="14 15 16 17 18"
	cargo build --locked --workspace --bins
	scripts/matrix $(MATRIX)

# How long `make soak` goes on; SEED=… takes a printed seed back.
MINUTES ?= 60

.PHONY: soak
soak: setup ## Kill everything at random for MINUTES=60, compare everything; SEED=… repeats
	cargo build --locked --workspace --bins
	MINUTES=$(MINUTES) cargo test --locked --package walview --test suite -- \
	    --ignored --exact soak::soak --nocapture

# How many ALTERs `make storm` throws in.
ALTERS ?= 100

.PHONY: storm
storm: setup ## Alter the source at random among writes; ALTERS=100, SEED=… repeats
	cargo build --locked --workspace --bins
	ALTERS=$(ALTERS) cargo test --locked --package walview --test suite -- \
	    --ignored --exact storm::storm --nocapture

.PHONY: liveness
liveness: setup ## A frozen store under load, a busy neighbour: FREEZE_SECONDS=120 ROWS_PER_SECOND=2000 OTHER_MB=2000
	cargo build --locked --release --workspace --bins
	FREEZE_SECONDS=$(or $(FREEZE_SECONDS),120) ROWS_PER_SECOND=$(or $(ROWS_PER_SECOND),2000) \
	OTHER_MB=$(or $(OTHER_MB),2000) cargo test --locked --release --package walview --test suite -- \
	    liveness:: --nocapture --test-threads 1

.PHONY: crash-points
crash-points: setup ## Die at the first hits of every fail point, and at a later one
	cargo build --locked --workspace --bins
	cargo test --locked --package walview --test suite -- \
	    --ignored fail_points:: --nocapture --test-threads 1

.PHONY: clean
clean: ## Remove what was built
	cargo clean
