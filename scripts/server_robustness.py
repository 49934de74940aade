#!/usr/bin/env python3
"""What a server must bear: broken bodies, broken connections, too many of both, and its own end.

    scripts/server_robustness.py [--binary FILE] [--only WORD] [--mutations N]

A small index is made and served for real, on the loopback interface alone. Every route gets every kind of
wrong body, and has to answer with the right status in the shape of its dialect; valid bodies are mutated at
random from a fixed seed, and none may give a 5xx or close the connection. A client whose requests are valid
asks all the while, and each of its requests has to succeed. After that: keys, reloading, shutdown.

Needed: Python's standard library, and a server: `cargo build --release -p topshelf-cli`. The last line counts
what passed and what failed; a failure ends with status 1. A run takes about a minute and a half at most.
"""

import argparse
import collections
import contextlib
import copy
import http.client
import json
import os
import pathlib
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEED = 20260701
IDLE = 10_000
# The server's own limits (crates/topshelf-server/src/options.rs), and what a loaded machine adds to them.
HEAD_TIME, BODY_TIME, SLACK = 10, 30, 8
BODY_LIMIT = 32 << 20
# How long the probe may wait for one small request, in seconds, whatever the others do.
PATIENCE = 8
TIMEOUT = 25

ALIAS = "minilm=cross-encoder/ms-marco-MiniLM-L12-v2"
TEXTS = ["An adult flea lives for two to three months.", "Ticks wait for a host for many months."]
QUERY = "how long does a flea live"
FILES = {
    "fleas.md": "# Fleas\n\n## Adults\n\nAn adult flea lives for two to three months.\n",
    "ticks.md": "# Ticks\n\nTicks wait for a host for many months.\n",
    "bees.md": "# Bees\n\nA worker bee lives for six weeks in summer.\n",
}

Route = collections.namedtuple("Route", "method path dialect body")
Reply = collections.namedtuple("Reply", "status headers body")

ROUTES = [
    Route("POST", "/v2/rerank", "cohere", {"model": "minilm", "query": QUERY, "documents": TEXTS}),
    Route("POST", "/cohere/v2/rerank", "cohere", {"model": "minilm", "query": QUERY, "documents": TEXTS}),
    Route(
        "POST",
        "/cohere/v1/rerank",
        "cohere",
        {"query": QUERY, "documents": [{"text": TEXTS[0]}, TEXTS[1]], "rank_fields": ["text"], "top_n": 2},
    ),
    Route("POST", "/v1/rerank", "cohere", {"query": QUERY, "documents": TEXTS, "return_documents": True}),
    Route(
        "POST",
        "/jina/v1/rerank",
        "jina",
        {"model": "minilm", "query": QUERY, "documents": [TEXTS[0], {"text": TEXTS[1]}], "top_n": 2},
    ),
    Route("POST", "/voyage/v1/rerank", "voyage", {"query": QUERY, "documents": TEXTS, "top_k": 2}),
    Route("POST", "/rerank", "tei", {"query": QUERY, "texts": TEXTS, "raw_scores": True}),
    Route("POST", "/tei/rerank", "tei", {"query": QUERY, "texts": TEXTS, "return_text": True}),
    Route("POST", "/embed", "tei", {"inputs": TEXTS, "truncate": True}),
    Route("POST", "/tei/embed", "tei", {"inputs": TEXTS[0], "prompt_name": "query"}),
    Route("POST", "/vllm/rerank", "vllm", {"query": QUERY, "documents": TEXTS, "top_n": 1}),
    Route("POST", "/vllm/v1/rerank", "vllm", {"query": QUERY, "documents": TEXTS, "raw_scores": True}),
    Route("POST", "/vllm/v2/rerank", "vllm", {"query": QUERY, "documents": TEXTS}),
    Route("POST", "/score", "vllm", {"text_1": QUERY, "text_2": TEXTS}),
    Route("POST", "/v1/score", "vllm", {"queries": [QUERY, QUERY], "documents": TEXTS}),
    Route("POST", "/vllm/score", "vllm", {"text_1": QUERY, "text_2": TEXTS[0]}),
    Route("POST", "/vllm/v1/score", "vllm", {"text_1": QUERY, "text_2": TEXTS}),
    Route("POST", "/v1/embeddings", "openai", {"input": TEXTS, "encoding_format": "base64"}),
    Route("POST", "/openai/v1/embeddings", "openai", {"input": TEXTS[0], "input_type": "query"}),
    Route(
        "POST",
        "/topshelf/v1/rerank",
        "native",
        {"query": QUERY, "documents": [TEXTS[0], {"title": "Ticks", "text": TEXTS[1]}], "top_n": 2, "blend": 0.5},
    ),
    Route(
        "POST",
        "/v1/search",
        "native",
        {
            "query": QUERY,
            "retriever": "hybrid",
            "fusion": "rrf",
            "rrf_k": 60.0,
            "depth": 3,
            "top_n": 2,
            "filter": "lang = en OR year > 2000",
            "prompt": {"budget": 100, "template": "{{ question }}", "near_duplicate": 0.8},
            "gate": "none",
        },
    ),
    Route(
        "POST",
        "/v1/context",
        "native",
        {
            "query": QUERY,
            "passages": [{"text": TEXTS[0], "headings": ["Fleas"]}, {"id": "b", "text": TEXTS[1]}],
            "prompt": {"budget": 100, "system": "Answer.", "near_duplicate": 0.8},
        },
    ),
    Route(
        "POST",
        "/v1/documents",
        "native",
        {"documents": [{"id": "x", "text": "A mite.", "metadata": {"year": 2001}}]},
    ),
    Route("DELETE", "/v1/documents", "native", {"ids": ["x"]}),
    Route("POST", "/v1/index/reload", "native", None),
    Route("GET", "/v1/index", "native", None),
    Route("GET", "/v1/models", "native", None),
    Route("GET", "/info", "tei", None),
    Route("GET", "/tei/info", "tei", None),
    Route("GET", "/metrics", "native", None),
    Route("GET", "/healthz", "native", None),
    Route("GET", "/readyz", "native", None),
    Route("GET", "/openapi.json", "native", None),
    Route("GET", "/docs", "native", None),
    Route("GET", "/", "native", None),
]
# Nobody is asked for a key there.
OPEN = {"/", "/docs", "/openapi.json", "/healthz", "/readyz"}
WITH_BODY = [route for route in ROUTES if route.body is not None]
RERANK = ROUTES[0]


