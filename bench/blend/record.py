#!/usr/bin/env python3
"""Candidates and scores for replaying blends: `python3 bench/blend/record.py --binary BINARY`.

For each task of tasks.py: the rankings of each retriever with their scores, and the default reranker's score
of every passage that any of them found, all by `topshelf eval`. replay.py tries blends on what is written.

Needs `../shared/data` beside the project, the default models in Topshelf's home (`topshelf models pull`, and
colbert for `--colbert`), nothing of Python but itself. Two tasks take their texts from wheels of PyPI:

    pip download --no-deps -d WHEELS gensim pyserini==0.17.1

Everything is kept under --out: collections, their indexes, and `TASK/` with what is judged and the runs. What
is there already is not recorded again, so an interrupted call goes on where it was.
"""

import argparse
import json
import os
import subprocess
import time
from pathlib import Path

from tasks import Task, lines, tasks

ROOT = Path(__file__).resolve().parents[2]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/topshelf")
    parser.add_argument("--out", type=Path, default=ROOT / "target/blend", help="where recordings are kept")
    parser.add_argument("--wheels", type=Path, help="the folder with the wheels (default: OUT/wheels)")
    parser.add_argument("--tasks", help="names with commas (default: all)")
    parser.add_argument("--colbert", help="names of tasks that record token vectors too", default="")
    return parser.parse_args()


def write_lines(path: Path, objects):
    """Objects as JSON lines."""
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
    path.write_text(text, encoding="utf-8")


def write(name: str, task: Task, out: Path):
    """The task as a split of its collection, and on its own what replay.py needs to know of it.

    Tasks of one corpus are splits of one collection, since an index belongs to the files that it is of.
    """
    collection, folder = out / "collections" / task.index, out / name
    (collection / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    if not (collection / "corpus.jsonl").exists():
        write_lines(collection / "corpus.jsonl", task.corpus)
    queries = collection / "queries.jsonl"
    known = {one["_id"]: one["text"] for one in lines(queries)} if queries.exists() else {}
    mine = {f"{name}/{query}": text for query, text in task.queries.items()}
    write_lines(queries, ({"_id": query, "text": text} for query, text in (known | mine).items()))
    rows = [
        f"{name}/{query}\t{passage}\t{grade}\n"
        for query, of in task.judged.items()
        for passage, grade in of.items()
    ]
    (collection / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    about = {"depth": task.depth, "queries": task.queries, "judged": task.judged, "drop": task.drop}
    (folder / "task.json").write_text(json.dumps(about))


def read_run(path: Path, depth: int | None = None):
    """The best `depth` of each query in a TREC run, or all: passage and score."""
    run = {}
    for line in path.read_text().splitlines():
        query, _, passage, _, score, _ = line.split()
        run.setdefault(query, []).append((passage, float(score)))
    return {query: sorted(hits, key=lambda hit: -hit[1])[:depth] for query, hits in run.items()}


def write_run(path: Path, run):
    """A TREC run of these rankings, in their order."""
    rows = [
        f"{query} Q0 {passage} {rank} {score} {path.stem}\n"
        for query, hits in run.items()
        for rank, (passage, score) in enumerate(hits, 1)
    ]
    path.write_text("".join(rows))


class Recorder:
    """Runs the binary and keeps what it answers."""

    def __init__(self, binary: Path, out: Path):
        """`binary` and the folder of all recordings."""
        self.binary, self.out = binary.resolve(), out

    def evaluate(self, name: str, task: Task, *options):
        """`topshelf eval` over the task's split; the runs that it writes are the task's own."""
        runs = self.out / name / "runs"
        command = [self.binary, "eval", "--data", self.out / "collections" / task.index, "--split", name]
        command += ["--no-profile", "--measures", "nDCG@10", "--save-runs", runs, *options]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, cwd=self.out)
        for path in runs.glob("*.trec"):
            # A collection's queries have the task's name in front.
            path.write_text(path.read_text().replace(f"{name}/", ""))

    def retrieve(self, name: str, task: Task, colbert: bool):
        """Each retriever's ranking, as a run of its own name."""
        runs = self.out / name / "runs"
        for retriever, source in task.runs.items():
            found = read_run(source, task.depth)
            write_run(runs / f"{retriever}.trec", {query: found[query] for query in task.queries})
        if task.runs:
            return
        if (runs / "bm25.trec").exists() and (not colbert or (runs / "colbert.trec").exists()):
            return
        systems = "bm25,dense,hybrid" + (",colbert,hybrid-colbert" if colbert else "")
        # An index is made with token vectors or without, so each has its own.
        index = self.out / "indexes" / (task.index + ("-colbert" if colbert else ""))
        options = ["--language", task.language, *(["--token-vectors"] if colbert else [])]
        options += ["--depth", task.depth, "--rerank", "none"]
        self.evaluate(name, task, "--systems", systems, "--index", index, *options)

    def rerank(self, name: str, task: Task):
        """The reranker's score of everything that a retriever found and that has none yet."""
        runs = self.out / name / "runs"
        known = read_run(runs / "rerank.trec") if (runs / "rerank.trec").exists() else {}
        scored = {query: dict(hits) for query, hits in known.items()}
        missing = {}
        for retriever in ("bm25", "dense", "colbert"):
            path = runs / f"{retriever}.trec"
            for query, hits in read_run(path, task.depth).items() if path.exists() else ():
                for passage, _ in hits:
                    if passage not in scored.get(query, {}):
                        missing.setdefault(query, {})[passage] = 0.0
        if not missing:
            return 0
        asked = {f"{name}/{query}": list(hits.items()) for query, hits in missing.items()}
        write_run(runs / "missing.trec", asked)
        deepest = max(map(len, missing.values()))
        systems = ["--systems", "candidates+rerank", "--candidates", runs / "missing.trec"]
        self.evaluate(name, task, *systems, "--depth", deepest)
        for query, hits in read_run(runs / "candidates+rerank.trec").items():
            # Queries without candidates of their own come back empty.
            scored.setdefault(query, {}).update(hits)
        write_run(runs / "rerank.trec", {query: list(hits.items()) for query, hits in scored.items()})
        return sum(map(len, missing.values()))


def main():
    """Records the tasks in turn."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    os.environ.setdefault("TOPSHELF_LOG", "error")
    recorder = Recorder(options.binary, out)
    found = tasks(options.wheels or out / "wheels")
    for name in options.tasks.split(",") if options.tasks else found:
        start = time.monotonic()
        task = found[name]()
        write(name, task, out)
        recorder.retrieve(name, task, name in options.colbert.split(","))
        between = time.monotonic()
        pairs = recorder.rerank(name, task)
        end = time.monotonic()
        print(
            f"{name}: {len(task.queries)} queries, retrieval {between - start:.0f} s, "
            f"{pairs} pairs in {end - between:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
