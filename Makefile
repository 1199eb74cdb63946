# What the README and .ci/run call. Everything else is plain cargo.

.PHONY: run test bench cost format

# Builds, starts the hub on http://127.0.0.1:8080/ with its database in data/, and prints the address.
run:
	cargo run --release --locked

# Formatting, lints, all tests, and the documentation, each without a warning.
test:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- --deny warnings
	cargo test --locked
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps

# What the hub takes, as one table beside the floor, in under five minutes; needs 20,000 open files.
# A part of it: make bench ARGS='--only fan-out,churn --quick'. How it grows: make bench ARGS=--grow.
bench:
	cargo bench --locked --bench load -- $(ARGS)

# What it costs to run, measured anew into docs/cost.md, in under five minutes.
cost:
	cargo bench --locked --bench load -- --cost > docs/cost.md.new
	mv docs/cost.md.new docs/cost.md
	cat docs/cost.md

format:
	cargo fmt --all
