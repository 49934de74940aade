#!/usr/bin/env python3
"""Makes the golden figures of crates/topshelf-eval with pytrec_eval and ir_measures.

    python3 -m venv venv
    venv/bin/pip install pytrec_eval-terrier==0.5.11 ir_measures==0.4.3
    venv/bin/python scripts/eval_goldens.py [--data FOLDER]

Writes into crates/topshelf-eval/tests/data/:

- cases/NAME.qrels, NAME.run, NAME.json: hand-made cases with their figures;
- collections/COLLECTION--RUN.json: the figures of the stored runs of every collection under
  FOLDER (default: ../shared/data beside the repository). Figures only, none of the data.

Every figure is pytrec_eval's (trec_eval's own C code). Three things are done around it:

- judged queries without a document in the run get 0, which is what `trec_eval -c` does and
  pytrec_eval leaves to its caller;
- MRR@k is trec_eval's recip_rank, set to 0 where the first relevant document lies beyond k;
- every measure is computed by ir_measures as well, and the two must agree to 1e-9 per query.
  Only MRR@k is excepted, on queries whose ranking has tied scores: ir_measures computes RR@k
  with MS MARCO's script, which breaks ties by document id ascending where trec_eval breaks them
  descending.
"""

import argparse
import ctypes
import json
import pathlib
import re
import warnings

import ir_measures
import pytrec_eval

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "crates" / "topshelf-eval" / "tests" / "data"

# Canonical name -> (name in ir_measures, name in pytrec_eval's results, its request).
CASE_MEASURES = [
    "nDCG", "nDCG@1", "nDCG@3", "nDCG@10",
    "recall@1", "recall@3", "recall@100", "recall(rel=2)@3",
    "success@1", "success@3", "success(rel=2)@3",
    "precision@1", "precision@3", "precision@10", "precision(rel=2)@3",
    "MRR", "MRR@1", "MRR@3", "MRR@10", "MRR(rel=2)@10",
    "MAP", "MAP@3", "MAP(rel=2)",
]
COLLECTION_MEASURES = [
    "nDCG@10", "recall@5", "recall@20", "recall@100", "success@1", "success@3",
    "precision@10", "MRR@10", "MAP", "MAP@10",
]
GRADED_MEASURES = ["recall(rel=2)@100", "MRR(rel=2)@10", "MAP(rel=2)"]

IR_NAMES = {"nDCG": "nDCG", "recall": "R", "success": "Success", "precision": "P", "MRR": "RR",
            "MAP": "AP"}
PYTREC_NAMES = {"nDCG": "ndcg", "recall": "recall", "success": "success", "precision": "P",
                "MRR": "recip_rank", "MAP": "map"}

# name -> (qrels: {query: {document: grade}}, run: {query: [(document, score)]})
CASES = {
    "graded": (
        {"q1": {"d1": 3, "d2": 2, "d3": 1, "d4": 0, "d5": 2}, "q2": {"d1": 1, "d9": 2}},
        {"q1": [("d4", 9.0), ("d2", 8.0), ("d1", 7.0), ("x", 6.0), ("d3", 5.0), ("d5", 4.0)],
         "q2": [("d9", 0.5), ("d1", 0.25)]},
    ),
    "ties": (
        {"q1": {"b": 1, "d": 1}, "q2": {"9": 1, "10": 2, "2": 0}, "q3": {"Z": 1, "a": 0, "é": 2}},
        {"q1": [(d, 1.0) for d in "abcde"],
         "q2": [("10", 3.0), ("9", 3.0), ("2", 3.0), ("11", 2.0)],
         "q3": [("Z", 0.0), ("a", -0.0), ("é", 0.0), ("z", -1.0)]},
    ),
    "tie_at_the_cut": (
        {"q1": {"d3": 1, "d4": 2}, "q2": {"d0": 1}},
        {"q1": [("d1", 5.0), ("d2", 4.0), ("d3", 2.0), ("d4", 2.0), ("d5", 2.0), ("d6", 1.0)],
         "q2": [(f"d{i}", 1.0) for i in range(10)] + [("top", 2.0)]},
    ),
    "single_precision": (
        # Pairs that differ as 64-bit numbers only; the better one has the lower id.
        {"q1": {"a": 1}, "q2": {"a": 2, "b": 1}, "q3": {"a": 1}, "q4": {"a": 1},
         "q5": {"a": 1}},
        {"q1": [("a", 0.5 + 1e-12), ("b", 0.5)],
         "q2": [("a", 16777217.0), ("b", 16777216.0)],
         "q3": [("a", 0.89091682), ("b", 0.89091681), ("c", 0.1)],
         # Still apart as 32-bit numbers.
         "q4": [("a", 0.5 + 1e-7), ("b", 0.5)],
         # Both beyond the largest 32-bit number.
         "q5": [("a", 1e39), ("b", 5e38), ("c", 1e38)]},
    ),
    "missing_and_unjudged": (
        {"q1": {"d1": 1}, "q2": {"d1": 1}, "q3": {"d2": 1}, "q4": {"d1": 0}},
        {"q1": [("d2", 2.0), ("d1", 1.0)], "q3": [("d7", 3.0), ("d8", 2.0)],
         "q9": [("d1", 1.0)], "q4": [("d1", 1.0), ("d2", 0.5)]},
    ),
    "empty_run": ({"q1": {"d1": 1}, "q2": {"d1": 2, "d2": 0}}, {}),
    "negative_grades": (
        {"q1": {"spam": -2, "good": 1, "best": 2, "junk": -1, "off": 0},
         "q2": {"spam": -2, "off": 0}},
        {"q1": [("spam", 5.0), ("good", 4.0), ("junk", 3.0), ("best", 2.0)],
         "q2": [("spam", 2.0), ("off", 1.0)]},
    ),
    "few_results": (
        {"q1": {f"d{i}": 1 + i % 3 for i in range(12)}, "q2": {"d1": 1}},
        {"q1": [("d5", 2.0), ("d1", 1.0)], "q2": [("d1", 1.0)]},
    ),
    "large_grades": (
        {"q1": {"a": 1000, "b": 1, "c": 7}},
        {"q1": [("b", 3.0), ("c", 2.0), ("a", 1.0)]},
    ),
}


