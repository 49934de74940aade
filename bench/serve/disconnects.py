"""Figure `disconnects`: clients that break off at random, and what that leaves behind.

Under load, each of some clients asks and breaks the connection after a random time, thousands of times; one
client beside them waits for all of its answers. Then, on an idle server, single requests of fifty
times as many documents are broken off at their beginning: the processor time that the server still spends
after that is work for nobody.
"""

import asyncio
import random
import statistics
import sys
import time

from client import Pool, closed, connect, request
from server import Server
from tables import Figure
from texts import Texts, body

CLIENTS = 8
SINGLE = 10
# Documents that may be read after the client has left: those that are in hand are not put down.
IN_HAND = 64
# A quarter break off in the middle of their request.
PARTS = 4


def disconnects(options):
    """Takes the figure."""
    total = options.requests or (1_000 if options.quick else 10_000)
    texts = Texts(seed=4)
    # Short ones, so that ten thousand come to an end, and long ones, whose work is worth withdrawing.
    few, many = max(1, options.documents // 5), options.documents * 10
    requests = [request(body(*texts.pairs(few))) for _ in range(64)]
    long = request(body(*texts.pairs(many)))
    with Server(options.binary, options.cores, "--max-wait", "60s") as server:
        whole = statistics.median(
            one.ms for one in asyncio.run(closed(server.address, requests, 1, count=40))
        )
        asyncio.run(abandoned(server, requests, total // 10, whole))
        server.settle()
        before = server.memory(), server.threads(), server.files()
        begin, cpu = time.perf_counter(), server.cpu()
        waited = asyncio.run(abandoned(server, requests, total, whole))
        elapsed, spent = time.perf_counter() - begin, server.cpu() - cpu
        settled, _ = server.settle()
        after = server.memory(), server.threads(), server.files()
        _, ready = server.get("/readyz")
        cost, wasted = single(server, long)
        alive = server.lives()
    figure = Figure(
        "Disconnects",
        f"{total} requests of {few} short documents from {CLIENTS} clients that break off after 0 to 2"
        f" times the {whole:.0f} ms of an answer, one of {PARTS} of them in the middle of its request;"
        f" {elapsed:.0f} s, in which the server used {spent:.0f} s of processor time. Beside them a"
        f" client that waits got {len(waited)} answers. Before: after a tenth as many.",
        ["", "before", "after"],
    )
    figure.add("memory, MB", before[0] / 1e6, after[0] / 1e6)
    figure.add("threads", before[1], after[1])
    figure.add("open files", before[2], after[2])
    bad = sum(one.status != 200 for one in waited)
    figure.want(
        "no crash, and the client that waits is answered", alive and waited and not bad, f"{bad} failed"
    )
    grown = after[0] / before[0]
    leaks = after[1] > before[1] or after[2] > before[2] or ready["requests"] > 0
    figure.want(
        "no leak",
        grown <= 1.1 and not leaks,
        f"memory {grown:.3f}, {ready['requests']} requests counted as under way",
    )
    figure.want("idle within a second of the last", settled < 1, f"{settled:.1f} s")
    read = statistics.median(wasted) / cost * many
    figure.want(
        f"no work for nobody: of {many} documents, broken off after 50 ms, at most {IN_HAND} are read"
        " after that",
        read <= IN_HAND,
        f"{read:.0f}, by {statistics.median(wasted):.2f} s of processor time where all take {cost:.2f};"
        f" most {max(wasted):.2f} s",
    )
    return figure


async def abandoned(server, requests, total, whole):
    """So many requests that are broken off; answers what the client that waits got."""
    draw, numbers, waited = random.Random(7), iter(range(total)), []
    leaving = True

    async def leaver():
        for number in numbers:
            data = draw.choice(requests)
            try:
                connection = await connect(server.address)
            except OSError:
                continue
            if number % PARTS == 0:
                connection.transport.write(data[: draw.randrange(len(data))])
            else:
                asking = asyncio.ensure_future(connection.ask(data))
                asking.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(draw.uniform(0, 2) * whole / 1e3)
            connection.abandon()

    async def stayer():
        pool = Pool(server.address)
        while leaving:
            waited.append(await pool.ask(draw.choice(requests)))
        pool.close()

    staying = asyncio.create_task(stayer())
    await asyncio.gather(*(leaver() for _ in range(CLIENTS)))
    leaving = False
    await staying
    print(f"{total} broken off", file=sys.stderr)
    return waited


def single(server, data):
    """The processor time of a long request, and that after each of some that are broken off."""
    server.settle()
    before = server.cpu()
    asyncio.run(closed(server.address, [data], 1, count=1))
    server.settle()
    cost, wasted = max(0.01, server.cpu() - before), []

    async def leave():
        connection = await connect(server.address)
        asking = asyncio.ensure_future(connection.ask(data))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0.05)
        connection.abandon()
        return server.cpu()

    for _ in range(SINGLE):
        left = asyncio.run(leave())
        server.settle()
        wasted.append(server.cpu() - left)
    return cost, wasted
