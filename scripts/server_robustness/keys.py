"""Who may ask: keys that are missing, wrong or used up, and a public address without any."""

import subprocess

from routes import OPEN, RERANK, ROUTES, is_shape
from server import Server, ask

CHANGING = ("/v1/documents", "/v1/index/reload")


def check_keys(binary, folder, tally):
    """401 and 429 in every dialect; who may ask, and what everybody may."""
    keys, made = folder / "keys.toml", {}
    for name, limit in [
        ("search-team", ()),
        ("visitor", ("--per-minute", "1")),
        ("editor", ("--may-change",)),
    ]:
        command = [binary, "keys", "new", name, "--file", keys, *limit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        made[name] = {"authorization": f"Bearer {done.stdout.strip()}"}
    tally.check("the file of keys has no keys in it", "ts-" not in keys.read_text(), keys.read_text())
    tally.check("the file of keys is its owner's", keys.stat().st_mode & 0o077 == 0, oct(keys.stat().st_mode))
    with Server(binary, folder, "--keys", str(keys), "--index", str(folder / "small.index")) as server:
        for route in ROUTES:
            name = f"{route.method} {route.path}"
            # No request of these may change anything before its key is known.
            for what, headers in [
                ("no key", {}),
                ("a wrong key", {"authorization": "Bearer ts-0000"}),
                ("another scheme", {"authorization": "Basic dG9wOnNoZWxm"}),
            ]:
                reply = ask(server, route.method, route.path, route.body, headers)
                if route.path in OPEN:
                    tally.check(f"{name}, {what}", reply.status == 200, reply[::2])
                    continue
                # text-embeddings-inference answers nothing at all there.
                shaped = is_shape(route.dialect, reply.body) or (route.dialect == "tei" and reply.body == b"")
                tally.check(f"{name}, {what}", reply.status == 401 and shaped, reply[::2])
            if route.path not in (*OPEN, *CHANGING):
                reply = ask(server, route.method, route.path, route.body, made["search-team"])
                tally.check(f"{name}, with a key", reply.status == 200, reply[::2])
        changing = [route for route in ROUTES if route.path in CHANGING]
        for route in changing:
            reply = ask(server, route.method, route.path, route.body, made["search-team"])
            refused = reply.status == 403 and is_shape("native", reply.body) and b"may_not_change" in reply.body
            tally.check(f"{route.method} {route.path}, with a key that only asks", refused, reply[::2])
            reply = ask(server, route.method, route.path, route.body, made["editor"])
            right = 200 if route.path == "/v1/index/reload" else 403  # there is no --writable
            shaped = reply.status == 200 or (is_shape("native", reply.body) and b"read_only" in reply.body)
            name = f"{route.method} {route.path}, with a key that may change"
            tally.check(name, reply.status == right and shaped, reply[::2])
        reply = ask(server, "GET", "/nothing")
        tally.check("what is not there tells nobody", reply.status in (401, 404), reply[::2])
        key = made["search-team"]["authorization"].split()[1]
        reply = ask(server, RERANK.method, RERANK.path, RERANK.body, {"api-key": key})
        tally.check("api-key: KEY", reply.status == 200, reply[::2])
        first = ask(server, RERANK.method, RERANK.path, RERANK.body, made["visitor"])
        tally.check("the first request of a minute", first.status == 200, first[::2])
        for route in ROUTES:
            if route.path in OPEN:
                continue
            reply = ask(server, route.method, route.path, route.body, made["visitor"])
            name = f"{route.method} {route.path}, the second request of a minute"
            after = reply.headers.get("retry-after", "") if reply.headers else ""
            right = reply.status == 429 and is_shape(route.dialect, reply.body)
            tally.check(name, right and after.isdecimal() and 1 <= int(after) <= 60, (*reply[::2], after))
        # A key that may ask for nothing more must not get a minute's worth by reloading.
        tally.check("SIGHUP reloads the keys", server.reload(), server.told()[-400:])
        reply = ask(server, RERANK.method, RERANK.path, RERANK.body, made["visitor"])
        tally.check("a reload gives nobody more requests", reply.status == 429, reply[::2])
        reply = ask(server, "GET", "/v1/models", headers=made["search-team"])
        tally.check("a reload keeps the keys", reply.status == 200, reply[::2])


def check_public(binary, folder, tally):
    """An address that others reach, and no keys."""
    command = [binary, "serve", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    right = done.returncode == 2 and done.stdout == "" and "--keys" in done.stderr and "0.0.0.0" in done.stderr
    tally.check("a public address without keys is refused", right, (done.returncode, done.stdout, done.stderr))
