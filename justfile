# The gate and its parts. `just check` is what CI runs.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Everything that must pass before a change lands, with a table of what each part took; `just check --list`
# names the parts, `just check lint docs` runs some of them.
check *options:
    python3 scripts/gate.py {{options}}

# For the daily loop: formatting, clippy, unit tests.
check-fast: format lint
    cargo test --workspace --locked --lib --bins

# Formatting of Rust and TOML, spelling.
format:
    cargo fmt --all --check
    taplo fmt --check
    typos

# What the checks below need beyond Rust and Python, all at once.
tools:
    scripts/install_tools.sh

# All code and all tests. Always the whole workspace: `-p` resolves other features, and compiles everything again.
build:
    cargo test --workspace --locked --no-run
    cargo test --workspace --locked --no-run --test slow --test shared

# Clippy, pedantic, with the allow-list of Cargo.toml: everything with its tests, and the program as it is shipped.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --locked -- -D warnings

# Licences, duplicate versions and sources of the dependencies.
licences:
    CARGO="$PWD/.ci/cargo-metadata" cargo-deny --log-level error check licenses bans sources

# Documentation without warnings.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --all-features

# The README's test command.
test:
    cargo test --workspace

# The kernels' tests on aarch64, in QEMU; installs what that needs.
neon:
    scripts/neon_tests.sh --if-possible

# The shared tier of the score cache with real servers, single and in a cluster; installs them.
shared-cache *options="--if-possible":
    scripts/shared_cache_tests.sh {{options}}

# Instructions of each kernel against those on record; installs valgrind. `--record` writes it.
instruction-counts *options="--if-possible":
    python3 scripts/instruction_counts.py {{options}}

# The slow group: effectiveness on ../shared/data where that folder is, and the demo.
slow:
    cargo test --workspace --locked --test slow -- --nocapture --test-threads 1

# The reports and the server's page in a real browser, light and dark, wide and narrow; installs chromium.
browser *options="--if-possible":
    python3 scripts/report_in_browser.py --binary target/debug/topshelf {{options}}
    node scripts/server_in_browser.mjs --binary target/debug/topshelf {{options}}

# The server under nonsense, overload, broken connections; its end.
robustness *options:
    python3 scripts/server_robustness.py --binary target/debug/topshelf {{options}}

# The server as existing clients use it: vendors' SDKs and frameworks; installs them.
clients *options="--if-possible":
    python3 scripts/sdk_clients.py --binary target/debug/topshelf {{options}}

# The server against its own description; installs schemathesis.
openapi *options="--if-possible":
    python3 scripts/server_openapi.py --binary target/debug/topshelf {{options}}

# The server under load, beside its peers; options go through: `just load clients --quick`.
load *options:
    python3 bench/serve/load.py {{options}}

# Formats what `format` checks.
fix:
    cargo fmt --all
    taplo fmt

# Topshelf and its peers on this machine; options go through: `just compare --quick`.
compare *options:
    python3 bench/compare/compare.py {{options}}

# Late interaction here, in next-plaid and in PyLate on the same vectors: `just compare-late --quick`.
compare-late *options:
    python3 bench/late_interaction/compare.py {{options}}
