"""The judged tasks that the default blend is measured on, each written as a collection in BEIR's layout.

Some are collections as they are, with a sample of their queries. The others are derived from them, because
no public collection of long queries is at hand: their queries are passages, or questions with much around
them. What each derives, and what counts as relevant, is said at its function. Where a query is itself in
the corpus, `drop` names the passages that are left out of the ranking when it is measured, as BEIR does for
ArguAna; they are candidates like any other until then.

Samples are by the hash of the query's id, so that they are the same everywhere.
"""

import gzip
import hashlib
import json
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

# Sentences end here; good enough for the abstracts and encyclopaedia paragraphs that are cut.
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9(\"])")

# What somebody writes around a question in a chat; no word of it is about the collection.
PREAMBLE = (
    "Hello, I hope that you can help me with something. I have been reading about this for most of the "
    "afternoon and took many notes, but I am still not quite sure that I understood everything properly, and "
    "a colleague of mine gave me a different answer than the one I had in mind. Please answer as precisely "
    "as you can, in one or two sentences, and tell me where it says so. My question is the following. "
)

# What a polite person writes; with it, questions still have about 30 tokens.
GREETING = "Hello, I have been reading about this for a while. Can you please tell me the following? "


@dataclass
class Task:
    """Queries, judgements and the passages to search."""

    corpus: list[dict]
    queries: dict[str, str]
    # For each query the grade of each judged passage.
    judged: dict[str, dict[str, int]]
    # For each query what is left out when its ranking is measured.
    drop: dict[str, list[str]] = field(default_factory=dict)
    # Tasks of one corpus share an index of this name.
    index: str = ""
    # Stemming and stop words of BM25.
    language: str = "english"
    # Candidates of each retriever.
    depth: int = 30
    # Rankings that come with the collection and stand in for retrievers, by name.
    runs: dict[str, Path] = field(default_factory=dict)


