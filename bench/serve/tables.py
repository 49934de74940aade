"""What a figure says: rows, percentiles, verdicts, as Markdown and as JSON."""

import dataclasses
import math
import statistics


@dataclasses.dataclass
class Figure:
    """One figure: how it was taken, its rows, and what was wanted of it."""

    name: str
    how: str
    columns: list
    rows: list = dataclasses.field(default_factory=list)
    wanted: list = dataclasses.field(default_factory=list)

    def add(self, *cells):
        """A row."""
        self.rows.append(list(cells))

    def want(self, what, holds, seen):
        """Something that was wanted, whether it holds, and what was seen."""
        self.wanted.append({"what": what, "holds": bool(holds), "seen": seen})

    def markdown(self):
        """The figure as a section."""
        head = [f"| {' | '.join(self.columns)} |", f"|{' --- |' * len(self.columns)}"]
        rows = [f"| {' | '.join(shown(cell) for cell in row)} |" for row in self.rows]
        wanted = [f"- {'yes' if w['holds'] else 'NO'}: {w['what']} ({w['seen']})" for w in self.wanted]
        table = "\n".join([*head, *rows])
        return "\n\n".join([f"## {self.name}", self.how, table, "\n".join(wanted)]).rstrip()

    def as_json(self):
        """The figure as an object."""
        return dataclasses.asdict(self)


def shown(cell):
    """A cell: three digits that count of a number that is not whole."""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def percentile(values, share):
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def median(values):
    """The median; not a number of nothing."""
    values = list(values)
    return statistics.median(values) if values else math.nan


def spread(values):
    """Median, smallest and largest as text."""
    values = list(values)
    return f"{median(values):.2f} ({min(values):.2f}..{max(values):.2f})" if values else "none"
