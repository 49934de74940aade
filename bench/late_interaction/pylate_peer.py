"""PyLate behind the protocol of `crates/topshelf/examples/token_vectors.rs`.

| request | answer |
| --- | --- |
| `{"load": {"folder": folder, "bits": n or null}}` | `{"load_ms": t, "engine": text}` |
| `{"run": "rerank", "candidates": [[place, ...], ...]}` | `{"ms": [...], "found": [[...], ...]}` |
| `{"run": "search", "depth": n}` | the same of the whole collection; with bits only |

Reranking is `rank.rerank` over f32 tensors in memory, searching is `indexes.PLAID`, which is
fast-plaid, with its usual parameters.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pylate import indexes, rank


class Peer:
    """The vectors, and the index if bits were given."""

    def __init__(self, folder, bits):
        """Reads the vectors; makes the index if it is not there."""
        folder = Path(folder)
        about = json.loads((folder / "vectors.json").read_text())
        self.passages = read(folder / "passages.f32", about["passages"], about["dimension"])
        self.queries = read(folder / "queries.f32", about["queries"], about["dimension"])
        self.index = self.plaid(folder, bits) if bits else None

    def plaid(self, folder, bits):
        """PyLate's index of the passages."""
        name = f"pylate-{bits}"
        done = folder / f"{name}.done"
        index = indexes.PLAID(
            index_folder=str(folder),
            index_name=name,
            override=not done.exists(),
            nbits=bits,
            device="cpu",
            show_progress=False,
        )
        if not done.exists():
            places = [str(place) for place in range(len(self.passages))]
            index.add_documents(places, self.passages)
            done.touch()
        return index

    def run(self, request):
        """All queries, one after the other."""
        times, found = [], []
        for at, query in enumerate(self.queries):
            if request["run"] == "search":
                start = time.perf_counter()
                results = self.index(query.unsqueeze(0), k=request["depth"])
            else:
                places = request["candidates"][at]
                vectors = [self.passages[place] for place in places]
                start = time.perf_counter()
                results = rank.rerank([places], query.unsqueeze(0), [vectors])
            times.append(milliseconds(start))
            found.append([int(result["id"]) for result in results[0]])
        return {"ms": times, "found": found}


def read(path, counts, dimension):
    """The vectors of each text."""
    values = torch.from_numpy(np.fromfile(path, dtype=np.float32).reshape(-1, dimension))
    return list(torch.split(values, counts))


def milliseconds(start):
    """The time since `start`, a reading of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1000


def answer(request, peers):
    """Answers one request."""
    if "load" in request:
        start = time.perf_counter()
        peers[:] = [Peer(**request["load"])]
        return {"load_ms": milliseconds(start), "engine": f"PyLate on torch {torch.__version__}"}
    with torch.inference_mode():
        return peers[0].run(request)


def main():
    """Answers requests; what libraries print goes to standard error."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peers = []
    for line in sys.stdin:
        try:
            told = answer(json.loads(line), peers)
        except Exception as error:  # whatever a peer throws is its reason for being left out
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
