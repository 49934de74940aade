#!/usr/bin/env python3
"""Ways to find passages by their token vectors: `python3 bench/late_interaction/first_stage.py`.

Topshelf's lists by centroid, with several numbers of probes and candidates, beside fixed-dimensional
encodings (MUVERA; Dhulipala et al. 2024, arXiv 2405.19504) of the same vectors, which are written here in
numpy as the paper has them, but for hyperplanes that go through the mean of all vectors: through zero
they separate less, since the mean is nearly as long as the vectors. What counts is how many of the exact
best ten are found, what that costs, and how much has to be kept for it. The report goes to standard
output. Vectors and environment are those of compare.py, which makes them; only judged queries are asked.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import compare  # noqa: E402
from child import Child  # noqa: E402

if importlib.util.find_spec("numpy") is None:
    python = compare.install(None)
    os.execv(python, [python, *sys.argv])

import numpy  # noqa: E402

# Repetitions, hyperplanes, and numbers of a partition, as the paper names its settings; 96 is without
# a projection.
ENCODINGS = [(20, 5, 16), (20, 5, 96)]
LISTS = [(4, 256), (8, 256), (16, 128), (16, 256), (16, 512), (16, 1024), (32, 512), (64, 512)]
CANDIDATES = (64, 128, 256, 512, 1024)
BEST = 10


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = compare.ROOT.parent / "shared" / "data" / "scifact"
    parser.add_argument("--data", type=Path, default=data, help="the collection, as BEIR lays it out")
    parser.add_argument("--rounds", type=int, default=3, help="of the lists")
    return parser.parse_args()


def read(folder, name, about):
    """The vectors of each text."""
    counts, dimension = about[name], about["dimension"]
    values = numpy.fromfile(folder / f"{name}.f32", dtype=numpy.float32).reshape(-1, dimension)
    return values, numpy.cumsum([0, *counts])


def exact(passages, starts, query):
    """MaxSim of a query with every passage."""
    return numpy.maximum.reduceat(query @ passages.T, starts[:-1], axis=1).sum(axis=0)


class Encoding:
    """Fixed-dimensional encodings of one setting: their dot product stands for MaxSim."""

    def __init__(self, repetitions, planes, width, mean, seed=7):
        """Draws hyperplanes and projections."""
        self.mean, dimension = mean, len(mean)
        random = numpy.random.default_rng(seed)
        self.planes = random.standard_normal((repetitions, dimension, planes), dtype=numpy.float32)
        signs = random.integers(0, 2, (repetitions, dimension, width)) * 2 - 1
        drawn = (signs / width**0.5).astype(numpy.float32)
        plain = numpy.broadcast_to(numpy.eye(width, dtype=drawn.dtype), (repetitions, width, width))
        self.signs = drawn if width < dimension else plain
        self.cells = 2**planes

    def cells_of(self, vectors, repetition):
        """The partition of each vector."""
        bits = (vectors - self.mean) @ self.planes[repetition] > 0
        return bits @ (1 << numpy.arange(bits.shape[1]))

    def sums(self, vectors, starts, repetition):
        """For each text and partition: the sum of its vectors there, projected, and how many they are."""
        texts = len(starts) - 1
        cells = self.cells_of(vectors, repetition) + numpy.repeat(
            numpy.arange(texts) * self.cells, numpy.diff(starts)
        )
        projected = vectors @ self.signs[repetition]
        size = texts * self.cells
        counts = numpy.bincount(cells, minlength=size)
        columns = [
            numpy.bincount(cells, weights=column, minlength=size) for column in projected.T
        ]
        return numpy.stack(columns, axis=1).astype(numpy.float32), counts, projected, cells

    def queries(self, vectors, starts):
        """A query's partitions have the sum of its vectors."""
        parts = [self.sums(vectors, starts, own)[0] for own in range(len(self.planes))]
        return numpy.concatenate([part.reshape(len(starts) - 1, -1) for part in parts], axis=1)

    def passages(self, vectors, starts):
        """A passage's have the mean, and those without any have the vector that is nearest by bits."""
        parts = []
        for repetition in range(len(self.planes)):
            sums, counts, projected, cells = self.sums(vectors, starts, repetition)
            means = sums / numpy.maximum(counts, 1)[:, None]
            self.fill(means, counts, projected, cells, starts)
            parts.append(means.reshape(len(starts) - 1, -1))
        return numpy.concatenate(parts, axis=1)

    def fill(self, means, counts, projected, cells, starts):
        """Gives partitions without a vector the one whose partition differs in the fewest bits."""
        numbers = numpy.arange(self.cells)
        bits = numpy.array([f"{n:b}".count("1") for n in range(self.cells)])
        for text in range(len(starts) - 1):
            first = text * self.cells
            empty = numbers[counts[first : first + self.cells] == 0]
            if len(empty) == 0 or starts[text] == starts[text + 1]:
                continue
            own = slice(starts[text], starts[text + 1])
            distance = bits[empty[:, None] ^ (cells[own] - first)[None, :]]
            means[first + empty] = projected[own][distance.argmin(axis=1)]


