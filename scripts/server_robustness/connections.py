"""Clients that hold a connection and ask for little: slow ones are let go, idle ones keep nobody out."""

import json
import resource
import threading
import time

from checks import PATIENCE
from routes import RERANK, is_shape
from server import ask, body_of, status_of

IDLE = 10_000
# The server's own limits (crates/topshelf-server/src/options.rs), and what a loaded machine adds to them.
HEAD_TIME, BODY_TIME, SLACK = 10, 30, 8
SLOW_BODIES = {
    "/v2/rerank": "cohere", "/jina/v1/rerank": "jina", "/voyage/v1/rerank": "voyage", "/tei/rerank": "tei",
    "/vllm/v1/rerank": "vllm", "/v1/embeddings": "openai", "/v1/search": "native",
}  # fmt: skip


class Slow(threading.Thread):
    """Clients that trickle, or say nothing: how long each of them is borne, and with which answer."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.closed, self.answers = server, {}, {}

    def run(self):
        body = json.dumps(RERANK.body).encode()
        head = "POST {} HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n"
        beginnings = {
            "silent": b"",
            "head": b"GET /healthz HTTP/1.1\r\nx: ",
            "kept open": b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
            **{path: head.format(path).encode() + body[:10] for path in SLOW_BODIES},
        }
        start, open_now = time.monotonic(), {}
        for name, beginning in beginnings.items():
            sock = self.server.connect()
            sock.sendall(beginning)
            sock.setblocking(False)
            open_now[name] = sock
        until = start + BODY_TIME + SLACK
        while open_now and time.monotonic() < until:
            for name, sock in list(open_now.items()):
                try:
                    if name not in ("silent", "kept open"):
                        sock.send(b"a")
                    part = sock.recv(65536)
                    self.answers[name] = self.answers.get(name, b"") + part
                except BlockingIOError:
                    continue
                except OSError:
                    part = b""
                if not part or (name in SLOW_BODIES and body_of(self.answers[name])):
                    self.closed[name] = time.monotonic() - start
                    open_now.pop(name).close()
            time.sleep(0.5)
        for sock in open_now.values():
            sock.close()

    def end(self, tally):
        self.join(BODY_TIME + SLACK + 5)
        for name, limit in [("silent", HEAD_TIME), ("head", HEAD_TIME), ("kept open", HEAD_TIME)]:
            took = self.closed.get(name)
            right = took is not None and took < limit + SLACK
            tally.check(f"a slow client ({name}) is let go after {limit} s", right, f"{took} s")
        for path, dialect in SLOW_BODIES.items():
            took, answer = self.closed.get(path), self.answers.get(path, b"")
            right = took is not None and took < BODY_TIME + SLACK
            right = right and status_of(answer) == 408 and is_shape(dialect, body_of(answer))
            tally.check(f"{path}, a body that trickles", right, f"after {took} s: {answer[:300]}")


def check_idle(server, tally):
    """Ten thousand connections on which nothing happens, as far as the system's limits go."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE, soft - 500)
    if count < IDLE:
        print(f"  {soft} file descriptors are allowed: {count} idle connections instead of {IDLE}", flush=True)
    idle, start = [], time.monotonic()
    try:
        for _ in range(count):
            idle.append(server.connect())
    except OSError as error:
        tally.check(f"{count} idle connections", False, f"{error} after {len(idle)}")
    else:
        tally.check(f"{count} idle connections", True)
    opened = time.monotonic() - start
    replies = [ask(server, RERANK.method, RERANK.path, RERANK.body, timeout=PATIENCE) for _ in range(5)]
    served = all(reply.status == 200 for reply in replies)
    tally.check(f"new connections are served beside {len(idle)} idle ones", served, replies)
    for sock in idle:
        sock.close()
    print(f"  {len(idle)} idle connections, opened in {opened:.1f} s", flush=True)
