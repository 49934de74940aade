"""What is run: pairs of known length, made from the test collections in `../shared/data`.

Passages are only ever cut at the end and at the edge of a token, so that the count after cutting
is exact. Everything follows from the order of the collection's own files; nothing is drawn.

| name | what |
| --- | --- |
| `short-100` | msmarco-dl19: a query with its 100 best passages by BM25, each cut to the same |
| | share of its tokens, so that a pair has 66 on average |
| `short-1000` | the same of ten queries |
| `short-1`, `short-10` | of `short-100`: the pair of 66 tokens; ten evenly spaced by length |
| `passages` | scifact: 100 pairs that have 128 to 256 tokens as they are |
| `fixed-128` | scifact: 100 pairs cut to 128 |
| `long` | scifact: 32 pairs cut to 512, abstracts joined until they reach |
| `embed` | scifact's titles and abstracts, cut at 512 |
"""

import dataclasses
import json

SHORT_MEAN = 66
WINDOW = 512
SPECIAL = 3
PAIRS, LONG_PAIRS = 100, 32
NAMES = ("short-1", "short-10", "short-100", "passages", "fixed-128", "long", "short-1000")
QUICK = ("short-1", "short-100")


@dataclasses.dataclass
class Workload:
    """Items (pairs or texts), and how many tokens the model reads of each."""

    name: str
    items: list
    tokens: list

    def operations(self, shape):
        """Nominal operations: see `Shape.operations`."""
        return sum(shape.operations(length) for length in self.tokens)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of an encoder: layers, hidden size, size of the feed-forward layer."""

    layers: int
    hidden: int
    intermediate: int

    def operations(self, length):
        """Nominal operations of a sequence, a multiplication and an addition counting as two.

        `layers * (length * 2 * (4 h^2 + 2 h i) + 4 * length^2 * h)`: the products with weights,
        and scores and mixing of the attention. What an engine leaves out or pads does not count.
        """
        products = 2 * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        return self.layers * (length * products + 4 * length**2 * self.hidden)


class Collection:
    """A test collection: queries and passages by id, and the BM25 run of each query."""

    def __init__(self, folder):
        """Reads the collection's files."""
        self.queries = {row["_id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
        self.passages = {
            row["_id"]: f"{row['title']} {row['text']}".strip()
            for row in read_lines(folder / "corpus.jsonl")
        }
        self.run = {}
        (path,) = [*folder.glob("runs/bm25-*top100.trec")]
        for line in path.read_text().splitlines():
            query, _, passage, *_ = line.split()
            self.run.setdefault(query, []).append(passage)

    def full_queries(self):
        """Each query that has 100 passages in the run, with them."""
        for query, text in self.queries.items():
            found = [self.passages[p] for p in self.run.get(query, []) if p in self.passages]
            if len(found) >= PAIRS:
                yield text, found[:PAIRS]


def read_lines(path):
    """The objects of a file with one JSON object a line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Maker:
    """Makes workloads with the tokenizer of the model that is compared."""

    def __init__(self, data, tokenizer):
        """Takes the folder of the collections and a tokenizer that neither cuts nor pads."""
        self.data = data
        self.tokenizer = tokenizer
        self.collections = {}

    def make(self, names):
        """The workloads of these names, in that order."""
        return [self.one(name) for name in names]

    def one(self, name):
        """A workload of pairs by its name."""
        makers = {
            "passages": lambda: self.scifact(least=128, most=256),
            "fixed-128": lambda: self.scifact(least=128, cut=128),
            "long": self.long,
        }
        pairs = makers[name]() if name in makers else self.short(int(name.split("-")[1]))
        return self.workload(name, pairs)

    def workload(self, name, items):
        """Counts the tokens of the items."""
        encodings = self.tokenizer.encode_batch(items)
        return Workload(name, items, [min(len(e.ids), WINDOW) for e in encodings])

    def collection(self, name):
        """A collection, read once."""
        if name not in self.collections:
            self.collections[name] = Collection(self.data / name)
        return self.collections[name]

    def short(self, count):
        """`count` pairs of 66 tokens on average."""
        pairs = []
        for query, passages in self.collection("msmarco-dl19").full_queries():
            pairs += self.shortened(query, passages)
            if len(pairs) >= count:
                break
        if count >= len(pairs):
            return pairs
        lengths = self.workload("", pairs).tokens
        by_length = sorted(range(len(pairs)), key=lambda i: lengths[i])
        if count == 1:
            return [pairs[min(by_length, key=lambda i: abs(lengths[i] - SHORT_MEAN))]]
        step = len(pairs) / count
        return [pairs[by_length[int((i + 0.5) * step)]] for i in range(count)]

    def shortened(self, query, passages):
        """A query's pairs, with the same share of each passage."""
        lengths = [self.count(passage) for passage in passages]
        room = SHORT_MEAN - SPECIAL - self.count(query)
        share = min(1, room * len(passages) / sum(lengths))
        cuts = [max(1, round(share * length)) for length in lengths]
        return [(query, self.cut(p, n)) for p, n in zip(passages, cuts, strict=True)]

    def scifact(self, least, most=None, cut=None):
        """Pairs of at least `least` and at most `most` tokens; or cut to `cut` tokens."""
        pairs = []
        for query, passages in self.collection("scifact").full_queries():
            overhead = SPECIAL + self.count(query)
            for passage in passages:
                length = overhead + self.count(passage)
                if length >= least and length <= (most or length):
                    pairs.append((query, self.cut(passage, cut - overhead) if cut else passage))
            if len(pairs) >= PAIRS:
                return pairs[:PAIRS]
        raise SystemExit(f"scifact has only {len(pairs)} pairs of {least} to {most} tokens")

    def long(self):
        """Pairs of 512 tokens: a query's passages joined in their order, each used once."""
        pairs = []
        for query, passages in self.collection("scifact").full_queries():
            room = WINDOW - SPECIAL - self.count(query)
            joined = ""
            for passage in passages:
                joined = f"{joined} {passage}".strip()
                if self.count(joined) >= room:
                    pairs.append((query, self.cut(joined, room)))
                    joined = ""
            if len(pairs) >= LONG_PAIRS:
                return pairs[:LONG_PAIRS]
        raise SystemExit(f"scifact has only {len(pairs)} pairs of {WINDOW} tokens")

    def embed(self, count):
        """Texts to embed: `count` evenly spaced ones of the collection, or all."""
        texts = list(self.collection("scifact").passages.values())
        if count and count < len(texts):
            texts = [texts[i * len(texts) // count] for i in range(count)]
        return self.workload("embed", texts)

    def count(self, text):
        """The tokens of a text without special ones."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def cut(self, text, tokens):
        """The beginning of the text that has that many tokens."""
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        return text if tokens >= len(offsets) else text[: offsets[tokens - 1][1]]
