#!/usr/bin/env python3
"""Compares late interaction on the same vectors: `python3 bench/late_interaction/compare.py`.

Topshelf encodes the passages and judged queries of a collection once; Topshelf, next-plaid and PyLate
then rerank the same candidates and search the whole collection with these vectors, in interleaved
rounds on the same cores. No time includes the encoding of a query. The report goes to standard output
and, with all medians as JSON, to bench/record (of a part, to target/bench-record); progress goes to
standard error. Linux only (affinity and /proc).
"""

import argparse
import datetime
import fnmatch
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
REQUIREMENTS = HERE / "requirements.txt"
sys.path.insert(0, str(HERE.parent / "compare"))

import machine  # noqa: E402
from child import Child, EngineFailed  # noqa: E402

TOPSHELF = [str(TARGET / "release" / "examples" / "token_vectors")]
PLAID = [str(TARGET / "bench-peers" / "release" / "topshelf-bench-plaid")]
DEPTH = 100
REFERENCE = "topshelf-int8"
# Threads of some runtimes spin for up to 200 ms after a run and would disturb the next contender.
PAUSE_SECONDS = 0.3


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = ROOT.parent / "shared" / "data" / "scifact"
    parser.add_argument("--data", type=Path, default=data, help="the collection, as BEIR lays it out")
    parser.add_argument("--run", type=Path, help="candidates (default: the first in DATA/runs)")
    parser.add_argument("--contenders", default="*", help="names or patterns, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", help="cores to run on, with commas (default: the first two)")
    parser.add_argument("--quick", action="store_true", help="2 rounds")
    parser.add_argument("--out", type=Path, help="folder of the record")
    parser.add_argument("--venv", type=Path, help="use this environment as it is")
    parser.add_argument("--no-build", action="store_true", help="run what is built")
    return parser.parse_args()


def install(given):
    """The Python of the environment with PyLate; made first, unless one was given."""
    folder = given or TARGET / "bench-late-venv"
    python = folder.absolute() / "bin" / "python"
    stamp = folder / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if given is None and not (stamp.exists() and stamp.read_text() == wanted):
        say("installing PyLate; that is several gigabytes")
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return str(python)


def build():
    """Builds Topshelf's side and next-plaid's; without the latter it is left out."""
    cargo = ["cargo", "build", "--release", "--locked"]
    own = [*cargo, "--workspace", "--example", "token_vectors"]
    subprocess.run(own, check=True, cwd=ROOT, stdout=sys.stderr)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "bench-peers")}
    subprocess.run(cargo, check=False, cwd=HERE / "rust", env=environment, stdout=sys.stderr)


def contenders(python):
    """Each process: its name, its command, what it loads, and its runs."""
    own = ("rerank", "search", "scan")
    for tier in ("f16", "int8", "4bit", "2bit"):
        yield f"topshelf-{tier}", TOPSHELF, {"tier": tier}, own
    yield "next-plaid-4bit", PLAID, {"bits": 4}, ("rerank", "rerank-f32", "search")
    yield "next-plaid-2bit", PLAID, {"bits": 2}, ("rerank", "search")
    peer = [python, str(HERE / "pylate_peer.py")]
    yield "pylate", peer, {"bits": None}, ("rerank",)
    yield "pylate-4bit", peer, {"bits": 4}, ("search",)


class Collection:
    """What is asked, and what is right."""

    def __init__(self, data, run, folder):
        """Reads the judgments and the candidates of each query."""
        about = json.loads((folder / "vectors.json").read_text())
        places = {document: place for place, document in enumerate(about["documents"])}
        self.queries = len(about["query_ids"])
        ranked = {}
        for line in run.read_text().splitlines():
            query, _, document, *_ = line.split()
            ranked.setdefault(query, []).append(places[document])
        self.candidates = [ranked.get(query, [])[:DEPTH] for query in about["query_ids"]]
        judged = {}
        for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]:
            query, document, grade = line.split("\t")
            if int(grade) > 0 and document in places:
                judged.setdefault(query, {})[places[document]] = int(grade)
        self.judged = [judged.get(query, {}) for query in about["query_ids"]]

    def ndcg(self, found):
        """The mean nDCG@10."""

        def gain(grades):
            return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades[:10]))

        def of(own, right):
            ideal = gain(sorted(right.values(), reverse=True))
            return gain([right.get(place, 0) for place in own]) / ideal if ideal else 0.0

        return statistics.mean(map(of, found, self.judged))

    def recall(self, found):
        """The mean recall@100."""

        def of(own, right):
            return len(right.keys() & set(own[:100])) / len(right) if right else 0.0

        return statistics.mean(map(of, found, self.judged))


