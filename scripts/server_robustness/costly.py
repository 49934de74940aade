"""Bodies that ask for far too much work, or that may take their time: others have to be served meanwhile."""

import contextlib
import json
import os
import random
import time

from checks import SEED, in_background
from routes import QUERY, TEXTS
from server import Server, ask


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
