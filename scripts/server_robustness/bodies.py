"""Bodies that are wrong, have numbers that mean nothing, or are too large: each dialect says so in its own shape."""

import http.client
import json

from checks import in_background
from routes import RERANK, ROUTES, WITH_BODY, expected, is_shape
from server import Client, ask, body_of, raw, status_of

# The server's own limit (crates/topshelf-server/src/options.rs).
BODY_LIMIT = 32 << 20
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
