"""HTTP itself: methods, addresses and deadlines that are none, and requests that are odd or broken."""

import json
import re

from routes import RERANK, ROUTES, is_shape
from server import TIMEOUT, ask, raw, status_of

# Routes with a body that no deadline shortens.
TIMELESS = {"/v1/context", "/v1/documents", "/embed", "/tei/embed", "/v1/embeddings", "/openai/v1/embeddings"}


def check_routes(server, tally):
    """Methods, routes that are not there, and deadlines that are none."""
    for route in ROUTES:
        if route.method == "GET":
            head = ask(server, "HEAD", route.path)
            tally.check(f"HEAD {route.path}", head.status == 200 and head.body == b"", head[::2])
        for method in {"GET": ("POST", "DELETE"), "POST": ("GET", "PUT", "PATCH"), "DELETE": ("PUT",)}[route.method]:
            if any(other.method == method and other.path == route.path for other in ROUTES):
                continue
            reply = ask(server, method, route.path)
            name = f"{method} {route.path}"
            right = reply.status == 405 and is_shape(route.dialect, reply.body)
            tally.check(name, right, reply[::2])
            allowed = [own.strip() for own in reply.headers.get("allow", "").split(",")] if reply.headers else []
            tally.check(f"{name}, Allow", route.method in allowed, allowed)
        reply = ask(server, "OPTIONS", route.path)
        right = reply.status in (200, 204) or (reply.status == 405 and is_shape(route.dialect, reply.body))
        tally.check(f"OPTIONS {route.path}", right, reply[::2])
        if route.body is None:
            continue
        if route.path not in TIMELESS:
            for value in ("soon", "0", "-1", "NaN", "1e300", ""):
                reply = ask(server, route.method, route.path, route.body, {"x-topshelf-deadline-ms": value})
                right = reply.status in (400, 422) and is_shape(route.dialect, reply.body)
                tally.check(f"{route.path}, deadline {value!r}", right, reply[::2])
    for path, dialect in [
        ("/nothing", "native"), ("/v1/rerank/", "native"), ("/cohere/v3/rerank", "cohere"), ("/jina/a", "jina"),
        ("/voyage/a", "voyage"), ("/tei/a", "tei"), ("/vllm/a", "vllm"), ("/openai/a", "openai"),
    ]:  # fmt: skip
        for method in ("GET", "POST"):
            reply = ask(server, method, path)
            tally.check(f"{method} {path}", reply.status == 404 and is_shape(dialect, reply.body), reply[::2])
    for path in [
        "/../etc/passwd", "/page/../../etc/passwd", "/page/%2e%2e/%2e%2e/etc/passwd", "/page/..%2fapp.js",
        "//etc/passwd", "/page/app.js%00", "/%ff%fe", "/page/", "/docs/..", "/.env",
    ]:  # fmt: skip
        reply = ask(server, "GET", path)
        right = reply.status in (400, 404) and b"root:" not in reply.body
        tally.check(f"GET {path}", right, reply[::2])


def check_http(server, tally):
    """The protocol: what is odd, and what is wrong."""
    body = json.dumps(RERANK.body).encode()

    def post(*headers, version="1.1", path=RERANK.path):
        return "\r\n".join([f"POST {path} HTTP/{version}", "host: a", *headers, "", ""]).encode()

    length = f"content-length: {len(body)}"
    with server.connect() as sock:
        sock.sendall(post(length, "expect: 100-continue", "connection: close"))
        sock.settimeout(TIMEOUT)
        first = sock.recv(4096)
        tally.check("expect: 100-continue", status_of(first) == 100, first[:200])
        sock.sendall(body)
        answer = b""
        while part := sock.recv(65536):
            answer += part
        tally.check("the body after 100", status_of(answer) == 200, answer[:200])
    answer = raw(server, post("content-length: 100000000", "expect: 100-continue"), wait=0.5)
    tally.check("expect: 100-continue with 100 MB", status_of(answer) == 413, answer[:200])

    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts)
    answer = raw(server, post("transfer-encoding: chunked", "connection: close") + chunks + b"0\r\nx: y\r\n\r\n")
    tally.check("chunks", status_of(answer) == 200, answer[:200])
    answer = raw(server, post("transfer-encoding: chunked") + b"zz\r\n" + body, wait=1)
    tally.check("a chunk's length that is none", status_of(answer) in (0, 400, 408), answer[:200])
    for name, head in [("length", post(length)), ("chunks", post("transfer-encoding: chunked") + b"ff\r\n")]:
        answer = raw(server, head + body[:20], finish=True)
        tally.check(f"a body that breaks off, by {name}", status_of(answer) in (0, 400, 408), answer[:200])
    short = raw(server, post(f"content-length: {len(body) - 5}") + body, wait=3)
    tally.check("a content-length that is too short", status_of(short) == 400, short[:200])
    for name, headers in [
        ("two lengths", (length, "content-length: 3")),
        ("a negative length", ("content-length: -1",)),
        ("a length that is none", ("content-length: many",)),
        ("a length beyond all", ("content-length: 99999999999999999999999",)),
        ("an unknown transfer-encoding", ("transfer-encoding: rot13",)),
    ]:
        answer = raw(server, post(*headers) + body, wait=1)
        tally.check(name, status_of(answer) in (400, 413), answer[:200])
    # Chunks go before a length (RFC 9112, 6.3); what is left must not be read as a second request.
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    answer = raw(server, post("content-length: 4", "transfer-encoding: chunked") + smuggled, wait=1)
    tally.check("a length and chunks", status_of(answer) == 400, answer[:200])

    answer = raw(server, post(length, version="1.0") + body)
    tally.check("HTTP/1.0", status_of(answer) == 200, answer[:200])
    answer = raw(server, b"GET /healthz HTTP/1.0\r\n\r\n")
    tally.check("HTTP/1.0 without a host", status_of(answer) == 200, answer[:200])
    wrong = json.dumps({"query": "a"}).encode()
    one, other = post(length) + body, post(f"content-length: {len(wrong)}") + wrong
    last = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    answer = raw(server, one + other + one + last)
    # Which of them, by status: in the order in which they were sent.
    found = [int(own) for own in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]
    tally.check("pipelined requests", found == [200, 422, 200, 200], found)

    for name, data, wanted in [
        ("a header of 1 MB", b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: " + b"a" * (1 << 20) + b"\r\n\r\n", (431,)),
        ("5,000 headers", b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 5000 + b"\r\n", (431,)),
        ("an address of 1 MB", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: a\r\n\r\n", (414, 431)),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), (0, 400)),
        ("a NUL in a header", b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", (400,)),
        ("a version that is none", b"GET /healthz HTTP/7.3\r\nhost: a\r\n\r\n", (0, 400, 505)),
        ("a preface of HTTP/2 and nonsense", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(200), (0,)),
    ]:
        answer = raw(server, data, wait=1)
        tally.check(name, status_of(answer) in wanted, answer[:200])
    given = {"x-request-id": "mine-1"}
    reply = ask(server, "GET", "/healthz", headers=given)
    tally.check("a request keeps its name", reply.headers.get("x-request-id") == "mine-1", dict(reply.headers))
    reply = ask(server, "GET", "/healthz", headers={"x-request-id": "a" * 5000})
    tally.check("an endless name is not kept", len(reply.headers.get("x-request-id", "")) <= 128, "too long")