def split_name(name):
    kind, rel, k = re.fullmatch(r"(\w+?)(?:\(rel=(\d+)\))?(?:@(\d+))?", name).groups()
    return kind, int(rel or 1), int(k) if k else None


def single(score):
    """The score as trec_eval holds it."""
    return ctypes.c_float(score).value


def by_pytrec_eval(name, qrels, run):
    kind, rel, k = split_name(name)
    request = result = PYTREC_NAMES[kind]
    if k and kind != "MRR":
        cut = request + ("_cut" if kind in ("nDCG", "MAP") else "")
        request, result = f"{cut}.{k}", f"{cut}_{k}"
    found = pytrec_eval.RelevanceEvaluator(qrels, {request}, relevance_level=rel).evaluate(run)
    values = {query: found.get(query, {}).get(result, 0.0) for query in qrels}
    if kind == "MRR" and k:
        values = {q: v if v * k >= 1 - 1e-9 else 0.0 for q, v in values.items()}
    return values


def by_ir_measures(name, qrels, run):
    kind, rel, k = split_name(name)
    spelled = IR_NAMES[kind] + (f"(rel={rel})" if rel > 1 else "") + (f"@{k}" if k else "")
    measure = ir_measures.parse_measure(spelled)
    values = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    return {query: values.get(query, 0.0) for query in qrels}


def figures(measures, qrels, run):
    tied = {q for q, docs in run.items() if len({single(s) for s in docs.values()}) < len(docs)}
    queries = sorted(qrels, key=str.encode)
    result = {"queries": queries, "measures": {}}
    for name in measures:
        values, others = by_pytrec_eval(name, qrels, run), by_ir_measures(name, qrels, run)
        for query in queries:
            if not (name.startswith("MRR") and "@" in name and query in tied):
                assert abs(values[query] - others[query]) < 1e-9, (name, query)
        per_query = [round(values[query], 9) for query in queries]
        mean = round(sum(values.values()) / len(values), 9)
        result["measures"][name] = {"mean": mean, "per_query": per_query}
    return result


def write_json(path, value):
    """One measure a line, so that a change can be read."""
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(scores)}" for name, scores in value["measures"].items())
    path.write_text(
        f'{{\n  "queries": {json.dumps(value["queries"])},\n  "measures": {{\n{lines}\n  }}\n}}\n')


def make_cases():
    folder = OUT / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (qrels, run) in CASES.items():
        with open(folder / f"{name}.qrels", "w", encoding="utf-8") as file:
            for query, documents in qrels.items():
                for document, grade in documents.items():
                    file.write(f"{query} 0 {document} {grade}\n")
        with open(folder / f"{name}.run", "w", encoding="utf-8") as file:
            for query, documents in run.items():
                for document, score in documents:
                    # The rank column is wrong on purpose: nothing may read it.
                    file.write(f"{query} Q0 {document} 1 {score!r} golden\n")
        run = {query: dict(documents) for query, documents in run.items()}
        write_json(folder / f"{name}.json", figures(CASE_MEASURES, qrels, run))
        print(f"case {name}")


def read_beir_qrels(path):
    qrels = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def make_collections(data):
    folder = OUT / "collections"
    folder.mkdir(parents=True, exist_ok=True)
    for collection in sorted(path for path in data.iterdir() if path.is_dir()):
        qrels = read_beir_qrels(collection / "qrels" / "test.tsv")
        graded = any(grade > 1 for documents in qrels.values() for grade in documents.values())
        measures = COLLECTION_MEASURES + (GRADED_MEASURES if graded else [])
        for path in sorted(collection.glob("runs/*.trec")):
            with open(path, encoding="utf-8") as file:
                run = pytrec_eval.parse_run(file)
            result = figures(measures, qrels, run)
            write_json(folder / f"{collection.name}--{path.stem}.json", result)
            mean = result["measures"]["nDCG@10"]["mean"]
            print(f"{collection.name} {path.stem}: nDCG@10 {mean:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    data = parser.parse_args().data
    warnings.simplefilter("ignore")
    make_cases()
    if data.is_dir():
        make_collections(data)
    else:
        print(f"{data} is not there; its golden figures are left as they are")


if __name__ == "__main__":
    main()
