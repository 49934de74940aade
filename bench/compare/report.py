"""From times to figures: medians, ratios of the same round, shares of the peak; as Markdown.

- ratio: an engine's time divided by the reference's in the same round; the median of these, and
  the smallest and the largest;
- tokens/s: tokens of the workload without padding, counted once for all engines, by the median;
- share of peak: nominal operations (`workloads.Shape.operations`) by the median, divided by what
  the cores reached on registers alone in the engine's precision, measured in every round;
- difference: the largest of the first five scores to those of ONNX Runtime one pair a tensor.
"""

import fnmatch
import statistics

TRUTH = "ort-int8-1"
HEADER = (
    "| engine | median ms | ratio (min..max) | tokens/s | % of its peak | peak MB | rounds "
    "| diff |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def ratios(times, reference):
    """Per-round ratios of two engines' times by round."""
    return [times[r] / reference[r] for r in sorted(times) if r in reference]


def spread(values):
    """Median, smallest and largest as text."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


class Figures:
    """The figures of one comparison, from its record."""

    def __init__(self, record):
        """Takes the object that is also written as JSON."""
        self.record = record
        self.results = record["results"]

    def median(self, workload, name):
        """The median time in milliseconds, `None` if the engine did not run."""
        times = self.times(workload, name)
        return statistics.median(times.values()) if times else None

    def times(self, workload, name):
        """The times of an engine by round; empty if it did not run."""
        return self.results.get(workload, {}).get(name, {}).get("ms", {})

    def best(self, workload, pattern):
        """The engine of the smallest median among those that match."""
        names = fnmatch.filter(self.results.get(workload, {}), pattern)
        names = [name for name in names if self.times(workload, name)]
        return min(names, key=lambda name: self.median(workload, name), default=None)

    def share(self, workload, name):
        """The share of the peak of the engine's precision, `None` where that is not known."""
        peaks = self.record["peaks"][workload][self.engine(workload, name)["precision"]]
        median = self.median(workload, name)
        if not peaks or median is None:
            return None
        gops = self.record["workloads"][workload]["operations"] / median / 1e6
        return gops / statistics.median(peaks)

    def engine(self, workload, name):
        """What is known of an engine."""
        return self.record["engines"][self.record["workloads"][workload]["family"]][name]

    def rate(self, workload, name):
        """Tokens a second by the median."""
        tokens = self.record["workloads"][workload]["tokens"]
        return tokens / self.median(workload, name) * 1000

    def difference(self, workload, name):
        """The largest difference of a score to the truth, `None` where that did not run."""
        truth = self.results[workload].get(TRUTH)
        if truth is None:
            return None
        own = self.results[workload][name]["scores"]
        return max(abs(a - b) for a, b in zip(own, truth["scores"], strict=True))


def markdown(record):
    """The whole report."""
    figures = Figures(record)
    parts = [heading(record), highlights(figures)]
    parts += [table(figures, workload) for workload in record["workloads"]]
    parts += [loads(record), left_out(record), versions(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(record):
    """What was run on what."""
    machine = record["machine"]
    changed = " with changes" if machine["changed_since_commit"] else ""
    cores = ", ".join(map(str, machine["cores"]))
    return (
        f"# Cross-encoders on a CPU: {machine['cpu']}, {record['date']}\n\n"
        f"Cores {cores} of {machine['cores_of_machine']} ({' '.join(machine['flags'])}), one thread"
        f" each; {machine['system']}; commit {machine['commit'][:12]}{changed}; load average before"
        f" {machine['load_before'][0]:.1f}. Command: `compare.py {' '.join(record['arguments'])}`."
        f" Up to {record['rounds']} interleaved rounds; times include tokenising."
        f" The f32 weights are the integers of the int8 file put back to f32: logits differ by up"
        f" to {record['largest_difference']:.2f}.\n\n"
        f"Ratio: time divided by that of {record['reference']} in the same round (median, smallest"
        " to largest); above 1 is slower. Nominal operations: layers x (tokens x 2 x (4 h^2 +"
        " 2 h i) + 4 tokens^2 h) for each sequence. Its peak: what the same cores reached in the"
        " engine's precision on registers alone. Diff: the largest difference of the first five"
        f" scores to {TRUTH}."
    )


def table(figures, workload):
    """The engines of one workload, fastest first."""
    about = figures.record["workloads"][workload]
    names = [name for name in figures.results.get(workload, {}) if figures.times(workload, name)]
    names.sort(key=lambda name: figures.median(workload, name))
    peaks = figures.record["peaks"].get(workload, {})
    known = [f"{p} {statistics.median(v):.0f}" for p, v in peaks.items() if v]
    return "\n".join(
        [
            f"## {workload}\n",
            f"{about['items']} items, {about['tokens']} tokens, {about['shortest']} to"
            f" {about['longest']} each; {about['operations'] / 1e9:.1f} Gop;"
            f" peaks in Gop/s: {', '.join(known) or 'unknown'}.\n",
            HEADER,
            *(row(figures, workload, name) for name in names),
        ]
    )


def row(figures, workload, name):
    """One line of the table."""
    result = figures.results[workload][name]
    reference = figures.times(workload, figures.record["reference"])
    share, difference = figures.share(workload, name), figures.difference(workload, name)
    cells = [
        name,
        f"{figures.median(workload, name):.1f}",
        spread(ratios(result["ms"], reference)),
        f"{figures.rate(workload, name):.0f}",
        "unknown" if share is None else f"{share:.0%}",
        f"{result['peak_bytes'] / 1e6:.0f}",
        str(len(result["ms"])),
        "-" if difference is None else f"{difference:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def highlights(figures):
    """The questions the comparison is for, those that this run can answer."""
    lines = [
        against(figures, "short-100", "ort-int8-*", "topshelf-int8"),
        against(figures, "short-100", "ort-int8-all", "topshelf-int8"),
        against(figures, "short-100", "st-f32", "topshelf-int8"),
        against(figures, "short-100", "ort-f32-*", "topshelf-f32"),
        *(peak_line(figures, workload) for workload in ("passages", "fixed-128", "long")),
        latency(figures),
        against(figures, "embed", "ort-int8-*", "topshelf-int8"),
    ]
    lines = [f"- {line}" for line in lines if line]
    return "\n".join(["## In short\n", *lines]) if lines else ""


def against(figures, workload, pattern, reference):
    """How much longer the best engine of the pattern takes than the reference."""
    best = figures.best(workload, pattern)
    if best is None or not figures.times(workload, reference):
        return None
    values = ratios(figures.times(workload, best), figures.times(workload, reference))
    the_best = f"the best of {pattern}, {best}," if "*" in pattern else best
    return f"{workload}: {the_best} takes {spread(values)} times as long as {reference}"


def peak_line(figures, workload):
    """Topshelf's share of the int8 peak."""
    if not figures.times(workload, "topshelf-int8"):
        return None
    share = figures.share(workload, "topshelf-int8")
    return f"{workload}: topshelf-int8 at {share:.0%} of the int8 peak" if share else None


def latency(figures):
    """A single pair's time for each token against that in a hundred pairs, measured in turn."""
    turns = figures.record["turns"].get("topshelf-int8")
    if not turns:
        return None
    tokens = [figures.record["workloads"][workload]["tokens"] for workload in turns]
    of_one, of_hundred = ([ms / n for ms in turns[w]] for w, n in zip(turns, tokens, strict=True))
    values = [one / hundred for one, hundred in zip(of_one, of_hundred, strict=True)]
    return (
        f"short-1: topshelf-int8 takes {spread(values)} times as long for a token as in short-100,"
        " the two run in turn"
    )


def loads(record):
    """Load times and memory of each engine."""
    lines = [
        "## Load\n",
        "Load: the model made ready. Start: from the start of the process, imports included. The"
        " disk is warm.\n",
        "| engine | what | load ms | start ms | MB loaded |",
        "| --- | --- | --- | --- | --- |",
    ]
    for family, engines in record["engines"].items():
        for name, about in engines.items():
            cells = [
                f"{name} ({family})",
                f"{about['what']} ({about['engine']})" if about["engine"] else about["what"],
                f"{about['load_ms']:.0f}",
                f"{about['start_ms']:.0f}",
                f"{about['loaded_bytes'] / 1e6:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def left_out(record):
    """What is missing, and why."""
    reasons = [f"- {name}: {reason}" for name, reason in record["left_out"].items()]
    return "\n".join(["## Left out\n", *reasons]) if reasons else ""


def versions(record):
    """The versions of everything, on one line."""
    known = record["machine"]["versions"].items()
    return "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in known)
