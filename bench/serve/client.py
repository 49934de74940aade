"""The load: HTTP/1.1 over asyncio without a library, so that it takes little of the machine.

Requests are bytes that were made beforehand, and of an answer only status and length are read.

- `closed`: so many clients, each of which asks again as soon as it has its answer.
- `arriving`: requests at a rate, at random distances, whether or not earlier ones were answered. A
  request's time counts from when it was due, so that a late generator does not flatter the server.
"""

import asyncio
import dataclasses
import itertools
import random
import re
import time

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Done:
    """A request that came to its end: `status` is 0 where the connection broke."""

    due: float
    ms: float
    status: int


def request(body, path="/v2/rerank"):
    """A POST of JSON as bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One connection, kept open; one request at a time."""

    def __init__(self):
        """Has no request under way."""
        self.transport = None
        self.answer = None
        self.open = False
        self.read = bytearray()

    def connection_made(self, transport):
        """Can be used from here on."""
        self.transport, self.open = transport, True

    def connection_lost(self, exc):
        """Ends the request under way."""
        self.open = False
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("the server hung up"))

    def data_received(self, data):
        """Ends the request once its answer is there."""
        self.read += data
        end = self.read.find(b"\r\n\r\n")
        if end < 0 or not self.answer or self.answer.done():
            return
        head = bytes(self.read[: end + 2])
        if CHUNKED.search(head):
            self.answer.set_exception(ValueError("chunked answers are not read"))
            return
        found = LENGTH.search(head)
        whole = end + 4 + (int(found[1]) if found else 0)
        if len(self.read) >= whole:
            body = bytes(self.read[end + 4 : whole])
            del self.read[:whole]
            self.answer.set_result((int(head[9:12]), body))

    async def ask(self, data):
        """Sends a request; answers status and body."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self.answer

    def abandon(self):
        """Breaks the connection at once."""
        self.transport.abort()


async def connect(address):
    """A new connection."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, *address)
    return connection


class Pool:
    """Connections that are open and idle."""

    def __init__(self, address):
        """Opens none yet."""
        self.address = address
        self.idle = []

    async def ask(self, data, due=None):
        """Asks on an idle connection, or on a new one."""
        due = due or time.perf_counter()
        try:
            connection = self.idle.pop() if self.idle else await connect(self.address)
            while not connection.open:
                connection = self.idle.pop() if self.idle else await connect(self.address)
            status, _ = await connection.ask(data)
            self.idle.append(connection)
        except OSError:
            status = 0
        return Done(due, (time.perf_counter() - due) * 1e3, status)

    def close(self):
        """Closes the idle ones."""
        for connection in self.idle:
            connection.transport.close()


async def closed(address, requests, clients, seconds=None, count=None):
    """So many clients, for a time or until so many requests were made; answers what was done."""
    pool, done = Pool(address), []
    turns = itertools.cycle(requests)
    numbers = iter(range(count)) if count else itertools.count()
    end = time.perf_counter() + seconds if seconds else float("inf")

    async def client():
        while time.perf_counter() < end and next(numbers, None) is not None:
            done.append(await pool.ask(next(turns)))

    await asyncio.gather(*(client() for _ in range(clients)))
    pool.close()
    return done


async def arriving(address, requests, rate, seconds, seed=1):
    """Requests at a rate for a time; answers what was done, and by how much the generator was late."""
    pool, tasks, late = Pool(address), [], 0.0
    draw = random.Random(seed)
    turns = itertools.cycle(requests)
    start = due = time.perf_counter()
    while (due := due + draw.expovariate(rate)) < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late = max(late, time.perf_counter() - due)
        tasks.append(asyncio.create_task(pool.ask(next(turns), due)))
    done = await asyncio.gather(*tasks)
    pool.close()
    return done, late * 1e3
