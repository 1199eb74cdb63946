# What the README and .ci/run call. Everything else is plain cargo and npm.

.PHONY: run release test browser-test contract-test simulation program web bench cost audit autobahn fuzz format

# Builds, starts the hub on http://127.0.0.1:8080/ with its database in data/, and prints the address. The hub is
# hardly optimized, so that it is built sooner; what is deployed is made by release.
run: web
	cargo run --locked

# The program to deploy: optimized, with the pages and jemalloc, at target/release/breathing-room.
release: web
	cargo build --release --locked --features jemalloc

# The pages and the client library, as the hub takes them in; built anew where something has changed, since the hub
# is then built anew too.
web: web/app/dist/index.html

web/app/dist/index.html: web/node_modules/.package-lock.json $(shell find web/app web/client -type f -not -path '*/dist/*')
	cd web && npm run build

# What npm writes last: it is older than the lock file where something has to be installed.
web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci

# Formatting, types, lints, all tests, and the documentation, each without a warning. The tests of the hub wait more than
# they work: eight at once take less than half of the time.
test: web
	cd web && npm run check
	cd web && npm test
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- --deny warnings
	RUST_TEST_THREADS=8 cargo test --locked --lib --bins --examples --test hub
	cargo test --locked --doc
	$(MAKE) simulation
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps
	$(MAKE) contract-test
	$(MAKE) browser-test

# Thousands of random stories of the whole hub, within a minute; optimized, which makes them twice as fast. More of
# them: make simulation SEEDS=100000
SEEDS = 2000
simulation:
	SEEDS=$(SEEDS) cargo test --locked --config profile.dev.package.breathing-room.opt-level=1 --test simulation

# The program that the browser and the contract test start: that of the hub's tests, since in a plain build the
# dependencies have other features and would be built once more.
program:
	cargo test --locked --test hub --no-run

# Real people in a real Chromium, which CHROMIUM names, or which is found or, by root on Debian, installed.
# A part of it: make browser-test ARGS=rooms
browser-test: program
	cd web && npx vitest run --config tests/vitest.config.ts $(ARGS)

# Whatever /openapi.json says that may be asked, asked of a real hub, good and bad. Python is found or, by root on
# Debian, installed. With other requests: make contract-test SEED=2
contract-test: web program
	tests/contract/run $(ARGS)

# What the hub takes, as one table beside the floor, in under five minutes; needs 20,000 open files.
# A part of it: make bench ARGS='--only fan-out,churn --quick'. How it grows: make bench ARGS=--grow.
bench: web
	cargo bench --locked --features jemalloc --bench load -- $(ARGS)

# What it costs to run, measured anew into docs/cost.md, in under five minutes.
cost: web
	cargo bench --locked --features jemalloc --bench load -- --cost > docs/cost.md.new
	mv docs/cost.md.new docs/cost.md
	cat docs/cost.md

# Licences, sources, duplicate versions and known vulnerabilities of all dependencies: see deny.toml. The last ones
# come from a database that has to be fetched; where that cannot be reached, the rest is held all the same.
audit:
	cargo deny --version || cargo install --locked cargo-deny
	cargo deny --locked check --deny warnings licenses sources bans
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny --locked check advisories; \
	else echo "advisories were not checked: their database cannot be reached"; fi

# Autobahn's WebSocket test suite against the echo example, in about ten minutes; needs Python 2.7.
autobahn:
	tests/autobahn/run

# Bytes of a fuzzer's making for one part that takes bytes from outside; fuzz/README.md has the list.
TARGET = message
SECONDS = 600
fuzz:
	cargo fuzz --version || cargo install --locked cargo-fuzz
	mkdir -p fuzz/corpus/$(TARGET)
	RUSTC_BOOTSTRAP=1 cargo fuzz run $(TARGET) fuzz/corpus/$(TARGET) fuzz/seeds/$(TARGET) -- \
		-dict=fuzz/dictionary -max_total_time=$(SECONDS)

format:
	cargo fmt --all
