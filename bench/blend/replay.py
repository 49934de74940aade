#!/usr/bin/env python3
"""Blends tried on what record.py wrote: `python3 bench/blend/replay.py --out target/blend`.

For each task and first stage: nDCG@10 of the first stage, of each rule, and the rule's difference from the
first stage with a paired-bootstrap 95 % interval, as Markdown on standard output. A rule is a function from
what the pipeline sees of a query to the weight of the reranker in

    score = w * minmax(reranker) + (1 - w) * minmax(first stage)

over the same candidates, with the ties of Topshelf (candidates) and of trec_eval (measuring).

Needs numpy and tokenizers (`pip install numpy tokenizers`) and the reranker's tokenizer.json.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
from tokenizers import Tokenizer

from record import read_run

ROOT = Path(__file__).resolve().parents[2]
RERANKER = "models/cross-encoder--ms-marco-MiniLM-L12-v2/tokenizer.json"
# Which retrievers, and the k of reciprocal rank fusion where there are several.
FIRST_STAGES = {
    "bm25": (("bm25",), None),
    "dense": (("dense",), None),
    "hybrid": (("bm25", "dense"), 60),
    "colbert": (("colbert",), None),
    "bm25+colbert": (("bm25", "colbert"), 60),
    "three": (("bm25", "dense", "colbert"), 10),
}
RESAMPLES = 10_000
Scores = dict[str, float]


def minmax(scores: Scores) -> Scores:
    """Scores brought to 0..1; all 1 if they are equal, as Topshelf has it."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if high <= low:
        return dict.fromkeys(scores, 1.0)
    return {name: (score - low) / (high - low) for name, score in scores.items()}


def best(scores: Scores, count: int | None = None) -> list[str]:
    """Names by score descending, then by name, as Topshelf orders candidates."""
    return sorted(scores, key=lambda name: (-scores[name], name))[:count]


def fuse(rankings: list[list[str]], k: int) -> Scores:
    """Reciprocal rank fusion."""
    fused: Scores = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, 1):
            fused[name] = fused.get(name, 0.0) + 1.0 / (k + rank)
    return fused


def ndcg(scores: Scores, judged: dict[str, int], drop: list[str]) -> float:
    """nDCG@10 with linear gains and trec_eval's ties (by name, descending)."""
    order = sorted((name for name in scores if name not in drop), key=lambda n: (scores[n], n), reverse=True)
    discounts = 1.0 / numpy.log2(numpy.arange(2, 12))
    gains = [max(judged.get(name, 0), 0) for name in order[:10]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:10]
    got = float(numpy.dot(gains, discounts[: len(gains)]))
    return got / float(numpy.dot(ideal, discounts[: len(ideal)]))


def rank_correlation(left: Scores, right: Scores) -> float:
    """Spearman's correlation over the same names; 0 where one side is constant."""
    names = sorted(left)
    ranks = []
    for side in (left, right):
        order = {name: place for place, name in enumerate(best(side))}
        ranks.append(numpy.array([order[name] for name in names], dtype=float))
    if len(names) < 3:
        return 0.0
    return float(numpy.corrcoef(ranks[0], ranks[1])[0, 1])


@dataclass
class Seen:
    """What the pipeline sees of one query, with its judgements beside it."""

    query: str
    tokens: int
    lists: dict[str, list[str]]
    first: Scores
    rerank: Scores
    judged: dict[str, int]
    drop: list[str]

    @property
    def fused(self) -> bool:
        """Whether several retrievers found the candidates."""
        return len(self.lists) > 1

    @cached_property
    def correlation(self) -> float:
        """Rank correlation of reranker and first stage over the candidates."""
        return rank_correlation(self.first, self.rerank)

    @cached_property
    def top_shared(self) -> float:
        """Share of the first stage's ten best that are among the reranker's ten best."""
        return len(set(best(self.first, 10)) & set(best(self.rerank, 10))) / 10

    @cached_property
    def best_logit(self) -> float:
        """The reranker's best score."""
        return max(self.rerank.values())

    def measure(self, weight: float) -> float:
        """nDCG@10 of the blend of that weight."""
        first, rerank = minmax(self.first), minmax(self.rerank)
        blended = {name: weight * rerank[name] + (1 - weight) * first[name] for name in first}
        return ndcg(blended, self.judged, self.drop)


Rule = Callable[[Seen], float]


def two_weights(seen: Seen) -> float:
    """.7 after a fused first stage, .9 after a single retriever."""
    return 0.7 if seen.fused else 0.9


