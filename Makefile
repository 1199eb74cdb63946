# What the README and .ci/run call. Everything else is plain cargo.

.PHONY: run test format

# Builds, starts the hub on http://127.0.0.1:8080/ with its database in data/, and prints the address.
run:
	cargo run --release --locked

# Formatting, lints, all tests, and the documentation, each without a warning.
test:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- --deny warnings
	cargo test --locked
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps

format:
	cargo fmt --all
