"""A server, and the ways to ask it: whole requests, or bytes as they are."""

import collections
import contextlib
import http.client
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import time

from routes import ALIAS

# How long one request may take, in seconds, unless a check says otherwise.
TIMEOUT = 25

# What the server says on standard error after SIGHUP, once it has read all again.
RELOADED = "read keys, models and indexes again"

Reply = collections.namedtuple("Reply", "status headers body")


class Server:
    """A server of its own; ends with the block."""

    def __init__(self, binary, folder, *arguments):
        environment = {**os.environ, "TOPSHELF_SCORE_CACHE": "0"}
        self.log = open(folder / f"server-{len(list(folder.iterdir()))}.log", "w+b")
        self.process = subprocess.Popen(
            [binary, "serve", "--port", "0", "--no-profile", "--no-cache", "--alias", ALIAS, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
        )
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline().decode().strip() if ready else ""
        if not line.startswith("http://"):
            self.process.kill()
            raise SystemExit(f"the server did not start: {self.told()}")
        self.port = int(line.rsplit(":", 1)[1])

    def told(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def reloads(self):
        """How many times the server has read all again."""
        return self.told().count(RELOADED)

    def reload(self, seconds=20):
        """SIGHUP; whether the server has read all again within the time."""
        before, until = self.reloads(), time.monotonic() + seconds
        self.signal(signal.SIGHUP)
        while self.reloads() == before and time.monotonic() < until:
            time.sleep(0.05)
        return self.reloads() > before

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """The exit status; None if it has not ended by then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def connect(self, timeout=TIMEOUT):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Client:
    """One connection; knows whether the server has closed it."""

    def __init__(self, server, timeout=TIMEOUT):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=()):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"content-type": "application/json", **dict(headers)}
        self.http.request(method, path, body, headers)
        answer = self.http.getresponse()
        return Reply(answer.status, answer.headers, answer.read())

    def is_closed(self):
        return self.http.sock is None

    def close(self):
        self.http.close()


def ask(server, method, path, body=None, headers=(), timeout=TIMEOUT):
    """One request on a connection of its own; status 0 where the connection fails."""
    client = Client(server, timeout)
    try:
        return client.ask(method, path, body, headers)
    except (OSError, http.client.HTTPException) as error:
        return Reply(0, {}, repr(error).encode())
    finally:
        client.close()


def raw(server, data, *, finish=False, timeout=TIMEOUT, wait=0.0):
    """Sends bytes as they are; answers all that comes back until the server closes or falls silent."""
    got = b""
    try:
        with server.connect(timeout) as sock:
            with contextlib.suppress(OSError):  # a server may answer and close before all has been sent
                sock.sendall(data)
            if finish:
                sock.shutdown(socket.SHUT_WR)
            sock.settimeout(timeout)
            until = time.monotonic() + timeout
            while time.monotonic() < until:
                part = sock.recv(65536)
                if not part:
                    break
                got += part
                if wait:
                    sock.settimeout(wait)
    except OSError as error:
        return got or repr(error).encode()
    return got


def status_of(answer):
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found.group(1)) if found else 0


def body_of(answer):
    return answer.partition(b"\r\n\r\n")[2]
