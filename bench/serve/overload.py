"""Figure `overload`: four times as many requests as can be done.

What can be done is measured before and after, with as many clients as fill the machine. In between, requests
arrive at four times that rate, at random distances, whether or not earlier ones were answered.
"""

import asyncio
import statistics

from client import arriving, closed
from clients import loads_of
from server import Server
from tables import Figure, percentile

TIMES = 4
FULL = 4
REFUSED_MS = 50


def overload(options):
    """Takes the figure."""
    seconds = options.seconds or (10 if options.quick else 60)
    _, requests = loads_of(options)
    with Server(options.binary, options.cores, environment={"TOPSHELF_TOKEN_CACHE": "0"}) as server:
        asyncio.run(closed(server.address, requests, FULL, count=8))
        before = capacity(server, requests, seconds / 4)
        done, late, memory = asyncio.run(watched(server, requests, TIMES * before, seconds))
        after = capacity(server, requests, seconds / 4)
        alive, (settled, _) = server.lives(), server.settle()
    able = statistics.mean([before, after])
    good = [one for one in done if one.status == 200]
    refused = [one for one in done if one.status in (429, 503)]
    other = len(done) - len(good) - len(refused)
    # Those that were let in at the very end are answered after it.
    elapsed = max(one.due + one.ms / 1e3 for one in good) - min(one.due for one in done)
    goodput = len(good) / elapsed
    early, end = statistics.median(memory[1:6]), statistics.median(memory[-5:])
    figure = Figure(
        "Overload",
        f"Requests of {options.documents} short documents arrive for {seconds:g} s at {TIMES} times what"
        f" {FULL} clients got done: {before:.2f} a second before, {after:.2f} after. Times count from when a"
        f" request was due; the generator was late by {late:.0f} ms at most.",
        ["requests", "number", "a second", "p50 ms", "p99 ms", "most ms"],
    )
    for name, some in (("arrived", done), ("answered", good), ("refused", refused)):
        ms = [one.ms for one in some]
        over = elapsed if name == "answered" else seconds
        cells = (
            [percentile(ms, 0.5), percentile(ms, 0.99), max(ms, default=0.0)]
            if some is not done
            else ["-"] * 3
        )
        figure.add(name, len(some), len(some) / over, *cells)
    figure.want("no crash, no other answer", alive and not other, f"{other} other answers")
    figure.want("goodput at least 90 % of capacity", goodput >= 0.9 * able, f"{goodput / able:.0%}")
    quick = sum(one.ms <= REFUSED_MS for one in refused) / max(1, len(refused))
    figure.want(f"the rest refused within {REFUSED_MS} ms", quick >= 0.99, f"{quick:.1%} of them")
    figure.want(
        "memory flat",
        end <= 1.1 * early,
        f"{early / 1e6:.0f} MB at first, {end / 1e6:.0f} at last, {max(memory) / 1e6:.0f} at most",
    )
    figure.want("nothing left to do a second after", settled < 1, f"{settled:.1f} s")
    return figure


def capacity(server, requests, seconds):
    """Requests a second with as many clients as fill the machine."""
    done = asyncio.run(closed(server.address, requests, FULL, seconds=seconds))
    good = [one for one in done if one.status == 200]
    return len(good) / (max(one.due + one.ms / 1e3 for one in good) - min(one.due for one in done))


async def watched(server, requests, rate, seconds):
    """The arrivals, with the memory of each second."""
    memory = []

    async def watch():
        while True:
            memory.append(server.memory())
            await asyncio.sleep(seconds / 60)

    watching = asyncio.create_task(watch())
    done, late = await arriving(server.address, requests, rate, seconds)
    watching.cancel()
    return done, late, memory
