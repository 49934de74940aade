"""The engine alone, without a server: the example program `engine` of the library."""

import json
import os
import subprocess
import sys
from pathlib import Path

from server import on

ROOT = Path(__file__).resolve().parent.parent.parent


class Engine:
    """The library in a process of its own, on the server's cores, with the same model and precision."""

    def __init__(self, path, cores, loads):
        """Builds it if need be, and gives it the queries with their documents."""
        if not path.exists():
            command = ["cargo", "build", "--release", "--locked", "--workspace", "--example", "engine"]
            subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
        self.process = subprocess.Popen(
            [str(path)],
            env={**os.environ, "TOPSHELF_TOKEN_CACHE": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=on(cores),
        )
        self.ask({"load": {"model": "minilm-l12", "family": "cross-encoder"}})
        self.count = len(loads)
        for number, (query, documents) in enumerate(loads):
            pairs = [[query, document] for document in documents]
            self.ask({"workload": f"{number}", "pairs": pairs})
        self.run(1)

    def ask(self, request):
        """The answer to a request."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise SystemExit(f"the engine: {answer['error']}")
        return answer

    def run(self, times):
        """Milliseconds of each of so many queries."""
        return [self.ask({"run": f"{n % self.count}"})["ms"] for n in range(times)]

    def stop(self):
        """Ends it."""
        self.process.stdin.close()
        self.process.wait(10)
