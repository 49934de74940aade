"""Figure `start`: how long until the server is ready, and how its first request compares with the others."""

import asyncio
import itertools
import statistics
import time

from client import closed, request
from server import Server
from tables import Figure, median
from texts import Texts, body

READY_MS = 300
OTHERS = 12


def start(options):
    """Takes the figure."""
    starts = 3 if options.quick else 10
    texts = Texts(seed=5)
    # Another request each time: the first one is not to be compared with repetitions of itself.
    requests = [request(body(*texts.pairs(options.documents))) for _ in range(OTHERS + 1)]
    ready, ratios, cpu_ratios = [], [], []
    figure = Figure(
        "Start",
        f"{starts} starts with warm disk, each followed by {OTHERS + 1} requests of {options.documents} short"
        " documents, one after the other. Ready: from the start of the process until `/readyz` says so;"
        " CPU: the processor time until then.",
        [
            "start",
            "address ms",
            "ready ms",
            "CPU ms",
            "first ms",
            "median of the others",
            "ratio",
            "CPU ratio",
        ],
    )
    for number in range(starts + 1):
        with Server(options.binary, options.cores) as server:
            status, _ = server.get("/readyz")
            ready_ms, cpu = (time.perf_counter() - server.start) * 1e3, [server.cpu()]
            done = []
            for one in requests:
                done.append(asyncio.run(closed(server.address, [one], 1, count=1))[0].ms)
                cpu.append(server.cpu())
        # The start before the first that counts warms the disk.
        if number == 0 or status != 200:
            continue
        others = statistics.median(done[1:])
        ready.append(ready_ms)
        ratios.append(done[0] / others)
        spent = [later - earlier for earlier, later in itertools.pairwise(cpu)]
        cpu_ratios.append(spent[0] / max(0.01, statistics.median(spent[1:])))
        cells = [server.ready_ms, ready_ms, cpu[0] * 1e3, done[0], others, ratios[-1], cpu_ratios[-1]]
        figure.add(number, *cells)
    figure.want("each start became ready", len(ready) == starts, f"{len(ready)} of {starts}")
    figure.want(f"ready in {READY_MS} ms", median(ready) < READY_MS, f"median {median(ready):.0f} ms")
    figure.want(
        "first request within 1.2 x the median",
        median(ratios) <= 1.2,
        f"median {median(ratios):.2f}, of processor time {median(cpu_ratios):.2f}",
    )
    return figure