def overlap(found, truth, depth):
    """The mean share of the first `depth` of the truth that is in the first `depth` found."""

    def of(own, right):
        return len(set(own[:depth]) & set(right[:depth])) / max(1, len(right[:depth]))

    return statistics.mean(map(of, found, truth))


def cpu_seconds(child):
    """What all threads of a process have used so far."""
    fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Comparison:
    """The processes, and what they answered."""

    def __init__(self, options, cores):
        """Prepares the vectors and starts everything."""
        self.cores, self.children, self.runs = cores, {}, {}
        self.results, self.left_out, self.loads = {}, {}, {}
        self.folder = TARGET / "bench-late" / options.data.name
        logs = TARGET / "bench-logs" / "late"
        say("encoding the collection, unless that was done")
        child = Child(TOPSHELF, {}, cores, logs / "prepare.log")
        about = {"data": str(options.data.absolute()), "folder": str(self.folder.absolute())}
        self.about = child.ask({"prepare": about})
        child.stop()
        run = options.run or sorted((options.data / "runs").glob("*.trec"))[0]
        self.collection = Collection(options.data, run, self.folder)
        patterns = [REFERENCE, *options.contenders.split(",")]
        for name, command, settings, runs in contenders(install(options.venv)):
            if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                continue
            say(f"loading {name}; its index is made unless it is there")
            folder = str(self.folder.absolute())
            try:
                child = Child(command, {}, cores, logs / f"{name}.log")
                self.loads[name] = child.load({"folder": folder, **settings})
            except (EngineFailed, OSError) as error:
                self.left_out[name] = str(error)
                say(f"left out: {name}: {error}")
                continue
            self.children[name], self.runs[name] = child, runs

    def round(self):
        """Everything once."""
        for task in ("rerank", "search"):
            for name, child in self.children.items():
                for run in self.runs[name]:
                    if (run.startswith("rerank")) == (task == "rerank"):
                        self.run(task, name, run, child)

    def run(self, task, name, run, child):
        """One run over all queries, added to the results."""
        time.sleep(PAUSE_SECONDS)
        request = {"run": run, "depth": DEPTH}
        if task == "rerank":
            request["candidates"] = self.collection.candidates
        before = cpu_seconds(child)
        answer = child.ask(request)
        used = (cpu_seconds(child) - before) * 1000 / self.collection.queries
        shown = name if run == task else f"{name} {run}"
        own = self.results.setdefault(task, {}).setdefault(shown, {"ms": [], "cpu_ms": []})
        own["ms"].append(statistics.median(answer["ms"]))
        own["cpu_ms"].append(used)
        own["found"] = answer["found"]
        say(f"{task}: {shown}: {own['ms'][-1]:.2f} ms, {used:.2f} ms of CPU")

    def stop(self):
        """Ends all."""
        for child in self.children.values():
            child.stop()

    def figures(self):
        """Medians, ratios and quality, by task and contender."""
        # The most exact first.
        truth = {
            "rerank": ("next-plaid-4bit rerank-f32", "pylate", "topshelf-f16", REFERENCE),
            "search": ("topshelf-f16 scan", f"{REFERENCE} scan"),
        }
        told = {}
        for task, results in self.results.items():
            reference = results[REFERENCE]["ms"]
            right = next(results[name] for name in truth[task] if name in results)
            told[task] = {
                name: {
                    "ms": own["ms"],
                    "cpu_ms": own["cpu_ms"],
                    "ratios": [a / b for a, b in zip(own["ms"], reference, strict=True)],
                    "ndcg@10": self.collection.ndcg(own["found"]),
                    "recall@100": self.collection.recall(own["found"]),
                    "overlap@10": overlap(own["found"], right["found"], 10),
                    "overlap@100": overlap(own["found"], right["found"], 100),
                }
                for name, own in results.items()
            }
        return told

    def sizes(self):
        """Bytes of each index."""
        kinds = ("index-", "next-plaid-", "pylate-")
        found = [path for path in self.folder.iterdir() if path.name.startswith(kinds)]
        found = [path for path in found if path.is_dir()]
        return {
            path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            for path in sorted(found)
        }


