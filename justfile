# The gate and its parts. `just check` is what CI runs.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Everything that must pass before a change lands.
check: format lint licences docs test shared-cache neon instruction-counts slow reports server

# Formatting of Rust and TOML, spelling.
format:
    cargo fmt --all --check
    taplo fmt --check
    typos

# Clippy, pedantic, with the allow-list of Cargo.toml.
lint:
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# Licences, duplicate versions and sources of the dependencies.
licences:
    CARGO="$PWD/.ci/cargo-metadata" cargo-deny --log-level error check licenses bans sources

# Documentation without warnings.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

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
    cargo test --workspace --test slow -- --nocapture --test-threads 1

# The reports in a real browser, light and dark, wide and narrow; installs chromium.
reports *options="--if-possible":
    python3 scripts/report_in_browser.py --binary target/debug/topshelf {{options}}

# The server: nonsense and overload, the page in a real browser, existing clients, its own description.
server *options="--if-possible":
    python3 scripts/server_robustness.py --binary target/debug/topshelf
    node scripts/server_in_browser.mjs --binary target/debug/topshelf {{options}}
    python3 scripts/sdk_clients.py --binary target/debug/topshelf {{options}}
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
