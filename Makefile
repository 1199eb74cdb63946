# The commands of the README and .ci/run. Everything else is plain cargo and npm.

.PHONY: run cluster release test browser-test contract-test cluster-test test-deploy test-readme simulation program web bench cost \
	audit autobahn fuzz format

# Builds the hub, starts it on http://127.0.0.1:8080/ with its database in data/, and prints the address. The build is
# hardly optimized, so it is faster; use `make release` to deploy.
run: web
	cargo run --locked

# Three NATS servers and three hubs on this machine, until Ctrl-C: prints three addresses that have the same rooms.
cluster: web
	cargo build --locked --features cluster
	examples/cluster/run

# The program to deploy: optimized, with the pages, presence over several nodes and jemalloc, at
# target/release/breathing-room.
release: web
	cargo build --release --locked --features cluster,jemalloc

# The pages and the client library, which the hub embeds. They are built only if something has changed, because the hub
# is then rebuilt too.
web: web/app/dist/index.html

web/app/dist/index.html: web/node_modules/.package-lock.json $(shell find web/app web/client -type f -not -path '*/dist/*')
	cd web && npm run build

# The last file that npm writes. If it is older than the lock file, npm has to install something.
web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci

# Formatting, types, lints, all tests, and the documentation, each without a warning; prints how long each stage took.
test:
	tests/run

# Thousands of random simulations of the whole hub, in two to three minutes. They are optimized, which makes them twice as fast.
# `make test` runs the first hundreds, unoptimized. For more: make simulation SEEDS=100000
SEEDS = 2000
simulation:
	SEEDS=$(SEEDS) cargo test --locked --config profile.dev.package.breathing-room.opt-level=1 --test simulation

# The program that the browser and contract tests start. It is built with the hub's tests, because a plain build has
# other features of dependencies and would build them again.
program:
	cargo test --locked --test hub --no-run

# The pages in a real Chromium: the one that CHROMIUM names or the one that is installed. As root on Debian, the tests
# install it if it is missing. To run some of the tests: make browser-test ARGS=rooms
browser-test: program
	cd web && npx vitest run --config tests/vitest.config.ts $(ARGS)

# Sends valid and invalid requests, generated from /openapi.json, to a real hub. As root on Debian, it installs Python
# if it is missing. For other requests: make contract-test SEED=2
contract-test: web program
	tests/contract/run $(ARGS)

# The scenarios of a cluster in their long form, with a table of the figures, in about half an hour. The short forms are
# part of `make test`. Some of the scenarios: make cluster-test ARGS=split,far
cluster-test: web
	tests/cluster/run --long $(ARGS)

# Tests the files in deploy/: alerts with promtool, the systemd unit, and nginx and Caddy in front of a hub. On Debian, it
# fetches what is missing.
test-deploy: web program
	tests/deploy/run

# Follows README.md word by word in a clone of the last commit: its commands, and its snippets in Chromium. COLD=1 starts
# with nothing built or downloaded, and so measures the first `make run`.
test-readme:
	node tests/readme/run.mjs

# A benchmark builds the hub with the features that its own dependencies turn on, so it has a folder of its own: what
# target/release has is what `make release` has built.
BENCH = cargo bench --locked --target-dir target/bench --features cluster,jemalloc --bench load --

# Measures the hub beside the floor, as one table, in under five minutes; needs 20,000 open files.
# Some scenarios: make bench ARGS='--only fan-out,churn --quick'. Growth: make bench ARGS=--grow.
# Three hubs that NATS connects: make bench ARGS=--cluster
# Beside small hubs on Node.js and on Bun, from npm, in under 15 minutes: make bench ARGS=--peers
bench: web $(if $(findstring --peers,$(ARGS)),benches/peers/node_modules/.package-lock.json)
	$(BENCH) $(ARGS)

benches/peers/node_modules/.package-lock.json: benches/peers/package-lock.json
	cd benches/peers && npm ci

# Measures the cost of running the hub and writes docs/cost.md, in under five minutes.
cost: web
	$(BENCH) --cost > docs/cost.md.new
	mv docs/cost.md.new docs/cost.md
	cat docs/cost.md

# Licences, sources, duplicate versions and known vulnerabilities of all dependencies: see deny.toml. Vulnerabilities
# need a database from the network; if it cannot be reached, the other checks still run.
audit:
	cargo deny --version || cargo install --locked cargo-deny
	cargo deny --locked check --deny warnings licenses sources bans
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny --locked check advisories; \
	else echo "advisories were not checked: their database cannot be reached"; fi

# Autobahn's WebSocket test suite against the echo example, in about ten minutes; needs Python 2.7.
autobahn:
	tests/autobahn/run

# Fuzzes one of the parts that parse external input; fuzz/README.md lists them.
TARGET = message
SECONDS = 600
fuzz:
	cargo fuzz --version || cargo install --locked cargo-fuzz
	mkdir -p fuzz/corpus/$(TARGET)
	RUSTC_BOOTSTRAP=1 cargo fuzz run $(TARGET) fuzz/corpus/$(TARGET) fuzz/seeds/$(TARGET) -- \
		-dict=fuzz/dictionary -max_total_time=$(SECONDS)

format:
	cargo fmt --all
