"""What the sections share: the count of checks, the client that has to be served meanwhile, work in threads."""

import http.client
import json
import threading
import time

from routes import RERANK
from server import Client

SEED = 20260701
# How long the probe may wait for one small request, in seconds, whatever the others do.
PATIENCE = 8


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


def in_background(work, count):
    """Works in so many threads; answers them and the list that their results come to."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results
