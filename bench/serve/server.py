"""A server under test: started, watched through /proc, stopped. Linux only."""

import http.client
import json
import os
import resource
import select
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

LOGS = Path(__file__).resolve().parent.parent.parent / "target" / "bench-logs"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
# As it was before `apart`.
PRIORITY = os.getpriority(os.PRIO_PROCESS, 0)


def on(cores):
    """What puts a child on these cores, without the priority that the generator has."""

    def settle():
        os.sched_setaffinity(0, cores)
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)

    return settle


def cpu_seconds(process):
    """Processor seconds of all threads of a process so far."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Server:
    """`topshelf serve` on a free port, on some cores, with both caches off."""

    def __init__(self, binary, cores, *options, environment=None):
        """Starts it and waits until it has said its address."""
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = (LOGS / "server.log").open("w+")
        self.start = time.perf_counter()
        self.process = subprocess.Popen(
            [
                str(binary),
                "serve",
                "--port",
                "0",
                "--rerank",
                "local",
                "--no-cache",
                "--no-profile",
                *options,
            ],
            env={**os.environ, "TOPSHELF_SCORE_CACHE": "0", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=on(cores),
        )
        ready = select.select([self.process.stdout], [], [], 60)[0]
        line = self.process.stdout.readline().strip() if ready else ""
        self.ready_ms = (time.perf_counter() - self.start) * 1e3
        if not line.startswith("http://"):
            self.process.kill()
            self.log.seek(0)
            raise SystemExit(f"the server did not start: {self.log.read().strip()}")
        url = urllib.parse.urlsplit(line)
        self.address = (url.hostname, url.port)

    def memory(self):
        """Resident bytes."""
        return int(self._proc("statm").split()[1]) * PAGE

    def cpu(self):
        """Seconds of all its threads so far."""
        return cpu_seconds(self.process)

    def threads(self):
        """Threads."""
        return int(self._proc("stat").rsplit(") ", 1)[1].split()[17])

    def files(self):
        """Open files, connections among them."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _proc(self, name):
        with open(f"/proc/{self.process.pid}/{name}") as file:
            return file.read()

    def get(self, path):
        """Status and JSON of a route."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body)

    def settle(self, seconds=30):
        """Waits until it has nothing to do; answers for how many seconds, and the CPU that took."""
        start, before = time.perf_counter(), self.cpu()
        last, busy = before, start
        while time.perf_counter() < min(busy + 0.5, start + seconds):
            time.sleep(0.05)
            if (now := self.cpu()) - last > 0.011:
                busy = time.perf_counter()
            last = now
        return busy - start, last - before

    def lives(self):
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self):
        """Ends it; answers its exit status."""
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.stdout.close()
        self.log.close()
        return self.process.wait()

    def __enter__(self):
        """Is itself."""
        return self

    def __exit__(self, *_):
        """Ends it."""
        self.stop()


def allow_connections():
    """Lets this process have as many connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def apart(cores):
    """Puts this process on the cores that the server does not have; answers which.

    Where there are none left, it shares them, before the server in priority if that is permitted: what is
    measured is when an answer was there, not when the generator got round to it.
    """
    others = os.sched_getaffinity(0) - cores
    if others:
        os.sched_setaffinity(0, others)
        return f"cores {sorted(others)} of its own"
    try:
        os.nice(-10)
    except OSError:
        print("the generator has no priority over the server", file=sys.stderr)
    return "the server's cores, shared"
