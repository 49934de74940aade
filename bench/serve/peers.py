"""Figure `peers`: other servers on the same weights and load.

| peer | what |
| --- | --- |
| `infinity-onnx` | Infinity, its ONNX engine, on the int8 file that Topshelf reads |
| `infinity-torch` | Infinity, its PyTorch engine, on the f32 form of the same integers |
| `fastapi` | sentence-transformers behind FastAPI (`peer_fastapi.py`), on the same f32 form |

Each of the two packages has an environment of its own in target/serve-peers with what its list pins; that is
several gigabytes. The weights are made by `bench/compare/checkpoint.py`. In each round every server takes the
same load in turn, the others being idle; only figures of one round are divided by each other.
"""

import asyncio
import dataclasses
import fnmatch
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

from client import closed, request
from clients import loads_of
from server import LOGS, Server, cpu_seconds, on
from tables import Figure, median, percentile, spread
from texts import body

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
MODELS = TARGET / "bench-models"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "DO_NOT_TRACK": "1",
}
OWN = "topshelf"
# Slow peers need minutes for more.
CLIENTS = (1, 4)
LEAST = 2
# PyTorch alone takes long to load on a busy machine.
START_SECONDS = 300


@dataclasses.dataclass
class Peer:
    """Another server: its environment, its command, and where it reranks."""

    name: str
    environment: str
    arguments: list
    what: str

    def start(self, cores):
        """Starts it and waits until it answers."""
        port = free_port()
        self.address = ("127.0.0.1", port)
        folder = TARGET / "serve-peers" / self.environment / "bin"
        values = {"port": port, "threads": len(cores), "bin": folder, "here": HERE, "target": TARGET}
        command = [argument.format(**values) for argument in self.arguments]
        threads = {"OMP_NUM_THREADS": f"{len(cores)}"}
        with (LOGS / f"{self.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **OFFLINE, **threads},
                stdout=log,
                stderr=log,
                preexec_fn=on(cores),
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if healthy(self.address):
                return True
            time.sleep(0.5)
        self.stop()
        return False

    def memory(self):
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        """Ends it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def infinity(name, engine, folder, what):
    """Infinity with one of its engines."""
    arguments = ["{bin}/infinity_emb", "v2", "--model-id", f"{{target}}/{folder}", "--engine", engine]
    arguments += [
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--no-model-warmup",
        "--served-model-name",
        "local",
    ]
    arguments += ["--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"]
    return Peer(name, "infinity", arguments, what)


PEERS = [
    infinity("infinity-onnx", "optimum", "serve-peers/int8", "Infinity, ONNX Runtime, int8"),
    infinity("infinity-torch", "torch", "bench-models/f32", "Infinity, PyTorch, f32"),
    Peer(
        "fastapi",
        "fastapi",
        ["{bin}/python", "{here}/peer_fastapi.py", "{target}/bench-models/f32", "{port}", "{threads}"],
        "sentence-transformers behind FastAPI, f32",
    ),
]


def peers(options):
    """Takes the figure."""
    patterns = options.peers.split(",")
    chosen = [peer for peer in PEERS if any(fnmatch.fnmatch(peer.name, p) for p in patterns)]
    rounds = 1 if options.quick else options.rounds
    seconds = options.seconds or (5 if options.quick else 10)
    install({peer.environment for peer in chosen} | {"fastapi"})
    prepare(options.binary)
    loads, requests = loads_of(options)
    theirs = [request(body(*load), "/rerank") for load in loads]
    seen, left_out = {}, {}
    environment = {"TOPSHELF_TOKEN_CACHE": "0"}
    with Server(options.binary, options.cores, "--max-wait", "600s", environment=environment) as server:
        running = []
        for peer in chosen:
            print(f"starting {peer.name}", file=sys.stderr)
            if peer.start(options.cores) and warm(peer.address, theirs):
                running.append(peer)
            else:
                left_out[peer.name] = last_line(LOGS / f"{peer.name}.log")
        try:
            warm(server.address, requests)
            entrants = [(OWN, server, requests)]
            entrants += [(peer.name, peer, theirs) for peer in running]
            for turn in range(rounds):
                for number in CLIENTS:
                    for entrant in entrants:
                        print(f"round {turn + 1}: {number} clients: {entrant[0]}", file=sys.stderr)
                        own = seen.setdefault(
                            (entrant[0], number), {"rates": [], "ms": [], "cpu": [], "bad": 0}
                        )
                        one_round(entrant, number, seconds, own)
            memory = {OWN: server.memory(), **{peer.name: peer.memory() for peer in running}}
        finally:
            for peer in running:
                peer.stop()
    return figure_of(options, seen, memory, left_out, rounds)


def figure_of(options, seen, memory, left_out, rounds):
    """The table and what was wanted."""
    what = {OWN: "Topshelf, int8", **{peer.name: peer.what for peer in PEERS}}
    out = "".join(f" Left out: {name} ({reason})." for name, reason in left_out.items())
    figure = Figure(
        "Peers",
        f"Requests of {options.documents} short documents, the servers in turn, {rounds} rounds. Times"
        f" slower: Topshelf's requests a second by the peer's in the same round, median (smallest to"
        f" largest); CPU: processor seconds of a request.{out}",
        ["server", "clients", "requests/s", "times slower", "p50 ms", "p99 ms", "CPU s", "MB", "failed"],
    )
    for (name, number), own in seen.items():
        ratios = [a / b for a, b in zip(seen[OWN, number]["rates"], own["rates"], strict=True)]
        p50, p99 = percentile(own["ms"], 0.5), percentile(own["ms"], 0.99)
        rate, size = median(own["rates"]), memory[name] / 1e6
        figure.add(what[name], number, rate, spread(ratios), p50, p99, median(own["cpu"]), size, own["bad"])
        if name == OWN:
            continue
        other = percentile(seen[OWN, number]["ms"], 0.99)
        figure.want(
            f"{name}, {number} clients: at least 3 x the throughput at lower p99",
            median(ratios) >= 3 and other < p99,
            f"{median(ratios):.2f} x, p99 {other:.0f} against {p99:.0f} ms",
        )
    return figure


def one_round(entrant, number, seconds, own):
    """A server under the load of so many clients."""
    _, server, requests = entrant
    before = cpu_seconds(server.process)
    done = asyncio.run(load(server.address, requests, number, seconds))
    good = [one for one in done if one.status == 200]
    elapsed = max(one.due + one.ms / 1e3 for one in done) - min(one.due for one in done)
    own["rates"].append(len(good) / elapsed)
    own["cpu"].append((cpu_seconds(server.process) - before) / max(1, len(good)))
    own["ms"] += [one.ms for one in good]
    own["bad"] += len(done) - len(good)
    time.sleep(0.3)


async def load(address, requests, number, seconds):
    """For the time; each client is answered a few times at least."""
    done = await closed(address, requests, number, seconds=seconds)
    missing = LEAST * number - len(done)
    return done + (await closed(address, requests, number, count=missing) if missing > 0 else [])


def warm(address, requests):
    """Two requests that do not count; answers whether they were answered."""
    done = asyncio.run(closed(address, requests, 1, count=2))
    return all(one.status == 200 for one in done)


def install(environments):
    """Installs the environments that are not there exactly as their lists say."""
    for name in sorted(environments):
        folder, wanted = TARGET / "serve-peers" / name, HERE / f"peers_{name}.txt"
        stamp = folder / "installed.txt"
        if stamp.exists() and stamp.read_text() == wanted.read_text():
            continue
        print(f"installing {wanted.name}; that is several gigabytes", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", wanted], check=True, stdout=sys.stderr)
        stamp.write_text(wanted.read_text())


def prepare(binary):
    """Makes the weights for all, from the model in Topshelf's store."""
    command = [str(binary), "models", "show", "minilm-l12", "--json"]
    shown = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    python = TARGET / "serve-peers" / "fastapi" / "bin" / "python"
    code = "import sys, checkpoint; checkpoint.prepare(*sys.argv[1:])"
    place = {**os.environ, "PYTHONPATH": str(ROOT / "bench" / "compare")}
    subprocess.run([python, "-c", code, shown["folder"], MODELS], env=place, check=True)
    # Infinity writes the graph as it optimised it beside the file.
    shutil.copytree(MODELS / "int8", TARGET / "serve-peers" / "int8", dirs_exist_ok=True)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def healthy(address):
    """Whether a server answers."""
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def last_line(path):
    """What a server said last."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
