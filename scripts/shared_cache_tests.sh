#!/usr/bin/env bash
# The shared tier of the score cache against real servers: one, and a cluster of six.
#
#     scripts/shared_cache_tests.sh [--if-possible]
#
# Needed: redis-server and redis-cli. Where they are missing they are installed with apt-get, by root.
# Where that can't be done, says so and ends with status 2; with --if-possible, 0.
set -euo pipefail
cd "$(dirname "$0")/.."

if_possible=0
case "${1-}" in
    '') ;;
    --if-possible) if_possible=1 ;;
    *) echo "usage: $0 [--if-possible]" >&2; exit 64 ;;
esac

have() { command -v redis-server >/dev/null && command -v redis-cli >/dev/null; }

log=target/shared-cache.log
mkdir -p target
if ! have && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing redis-server"
    {
        apt-get -q -o DPkg::Lock::Timeout=120 update || true # a third party's list may fail
        DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
            install --no-install-recommends redis-server
    } >"$log" 2>&1 || true # what is missing is said below
fi
if ! have; then
    [ ! -s "$log" ] || tail -n 5 "$log" >&2
    echo "#### SHARED CACHE TESTS NOT RUN: no redis-server, and it can't be installed" >&2
    [ "$if_possible" = 1 ] && exit 0
    exit 2
fi
# The whole workspace is named, so that its features are those of every other build.
exec cargo test --workspace --locked --test shared
