#!/usr/bin/env python3
"""The gate: every check of the project, each a recipe of the justfile, and a table of what each took.

    scripts/gate.py [--keep-going] [--list] [PART ...]

Parts that measure time run alone. The others run side by side, two at once, in the order of the table
below; a part starts when the parts that it needs have ended. What a part prints is kept in
target/gate/PART.log and shown when the part ends, so that two parts never mix their lines; every minute
a line says what is running. When a part fails, the parts that are running are stopped, the rest is not
started, and the status is 1; with --keep-going everything runs.

With names of parts, only these run, without what they need.

Needed: Python's standard library, and `just` on the PATH.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "target" / "gate"
SIDE_BY_SIDE = 2
# Seconds between two lines that say what is running.
STILL_RUNNING = 60
# Seconds that a part may take: an end to every wait, well above what any part takes on a slow machine.
LIMIT = 45 * 60


@dataclass
class Part:
    """A recipe of the justfile."""

    name: str
    needs: tuple = ()
    # Whether it measures time, so that nothing may run beside it.
    alone: bool = False
    # A background part: it yields the processor to the others.
    nice: int = 0
    process: subprocess.Popen | None = field(default=None, repr=False)
    started: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    status: str = "not run"


PARTS = [
    Part("format"),
    # Installs what the later parts need; waits for the network most of the time.
    Part("tools", nice=5),
    Part("build", needs=("format",)),
    Part("neon", needs=("tools",), nice=10),
    Part("lint", needs=("build",)),
    Part("docs", needs=("lint",)),
    Part("licences", needs=("lint",)),
    Part("instruction-counts", needs=("tools",), nice=10),
    Part("test", needs=("build",)),
    Part("shared-cache", needs=("test", "tools")),
    # These ask a server or look at pages, and none of them looks at the clock.
    Part("clients", needs=("test", "tools")),
    Part("openapi", needs=("test", "tools")),
    Part("browser", needs=("test", "tools")),
    Part("robustness", needs=("test",), alone=True),
    Part("slow", needs=("test",), alone=True),
]


def main():
    options = arguments()
    parts = PARTS
    if options.list:
        print("\n".join(part.name for part in parts))
        return 0
    if options.parts:
        parts = [part for part in PARTS if part.name in options.parts]
        for part in parts:
            part.needs = ()
    LOGS.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        failed = run(parts, options.keep_going)
    except KeyboardInterrupt:
        stop(parts)
        failed = True
    print(table(parts, time.monotonic() - start), flush=True)
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--keep-going", action="store_true", help="run the other parts after a failure")
    parser.add_argument("--list", action="store_true", help="print the names of the parts")
    parser.add_argument("parts", nargs="*", metavar="PART", help="run these alone")
    options = parser.parse_args()
    if unknown := set(options.parts) - {part.name for part in PARTS}:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; --list names them")
    return options


def run(parts, keep_going):
    """Whether a part failed."""
    failed, said = False, time.monotonic()
    while True:
        running = [part for part in parts if part.process]
        for part in running:
            if ended(part):
                show(part)
                failed |= part.status != "passed"
        if failed and not keep_going:
            stop(parts)
            return True
        running = [part for part in parts if part.process]
        waiting = [part for part in parts if part.status == "not run"]
        if not running and not waiting:
            return failed
        if part := next_part(waiting, running, parts):
            begin(part)
            continue
        if time.monotonic() - said > STILL_RUNNING:
            said = time.monotonic()
            print("running:", ", ".join(f"{p.name} ({said - p.started:.0f} s)" for p in running), flush=True)
        time.sleep(0.2)


def next_part(waiting, running, parts):
    """The part to start now, if any."""
    if len(running) >= SIDE_BY_SIDE or any(part.alone for part in running):
        return None
    over = {part.name for part in parts if part.status not in ("not run", "running")}
    ready = [part for part in waiting if over.issuperset(part.needs)]
    shared = [part for part in ready if not part.alone]
    if shared:
        return shared[0]
    return ready[0] if ready and not running else None


def begin(part):
    part.status, part.started = "running", time.monotonic()
    print(f"== {part.name}", flush=True)
    with open(LOGS / f"{part.name}.log", "wb") as log:
        part.process = subprocess.Popen(
            ["nice", "-n", str(part.nice), "just", part.name],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ended(part):
    """Whether the part has ended; if so, with what and in which time."""
    pid, status, usage = os.wait4(part.process.pid, os.WNOHANG)
    part.seconds = time.monotonic() - part.started
    if pid == 0:
        if part.seconds < LIMIT:
            return False
        end(part)
        _, status, usage = os.wait4(part.process.pid, 0)
        status = "out of time"
    part.cpu = usage.ru_utime + usage.ru_stime
    part.process = None
    if isinstance(status, int):
        code = os.waitstatus_to_exitcode(status)
        status = "passed" if code == 0 else f"failed ({code})"
    part.status = status
    return True


def end(part):
    """Ends a part with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(part.process.pid, number)
        except ProcessLookupError:
            return
        time.sleep(2)


def stop(parts):
    for part in parts:
        if part.process:
            end(part)
            part.process.wait()
            part.process, part.status = None, "stopped"
            show(part)


def show(part):
    print(f"---- {part.name}", flush=True)
    with open(LOGS / f"{part.name}.log", "rb") as log:
        while block := log.read(1 << 16):
            sys.stdout.buffer.write(block)
    sys.stdout.flush()
    print(f"---- {part.name}: {part.status} after {part.seconds:.0f} s", flush=True)


def table(parts, wall):
    lines = [f"\n{'part':20}{'seconds':>9}{'CPU s':>9}  result"]
    lines += [f"{p.name:20}{p.seconds:>9.0f}{p.cpu:>9.0f}  {p.status}" for p in parts]
    cpu = sum(part.cpu for part in parts)
    lines.append(f"{'all':20}{wall:>9.0f}{cpu:>9.0f}  {wall / 60:.1f} minutes")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