def markdown(record):
    """The report."""
    about, own = record["machine"], record["about"]
    changed = " with changes" if about["changed_since_commit"] else ""
    lines = [
        f"# Late interaction on a CPU: {about['cpu']}, {record['date']}\n",
        f"{record['data']}: {own['passages']} passages with {own['vectors']} vectors of"
        f" answerai-colbert-small-v1, {own['queries']} queries of 32 vectors. Cores"
        f" {', '.join(map(str, about['cores']))} of {about['cores_of_machine']}"
        f" ({' '.join(about['flags'])}); {about['system']}; commit"
        f" {about['commit'][:12]}{changed}; {record['rounds']} interleaved rounds. Command:"
        f" `compare.py {' '.join(record['arguments'])}`.\n",
        "A time is the median over the queries of a round, without the query's encoding; the table has"
        " the median of the rounds. CPU: what all threads used for a query on the mean, which other"
        f" guests of the machine disturb less. Ratio: time divided by that of {REFERENCE} in the same round"
        " (median, smallest to largest). Overlap: what is shared with the first 10 and 100 of exact"
        " MaxSim (f32 for reranking, f16 over everything for searching, where these ran).",
    ]
    titles = {"rerank": f"Reranking {DEPTH} candidates", "search": "Searching everything, 100 deep"}
    for task, results in record["figures"].items():
        lines += [
            f"\n## {titles[task]}\n",
            "| contender | ms | CPU ms | ratio (min..max) | nDCG@10 | recall@100 | overlap@10 | @100 |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        order = sorted(results.items(), key=lambda item: statistics.median(item[1]["ms"]))
        lines += [row(name, figures) for name, figures in order]
    lines += ["\n## Bytes on disk\n", "| index | MB |", "| --- | --- |"]
    lines += [f"| {name} | {size / 1e6:.1f} |" for name, size in record["sizes"].items()]
    if record["left_out"]:
        lines += ["\n## Left out\n"]
        lines += [f"- {name}: {reason}" for name, reason in record["left_out"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join([*lines, f"\n## Versions\n\n{versions}\n"])


def row(name, own):
    """One line of a table."""
    ratios = own["ratios"]
    cells = [
        name,
        f"{statistics.median(own['ms']):.3f}",
        f"{statistics.median(own['cpu_ms']):.2f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})",
        f"{own['ndcg@10']:.4f}",
        f"{own['recall@100']:.4f}",
        f"{own['overlap@10']:.3f}",
        f"{own['overlap@100']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def versions():
    """Python, the Rust compiler and the peers."""
    pinned = dict(line.split("==") for line in REQUIREMENTS.read_text().split() if "==" in line)
    lock = (HERE / "rust" / "Cargo.lock").read_text()
    plaid = re.search(r'name = "next-plaid"\nversion = "([^"]+)"', lock)[1]
    rustc = machine.output(["rustc", "--version"], cwd=ROOT).removeprefix("rustc ")
    return {"rustc": rustc, "next-plaid (crate)": plaid, **pinned}


def write(record, options):
    """Prints the report and writes it and the record."""
    text = markdown(record)
    print(text)
    is_part = options.quick or options.contenders != "*"
    usual = TARGET / "bench-record" if is_part else ROOT / "bench" / "record"
    folder = options.out or usual
    folder.mkdir(parents=True, exist_ok=True)
    cpu = re.sub(r"[^a-z0-9]+", "-", record["machine"]["cpu"].lower()).strip("-")
    cores = len(record["machine"]["cores"])
    stem = f"{record['date']}-{cpu}-late-interaction-{cores}-core"
    (folder / f"{stem}.md").write_text(text)
    (folder / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    say(f"written: {folder / stem}.md and .json")


def say(text):
    """Tells on standard error what happens."""
    print(text, file=sys.stderr, flush=True)


def main():
    """Runs what the command line asks for."""
    options = arguments()
    allowed = sorted(os.sched_getaffinity(0))
    cores = set(map(int, options.cores.split(","))) if options.cores else set(allowed[:2])
    if not options.no_build:
        build()
    rounds = 2 if options.quick else options.rounds
    comparison = Comparison(options, cores)
    try:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            comparison.round()
    finally:
        comparison.stop()
    about = {**machine.describe(ROOT, cores), "versions": versions()}
    record = {
        "date": datetime.date.today().isoformat(),
        "arguments": sys.argv[1:],
        "data": options.data.name,
        "rounds": rounds,
        "machine": about,
        "about": comparison.about,
        "loads": comparison.loads,
        "figures": comparison.figures(),
        "sizes": comparison.sizes(),
        "left_out": comparison.left_out,
    }
    write(record, options)


if __name__ == "__main__":
    main()
