"""Valid bodies, mutated at random from a fixed seed: none may give a 5xx or close the connection."""

import collections
import copy
import http.client
import json
import random
import threading
import time

from checks import SEED
from routes import RERANK, WITH_BODY, is_shape
from server import Client

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
