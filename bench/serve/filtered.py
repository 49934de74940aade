"""Whether a server stays reachable while it searches a large index with filters.

An index of many short passages is made once (in target/filtered, words drawn from a small vocabulary, a year and a
language as metadata). Then 50 searches with filters that differ, so that none is known, run at once while another
client asks /healthz every few milliseconds. Prints the searches' and the health check's times.

    python3 bench/serve/filtered.py --binary target/release/topshelf [--passages 1000000]
"""

import argparse
import concurrent.futures
import http.client
import json
import random
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEARCHES = 50
WORDS = 20_000


def make(binary: Path, folder: Path, passages: int):
    """The index, unless it is there."""
    index = folder / f"{passages}.index"
    if index.exists():
        return index
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(18)
    source = folder / f"{passages}.jsonl"
    with source.open("w") as file:
        for number in range(passages):
            text = " ".join(f"w{int(chance.paretovariate(0.6)) % WORDS}" for _ in range(20))
            record = {
                "id": str(number),
                "text": text,
                "year": 1990 + chance.randrange(35),
                "lang": chance.choice(["en", "de", "fr"]),
            }
            file.write(json.dumps(record) + "\n")
    start = time.monotonic()
    command = [binary, "index", "add", source, "--index", index, "--embed", "none", "--whole"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"index of {passages} passages made in {time.monotonic() - start:.0f} s")
    return index


def ask(port: int, method: str, path: str, body=None):
    """Status and seconds of a request."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"content-type": "application/json"}
    connection.request(method, path, body and json.dumps(body), headers)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status, time.monotonic() - start


def percentile(times: list[float], share: float) -> float:
    """The time that this share of the times does not exceed, in milliseconds."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] * 1e3


def main():
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/topshelf")
    parser.add_argument("--passages", type=int, default=1_000_000)
    options = parser.parse_args()
    index = make(options.binary.resolve(), ROOT / "target/filtered", options.passages)
    command = [options.binary, "serve", "--port", "0", "--no-profile", "--no-cache", "--index", index]
    server = subprocess.Popen(
        [*command, "--max-wait", "120s"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = int(server.stdout.readline().strip().rsplit(":", 1)[1])
        ended, health = threading.Event(), []

        def watch():
            while not ended.is_set():
                status, took = ask(port, "GET", "/healthz")
                assert status == 200, status
                health.append(took)
                time.sleep(0.002)

        def search(number: int):
            body = {
                "query": " ".join(f"w{number + offset}" for offset in range(1, 6)),
                "filter": f"year >= {1990 + number % 30} AND (lang = en OR year = {1991 + number})",
                "model": "none",
                "retriever": "bm25",
            }
            return ask(port, "POST", "/v1/search", body)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(SEARCHES) as pool:
            answers = list(pool.map(search, range(SEARCHES)))
        ended.set()
        watcher.join()
    finally:
        server.terminate()
        server.wait(60)
    failed = [status for status, _ in answers if status != 200]
    times = [took for _, took in answers]
    print(f"{len(answers)} searches at once, {len(failed)} failed {failed[:3]}")
    print(f"searches: p50 {percentile(times, 0.5):.0f} ms, slowest {max(times) * 1e3:.0f} ms")
    print(
        f"/healthz meanwhile: {len(health)} asked, p50 {percentile(health, 0.5):.1f} ms, "
        f"p99 {percentile(health, 0.99):.1f} ms, slowest {max(health) * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