def shared(found, truth):
    """The mean share of the best that is among what was found."""
    return statistics.mean(
        len(best.intersection(own)) / BEST for own, best in zip(found, truth, strict=True)
    )


def of_encodings(passages, queries, truth, say):
    """Rows of the table, by setting and number of candidates."""
    vectors, starts = passages
    for repetitions, planes, width in ENCODINGS:
        say(f"encoding with {repetitions} repetitions, {planes} planes, {width} numbers")
        encoding = Encoding(repetitions, planes, width, vectors.mean(axis=0))
        own = encoding.passages(vectors, starts)
        asked = encoding.queries(*queries)
        found, took = [], []
        for query in asked:
            begin = time.perf_counter()
            scores = own @ query
            order = numpy.argpartition(-scores, max(CANDIDATES))[: max(CANDIDATES)]
            took.append((time.perf_counter() - begin) * 1000)
            found.append(order[numpy.argsort(-scores[order])])
        name = f"encodings {repetitions} x {2**planes} x {width}"
        for count in CANDIDATES:
            share = shared([order[:count].tolist() for order in found], truth)
            yield name, count, own.shape[1] * 4, statistics.median(took), share


def of_lists(child, folder, truth, rounds, say):
    """The same for the lists; their time has the exact scores in it."""
    child.load({"folder": str(folder), "tier": "int8"})
    kept = sum(file.stat().st_size for file in (folder / "index-int8").rglob("*.tok"))
    say(f"the files with int8 vectors and lists have {kept} bytes")
    seen = {}
    for turn in range(rounds):
        say(f"lists, round {turn + 1} of {rounds}")
        for probes, candidates in LISTS:
            request = {"run": "search", "depth": BEST, "probes": probes, "candidates": candidates}
            answer = child.ask(request)
            own = seen.setdefault((probes, candidates), {"ms": [], "found": answer["found"]})
            own["ms"].append(statistics.median(answer["ms"]))
        own = seen.setdefault("scan", {"ms": []})
        answer = child.ask({"run": "scan", "depth": BEST})
        own["ms"].append(statistics.median(answer["ms"]))
        own["found"] = answer["found"]
    for setting, own in seen.items():
        share = shared([places[:BEST] for places in own["found"]], truth)
        yield setting, statistics.median(own["ms"]), share, own["found"]


def main():
    """Prints the table."""
    options = arguments()
    say = compare.say
    cores = set(sorted(os.sched_getaffinity(0))[:2])
    folder = compare.TARGET / "bench-late" / options.data.name
    child = Child(compare.TOPSHELF, {}, cores, compare.TARGET / "bench-logs" / "late" / "first_stage.log")
    child.ask({"prepare": {"data": str(options.data.absolute()), "folder": str(folder.absolute())}})
    about = json.loads((folder / "vectors.json").read_text())
    passages, queries = read(folder, "passages", about), read(folder, "queries", about)
    say("exact scores")
    vectors, starts = queries
    truth = []
    for first, last in zip(starts, starts[1:], strict=False):
        scores = exact(*passages, vectors[first:last])
        truth.append(set(scores.argsort()[::-1][:BEST].tolist()))
    run = sorted((options.data / "runs").glob("*.trec"))[0]
    collection = compare.Collection(options.data, run, folder)
    texts = len(passages[1]) - 1
    print(f"{options.data.name}: {texts} passages, {len(passages[0])} vectors, {len(truth)} queries\n")
    print("| lists: probes | candidates | ms a query, exact scores included | of the exact best 10 | nDCG@10 |")
    print("| --- | --- | --- | --- | --- |")
    for setting, ms, share, found in of_lists(child, folder, truth, options.rounds, say):
        probes, candidates = setting if setting != "scan" else ("every passage", texts)
        print(f"| {probes} | {candidates} | {ms:.2f} | {share:.4f} | {collection.ndcg(found):.4f} |", flush=True)
    child.stop()
    print("\n| encodings (f32): repetitions x partitions x numbers | candidates | bytes a passage | ms to find them | of the exact best 10 |")
    print("| --- | --- | --- | --- | --- |")
    for name, count, size, ms, share in of_encodings(passages, queries, truth, say):
        print(f"| {name} | {count} | {size} | {ms:.2f} | {share:.4f} |", flush=True)


if __name__ == "__main__":
    main()
