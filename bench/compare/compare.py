#!/usr/bin/env python3
"""Compares Topshelf with its peers on this machine: `python3 bench/compare/compare.py`.

Makes a virtual environment in target/bench-venv with the peers, builds Topshelf's engine and the
Rust peers, prepares the same weights for all, and runs everything in interleaved rounds on the
same cores. The report goes to standard output and, with all times as JSON, to bench/record if
everything ran, else to target/bench-record; progress goes to standard error. Linux only (affinity
and /proc).
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
REQUIREMENTS = HERE / "requirements.txt"
QUICK_TEXTS, SOME_TEXTS = 64, 512


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="*", help="names or patterns, with commas")
    parser.add_argument("--workloads", help="names, with commas; embed is one of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", help="cores to run on, with commas (default: the first two)")
    parser.add_argument("--budget", type=float, default=60, help="seconds an engine and workload")
    parser.add_argument("--quick", action="store_true", help="2 rounds, small workloads")
    parser.add_argument("--full", action="store_true", help="embed all abstracts, not 512")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, help="folder of the record")
    parser.add_argument("--venv", type=Path, help="use this environment as it is")
    parser.add_argument("--no-build", action="store_true", help="run the engines that are built")
    parser.add_argument("--list", action="store_true", help="name engines and workloads")
    return parser.parse_args()


def enter_environment(given):
    """Goes on in the virtual environment; makes it first, unless one was given."""
    folder = (given or TARGET / "bench-venv").absolute()
    if Path(sys.prefix) == folder:
        return
    if given is None:
        install(folder)
    python = str(folder / "bin" / "python")
    os.execv(python, [python, *sys.argv])


def install(folder):
    """Installs the peers, unless exactly these are there."""
    stamp = folder / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing the peers; that is several gigabytes", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)


def build():
    """Builds Topshelf's engine and the Rust peers; without the latter they are left out."""
    cargo = ["cargo", "build", "--release", "--locked"]
    own = [*cargo, "--workspace", "--example", "engine"]
    subprocess.run(own, check=True, cwd=ROOT, stdout=sys.stderr)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "bench-peers")}
    subprocess.run(cargo, check=False, cwd=HERE / "rust", env=environment, stdout=sys.stderr)


def pull(cores):
    """The folders of the two models in Topshelf's store, downloaded if they are not there."""
    import lineup
    from child import Child, EngineFailed

    names = (lineup.CROSS_ENCODER, lineup.BI_ENCODER)
    try:
        child = Child([str(lineup.TOPSHELF)], {}, cores, TARGET / "bench-logs" / "pull.log")
        folders = [Path(child.ask({"pull": name})["folder"]) for name in names]
    except (EngineFailed, OSError) as error:
        raise SystemExit(f"Topshelf's engine cannot get the models: {error}") from error
    child.stop()
    return folders


def cores_of(options):
    """The set of cores to run on."""
    allowed = sorted(os.sched_getaffinity(0))
    if options.cores is None:
        return set(allowed[:2])
    cores = {int(core) for core in options.cores.split(",")}
    if not cores <= set(allowed):
        raise SystemExit(f"--cores: only {allowed} can be used")
    return cores


def names_of(options):
    """The names of the workloads to run."""
    from workloads import NAMES, QUICK

    known = (*NAMES, "embed")
    if options.workloads is None:
        return (*QUICK, "embed") if options.quick else known
    names = options.workloads.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--workloads: {unknown[0]} is not one of {', '.join(known)}")
    return [name for name in known if name in names]


def default_folder(options):
    """Where the record goes: only a run of everything is worth keeping."""
    partial = options.quick or options.workloads or options.engines != "*"
    return TARGET / "bench-record" if partial else ROOT / "bench" / "record"


