"""Runs workloads in interleaved rounds: every engine once, then every engine once more.

A machine's speed drifts within minutes, so only engines that ran in the same round are compared
with each other. A slow engine takes part in fewer rounds: in as many as fit into a budget of
seconds, estimated from its warm-up run, and in one at least. A short workload is run several times
in a round, and the median of these is the round's time.
"""

import math
import statistics
import sys
import time

from child import Child, EngineFailed

# Threads of some runtimes spin for up to 200 ms after a run and would disturb the next engine.
PAUSE_SECONDS = 0.3
# A single pair takes milliseconds, and one such time says little.
LEAST_SECONDS, MOST_REPEATS = 0.3, 20
PRECISIONS = ("int8", "bf16", "f32")


class Team:
    """The engines that are loaded, and what became of each."""

    def __init__(self, cores, logs):
        """Takes the cores to run on and the folder for what engines print."""
        self.cores = cores
        self.logs = logs
        self.children = {}
        self.engines = {}
        self.left_out = {}
        self.results = {}
        self.peaks = {}
        self.turns = {}

    def start(self, engine, starts):
        """Starts an engine `starts` times and keeps the last process.

        The first start warms the disk; load and start times are those of the last.
        """
        child = None
        say(f"loading {engine.name}")
        try:
            for _ in range(starts):
                if child:
                    child.stop()
                log = self.logs / f"{engine.name}.log"
                child = Child(engine.command, engine.environment, self.cores, log)
                loaded = child.load(engine.settings)
            memory = child.peak_memory()
        except (EngineFailed, OSError) as error:
            if child:
                child.stop()
            self.leave_out(engine.name, f"{error}")
            return
        self.children[engine.name] = child
        self.engines[engine.name] = {
            "what": engine.what,
            "engine": loaded.get("engine"),
            "precision": engine.precision,
            "load_ms": loaded["load_ms"],
            "start_ms": loaded["start_ms"],
            "loaded_bytes": memory,
        }

    def leave_out(self, name, reason):
        """Notes why an engine is not among the results."""
        reason = " ".join(reason.split())
        self.left_out[name] = reason
        say(f"left out: {name}: {reason}")

    def run(self, workload, rounds, budget):
        """Runs a workload with every engine; fills `results` and `peaks`."""
        results = self.results[workload.name] = {}
        self.peaks[workload.name] = {precision: [] for precision in PRECISIONS}
        estimates = {}
        for name in list(self.children):
            say(f"{workload.name}: warm-up of {name}")
            if (first := self.attempt(workload, name)) is not None:
                results[name] = {"ms": {}, "scores": first["scores"], "tokens": first["tokens"]}
                estimates[name] = first["ms"] / 1000
        limits = {n: max(1, min(rounds, int(budget / t))) for n, t in estimates.items()}
        for number in range(rounds):
            self.round(workload, number, limits, estimates)
        for name in results:
            results[name]["peak_bytes"] = self.children[name].peak_memory()

    def round(self, workload, number, limits, estimates):
        """One round: every engine that has rounds left, in turn, then the machine's peaks."""
        for name in [name for name, limit in limits.items() if number < limit]:
            done = {n: len(self.results[workload.name][n]["ms"]) for n in limits}
            left = sum((limits[n] - done[n]) * estimates[n] for n in limits)
            what = f"{workload.name}: round {number + 1} of {limits[name]}: {name}"
            say(f"{what}, about {estimates[name]:.2f} s; about {left:.0f} s to the end")
            ms = self.time(workload.name, name, estimates[name])
            if ms is None:
                del limits[name]
            else:
                self.results[workload.name][name]["ms"][number] = ms
        self.measure_peaks(workload.name)

    def take_turns(self, name, workloads, rounds):
        """Runs workloads of one engine one after the other in each round; fills `turns`.

        Times of two workloads can be compared only if they were measured together.
        """
        known = [self.results.get(workload, {}).get(name) for workload in workloads]
        if None in known:
            return
        estimates = [statistics.median(result["ms"].values()) / 1000 for result in known]
        turns = {workload: [] for workload in workloads}
        for number in range(rounds):
            say(f"{name}: {' and '.join(workloads)} in turn, round {number + 1} of {rounds}")
            for workload, estimate in zip(workloads, estimates, strict=True):
                turns[workload].append(self.time(workload, name, estimate))
        if not any(None in times for times in turns.values()):
            self.turns[name] = turns

    def time(self, workload, name, estimate):
        """A round's time in milliseconds; `None` if the engine failed."""
        time.sleep(PAUSE_SECONDS)
        repeats = min(MOST_REPEATS, math.ceil(LEAST_SECONDS / estimate))
        answers = [self.ask(workload, name) for _ in range(repeats)]
        return None if None in answers else statistics.median(answer["ms"] for answer in answers)

    def attempt(self, workload, name):
        """Sends a workload to an engine and runs it once; `None` if the engine failed."""
        key = "texts" if isinstance(workload.items[0], str) else "pairs"
        return self.ask(workload.name, name, {"workload": workload.name, key: workload.items})

    def ask(self, workload, name, before=None):
        """A run of a workload; an engine that fails is dropped with its reason."""
        child = self.children.get(name)
        if child is None:
            return None
        try:
            if before:
                child.ask(before)
            return child.ask({"run": workload})
        except EngineFailed as error:
            self.leave_out(name, f"{error} (in {workload})")
            self.results[workload].pop(name, None)
            self.children.pop(name).stop()
            return None

    def measure_peaks(self, workload):
        """What the cores reach in each precision now, measured by a Topshelf engine."""
        child = next((c for n, c in self.children.items() if n.startswith("topshelf")), None)
        for precision, figures in self.peaks[workload].items():
            gops = child.ask({"peak": precision})["gops"] if child else None
            if gops is not None:
                figures.append(gops)

    def stop(self):
        """Ends all engines."""
        for child in self.children.values():
            child.stop()
        self.children.clear()


def say(text):
    """Tells on standard error what happens."""
    print(text, file=sys.stderr, flush=True)
