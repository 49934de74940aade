#!/usr/bin/env bash
# Installs what the checks of the gate need beyond Rust and Python, all at once and ahead of them: Debian
# packages (by root, where apt-get is), and the packages of the Python and Node checks in environments of
# their own under target/.
#
#     scripts/install_tools.sh
#
# Each check also installs what it lacks, and says so where it can't: nothing here has to succeed.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target

wanted=()
need() { command -v "$1" >/dev/null || wanted+=("${@:2}"); }
need redis-server redis-server
need valgrind valgrind
need chromium chromium
if [ "$(uname -m)" = x86_64 ]; then
    need qemu-aarch64-static qemu-user-static
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
fi
if [ "${#wanted[@]}" -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing ${wanted[*]}"
    lock=(-q -o DPkg::Lock::Timeout=120)
    {
        apt-get "${lock[@]}" update
        # One after the other, so that one that is missing does not take the others with it.
        DEBIAN_FRONTEND=noninteractive apt-get "${lock[@]}" -y install --no-install-recommends "${wanted[@]}" ||
            for package in "${wanted[@]}"; do
                DEBIAN_FRONTEND=noninteractive apt-get "${lock[@]}" -y install --no-install-recommends "$package"
            done
    } >target/install-tools.log 2>&1 || tail -n 3 target/install-tools.log
fi
python3 scripts/sdk_clients.py --install --if-possible
python3 scripts/server_openapi.py --install --if-possible
node scripts/server_in_browser.mjs --install --if-possible
exit 0