def load(folder: Path, tokenizer: Tokenizer) -> dict[str, list[Seen]]:
    """Each first stage of a task, with what was seen of each query."""
    about = json.loads((folder / "task.json").read_text())
    queries, judged = about["queries"], about["judged"]
    runs = {
        name: read_run(folder / f"runs/{name}.trec", about["depth"])
        for name in ("bm25", "dense", "colbert")
        if (folder / f"runs/{name}.trec").exists()
    }
    scored = {q: dict(hits) for q, hits in read_run(folder / "runs/rerank.trec", None).items()}
    tokens = {query: len(tokenizer.encode(text).ids) - 2 for query, text in queries.items()}
    stages = {}
    for stage, (names, k) in FIRST_STAGES.items():
        if not all(name in runs for name in names):
            continue
        stages[stage] = []
        for query, text in queries.items():
            found = {name: dict(runs[name].get(query, [])) for name in names}
            lists = {name: best(scores) for name, scores in found.items()}
            first = fuse(list(lists.values()), k) if k else found[names[0]]
            first = {name: first[name] for name in best(first, about["depth"])}
            rerank = {name: scored[query][name] for name in first}
            if len(first) < 2:
                continue
            drop = about["drop"].get(query, [])
            stages[stage].append(Seen(text, tokens[query], lists, first, rerank, judged[query], drop))
    return stages


def interval(differences: numpy.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences with its 95 % bootstrap interval."""
    random = numpy.random.default_rng(1)
    draws = random.integers(0, len(differences), (RESAMPLES, len(differences)))
    means = differences[draws].mean(axis=1)
    low, high = numpy.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


# Tokens from which a query is no longer of the kind that the reranker was trained on.
LONG = 40


def by_evidence(seen: Seen) -> float:
    """.9 after one retriever, .7 after several, .5 where one of them is late interaction.

    Late interaction compares tokens as the reranker does, and is often as good.
    """
    if "colbert" in seen.lists:
        return 0.5
    return two_weights(seen)


def constant(weight: float) -> Rule:
    """The same weight for every query."""
    return lambda _: weight


def capped(rule: Rule, cap: float, tokens: int = LONG) -> Rule:
    """At most `cap` for queries of more than `tokens` tokens."""
    return lambda seen: min(rule(seen), cap) if seen.tokens > tokens else rule(seen)


def fading(rule: Rule, tokens: int = LONG) -> Rule:
    """Weight in inverse proportion to the query's length beyond `tokens` tokens."""
    return lambda seen: rule(seen) * min(1.0, tokens / max(seen.tokens, 1))


def agreeing(rule: Rule, bound: float) -> Rule:
    """Weight in proportion to the stages' rank correlation, where that is below `bound`."""
    return lambda seen: rule(seen) * min(1.0, max(0.0, seen.correlation) / bound)


def confident(rule: Rule, bound: float, cap: float) -> Rule:
    """At most `cap` where the reranker's best score is below `bound`."""
    return lambda seen: min(rule(seen), cap) if seen.best_logit < bound else rule(seen)


RULES: dict[str, Rule] = {
    "plain": constant(1.0),
    **{f".{tenths}": constant(tenths / 10) for tenths in (9, 8, 7, 6, 5)},
    "two weights": two_weights,
    "by evidence": by_evidence,
    **{f"long .{tenths}": capped(by_evidence, tenths / 10) for tenths in (5, 3, 1)},
    "default": capped(by_evidence, 0.0),
    "fading": fading(by_evidence),
    "agreeing .3": agreeing(by_evidence, 0.3),
    "confident .5": confident(by_evidence, 0.0, 0.5),
}


def row(cells) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def figure(value: float) -> str:
    """Three digits behind the point and a sign."""
    return f"{value:+.3f}"


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "target/blend", help="what record.py wrote")
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache/topshelf", help="Topshelf's home")
    parser.add_argument("--tasks", help="names with commas (default: all that are recorded)")
    parser.add_argument("--rules", help="names with commas (default: all)")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(options.home / RERANKER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    recorded = sorted(path.parent.parent.name for path in options.out.glob("*/runs/rerank.trec"))
    rules = {name: RULES[name] for name in options.rules.split(",")} if options.rules else RULES
    print(row(["task", "first stage", "queries", "tokens", "first", *rules]))
    print(row(["---"] * (5 + len(rules))))
    every: dict[str, list[float]] = {name: [] for name in rules}
    for task in options.tasks.split(",") if options.tasks else recorded:
        for stage, seen in load(options.out / task, tokenizer).items():
            first = numpy.array([one.measure(0.0) for one in seen])
            cells = []
            for name, rule in rules.items():
                ruled = numpy.array([one.measure(rule(one)) for one in seen])
                mean, low, high = interval(ruled - first)
                every[name].append(mean)
                mark = "**" if high < 0 else ""
                cells.append(f"{mark}{figure(mean)}{mark} ({figure(low)}..{figure(high)})")
            tokens = int(numpy.median([one.tokens for one in seen]))
            print(row([task, stage, len(seen), tokens, f"{first.mean():.4f}", *cells]))
    print(row(["mean", "", "", "", "", *(figure(float(numpy.mean(of))) for of in every.values())]))
    print(row(["worst", "", "", "", "", *(figure(min(of)) for of in every.values())]))


if __name__ == "__main__":
    main()