def lines(path):
    """Objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def collection(name, split="test"):
    """Corpus, queries and judgements of a collection in BEIR's layout."""
    folder = DATA / name
    judged = defaultdict(dict)
    for line in (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        judged[query][passage] = int(grade)
    queries = {query["_id"]: query["text"] for query in lines(folder / "queries.jsonl")}
    return lines(folder / "corpus.jsonl"), queries, judged


def sample(ids, count):
    """The same `count` of the ids every time."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count]


def plain(name, count, index=None, **options):
    """A collection as it is, with `count` of its queries."""
    corpus, queries, judged = collection(name)
    chosen = sample(judged, count)
    return Task(
        corpus,
        {query: queries[query] for query in chosen},
        {query: judged[query] for query in chosen},
        index=index or name,
        **options,
    )


def dl19():
    """TREC DL 2019 with the rankings that come with it, in place of retrievers."""
    runs = {
        "bm25": DATA / "msmarco-dl19/runs/bm25-top100.trec",
        "dense": DATA / "msmarco-dl19/runs/tasb-top100.trec",
    }
    return plain("msmarco-dl19", 43, depth=100, runs=runs)


def xquad_behind(words):
    """XQuAD's questions, each behind words that say nothing about it."""
    task = plain("xquad-en", 30, depth=15)
    task.queries = {query: words + text for query, text in task.queries.items()}
    return task


def codebase_chat():
    """The codebase's questions, each behind the three asked before it, as in a chat."""
    corpus, queries, judged = collection("claude-codebase-chunks")
    order = list(queries)
    chosen = sample([query for query in judged if order.index(query) >= 3], 30)
    place = {query: order.index(query) for query in chosen}
    history = {
        query: " ".join(queries[earlier] for earlier in order[place[query] - 3 : place[query] + 1])
        for query in chosen
    }
    judged = {query: judged[query] for query in chosen}
    return Task(corpus, history, judged, index="claude-codebase-chunks", depth=15)


def codebase_neighbours():
    """A chunk of a file as the query; relevant are the chunks before and behind it. It is dropped itself."""
    corpus, _, _ = collection("claude-codebase-chunks")
    texts = {passage["_id"]: passage["text"] for passage in corpus}
    judged = {}
    for name in texts:
        document, _, number = name.rpartition("_")
        beside = [f"{document}_{int(number) + step}" for step in (-1, 1)]
        found = [passage for passage in beside if passage in texts]
        if found and len(texts[name].split()) >= 30:
            judged[name] = dict.fromkeys(found, 1)
    chosen = sample(judged, 30)
    return Task(
        corpus,
        {f"q-{name}": texts[name] for name in chosen},
        {f"q-{name}": judged[name] for name in chosen},
        {f"q-{name}": [name] for name in chosen},
        index="claude-codebase-chunks",
        depth=20,
    )


def scifact_part():
    """Every judged abstract and 300 others, with the judgements of both splits: a fifth of the work."""
    corpus, _, judged = collection("scifact")
    _, _, train = collection("scifact", "train")
    of_claims = {passage for split in (judged, train) for found in split.values() for passage in found}
    others = sample([passage["_id"] for passage in corpus if passage["_id"] not in of_claims], 300)
    kept = of_claims.union(others)
    return [passage for passage in corpus if passage["_id"] in kept], judged, train


def scifact():
    """SciFact's claims over a part of its abstracts."""
    task = plain("scifact", 40, depth=20)
    task.corpus, _, _ = scifact_part()
    return task


def scifact_halves():
    """The first half of an abstract; relevant are other abstracts judged relevant to the same claim.

    The abstract itself is in the corpus and dropped.
    """
    corpus, judged, train = scifact_part()
    beside = defaultdict(dict)
    for claim in (judged, train):
        for passages in claim.values():
            relevant = [passage for passage, grade in passages.items() if grade > 0]
            for passage in relevant:
                beside[passage].update({other: 1 for other in relevant if other != passage})
    texts = {passage["_id"]: passage["text"] for passage in corpus}
    chosen = sample([name for name, others in beside.items() if others], 40)
    halves = {}
    for name in chosen:
        sentences = SENTENCE.split(texts[name])
        halves[f"q-{name}"] = " ".join(sentences[: max(1, len(sentences) // 2)])
    return Task(
        corpus,
        halves,
        {f"q-{name}": beside[name] for name in chosen},
        {f"q-{name}": [name] for name in chosen},
        index="scifact",
        depth=20,
    )


def xquad_halves():
    """The first half of a paragraph; relevant is its second half, among the halves of all paragraphs.

    The first half is in the corpus itself and dropped.
    """
    corpus, _, _ = collection("xquad-en")
    halves, queries, judged, drop = [], {}, {}, {}
    chosen = set(sample([passage["_id"] for passage in corpus], 70))
    for passage in corpus:
        name, sentences = passage["_id"], SENTENCE.split(passage["text"])
        middle = len(sentences) // 2
        parts = [" ".join(part) for part in (sentences[:middle], sentences[middle:]) if part]
        halves += [
            {"_id": f"{name}-{number}", "title": "", "text": part} for number, part in enumerate(parts)
        ]
        if name in chosen and len(parts) == 2:
            queries[f"q-{name}"] = parts[0]
            judged[f"q-{name}"] = {f"{name}-1": 1}
            drop[f"q-{name}"] = [f"{name}-0"]
    return Task(halves, queries, judged, drop, index="xquad-en-halves", depth=20)


def arguments(wheel):
    """Arguments as queries; relevant are those of the other side in the same debate.

    The 1,406 queries of ArguAna (Wachsmuth, Syed and Stein 2018), which Pyserini's wheel 0.17.1 ships, are
    the corpus as well; its counter-arguments are not among them, so this is one of the paper's other tasks,
    "same debate: opposing arguments". The argument itself is dropped.
    """
    topics = "topics-and-qrels/topics.beir-v1.0.0-arguana.test.tsv.gz"
    with zipfile.ZipFile(wheel) as outer:
        jar = next(name for name in outer.namelist() if name.endswith("fatjar.jar"))
        with outer.open(jar) as file, zipfile.ZipFile(file) as inner:
            text = gzip.decompress(inner.read(topics)).decode()
    texts = dict(line.split("\t", 1) for line in text.splitlines())
    sides = defaultdict(list)
    for name in texts:
        debate, side = re.fullmatch(r"(.*)-(pro|con)\d+a", name).groups()
        sides[debate, side].append(name)
    judged = {}
    for (debate, side), names in sides.items():
        opposing = sides.get((debate, "con" if side == "pro" else "pro"), [])
        judged.update({name: dict.fromkeys(opposing, 1) for name in names if opposing})
    chosen = sample(judged, 50)
    corpus = [{"_id": name, "title": "", "text": text} for name, text in texts.items()]
    return Task(
        corpus,
        {f"q-{name}": texts[name] for name in chosen},
        {f"q-{name}": judged[name] for name in chosen},
        {f"q-{name}": [name] for name in chosen},
        index="arguments",
        depth=15,
    )


def lee(wheel):
    """Short news articles; people said how similar each two are (Lee, Pincombe and Welsh 2005).

    Fifty articles, which Gensim's wheel ships with its tests; a similarity from .4, .6 and .8 on is grade 1,
    2 and 3. The article itself is dropped.
    """
    with zipfile.ZipFile(wheel) as file:
        articles = file.read("gensim/test/test_data/lee.cor").decode("utf-8", "replace").splitlines()
        table = file.read("gensim/test/test_data/similarities0-1.txt").decode().splitlines()
    similar = [[float(number) for number in line.split()] for line in table]
    size = len(similar)
    if len(articles) < size:
        raise ValueError(f"{len(articles)} articles for {size} rows")
    judged, drop = {}, {}
    for row in range(size):
        # The table is a triangle; what is below the diagonal stands above it.
        pairs = [(other, max(similar[row][other], similar[other][row])) for other in range(size)]
        grades = {
            f"{other}": sum(value >= bound for bound in (0.4, 0.6, 0.8))
            for other, value in pairs
            if other != row
        }
        if any(grades.values()):
            judged[f"q-{row}"], drop[f"q-{row}"] = grades, [f"{row}"]
    corpus = [{"_id": f"{row}", "title": "", "text": articles[row]} for row in range(size)]
    queries = {query: articles[int(query[2:])] for query in judged}
    return Task(corpus, queries, judged, drop, index="lee", depth=20)


def tasks(wheels):
    """Every task by name, in the order in which they are recorded; `wheels` has what PyPI ships."""
    found = {
        "dl19": dl19,
        "codebase": lambda: plain("claude-codebase-chunks", 100),
        "codebase-neighbours": codebase_neighbours,
        "xquad-en": lambda: plain("xquad-en", 120),
        "xquad-halves": xquad_halves,
    }
    for name, pattern, build in (
        ("lee", "gensim-*.whl", lee),
        ("arguments", "pyserini-0.17.1-*.whl", arguments),
    ):
        wheel = next(iter(sorted(wheels.glob(pattern))), None)
        if wheel is not None:
            found[name] = lambda build=build, wheel=wheel: build(wheel)
    found |= {
        "scifact": scifact,
        "scifact-halves": scifact_halves,
        "codebase-chat": codebase_chat,
        "xquad-greeting": lambda: xquad_behind(GREETING),
        "xquad-preamble": lambda: xquad_behind(PREAMBLE),
        "xquad-de": lambda: plain("xquad-de", 30, language="german", depth=15),
        "xquad-zh": lambda: plain("xquad-zh", 30, language="cjk", depth=15),
        "xquad-ru": lambda: plain("xquad-ru", 30, language="russian", depth=15),
        "xquad-ar": lambda: plain("xquad-ar", 30, language="arabic", depth=15),
    }
    return found
