#!/usr/bin/env python3
"""What a server must bear: broken bodies, broken connections, too many of both, and its own end.

    scripts/server_robustness.py [--binary FILE] [--only WORD] [--mutations N]

A small index is made and served for real, on the loopback interface alone. Every route gets every kind of
wrong body, and has to answer with the right status in the shape of its dialect; valid bodies are mutated at
random from a fixed seed, and none may give a 5xx or close the connection. A client whose requests are valid
asks all the while, and each of its requests has to succeed. After that: keys, reloading, shutdown.

The sections are in `server_robustness/`: `bodies.py`, `costly.py`, `mutations.py`, `protocol.py`,
`connections.py`, `keys.py` and `signals.py`. They share `server.py`, which starts a server and asks it,
`routes.py`, which knows what it offers, and `checks.py`, which counts.

Needed: Python's standard library, and a server: `cargo build --release -p topshelf-cli`. The last line counts
what passed and what failed; a failure ends with status 1. A run takes about a minute and a half at most.
"""

import argparse
import contextlib
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Python searches the folder of this script; its modules are in the one below that.
sys.path.insert(0, str(ROOT / "scripts" / "server_robustness"))

from bodies import check_bodies, check_large, check_numbers  # noqa: E402
from checks import Probe, Tally  # noqa: E402
from connections import Slow, check_idle  # noqa: E402
from costly import check_costly  # noqa: E402
from keys import check_keys, check_public  # noqa: E402
from mutations import check_mutations  # noqa: E402
from protocol import check_http, check_routes  # noqa: E402
from server import Server  # noqa: E402
from signals import check_reload, check_shutdown  # noqa: E402

FILES = {
    "fleas.md": "# Fleas\n\n## Adults\n\nAn adult flea lives for two to three months.\n",
    "ticks.md": "# Ticks\n\nTicks wait for a host for many months.\n",
    "bees.md": "# Bees\n\nA worker bee lives for six weeks in summer.\n",
}


def main():
    options = arguments()
    if not options.binary.exists():
        print(f"{options.binary} is not built: cargo build --release -p topshelf-cli", file=sys.stderr)
        return 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    binary, tally = str(options.binary.resolve()), Tally()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        prepared(binary, folder)
        arguments_of_main = ("--index", str(folder / "small.index"), "--writable", "--max-wait", "60s")
        with Server(binary, folder, *arguments_of_main) as server:
            slow = Slow(server)
            sections = {
                "bodies": lambda: check_bodies(server, tally),
                "numbers": lambda: check_numbers(server, tally),
                "large": lambda: check_large(server, tally),
                "routes": lambda: check_routes(server, tally),
                "http": lambda: check_http(server, tally),
                "mutations": lambda: check_mutations(server, tally, options.mutations, seconds=25),
                "idle": lambda: check_idle(server, tally),
                "reload": lambda: check_reload(server, tally),
                "slow": lambda: slow.end(tally),
            }
            if wanted("slow", options.only):
                slow.start()
            for name, section in sections.items():
                if wanted(name, options.only):
                    during(name, server, tally, section)
                if server.process.poll() is not None:
                    tally.check(f"the server lives after {name}", False, server.told()[-500:])
                    break
        for name, section in [
            ("costly", lambda: check_costly(binary, folder, tally)),
            ("public", lambda: check_public(binary, folder, tally)),
            ("keys", lambda: check_keys(binary, folder, tally)),
            ("shutdown", lambda: check_shutdown(binary, folder, tally)),
        ]:
            if wanted(name, options.only):
                start = time.monotonic()
                section()
                print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "topshelf")
    parser.add_argument("--only", metavar="WORD", help="only sections whose name has that word")
    parser.add_argument("--mutations", type=int, default=4000, metavar="N", help="bodies to mutate, at most")
    return parser.parse_args()


def prepared(binary, folder):
    """A small index."""
    folder.joinpath("texts").mkdir()
    for name, text in FILES.items():
        folder.joinpath("texts", name).write_text(text)
    command = [binary, "index", "add", "texts", "--index", "small.index"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the index was not made: {done.stderr}")


def during(name, server, tally, section):
    """One section, with the probe beside it."""
    start, probe = time.monotonic(), Probe(server)
    probe.start()
    section()
    probe.end(tally, name)
    print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)


def wanted(name, only):
    return only is None or only in name


if __name__ == "__main__":
    sys.exit(main())
