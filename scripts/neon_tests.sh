#!/usr/bin/env bash
# The tests of topshelf-kernels on aarch64, on any Linux machine: built for aarch64 and run in QEMU,
# or as they are where the machine is an aarch64 one.
#
#     scripts/neon_tests.sh [--if-possible]
#
# They run three times: with portable code; with NEON on a CPU that has everything QEMU knows
# (`sdot` among it); and with NEON on a Cortex-A72, which has nothing beyond Armv8.0. On an aarch64
# machine, twice: portable code, and the NEON of that machine.
#
# Needed: Rust's standard library for aarch64, a C compiler to link with, QEMU's user emulation.
# What is missing is installed: the library with rustup, or else a whole rustc, with its libraries
# for both architectures, from Debian's packages unpacked into target/neon/debian; the other two
# with apt-get, by root.
#
# Ends with `N passed, N failed`, and status 1 where a test failed. Where a tool is missing and
# can't be installed, says which and why, and ends with status 2; with --if-possible, 0.
set -euo pipefail
cd "$(dirname "$0")/.."

if_possible=0
case "${1-}" in
    '') ;;
    --if-possible) if_possible=1 ;;
    *) echo "usage: $0 [--if-possible]" >&2; exit 64 ;;
esac

triple=aarch64-unknown-linux-gnu
: "${CARGO_TARGET_DIR:=target/neon}"
export CARGO_TARGET_DIR
debian="$PWD/target/neon/debian"
log=target/neon/install.log
mkdir -p target/neon
: >"$log"

# Ends the script: $1 is missing, because of $2. What the installers said goes along.
missing() {
    {
        tail -n 5 "$log"
        echo "#### NEON TESTS NOT RUN: no $1 ($2); all of it is in $log"
    } >&2
    [ "$if_possible" = 1 ] && exit 0
    exit 2
}

have() { command -v "$1" >/dev/null; }

# Installs Debian packages.
install() {
    have apt-get && [ "$(id -u)" = 0 ] || return 1
    echo "installing $*"
    {
        apt-get -q -o DPkg::Lock::Timeout=120 update || true # a third party's list may fail
        DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
            install --no-install-recommends "$@"
    } >>"$log" 2>&1
}

# apt-get or apt-cache for amd64 and arm64, with lists of its own: the system's stay as they are.
apt_for_both() {
    local tool=$1
    shift
    "$tool" -q -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 \
        -o Dir::State::lists="$debian/lists" -o Dir::Cache="$debian/cache" \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

# Unpacks Debian's newest rustc, with its standard libraries for amd64 and arm64.
unpack_rustc() {
    have apt-get && have dpkg-deb && [ "$(uname -m)" = x86_64 ] || return 1
    if [ ! -x "$debian/rustc" ]; then
        mkdir -p "$debian"/{lists/partial,cache/archives/partial,debs,root}
        apt_for_both apt-get update || true
        local library llvm
        library=$(depends_on libstd-rust-web-dev libstd-rust)
        llvm=$(depends_on "$library" libllvm)
        (
            cd "$debian/debs"
            apt_for_both apt-get download rustc-web libstd-rust-web-dev \
                libstd-rust-web-dev:arm64 "$library" "$llvm"
        ) || return 1
        local package
        for package in "$debian"/debs/*.deb; do
            dpkg-deb --extract "$package" "$debian/root" || return 1
        done
        local lib="$debian/root/usr/lib"
        cat >"$debian/rustc" <<END
#!/bin/sh
export LD_LIBRARY_PATH="$lib/x86_64-linux-gnu:$lib:$(echo "$lib"/llvm-*/lib)"
exec "$debian/root/usr/bin/rustc" --sysroot "$debian/root/usr" "\$@"
END
        chmod +x "$debian/rustc"
        rm -r "$debian"/{lists,cache,debs}
    fi
    export RUSTC="$debian/rustc"
    has_library
}

# The package whose name begins with $2 that package $1 depends on.
depends_on() {
    apt_for_both apt-cache depends "$1" | sed -n "s/^ *Depends: \($2.*\)/\1/p" | head -n 1
}

# Whether rustc compiles for aarch64.
has_library() {
    echo 'pub fn nothing() {}' |
        "${RUSTC:-rustc}" --target "$triple" --crate-type lib --crate-name probe \
            -o target/neon/libprobe.rlib - >>"$log" 2>&1
}

test_command=(cargo test --release --locked --package topshelf-kernels --lib --test it)
if [ "$(uname -m)" = aarch64 ]; then
    cpus=('')
else
    has_library ||
        { have rustup && timeout 60 rustup target add "$triple" >>"$log" 2>&1 && has_library; } ||
        { echo "taking Debian's rustc" && unpack_rustc >>"$log" 2>&1; } ||
        missing "standard library for $triple" "neither rustup nor Debian's rustc-web gave one"

    linker=aarch64-linux-gnu-gcc
    have "$linker" || install gcc-aarch64-linux-gnu libc6-dev-arm64-cross || true
    have "$linker" || missing "$linker" "install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
    # Static, so that QEMU needs no aarch64 libraries.
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"

    find_qemu() { command -v qemu-aarch64-static || command -v qemu-aarch64; }
    find_qemu >/dev/null || install qemu-user-static || install qemu-user || true
    qemu=$(find_qemu) || missing qemu-aarch64 "install qemu-user-static"

    test_command+=(--target "$triple")
    cpus=(max cortex-a72)
fi

failed=0
results=target/neon/results.log
: >"$results"
# $1: the instruction set; $2: the CPU that QEMU is to be.
run() {
    echo "== $1${2:+ on $2}"
    if [ -n "$2" ]; then
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -cpu $2"
    fi
    TOPSHELF_ISA=$1 "${test_command[@]}" 2>&1 | tee -a "$results" || failed=1
}

run portable "${cpus[0]}"
for cpu in "${cpus[@]}"; do
    run neon "$cpu"
done
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$results"
exit "$failed"