class Tally:
    """Counts checks; tells of those that fail, and of each section."""

    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()

    def check(self, name, holds, detail=""):
        with self.lock:
            if holds:
                self.passed += 1
            else:
                self.failed += 1
                print(f"FAILED {name}: {str(detail)[:400]}", flush=True)
        return holds


class Server:
    """A server of its own; ends with the block."""

    def __init__(self, binary, folder, *arguments):
        environment = {**os.environ, "TOPSHELF_SCORE_CACHE": "0"}
        self.log = open(folder / f"server-{len(list(folder.iterdir()))}.log", "w+b")
        self.process = subprocess.Popen(
            [binary, "serve", "--port", "0", "--no-profile", "--no-cache", "--alias", ALIAS, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
        )
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline().decode().strip() if ready else ""
        if not line.startswith("http://"):
            self.process.kill()
            raise SystemExit(f"the server did not start: {self.told()}")
        self.port = int(line.rsplit(":", 1)[1])

    def told(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """The exit status; None if it has not ended by then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def connect(self, timeout=TIMEOUT):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Client:
    """One connection; knows whether the server has closed it."""

    def __init__(self, server, timeout=TIMEOUT):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=()):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"content-type": "application/json", **dict(headers)}
        self.http.request(method, path, body, headers)
        answer = self.http.getresponse()
        return Reply(answer.status, answer.headers, answer.read())

    def is_closed(self):
        return self.http.sock is None

    def close(self):
        self.http.close()


def ask(server, method, path, body=None, headers=(), timeout=TIMEOUT):
    """One request on a connection of its own; status 0 where the connection fails."""
    client = Client(server, timeout)
    try:
        return client.ask(method, path, body, headers)
    except (OSError, http.client.HTTPException) as error:
        return Reply(0, {}, repr(error).encode())
    finally:
        client.close()


def raw(server, data, *, finish=False, timeout=TIMEOUT, wait=0.0):
    """Sends bytes as they are; answers all that comes back until the server closes or falls silent."""
    got = b""
    try:
        with server.connect(timeout) as sock:
            with contextlib.suppress(OSError):  # a server may answer and close before all has been sent
                sock.sendall(data)
            if finish:
                sock.shutdown(socket.SHUT_WR)
            sock.settimeout(timeout)
            until = time.monotonic() + timeout
            while time.monotonic() < until:
                part = sock.recv(65536)
                if not part:
                    break
                got += part
                if wait:
                    sock.settimeout(wait)
    except OSError as error:
        return got or repr(error).encode()
    return got


def status_of(answer):
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found.group(1)) if found else 0


def body_of(answer):
    return answer.partition(b"\r\n\r\n")[2]


def is_shape(dialect, body):
    """Whether these bytes are an error as that vendor writes it: these keys, and no others."""
    try:
        told = json.loads(body)
    except ValueError:
        return False
    if not isinstance(told, dict):
        return False

    def text(value):
        return isinstance(value, str) and value != ""

    if dialect == "cohere":
        return set(told) == {"message"} and text(told["message"])
    if dialect in ("jina", "voyage"):
        return set(told) == {"detail"} and text(told["detail"])
    if dialect == "tei":
        return set(told) == {"error", "error_type"} and text(told["error"]) and text(told["error_type"])
    own = told.get("error")
    if set(told) != {"error"} or not isinstance(own, dict) or not text(own.get("message")):
        return False
    if dialect in ("vllm", "openai"):
        return set(own) == {"message", "type", "param", "code"} and text(own["type"])
    return set(own) in ({"type", "message"}, {"type", "message", "field"}) and text(own["type"])


def expected(dialect, kind):
    """The status of a fault in a dialect: see the tables in error.rs and in the dialects' own files."""
    faults = {
        "not json": {"tei": 422},
        "wrong type": {"vllm": 400, "openai": 400, None: 422},
        "too large": {"vllm": 400, None: 413},
    }[kind]
    return faults.get(dialect, faults.get(None, 400))


class Probe(threading.Thread):
    """A client with valid requests only. None of them may fail, whatever the others do."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.ended = server, threading.Event()
        self.asked, self.slowest, self.failures = 0, 0.0, []

    def run(self):
        client = Client(self.server, PATIENCE)
        while not self.ended.is_set():
            start = time.monotonic()
            try:
                healthy = client.ask("GET", "/healthz")
                ranked = client.ask(RERANK.method, RERANK.path, RERANK.body)
                right = healthy.status == ranked.status == 200 and len(json.loads(ranked.body)["results"]) == 2
                wrong = "" if right else f"{healthy.status}, {ranked.status} {ranked.body[:200]}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                wrong = repr(error)
                client.close()
            took = time.monotonic() - start
            self.asked, self.slowest = self.asked + 1, max(self.slowest, took)
            if wrong:
                self.failures.append(f"after {took:.1f} s: {wrong}")
            self.ended.wait(0.05)
        client.close()

    def end(self, tally, during):
        self.ended.set()
        self.join(2 * PATIENCE)
        passed = not self.failures and self.asked > 0
        tally.check(f"the others are served meanwhile ({during})", passed, self.failures[:3])
        print(f"  {self.asked} valid requests meanwhile, the slowest took {self.slowest:.2f} s", flush=True)


# ---------------------------------------------------------------- Bodies


# Which of a body's fields has its texts, and which its query.
TEXT_FIELDS = ("texts", "documents", "inputs", "input", "text_2", "passages", "ids", "query")
QUERY_FIELDS = ("query", "queries", "text_1", "inputs", "input")


def wrong_bodies(route):
    """Bodies that are wrong on that route, with what is wrong."""
    good = json.dumps(route.body).encode()
    texts = next(name for name in TEXT_FIELDS if name in route.body)
    asked = next((name for name in QUERY_FIELDS if name in route.body), texts)
    yield "empty", b"", "not json"
    yield "broken off", good[:-1], "not json"
    yield "something behind it", good + b" x", "not json"
    yield "no JSON at all", b"query=a&documents=b", "not json"
    yield "a byte order mark of UTF-16", good.decode().encode("utf-16"), "not json"
    marked = json.dumps({**route.body, asked: "@"}).encode()
    yield "invalid UTF-8", marked.replace(b'"@"', b'"\xff\xfe"'), "not json"
    yield "half a surrogate", marked.replace(b'"@"', rb'"\ud800"'), "not json"
    yield "NaN", json.dumps({**route.body, asked: float("nan")}).encode(), "not json"
    yield "Infinity", json.dumps({**route.body, texts: float("inf")}).encode(), "not json"
    yield "a number beyond all", marked.replace(b'"@"', b"1e999"), "not json"
    yield "depth 10,000", b'{"%s":' % texts.encode() + b"[" * 10_000 + b"]" * 10_000 + b"}", "either"
    yield "depth 10,000 without an end", b"[" * 10_000, "either"
    yield "depth 10,000 of objects", b'{"query":' * 10_000 + b"1" + b"}" * 10_000, "either"
    for value in (None, 7, True, "text", []):
        yield f"{value!r} for the body", json.dumps(value).encode(), "wrong type"
    for value in (7, True, {"a": 1}, [1, 2], None):
        yield f"{value!r} for {texts}", json.dumps({**route.body, texts: value}).encode(), "wrong type"
    yield f"no {texts}", json.dumps({k: v for k, v in route.body.items() if k != texts}).encode(), "wrong type"
    yield f"{texts} twice", good[:-1] + b', "%s": []}' % texts.encode(), "wrong type"
    if asked != texts:
        yield f"7 for {asked}", json.dumps({**route.body, asked: 7}).encode(), "wrong type"


def check_bodies(server, tally):
    """Every kind of wrong body on every route, each route on one connection that has to stay open."""
    for route in WITH_BODY:
        client = Client(server)
        for what, body, kind in wrong_bodies(route):
            name = f"{route.method} {route.path}, {what}"
            try:
                reply = client.ask(route.method, route.path, body)
            except (OSError, http.client.HTTPException) as error:
                tally.check(name, False, repr(error))
                client.close()
                continue
            kinds = ("not json", "wrong type") if kind == "either" else (kind,)
            allowed = {expected(route.dialect, one) for one in kinds}
            tally.check(name, reply.status in allowed, f"{reply.status} is not {allowed}: {reply.body[:200]}")
            # /rerank is vLLM's where the body has `documents`.
            tally.check(f"{name}, shape", is_shape(route.dialect, reply.body), reply.body[:200])
            tally.check(f"{name}, connection", not client.is_closed(), "closed")
        client.close()


def check_numbers(server, tally):
    """Numbers that mean nothing, or far too much."""
    huge = 2**64 - 1
    for route in WITH_BODY:
        name = next((own for own in ("top_n", "top_k") if own in route.body), None)
        if name is None:
            continue
        reply = ask(server, "POST", route.path, {**route.body, name: huge})
        # There are not that many in an index; documents of a request are answered all.
        wanted = 422 if route.path == "/v1/search" else 200
        tally.check(f"{route.path}, huge {name}", reply.status == wanted, reply[::2])
        for value in (0, -1, 2**64, 1.5, "2"):
            reply = ask(server, "POST", route.path, {**route.body, name: value})
            means_all = route.dialect == "vllm" and value == 0
            right = reply.status == 200 if means_all else reply.status in (400, 422)
            shaped = means_all or is_shape(route.dialect, reply.body)
            tally.check(f"{route.path}, {name} {value}", right and shaped, reply[::2])
    search = next(route for route in ROUTES if route.path == "/v1/search")
    for field, value in [
        ("depth", 0), ("depth", huge), ("rrf_k", -1.0), ("rrf_k", -60.0), ("rrf_k", 1e300),
        ("weights", [1e300, 1.0]), ("weights", [-1.0, 1.0]), ("blend", 2.0), ("blend", -1.0),
        ("min_relevance", 1e300), ("deadline_ms", 0), ("deadline_ms", -5), ("deadline_ms", 1e300),
        ("gate", "nonsense"), ("gate", "margin:dense:99999999999>=0.1"), ("filter", "(" * 10_000),
        ("filter", "a = "), ("retriever", "nobody"), ("fusion", "cold"), ("index", "../../etc"),
        ("model", "/etc/passwd"), ("model", "http://127.0.0.1:1/"), ("then", [{"model": "minilm", "keep": 0}]),
    ]:  # fmt: skip
        reply = ask(server, "POST", "/v1/search", {**search.body, field: value})
        right = reply.status == 200 or (400 <= reply.status < 500 and is_shape("native", reply.body))
        tally.check(f"/v1/search, {field} {str(value)[:40]}", right, reply[::2])
    # Work that is only claimed must not lock others out.
    endless = {**search.body, "depth": huge}
    threads, _ = in_background(lambda: [ask(server, "POST", "/v1/search", endless) for _ in range(5)], 2)
    replies = [ask(server, "POST", RERANK.path, RERANK.body) for _ in range(15)]
    for thread in threads:
        thread.join()
    served = all(reply.status == 200 for reply in replies)
    wrong = [reply[::2] for reply in replies if reply.status != 200]
    tally.check("others are let in beside a search of endless depth", served, wrong[:2])
    for path, body in [
        ("/v1/context", {"query": "a", "passages": []}),
        ("/v1/context", {"query": "", "passages": [{"text": "b"}]}),
        ("/v1/context", {"query": "a", "passages": [{"text": "b"}], "prompt": {"near_duplicate": -1}}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": [""]}),
        ("/v1/embeddings", {"input": "a", "dimensions": huge}),
        ("/cohere/v1/rerank", {"query": "a", "documents": ["b"], "max_chunks_per_doc": huge}),
        ("/jina/v1/rerank", {"query": "a", "documents": ["b"], "max_doc_length": huge}),
        ("/vllm/rerank", {"query": "a", "documents": ["b"], "truncate_prompt_tokens": -(2**63)}),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}),
    ]:
        reply = ask(server, "POST", path, body)
        tally.check(f"{path}, {json.dumps(body)[:90]}", 200 <= reply.status < 500, reply[::2])


def costly():
    """Bodies that ask for far too much work, with the seconds in which they are to be refused or done."""
    deep = 60_000

    def template(text):
        return "/v1/context", {"query": "a", "passages": [{"text": "b"}], "prompt": {"template": text}}, 5

    loops = "".join(f"{{% for a{n} in [0, 0, 0, 0, 0, 0, 0, 0, 0, 0] %}}" for n in range(8)) + "{% endfor %}" * 8
    yield "a template nested by 'not'", template("{{ " + "not " * deep + "1 }}")
    yield "a template nested by '-'", template("{{ " + "-" * deep + "1 }}")
    yield "a template nested by '+'", template("{{ " + "1 + " * deep + "1 }}")
    yield "a template nested by filters", template("{{ 1" + " | string" * deep + " }}")
    yield "a template nested by attributes", template("{{ question" + ".a" * deep + " }}")
    yield "a template nested by brackets", template("{{ " + "[" * deep + "]" * deep + " }}")
    yield "a template nested by 'if'", template("{% if 1 %}" * deep)
    yield "a template that calls itself", template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")
    yield "a template of a long text", template("{{ 'x' * 1000000000 }}")
    yield "a template that never ends", template(loops)
    cascade = {"query": QUERY, "documents": TEXTS, "then": [{"model": "minilm", "keep": 2}] * 2000}
    yield "a cascade of 2,000", ("/topshelf/v1/rerank", cascade, 5)
    yield "a search of depth 2^64 - 1", ("/v1/search", {"query": QUERY, "depth": 2**64 - 1}, 5)
    terms = {"query": QUERY, "filter": "a = 1 AND " * 20_000 + "a = 1", "model": "none"}
    yield "a filter of many terms", ("/v1/search", terms, 5)
    yield "a query of brackets", ("/v1/search", {"query": "(" * 1900, "model": "none"}, 5)
    # These may take their time, but not that of others.
    chance = random.Random(SEED)
    words = [f"w{n}" for n in range(3000)]
    passages = [{"text": " ".join(chance.choices(words, k=60))} for _ in range(10_000)]
    yield "10,000 passages", ("/v1/context", {"query": "a", "passages": passages, "prompt": {"budget": 10**9}}, None)
    long = "word another thing, and more " * 500_000
    yield "a document of 14 MB", ("/voyage/v1/rerank", {"query": "a", "documents": [long]}, None)
    yield "a text of 14 MB", ("/v1/embeddings", {"input": long}, None)
    yield "10,000 pairs", ("/v1/score", {"text_1": [QUERY] * 10_000, "text_2": TEXTS * 5000}, None)


def check_costly(binary, folder, tally):
    """Each of them as often at once as the server has threads, up to three; others have to be served."""
    at_once, server = min(os.cpu_count() or 1, 3), None
    with contextlib.ExitStack() as stack:
        for name, (path, body, limit) in costly():
            server = server or stack.enter_context(Server(binary, folder, "--index", str(folder / "small.index")))
            body = json.dumps(body).encode()
            ask_it = lambda: ask(server, "POST", path, body, timeout=limit or 6)  # noqa: B023, E731
            threads, results = in_background(ask_it, at_once)
            slowest, served = 0.0, True
            while served and any(thread.is_alive() for thread in threads):
                start = time.monotonic()
                served = ask(server, "GET", "/healthz", timeout=4).status == 200
                slowest = max(slowest, time.monotonic() - start)
                time.sleep(0.1)
            for thread in threads:
                thread.join()
            lives = tally.check(f"{name}: the server lives", server.process.poll() is None, server.told()[-200:])
            tally.check(f"{name}: others are served", served or not lives, f"/healthz waits for {slowest:.1f} s")
            done = all(reply.status == 200 or 400 <= reply.status < 500 for reply in results)
            if limit and lives:
                tally.check(f"{name} is refused or done within {limit} s", done, [reply[::2] for reply in results])
            if not (lives and served and done):
                server.process.kill()
                server = None


def check_large(server, tally):
    """Bodies over the limit: said beforehand, sent nevertheless, and sent in chunks without saying."""
    said = 100_000_000
    for route in WITH_BODY:
        head = f"{route.method} {route.path} HTTP/1.1\r\nhost: a\r\ncontent-length: {said}\r\n\r\n"
        answer = raw(server, head.encode() + b'{"query": "', wait=0.5)
        right = status_of(answer) == expected(route.dialect, "too large")
        name = f"{route.method} {route.path}, 100 MB announced"
        tally.check(name, right and is_shape(route.dialect, body_of(answer)), answer[:200])
    head = f"POST /v2/rerank HTTP/1.1\r\nhost: a\r\ncontent-length: {said}\r\nconnection: close\r\n\r\n"
    answer = raw(server, head.encode() + b'{"query": "' + b"a" * (said - 11))
    # A client that does not listen before all is sent may find the connection reset.
    tally.check("100 MB sent", status_of(answer) == 413 or b"Reset" in answer or b"Broken" in answer, answer[:200])
    part = b"%x\r\n" % (1 << 20) + b"a" * (1 << 20) + b"\r\n"
    head = b"POST /v2/rerank HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = raw(server, head + part * ((BODY_LIMIT >> 20) + 1) + b"0\r\n\r\n", wait=0.5)
    right = status_of(answer) == 413 and is_shape("cohere", body_of(answer).partition(b"\r\n\r\n")[0] or b"")
    tally.check("more than the limit in chunks", right or b"Reset" in answer, answer[:200])
    many = {"query": "a", "documents": ["b"] * 10_001}
    for path, dialect, wanted in [
        ("/v1/rerank", "cohere", 400),
        ("/jina/v1/rerank", "jina", 413),
        ("/voyage/v1/rerank", "voyage", 400),
        ("/vllm/v1/rerank", "vllm", 400),
        ("/topshelf/v1/rerank", "native", 413),
    ]:
        reply = ask(server, "POST", path, many)
        tally.check(f"{path}, 10,001 documents", reply.status == wanted and is_shape(dialect, reply.body), reply[::2])


# ---------------------------------------------------------------- Mutations

ODD = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64 - 1, 2**64, -(2**63), 0.5, -0.0, 1e-300, 1e300, "", " ",
    "a", "\0", "\ufffd", "\u202e", "😀" * 50, "x" * 500, "none", "minilm", "../../../etc/passwd", "%s%n",
    "{{ 7 * 7 }}", "{% for x in sources %}", "' OR 1 = 1", "a = 1 AND", "((", "*", "\"", "margin:bm25:3>=0.1",
    [], {}, [[]], [None], [""], {"text": "a"}, {"text": None}, [{}], ["a", 1], {"": ""},
]  # fmt: skip
FIELDS = [
    "query", "documents", "texts", "model", "top_n", "top_k", "rank_fields", "truncation", "return_documents",
    "max_tokens_per_doc", "max_chunks_per_doc", "max_doc_length", "priority", "raw_scores", "input", "inputs",
    "text_1", "text_2", "dimensions", "encoding_format", "blend", "gate", "then", "strict", "deadline_ms",
    "min_relevance", "filter", "explain", "prompt", "stream", "weights", "rrf_k", "fusion", "retriever", "index",
    "passages", "ids", "metadata", "return_candidates", "title", "headings", "near_duplicate", "budget",
]  # fmt: skip


def places(value, path=()):
    """The paths to all values within a value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(body, chance):
    """One or a few changes to a body, in its values or in its bytes."""
    body = copy.deepcopy(body)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice(list(places(body))[1:] or [()])
        if not path or not isinstance(body, dict):
            continue
        parent = body
        for key in path[:-1]:
            parent = parent[key]
        key, kind = path[-1], chance.randrange(6)
        if kind <= 2:
            parent[key] = copy.deepcopy(chance.choice(ODD))
        elif kind == 3:
            del parent[key]
        elif kind == 4:
            body[chance.choice(FIELDS)] = copy.deepcopy(chance.choice(ODD))
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[chance.choice(FIELDS)] = parent.pop(key)
    data = bytearray(json.dumps(body, ensure_ascii=chance.random() < 0.5).encode())
    if chance.random() < 0.5:
        for _ in range(chance.randint(1, 4)):
            at, kind = chance.randrange(len(data)), chance.randrange(3)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                del data[at : at + chance.randint(1, 8)]
            else:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 4)))
            if not data:
                break
    return bytes(data)


