"""Figure `clients`: throughput and latency for 1 to 64 clients.

Before each number of clients the engine alone reads the same requests for half the time; a round's ratio is
the server's requests a second by the engine's. The token cache is off, so that both tokenise everything.
Waiting is not limited here: with more clients than the machine can serve at once, each waits for those
before it.
"""

import asyncio
import sys
import time

from client import closed, request
from engine import Engine
from server import Server, cpu_seconds
from tables import Figure, median, percentile, spread
from texts import Texts, body

LOADS = 16
WAIT = "600s"
# As many requests that every client is answered three times.
LEAST = 3


def loads_of(options):
    """Queries with their documents, and the same as requests."""
    texts = Texts(seed=66)
    loads = [texts.pairs(options.documents) for _ in range(LOADS)]
    return loads, [request(body(*load)) for load in loads]


def clients(options):
    """Takes the figure."""
    numbers = [int(number) for number in options.clients.split(",")]
    rounds = 1 if options.quick else options.rounds
    seconds = options.seconds or (3 if options.quick else 8)
    loads, requests = loads_of(options)
    seen = {number: {"ratios": [], "rates": [], "ms": [], "cpu": [], "bad": 0} for number in numbers}
    engine = Engine(options.engine, options.cores, loads)
    engine_rates, begin = [], (time.perf_counter(), time.process_time())
    with Server(
        options.binary, options.cores, "--max-wait", WAIT, environment={"TOPSHELF_TOKEN_CACHE": "0"}
    ) as server:
        asyncio.run(closed(server.address, requests, 2, count=4))
        for turn in range(rounds):
            for number in numbers:
                own, own_cpu = engine_rate(engine, seconds / 2)
                engine_rates.append(own)
                rate, cpu = measure(server, requests, number, seconds, seen[number])
                seen[number]["ratios"].append(rate / own)
                seen[number]["cpu"].append(cpu / own_cpu)
                print(f"round {turn + 1}: {number} clients: {rate / own:.3f}", file=sys.stderr)
        memory = server.memory()
    own_share = (time.process_time() - begin[1]) / (time.perf_counter() - begin[0])
    engine.stop()
    figure = Figure(
        "Clients",
        f"Each client reranks {options.documents} short documents and asks again at once; {seconds:g} s a"
        f" round and number, {rounds} rounds, the engine alone before each. Ratio: requests a second by the"
        f" engine's just before, median (smallest to largest); CPU ratio: the same"
        f" of the processor time of a request. The engine alone: {median(engine_rates):.2f} a"
        f" second. The generator used {own_share:.1%} of one core.",
        ["clients", "requests/s", "ratio", "p50 ms", "p99 ms", "p99/p50", "CPU ratio", "failed"],
    )
    for number, own in seen.items():
        p50, p99 = percentile(own["ms"], 0.5), percentile(own["ms"], 0.99)
        rate = median(own["rates"])
        figure.add(number, rate, spread(own["ratios"]), p50, p99, p99 / p50, spread(own["cpu"]), own["bad"])
    ratios = {number: median(own["ratios"]) for number, own in seen.items()}
    worst = min(ratios, key=ratios.get)
    figure.want(
        "throughput within 10 % of the engine's own",
        ratios[worst] >= 0.9,
        f"least {ratios[worst]:.3f}, with {worst} clients",
    )
    tails = {number: percentile(own["ms"], 0.99) / percentile(own["ms"], 0.5) for number, own in seen.items()}
    longest = max(tails, key=tails.get)
    figure.want("p99 below 3 x p50", tails[longest] < 3, f"most {tails[longest]:.2f}, with {longest} clients")
    failed = sum(own["bad"] for own in seen.values())
    figure.want("every request answered", failed == 0, f"{failed} failed, {memory / 1e6:.0f} MB at the end")
    return figure


def engine_rate(engine, seconds):
    """The engine's queries a second, and the processor seconds of one."""
    times, before = [], cpu_seconds(engine.process)
    while sum(times) < seconds * 1e3:
        times += engine.run(1)
    return len(times) / sum(times) * 1e3, max(0.01, cpu_seconds(engine.process) - before) / len(times)


def measure(server, requests, number, seconds, own):
    """The server's requests a second, and the processor seconds of one; the rest is noted in `own`."""
    done, spent = asyncio.run(load(server, requests, number, seconds))
    good = [one for one in done if one.status == 200]
    first = min(one.due for one in done)
    elapsed = max(one.due + one.ms / 1e3 for one in done) - first
    rate = len(good) / elapsed
    own["rates"].append(rate)
    own["ms"] += [one.ms for one in good]
    own["bad"] += len(done) - len(good)
    return rate, spent / max(1, len(good))


async def load(server, requests, number, seconds):
    """The load of so many clients, for the time, or anew until each was answered a few times; and the
    processor seconds of it."""
    before = server.cpu()
    done = await closed(server.address, requests, number, seconds=seconds)
    if len(done) < LEAST * number:
        before = server.cpu()
        done = await closed(server.address, requests, number, count=LEAST * number)
    return done, server.cpu() - before
