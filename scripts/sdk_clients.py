#!/usr/bin/env python3
"""Existing clients against a real server: vendors' SDKs, LangChain, LlamaIndex, LiteLLM.

    scripts/sdk_clients.py [--if-possible] [--install] [--binary FILE] [--only WORD] [--environment NAME]

The server is started on a free port with the default cross-encoder under the vendors' model names. Every
client reranks the same documents; order and scores have to be those of `topshelf rerank`, and a wrong
request has to raise the class by which the client tells it, a wrong or used-up key among them: a second server
asks for keys. The cases are in `sdk_clients/`: `vendors.py`
for the SDKs at their newest, `frameworks.py` for integrations that pin older ones; each has an environment
of its own in target/sdk-clients, with the packages that the list beside it pins.

Where the packages can't be installed, says so and ends with status 2; with --if-possible, 0. A server that
is not built is an error: `cargo build --release -p topshelf-cli`. `--install` installs the packages and does
nothing else.
"""

import argparse
import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT / "scripts" / "sdk_clients"
ENVIRONMENTS = ("vendors", "frameworks")
# Names that the clients know, all of them for the one model that is served.
ALIASES = ("rerank-v3.5", "rerank-2.5", "jina-reranker-v2-base-multilingual", "minilm")
QUERY = "How many people live in Berlin?"
DOCUMENTS = [
    "Berlin is well known for its museums.",
    "In the year 2000, around 3.4 million people lived in Berlin.",
    "The Spree flows through the city from the south-east to the north-west.",
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "Zürich is the largest city of Switzerland; 紫藤 grows on its walls.",
    "A recipe for potato salad: boil the potatoes, peel them while they are hot.",
]


def main():
    options = arguments()
    if not options.install and not options.binary.exists():
        print(f"{options.binary} is not built: cargo build --release -p topshelf-cli", file=sys.stderr)
        return 1
    environments = [options.environment] if options.environment else ENVIRONMENTS
    pythons = {name: environment(name) for name in environments}
    if missing := [name for name, python in pythons.items() if python is None]:
        print(f"#### SDK CLIENTS NOT RUN: can't install {', '.join(missing)}", file=sys.stderr)
        return 0 if options.if_possible else 2
    if options.install:
        return 0
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        given = {"query": QUERY, "documents": DOCUMENTS, **expected(options.binary, scratch)}
        keys, keyed = keys_of(options.binary, scratch)
        with (
            server(options.binary, scratch / "open.log") as url,
            server(options.binary, scratch / "keyed.log", "--keys", keys) as keyed_url,
        ):
            given |= {"url": url, "keyed_url": keyed_url, **keyed}
            for name, python in pythons.items():
                results = run(python, name, given, options.only, scratch)
                passed, failed = passed + results[0], failed + results[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--if-possible", action="store_true")
    parser.add_argument("--install", action="store_true", help="install the packages and do nothing else")
    binary = ROOT / "target" / "release" / "topshelf"
    parser.add_argument("--binary", type=pathlib.Path, default=binary)
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--environment", choices=ENVIRONMENTS)
    return parser.parse_args()


def environment(name):
    """The Python of an environment with exactly the packages of its list; None without a registry."""
    folder, wanted = ROOT / "target" / "sdk-clients" / name, (CASES / f"{name}.txt").read_text()
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing the clients of {name}.txt", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-r", CASES / f"{name}.txt"], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        stamp.write_text(wanted)
        return python
    print("\n".join(done.stderr.splitlines()[-5:]), file=sys.stderr)
    # A list that contradicts itself is a fault of ours, a registry that can't be reached is not.
    if "ResolutionImpossible" in done.stderr:
        raise SystemExit(1)
    return None


def expected(binary, scratch):
    """The scores of `topshelf rerank`, in the order of the documents."""
    documents = scratch / "documents.txt"
    documents.write_text("\n".join(DOCUMENTS) + "\n", encoding="utf-8")
    command = [binary, "rerank", "--json", "--no-profile", "--rerank", "local", "--docs", documents, QUERY]
    done = subprocess.run(command, env=quiet(), stdout=subprocess.PIPE, check=True)
    results = sorted(json.loads(done.stdout)["results"], key=lambda result: result["index"])
    return {
        "relevance": [result["relevance_score"] for result in results],
        "logits": [result["score"] for result in results],
    }


def keys_of(binary, scratch):
    """A file of keys and what is in it: one for everything, one for a request a minute."""
    path = scratch / "keys.toml"

    def key(name, *limit):
        command = [binary, "keys", "new", name, "--file", path, *limit]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return path, {"key": key("everything"), "slow_key": key("slow", "--per-minute", "1")}


@contextlib.contextmanager
def server(binary, log_path, *options):
    """A server for as long as the block lasts; answers its address."""
    names = [option for alias in ALIASES for option in ("--alias", f"{alias}=local")]
    served = ["--rerank", "local", "--embed", "bge-small", "--no-cache", "--no-profile", *names]
    log = log_path.open("w+")
    command = [binary, "serve", "--port", "0", *served, *options]
    process = subprocess.Popen(command, env=quiet(), stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        ready = select.select([process.stdout], [], [], 60)[0]
        url = process.stdout.readline().strip() if ready else ""
        if not url.startswith("http://"):
            log.seek(0)
            raise SystemExit(f"the server did not start: {log.read().strip()}")
        yield url
        if (status := process.poll()) is not None:
            log.seek(0)
            raise SystemExit(f"the server ended with status {status}: {log.read().strip()}")
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def run(python, name, given, only, scratch):
    """Runs the cases of an environment; answers how many passed and failed."""
    path = scratch / f"{name}.json"
    path.write_text(json.dumps(given))
    start = time.monotonic()
    command = [python, CASES / f"{name}.py", path, only]
    # No key of the caller's goes anywhere, and no proxy stands between.
    unwanted = ("_KEY", "_TOKEN", "_PROXY", "_BASE", "_URL")
    clean = {key: value for key, value in quiet().items() if not key.upper().endswith(unwanted)}
    clean["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices
    done = subprocess.run(command, env=clean, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    print(*lines, sep="\n")
    passed, failed = (sum(line.startswith(word) for line in lines) for word in ("ok ", "FAILED "))
    crashed = done.returncode not in (0, 1)
    if crashed:
        print(f"FAILED {name}: ended with status {done.returncode}")
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return passed, failed + crashed


def quiet():
    """The environment with the score cache off."""
    return {**os.environ, "TOPSHELF_SCORE_CACHE": "0"}


if __name__ == "__main__":
    sys.exit(main())