def check_mutations(server, tally, count, seconds):
    """Mutated bodies, on four connections that have to stay open. Each of them has its own seed."""
    until = time.monotonic() + seconds
    seen, lock = collections.Counter(), threading.Lock()

    def fuzz(number):
        chance = random.Random(SEED + number)
        client = Client(server)
        for turn in range(count // 4):
            if time.monotonic() > until:
                break
            # Commits are synced to the disk; so fewer of these.
            route = chance.choice(WITH_BODY)
            if route.path == "/v1/documents" and chance.random() < 0.95:
                route = RERANK
            body = mutated(route.body, chance)
            name = f"mutation {number}.{turn} of {route.method} {route.path}"
            try:
                reply = client.ask(route.method, route.path, body)
            except (OSError, http.client.HTTPException) as error:
                tally.check(name, False, f"{error!r} for {body[:300]}")
                client.close()
                if server.process.poll() is not None:
                    return
                continue
            # /v1/rerank and /rerank are several vendors'.
            dialects = {"/v1/rerank": ("cohere", "jina", "voyage"), "/rerank": ("tei", "vllm")}
            shaped = reply.status == 200 or any(
                is_shape(dialect, reply.body) for dialect in dialects.get(route.path, (route.dialect,))
            )
            right = (reply.status == 200 or 400 <= reply.status < 423) and shaped and not client.is_closed()
            tally.check(name, right, f"{reply.status} {reply.body[:200]} for {body[:300]}")
            with lock:
                seen[reply.status] += 1
        client.close()

    threads = [threading.Thread(target=fuzz, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = ", ".join(f"{status}: {times}" for status, times in sorted(seen.items()))
    print(f"  {sum(seen.values())} of {count} mutations sent in the time there was; status {told}", flush=True)


# ---------------------------------------------------------------- HTTP

# Routes with a body that no deadline shortens.
TIMELESS = {"/v1/context", "/v1/documents", "/embed", "/tei/embed", "/v1/embeddings", "/openai/v1/embeddings"}


def check_routes(server, tally):
    """Methods, routes that are not there, and deadlines that are none."""
    for route in ROUTES:
        if route.method == "GET":
            head = ask(server, "HEAD", route.path)
            tally.check(f"HEAD {route.path}", head.status == 200 and head.body == b"", head[::2])
        for method in {"GET": ("POST", "DELETE"), "POST": ("GET", "PUT", "PATCH"), "DELETE": ("PUT",)}[route.method]:
            if any(other.method == method and other.path == route.path for other in ROUTES):
                continue
            reply = ask(server, method, route.path)
            name = f"{method} {route.path}"
            right = reply.status == 405 and is_shape(route.dialect, reply.body)
            tally.check(name, right, reply[::2])
            allowed = [own.strip() for own in reply.headers.get("allow", "").split(",")] if reply.headers else []
            tally.check(f"{name}, Allow", route.method in allowed, allowed)
        reply = ask(server, "OPTIONS", route.path)
        right = reply.status in (200, 204) or (reply.status == 405 and is_shape(route.dialect, reply.body))
        tally.check(f"OPTIONS {route.path}", right, reply[::2])
        if route.body is None:
            continue
        if route.path not in TIMELESS:
            for value in ("soon", "0", "-1", "NaN", "1e300", ""):
                reply = ask(server, route.method, route.path, route.body, {"x-topshelf-deadline-ms": value})
                right = reply.status in (400, 422) and is_shape(route.dialect, reply.body)
                tally.check(f"{route.path}, deadline {value!r}", right, reply[::2])
    for path, dialect in [
        ("/nothing", "native"), ("/v1/rerank/", "native"), ("/cohere/v3/rerank", "cohere"), ("/jina/a", "jina"),
        ("/voyage/a", "voyage"), ("/tei/a", "tei"), ("/vllm/a", "vllm"), ("/openai/a", "openai"),
    ]:  # fmt: skip
        for method in ("GET", "POST"):
            reply = ask(server, method, path)
            tally.check(f"{method} {path}", reply.status == 404 and is_shape(dialect, reply.body), reply[::2])
    for path in [
        "/../etc/passwd", "/page/../../etc/passwd", "/page/%2e%2e/%2e%2e/etc/passwd", "/page/..%2fapp.js",
        "//etc/passwd", "/page/app.js%00", "/%ff%fe", "/page/", "/docs/..", "/.env",
    ]:  # fmt: skip
        reply = ask(server, "GET", path)
        right = reply.status in (400, 404) and b"root:" not in reply.body
        tally.check(f"GET {path}", right, reply[::2])


def check_http(server, tally):
    """The protocol: what is odd, and what is wrong."""
    body = json.dumps(RERANK.body).encode()

    def post(*headers, version="1.1", path=RERANK.path):
        return "\r\n".join([f"POST {path} HTTP/{version}", "host: a", *headers, "", ""]).encode()

    length = f"content-length: {len(body)}"
    with server.connect() as sock:
        sock.sendall(post(length, "expect: 100-continue", "connection: close"))
        sock.settimeout(TIMEOUT)
        first = sock.recv(4096)
        tally.check("expect: 100-continue", status_of(first) == 100, first[:200])
        sock.sendall(body)
        answer = b""
        while part := sock.recv(65536):
            answer += part
        tally.check("the body after 100", status_of(answer) == 200, answer[:200])
    answer = raw(server, post("content-length: 100000000", "expect: 100-continue"), wait=0.5)
    tally.check("expect: 100-continue with 100 MB", status_of(answer) == 413, answer[:200])

    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts)
    answer = raw(server, post("transfer-encoding: chunked", "connection: close") + chunks + b"0\r\nx: y\r\n\r\n")
    tally.check("chunks", status_of(answer) == 200, answer[:200])
    answer = raw(server, post("transfer-encoding: chunked") + b"zz\r\n" + body, wait=1)
    tally.check("a chunk's length that is none", status_of(answer) in (0, 400, 408), answer[:200])
    for name, head in [("length", post(length)), ("chunks", post("transfer-encoding: chunked") + b"ff\r\n")]:
        answer = raw(server, head + body[:20], finish=True)
        tally.check(f"a body that breaks off, by {name}", status_of(answer) in (0, 400, 408), answer[:200])
    short = raw(server, post(f"content-length: {len(body) - 5}") + body, wait=3)
    tally.check("a content-length that is too short", status_of(short) == 400, short[:200])
    for name, headers in [
        ("two lengths", (length, "content-length: 3")),
        ("a negative length", ("content-length: -1",)),
        ("a length that is none", ("content-length: many",)),
        ("a length beyond all", ("content-length: 99999999999999999999999",)),
        ("an unknown transfer-encoding", ("transfer-encoding: rot13",)),
    ]:
        answer = raw(server, post(*headers) + body, wait=1)
        tally.check(name, status_of(answer) in (400, 413), answer[:200])
    # Chunks go before a length (RFC 9112, 6.3); what is left must not be read as a second request.
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    answer = raw(server, post("content-length: 4", "transfer-encoding: chunked") + smuggled, wait=1)
    tally.check("a length and chunks", status_of(answer) == 400, answer[:200])

    answer = raw(server, post(length, version="1.0") + body)
    tally.check("HTTP/1.0", status_of(answer) == 200, answer[:200])
    answer = raw(server, b"GET /healthz HTTP/1.0\r\n\r\n")
    tally.check("HTTP/1.0 without a host", status_of(answer) == 200, answer[:200])
    wrong = json.dumps({"query": "a"}).encode()
    one, other = post(length) + body, post(f"content-length: {len(wrong)}") + wrong
    last = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    answer = raw(server, one + other + one + last)
    # Which of them, by status: in the order in which they were sent.
    found = [int(own) for own in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]
    tally.check("pipelined requests", found == [200, 422, 200, 200], found)

    for name, data, wanted in [
        ("a header of 1 MB", b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: " + b"a" * (1 << 20) + b"\r\n\r\n", (431,)),
        ("5,000 headers", b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 5000 + b"\r\n", (431,)),
        ("an address of 1 MB", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: a\r\n\r\n", (414, 431)),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), (0, 400)),
        ("a NUL in a header", b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", (400,)),
        ("a version that is none", b"GET /healthz HTTP/7.3\r\nhost: a\r\n\r\n", (0, 400, 505)),
        ("a preface of HTTP/2 and nonsense", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(200), (0,)),
    ]:
        answer = raw(server, data, wait=1)
        tally.check(name, status_of(answer) in wanted, answer[:200])
    given = {"x-request-id": "mine-1"}
    reply = ask(server, "GET", "/healthz", headers=given)
    tally.check("a request keeps its name", reply.headers.get("x-request-id") == "mine-1", dict(reply.headers))
    reply = ask(server, "GET", "/healthz", headers={"x-request-id": "a" * 5000})
    tally.check("an endless name is not kept", len(reply.headers.get("x-request-id", "")) <= 128, "too long")


class Slow(threading.Thread):
    """Clients that trickle, or say nothing: how long each of them is borne, and with which answer."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.closed, self.answers = server, {}, {}

    def run(self):
        body = json.dumps(RERANK.body).encode()
        head = "POST {} HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n"
        beginnings = {
            "silent": b"",
            "head": b"GET /healthz HTTP/1.1\r\nx: ",
            "kept open": b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
            **{path: head.format(path).encode() + body[:10] for path in SLOW_BODIES},
        }
        start, open_now = time.monotonic(), {}
        for name, beginning in beginnings.items():
            sock = self.server.connect()
            sock.sendall(beginning)
            sock.setblocking(False)
            open_now[name] = sock
        until = start + BODY_TIME + SLACK
        while open_now and time.monotonic() < until:
            for name, sock in list(open_now.items()):
                try:
                    if name not in ("silent", "kept open"):
                        sock.send(b"a")
                    part = sock.recv(65536)
                    self.answers[name] = self.answers.get(name, b"") + part
                except BlockingIOError:
                    continue
                except OSError:
                    part = b""
                if not part or (name in SLOW_BODIES and body_of(self.answers[name])):
                    self.closed[name] = time.monotonic() - start
                    open_now.pop(name).close()
            time.sleep(0.5)
        for sock in open_now.values():
            sock.close()

    def end(self, tally):
        self.join(BODY_TIME + SLACK + 5)
        for name, limit in [("silent", HEAD_TIME), ("head", HEAD_TIME), ("kept open", HEAD_TIME)]:
            took = self.closed.get(name)
            right = took is not None and took < limit + SLACK
            tally.check(f"a slow client ({name}) is let go after {limit} s", right, f"{took} s")
        for path, dialect in SLOW_BODIES.items():
            took, answer = self.closed.get(path), self.answers.get(path, b"")
            right = took is not None and took < BODY_TIME + SLACK
            right = right and status_of(answer) == 408 and is_shape(dialect, body_of(answer))
            tally.check(f"{path}, a body that trickles", right, f"after {took} s: {answer[:300]}")


SLOW_BODIES = {
    "/v2/rerank": "cohere", "/jina/v1/rerank": "jina", "/voyage/v1/rerank": "voyage", "/tei/rerank": "tei",
    "/vllm/v1/rerank": "vllm", "/v1/embeddings": "openai", "/v1/search": "native",
}  # fmt: skip


def check_idle(server, tally):
    """Ten thousand connections on which nothing happens, as far as the system's limits go."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE, soft - 500)
    if count < IDLE:
        print(f"  {soft} file descriptors are allowed: {count} idle connections instead of {IDLE}", flush=True)
    idle, start = [], time.monotonic()
    try:
        for _ in range(count):
            idle.append(server.connect())
    except OSError as error:
        tally.check(f"{count} idle connections", False, f"{error} after {len(idle)}")
    else:
        tally.check(f"{count} idle connections", True)
    opened = time.monotonic() - start
    replies = [ask(server, RERANK.method, RERANK.path, RERANK.body, timeout=PATIENCE) for _ in range(5)]
    served = all(reply.status == 200 for reply in replies)
    tally.check(f"new connections are served beside {len(idle)} idle ones", served, replies)
    for sock in idle:
        sock.close()
    print(f"  {len(idle)} idle connections, opened in {opened:.1f} s", flush=True)


# ---------------------------------------------------------------- Keys


def check_keys(binary, folder, tally):
    """401 and 429 in every dialect; who may ask, and what everybody may."""
    keys, made = folder / "keys.toml", {}
    for name, limit in [("search-team", ()), ("visitor", ("--per-minute", "1"))]:
        command = [binary, "keys", "new", name, "--file", keys, *limit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        made[name] = {"authorization": f"Bearer {done.stdout.strip()}"}
    tally.check("the file of keys has no keys in it", "ts-" not in keys.read_text(), keys.read_text())
    tally.check("the file of keys is its owner's", keys.stat().st_mode & 0o077 == 0, oct(keys.stat().st_mode))
    with Server(binary, folder, "--keys", str(keys), "--index", str(folder / "small.index")) as server:
        for route in ROUTES:
            name = f"{route.method} {route.path}"
            # No request of these may change anything before its key is known.
            for what, headers in [
                ("no key", {}),
                ("a wrong key", {"authorization": "Bearer ts-0000"}),
                ("another scheme", {"authorization": "Basic dG9wOnNoZWxm"}),
            ]:
                reply = ask(server, route.method, route.path, route.body, headers)
                if route.path in OPEN:
                    tally.check(f"{name}, {what}", reply.status == 200, reply[::2])
                    continue
                # text-embeddings-inference answers nothing at all there.
                shaped = is_shape(route.dialect, reply.body) or (route.dialect == "tei" and reply.body == b"")
                tally.check(f"{name}, {what}", reply.status == 401 and shaped, reply[::2])
            if route.path not in OPEN and route.path not in ("/v1/documents", "/v1/index/reload"):
                reply = ask(server, route.method, route.path, route.body, made["search-team"])
                tally.check(f"{name}, with a key", reply.status == 200, reply[::2])
        reply = ask(server, "POST", "/v1/documents", WITH_BODY[-2].body, made["search-team"])
        tally.check("an index without --writable", reply.status == 403 and is_shape("native", reply.body), reply[::2])
        reply = ask(server, "GET", "/nothing")
        tally.check("what is not there tells nobody", reply.status in (401, 404), reply[::2])
        key = made["search-team"]["authorization"].split()[1]
        reply = ask(server, RERANK.method, RERANK.path, RERANK.body, {"api-key": key})
        tally.check("api-key: KEY", reply.status == 200, reply[::2])
        first = ask(server, RERANK.method, RERANK.path, RERANK.body, made["visitor"])
        tally.check("the first request of a minute", first.status == 200, first[::2])
        for route in ROUTES:
            if route.path in OPEN:
                continue
            reply = ask(server, route.method, route.path, route.body, made["visitor"])
            name = f"{route.method} {route.path}, the second request of a minute"
            after = reply.headers.get("retry-after", "") if reply.headers else ""
            right = reply.status == 429 and is_shape(route.dialect, reply.body)
            tally.check(name, right and after.isdecimal() and 1 <= int(after) <= 60, (*reply[::2], after))
        # A key that may ask for nothing more must not get a minute's worth by reloading.
        server.signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while "anew" not in server.told() and time.monotonic() < until:
            time.sleep(0.2)
        reply = ask(server, RERANK.method, RERANK.path, RERANK.body, made["visitor"])
        tally.check("a reload gives nobody more requests", reply.status == 429, reply[::2])
        reply = ask(server, "GET", "/v1/models", headers=made["search-team"])
        tally.check("a reload keeps the keys", reply.status == 200, reply[::2])


def check_public(binary, folder, tally):
    """An address that others reach, and no keys."""
    command = [binary, "serve", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    right = done.returncode == 2 and done.stdout == "" and "--keys" in done.stderr and "0.0.0.0" in done.stderr
    tally.check("a public address without keys is refused", right, (done.returncode, done.stdout, done.stderr))


# ---------------------------------------------------------------- Reload, shutdown


def many(count, words=40):
    """A request that takes a while."""
    chance = random.Random(SEED)
    some = ["flea", "lives", "months", "host", "dog", "summer"]
    texts = [" ".join(chance.choices(some, k=words)) for _ in range(count)]
    return {"model": "minilm", "query": QUERY, "documents": texts}


def in_background(work, count):
    """Works in so many threads; answers them and the list that their results come to."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def under_way(server, count):
    """Waits until so many requests are at work."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        ready = ask(server, "GET", "/readyz")
        if ready.status == 200 and json.loads(ready.body)["requests"] >= count:
            return True
        time.sleep(0.02)
    return False


def check_reload(server, tally):
    """Models and index are read anew while requests come: none of them may fail."""
    ended, failures, asked = threading.Event(), [], [0]
    before = server.told().count("anew")
    routes = [route for route in WITH_BODY if route.path in ("/v2/rerank", "/v1/search", "/v1/embeddings")]

    def load():
        client = Client(server)
        while not ended.is_set():
            for route in routes:
                try:
                    reply = client.ask(route.method, route.path, route.body)
                    wrong = reply.status != 200 and reply[::2]
                except (OSError, http.client.HTTPException) as error:
                    wrong = repr(error)
                    client.close()
                asked[0] += 1
                if wrong:
                    failures.append(f"{route.path}: {wrong}")
        client.close()

    threads, _ = in_background(load, 4)
    reloads = 3
    for number in range(reloads):
        server.signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while server.told().count("anew") <= before + number and time.monotonic() < until:
            time.sleep(0.05)
    reply = ask(server, "POST", "/v1/index/reload")
    ended.set()
    for thread in threads:
        thread.join()
    tally.check("POST /v1/index/reload under load", reply.status == 200, reply[::2])
    done = server.told().count("anew") - before
    tally.check(f"{reloads} times SIGHUP, each reloads", done == reloads, server.told()[-400:])
    tally.check("requests while the server reloads", not failures and asked[0] > 0, failures[:3])
    print(f"  {asked[0]} requests during {done} reloads", flush=True)


def check_shutdown(binary, folder, tally):
    """The first signal brings to its end what is under way; the second ends it."""
    with Server(binary, folder, "--max-wait", "60s") as server:
        body, count = many(8), 4
        idle = [server.connect() for _ in range(20)]
        threads, results = in_background(lambda: ask(server, "POST", "/v2/rerank", body, timeout=60), count)
        if not tally.check("requests are under way", under_way(server, count), "they are not"):
            return
        kept = Client(server)
        kept.ask("GET", "/healthz")
        server.signal(signal.SIGTERM)
        time.sleep(0.3)
        refused = ask(server, "POST", "/v2/rerank", RERANK.body, timeout=5)
        tally.check("new requests are refused", refused.status in (0, 503), refused[::2])
        with contextlib.suppress(OSError, http.client.HTTPException):
            late = kept.ask("POST", "/v2/rerank", RERANK.body)
            right = late.status == 503 and is_shape("cohere", late.body)
            tally.check("a connection that was kept open is told", right, late[::2])
        status = server.wait(40)
        for thread in threads:
            thread.join()
        answered = [reply.status for reply in results]
        tally.check("what was under way is answered", answered == [200] * count, results)
        full = [len(json.loads(reply.body)["results"]) for reply in results if reply.status == 200]
        tally.check("and answered in full", full == [len(body["documents"])] * count, full)
        tally.check("the exit status after a signal", status == 0, status)
        for sock in idle:
            sock.close()
    with Server(binary, folder, "--max-wait", "60s") as server:
        body = many(3000)
        threads, results = in_background(lambda: ask(server, "POST", "/v2/rerank", body, timeout=60), 1)
        tally.check("a long request is under way", under_way(server, 1), "it is not")
        server.signal(signal.SIGINT)
        time.sleep(0.3)
        tally.check("the first signal waits for it", server.process.poll() is None, "it has ended")
        start = time.monotonic()
        server.signal(signal.SIGINT)
        status = server.wait(10)
        took = time.monotonic() - start
        tally.check("the second signal ends at once", status == 130 and took < 3, f"{status} after {took:.1f} s")
        for thread in threads:
            thread.join()


# ---------------------------------------------------------------- The run


def prepared(binary, folder):
    """A small index."""
    folder.joinpath("texts").mkdir()
    for name, text in FILES.items():
        folder.joinpath("texts", name).write_text(text)
    command = [binary, "index", "add", "texts", "--index", "small.index"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the index was not made: {done.stderr}")


def main():
    options = arguments()
    if not options.binary.exists():
        print(f"{options.binary} is not built: cargo build --release -p topshelf-cli", file=sys.stderr)
        return 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    binary, tally = str(options.binary.resolve()), Tally()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        prepared(binary, folder)
        arguments_of_main = ("--index", str(folder / "small.index"), "--writable", "--max-wait", "60s")
        with Server(binary, folder, *arguments_of_main) as server:
            slow = Slow(server)
            sections = {
                "bodies": lambda: check_bodies(server, tally),
                "numbers": lambda: check_numbers(server, tally),
                "large": lambda: check_large(server, tally),
                "routes": lambda: check_routes(server, tally),
                "http": lambda: check_http(server, tally),
                "mutations": lambda: check_mutations(server, tally, options.mutations, seconds=25),
                "idle": lambda: check_idle(server, tally),
                "reload": lambda: check_reload(server, tally),
                "slow": lambda: slow.end(tally),
            }
            if wanted("slow", options.only):
                slow.start()
            for name, section in sections.items():
                if wanted(name, options.only):
                    during(name, server, tally, section)
                if server.process.poll() is not None:
                    tally.check(f"the server lives after {name}", False, server.told()[-500:])
                    break
        for name, section in [
            ("costly", lambda: check_costly(binary, folder, tally)),
            ("public", lambda: check_public(binary, folder, tally)),
            ("keys", lambda: check_keys(binary, folder, tally)),
            ("shutdown", lambda: check_shutdown(binary, folder, tally)),
        ]:
            if wanted(name, options.only):
                start = time.monotonic()
                section()
                print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


def during(name, server, tally, section):
    """One section, with the probe beside it."""
    start, probe = time.monotonic(), Probe(server)
    probe.start()
    section()
    probe.end(tally, name)
    print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)


def wanted(name, only):
    return only is None or only in name


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "topshelf")
    parser.add_argument("--only", metavar="WORD", help="only sections whose name has that word")
    parser.add_argument("--mutations", type=int, default=4000, metavar="N", help="bodies to mutate, at most")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
