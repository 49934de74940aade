"""The line protocol between the comparison and an engine, from the engine's side.

An engine is a process that lives for the whole comparison. It reads one JSON object a line from
standard input and answers each with one line on standard output:

| request | answer |
| --- | --- |
| `{"load": settings}` | `{"load_ms": t}`: the model made ready, imports not counted; also |
| | `"engine": text` where the engine tells what it really runs |
| `{"workload": name, "pairs": [[query, passage], ...]}` | `{"stored": n}` |
| `{"workload": name, "texts": [text, ...]}` | `{"stored": n}` |
| `{"run": name}` | `{"ms": t, "scores": [...], "tokens": n or null}` |

The time of a run includes tokenising. `scores` are the logits of the first five pairs in their
given order, or the first five numbers of the first text's vector. `tokens` is what the model read
without padding, `null` where the engine does not tell. A failure is answered with
`{"error": reason}`, and the engine goes on reading.
"""

import json
import os
import sys
import time

SHOWN = 5


class Session:
    """One engine, loaded on request, and the workloads it was sent."""

    def __init__(self, engines):
        """Takes the classes that may be loaded, by name."""
        self.engines = engines
        self.engine = None
        self.workloads = {}

    def answer(self, request):
        """Answers one request."""
        if "load" in request:
            return self.load(dict(request["load"]))
        if "workload" in request:
            items = request["texts"] if "texts" in request else request["pairs"]
            self.workloads[request["workload"]] = items
            return {"stored": len(items)}
        if "run" in request:
            return self.run(self.workloads[request["run"]])
        raise ValueError("unknown request: load, workload and run are known")

    def load(self, settings):
        """Imports the engine's packages, then makes the model ready and times that."""
        kind = self.engines[settings.pop("engine")]
        kind.imports()
        start = time.perf_counter()
        self.engine = kind(**settings)
        return {"load_ms": milliseconds(start)}

    def run(self, items):
        """Runs a workload once."""
        start = time.perf_counter()
        scores, tokens = self.engine.run(items)
        elapsed = milliseconds(start)
        return {"ms": elapsed, "scores": [float(s) for s in scores[:SHOWN]], "tokens": tokens}


def milliseconds(start):
    """The time since `start`, a reading of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1000


def serve(engines):
    """Answers requests until standard input ends.

    What libraries print goes to standard error, so that the answers stay one a line.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(engines)
    for line in sys.stdin:
        try:
            answer = session.answer(json.loads(line))
        except Exception as error:  # whatever a peer throws is its reason for being left out
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
