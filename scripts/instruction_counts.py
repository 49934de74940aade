#!/usr/bin/env python3
"""Counts the instructions of each kernel and compares them with those on record.

    python3 scripts/instruction_counts.py [--record] [--if-possible]

Time on a shared machine wavers by a factor; the number of instructions does not. Each kernel of
crates/topshelf-kernels/examples/work.rs runs once and three times under valgrind's callgrind, with
AVX2, the widest set that valgrind knows; half the difference is one run of it. A kernel that needs
over 5 percent more than the record says fails, with status 1; one that needs over 5 percent less is
named, so that the record follows (--record writes it). The record names the compiler: with another
one the figures are shown, but nothing fails.

Only on x86-64. valgrind is installed with apt-get where that is possible; where it is missing, or
the machine has no AVX2, the script says so and ends with status 2, with --if-possible 0.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "crates/topshelf-kernels/benches/instruction_counts.json"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "release/examples/work"
ISA = "avx2"
TOLERANCE = 0.05


def main():
    """Status 0, 1 where a kernel has grown, 2 where nothing could be counted."""
    unknown = set(sys.argv[1:]) - {"--record", "--if-possible"}
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}\n\n{__doc__}")
    missing = what_is_missing()
    if missing:
        print(f"#### INSTRUCTIONS NOT COUNTED: {missing}", file=sys.stderr)
        return 0 if "--if-possible" in sys.argv else 2
    build = ["cargo", "build", "--release", "--locked", "-p", "topshelf-kernels"]
    subprocess.run([*build, "--example", "work"], cwd=ROOT, check=True)
    names = subprocess.run([WORK], check=True, capture_output=True, text=True).stdout.split()
    counts = {}
    for name in names:
        counts[name] = (instructions(name, 3) - instructions(name, 1)) // 2
        print(f"counted {name}", file=sys.stderr)
    now = {"compiler": compiler(), "isa": ISA, "instructions": counts}
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")
        print(f"recorded in {RECORD.relative_to(ROOT)}")
        return 0
    return compare(now, json.loads(RECORD.read_text()))


def what_is_missing():
    """Why instructions can't be counted here, if so."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "this is not Linux on x86-64"
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        return "this CPU has no AVX2"
    if not shutil.which("valgrind") and shutil.which("apt-get") and os.geteuid() == 0:
        print("installing valgrind", file=sys.stderr)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "-q", "update"], check=False, **quiet)
        install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", "valgrind"]
        subprocess.run(install, check=False, **quiet)
    if not shutil.which("valgrind"):
        return "no valgrind; install it with the system's package manager"
    return None


def instructions(name, times):
    """Instructions of the whole process that runs a kernel so often."""
    callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    environment = {**os.environ, "TOPSHELF_ISA": ISA}
    ran = subprocess.run(
        [*callgrind, WORK, name, str(times)], capture_output=True, text=True, env=environment
    )
    collected = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or not collected:
        sys.exit(f"{name} under callgrind: status {ran.returncode}\n{ran.stderr}")
    return int(collected[1])


def compiler():
    """Release and commit of rustc."""
    told = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def compare(now, record):
    """Prints the table; 1 where a kernel needs clearly more than the record says."""
    same = now["compiler"] == record["compiler"]
    grown = 0
    print(f"{'kernel':18}{'recorded':>12}{'now':>12}{'change':>9}")
    for name, count in now["instructions"].items():
        before = record["instructions"].get(name)
        if before is None:
            print(f"{name:18}{'-':>12}{count:>12}  new: record it with --record")
            grown += 1
            continue
        change = count / before - 1
        note = ""
        if change > TOLERANCE:
            note, grown = "  more than recorded", grown + 1
        elif change < -TOLERANCE:
            note = "  less than recorded: --record"
        print(f"{name:18}{before:>12}{count:>12}{change:>+9.1%}{note}")
    gone = set(record["instructions"]) - set(now["instructions"])
    for name in sorted(gone):
        print(f"{name}: on record, but no kernel is called so; --record")
    if grown and not same:
        print(f"recorded with {record['compiler']}, this is {now['compiler']}: not held against it")
        return 0
    return 1 if grown or gone else 0


if __name__ == "__main__":
    sys.exit(main())
