#!/usr/bin/env python3
"""Measures `topshelf serve` under load: `python3 bench/serve/load.py FIGURE`.

| figure | what |
| --- | --- |
| `clients` | 1 to 64 clients that rerank 100 short documents: throughput against the engine's own, p99 |
| `overload` | four times what can be done: what is done nevertheless, how fast the rest is refused |
| `soak` | memory after many requests of mixed length against that after the first |
| `disconnects` | clients that break off at random: leaks, and work for nobody |
| `start` | time until it is ready, and the first request against the median |
| `peers` | Infinity, and sentence-transformers behind FastAPI, on the same weights and load |
| `all` | all of these but `peers` |

Prints each figure as Markdown; `--record` also writes bench/record/serve-DATE-CPU.md and .json. The server is
the one in target/release, or that of `--binary`; it runs on the cores of `--cores`, and the generator on
others where there are some. The score cache is off, and so is the token cache where a load repeats its
texts. Linux only. Progress goes to standard error.
"""

import argparse
import datetime
import json
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(HERE.parent / "compare"))

import machine  # noqa: E402

from clients import clients  # noqa: E402
from disconnects import disconnects  # noqa: E402
from overload import overload  # noqa: E402
from peers import peers  # noqa: E402
from server import allow_connections, apart  # noqa: E402
from soak import soak  # noqa: E402
from start import start  # noqa: E402

FIGURES = {
    "clients": clients,
    "overload": overload,
    "soak": soak,
    "disconnects": disconnects,
    "start": start,
    "peers": peers,
}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="+", choices=(*FIGURES, "all"), metavar="FIGURE")
    release = ROOT / "target" / "release"
    parser.add_argument("--binary", type=Path, default=release / "topshelf")
    parser.add_argument("--engine", type=Path, default=release / "examples" / "engine")
    parser.add_argument("--cores", help="the server's, with commas (default: the first two)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--documents", type=int, default=100, help="of a request")
    parser.add_argument("--clients", default="1,2,4,8,16,32,64", help="numbers, with commas")
    parser.add_argument("--rounds", type=int, default=3, help="of clients and peers")
    parser.add_argument("--seconds", type=float, help="of a load; each figure has its own default")
    parser.add_argument("--requests", type=int, help="of soak (100000) and disconnects (10000)")
    parser.add_argument("--token-cache", type=int, default=0, help="of soak, in MiB (0)")
    parser.add_argument("--peers", default="*", help="names or patterns, with commas")
    parser.add_argument("--record", action="store_true", help="write to bench/record")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "record")
    options = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    options.cores = {int(c) for c in options.cores.split(",")} if options.cores else set(allowed[:2])
    if not options.cores <= set(allowed):
        parser.error(f"--cores: only {allowed} can be used")
    if not options.binary.exists():
        parser.error(f"{options.binary} is not built: cargo build --release -p topshelf-cli")
    return options


def main():
    """Takes the figures that the command line names."""
    options = arguments()
    names = [name for name in FIGURES if name != "peers"] if "all" in options.figures else options.figures
    about = machine.describe(ROOT, options.cores)
    allow_connections()
    where = apart(options.cores)
    head = heading(about, where)
    print(head, flush=True)
    figures = []
    for name in names:
        figures.append(FIGURES[name](options))
        print(f"\n{figures[-1].markdown()}", flush=True)
    if options.record:
        write(options, about, head, figures)
    failed = [w["what"] for figure in figures for w in figure.wanted if not w["holds"]]
    print(f"\n{len(failed)} wanted and not reached", file=sys.stderr)


def heading(about, where):
    """What the figures depend on."""
    changed = ", changed since" if about["changed_since_commit"] else ""
    return (
        f"# The server under load: {about['cpu']}, {datetime.date.today().isoformat()}\n\n"
        f"Cores {', '.join(map(str, about['cores']))} of {about['cores_of_machine']}"
        f" ({' '.join(about['flags'])}); {about['system']}; commit {about['commit'][:12]}{changed}; load"
        f" average before {about['load_before'][0]:.1f}. The generator is on {where}. Command:"
        f" `load.py {' '.join(sys.argv[1:])}`."
    )


def write(options, about, head, figures):
    """The record, as Markdown and as JSON with all that was seen."""
    options.out.mkdir(parents=True, exist_ok=True)
    cpu = re.sub(r"[^a-z0-9]+", "-", about["cpu"].lower()).strip("-")
    stem = options.out / f"serve-{datetime.date.today().isoformat()}-{cpu}"
    text = "\n\n".join([head, *(figure.markdown() for figure in figures)])
    stem.with_suffix(".md").write_text(text + "\n")
    record = {
        "date": datetime.date.today().isoformat(),
        "arguments": sys.argv[1:],
        "machine": about,
        "figures": [figure.as_json() for figure in figures],
    }
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {stem}.md and .json", file=sys.stderr)


if __name__ == "__main__":
    main()
