"""Signals while requests are under way: SIGHUP, at which all is read anew, and those that end the server."""

import contextlib
import http.client
import json
import random
import signal
import threading
import time

from checks import SEED, in_background
from routes import QUERY, RERANK, WITH_BODY, is_shape
from server import TIMEOUT, Client, Server, ask


def many(count, words=40):
    """A request that takes a while."""
    chance = random.Random(SEED)
    some = ["flea", "lives", "months", "host", "dog", "summer"]
    texts = [" ".join(chance.choices(some, k=words)) for _ in range(count)]
    return {"model": "minilm", "query": QUERY, "documents": texts}


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
    before = server.reloads()
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
    for _ in range(reloads):
        server.reload()
    reply = ask(server, "POST", "/v1/index/reload")
    ended.set()
    for thread in threads:
        thread.join()
    tally.check("POST /v1/index/reload under load", reply.status == 200, reply[::2])
    done = server.reloads() - before
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