class Comparison:
    """One comparison, from the models to its record."""

    def __init__(self, options):
        """Builds, fetches and prepares what runs need."""
        import checkpoint
        import lineup
        import machine
        from engines import read_tokenizer
        from workloads import Maker, Shape

        self.options = options
        self.cores = cores_of(options)
        self.cross, self.bi = pull(self.cores)
        checkpoint.prepare(self.cross, lineup.MODELS)
        config = json.loads((lineup.MODELS / "f32" / "config.json").read_text())
        sizes = ("num_hidden_layers", "hidden_size", "intermediate_size")
        # bge-small-en-v1.5 has the same sizes, so that one shape serves both models.
        self.shape = Shape(*(config[size] for size in sizes))
        if not options.data.is_dir():
            raise SystemExit(f"there are no test collections in {options.data}; see --data")
        tokenizer = read_tokenizer(self.cross)
        tokenizer.no_truncation()
        self.maker = Maker(options.data, tokenizer)
        difference = checkpoint.largest_difference(lineup.MODELS, self.maker.short(10))
        print(f"f32 against int8 weights: logits differ by up to {difference:.3f}", file=sys.stderr)
        self.record = {
            "date": datetime.date.today().isoformat(),
            "arguments": sys.argv[1:],
            "rounds": 2 if options.quick else options.rounds,
            "reference": lineup.REFERENCE,
            "largest_difference": difference,
            "machine": machine.describe(ROOT, self.cores),
            **{key: {} for key in ("workloads", "engines", "results", "peaks", "turns", "left_out")},
        }

    def run(self):
        """Runs both families, one after the other."""
        import lineup

        names = names_of(self.options)
        threads = len(self.cores)
        if pairs := [name for name in names if name != "embed"]:
            workloads = self.maker.make(pairs)
            self.family("cross-encoder", lineup.cross_encoders(threads), workloads)
        if "embed" in names:
            some = QUICK_TEXTS if self.options.quick else SOME_TEXTS
            workloads = [self.maker.embed(None if self.options.full else some)]
            self.family("bi-encoder", lineup.bi_encoders(self.bi, threads), workloads)

    def family(self, family, engines, workloads):
        """Runs the engines of a family on their workloads and adds to the record."""
        import lineup
        from rounds import Team

        team = Team(self.cores, TARGET / "bench-logs" / family)
        try:
            for engine in lineup.chosen(engines, self.options.engines.split(",")):
                team.start(engine, starts=2)
            for workload in workloads:
                self.record["workloads"][workload.name] = self.describe(workload, family)
                team.run(workload, self.record["rounds"], self.options.budget)
            team.take_turns(lineup.REFERENCE, ("short-1", "short-100"), self.record["rounds"])
        finally:
            team.stop()
        self.record["engines"][family] = team.engines
        self.record["results"].update(team.results)
        self.record["peaks"].update(team.peaks)
        self.record["turns"].update(team.turns)
        left_out = {f"{name} ({family})": reason for name, reason in team.left_out.items()}
        self.record["left_out"].update(left_out)

    def describe(self, workload, family):
        """A workload in the record."""
        return {
            "family": family,
            "items": len(workload.items),
            "tokens": sum(workload.tokens),
            "shortest": min(workload.tokens),
            "longest": max(workload.tokens),
            "operations": workload.operations(self.shape),
        }

    def write(self):
        """Prints the report and writes it and the record."""
        import report

        text = report.markdown(self.record)
        print(text)
        folder = self.options.out or default_folder(self.options)
        folder.mkdir(parents=True, exist_ok=True)
        cpu = re.sub(r"[^a-z0-9]+", "-", self.record["machine"]["cpu"].lower()).strip("-")
        stem = folder / f"{self.record['date']}-{cpu}"
        stem.with_suffix(".md").write_text(text)
        stem.with_suffix(".json").write_text(json.dumps(self.record, indent=1) + "\n")
        print(f"written: {stem}.md and .json", file=sys.stderr)


def show_names():
    """Names the engines and the workloads."""
    import lineup
    from workloads import NAMES

    for engine in lineup.cross_encoders(threads=1):
        print(f"{engine.name:20} {engine.what}")
    print("workloads:", ", ".join((*NAMES, "embed")))


def main():
    """Runs what the command line asks for."""
    options = arguments()
    if options.list:
        show_names()
        return
    enter_environment(options.venv)
    if not options.no_build:
        build()
    comparison = Comparison(options)
    comparison.run()
    comparison.write()


if __name__ == "__main__":
    main()
