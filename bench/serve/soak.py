"""Figure `soak`: memory after many requests of mixed length against that after the first thousand.

No text comes twice, so the token cache would grow until it has the size that is set for it (32 MiB unless
`--token-cache` says otherwise), which is no leak, but would hide one. It is off unless that option is given.
"""

import asyncio
import sys
import time

from client import closed, request
from server import Server
from tables import Figure
from texts import Texts, body

CLIENTS = 4
STEPS = 10
# Requests that are made beforehand, and then thrown away.
PART = 1000


def soak(options):
    """Takes the figure."""
    total = options.requests or (10_000 if options.quick else 100_000)
    first = min(1000, max(1, total // 10))
    texts = Texts(seed=12)
    figure = Figure(
        "Soak",
        f"{total} requests of mixed length from {CLIENTS} clients: mostly one or two documents of 3 to 30"
        " words, one of a hundred with 20 documents, one with a document of up to 900 words; the token"
        f" cache has {options.token_cache} MiB.",
        ["requests", "MB", "by that after the first", "threads", "files", "requests/s"],
    )
    environment = {"TOPSHELF_TOKEN_CACHE": f"{options.token_cache}"}
    with Server(options.binary, options.cores, "--max-wait", "60s", environment=environment) as server:
        at_start = server.memory()
        sizes, failed, made = [], 0, 0
        for step in [first, *(s for n in range(1, STEPS + 1) if (s := total * n // STEPS) > first)]:
            begin, before = time.perf_counter(), made
            while made < step:
                count = min(PART, step - made)
                requests = [request(body(*texts.mixed())) for _ in range(count)]
                done = asyncio.run(closed(server.address, requests, CLIENTS, count=count))
                failed += sum(one.status != 200 for one in done)
                made += count
            rate = (made - before) / max(1e-9, time.perf_counter() - begin)
            time.sleep(1)
            sizes.append(server.memory())
            size = sizes[-1]
            print(f"{made} requests: {size / 1e6:.1f} MB", file=sys.stderr)
            figure.add(made, size / 1e6, size / sizes[0], server.threads(), server.files(), rate)
    grown = sizes[-1] / sizes[0]
    figure.want(
        f"memory within 10 % of that after {first}",
        grown <= 1.1,
        f"{grown:.3f}; {at_start / 1e6:.0f} MB before the first request",
    )
    figure.want("every request answered", failed == 0, f"{failed} failed")
    return figure
