"""An engine's process, from the comparison's side: start, ask, read its memory, stop."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path


class EngineFailed(Exception):
    """An engine answered with an error or is gone; the text is the reason."""


class Child:
    """A running engine, bound to the cores from its first instruction on."""

    def __init__(self, command, environment, cores, log):
        """Starts the engine; what it prints to standard error goes to the file `log`."""
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.perf_counter()
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment, **thread_variables(len(cores))},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )

    def ask(self, request):
        """Sends a request and waits for its answer."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise EngineFailed(self.last_words()) from None
        line = self.process.stdout.readline()
        if not line:
            raise EngineFailed(self.last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise EngineFailed(answer["error"].strip())
        return answer

    def load(self, settings):
        """Loads the model; adds the time from the start of the process to the answer."""
        answer = self.ask({"load": settings})
        return {**answer, "start_ms": (time.perf_counter() - self.started) * 1000}

    def peak_memory(self):
        """The most memory the process has had so far, in bytes (`VmHWM`)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise EngineFailed("the process is gone")

    def last_words(self):
        """Why the process ended: its code and the end of what it printed."""
        code = self.process.wait()
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return f"ended with code {code}: {lines[-1].strip() if lines else 'no message'}"

    def stop(self):
        """Lets the engine end by itself, and ends it if it does not."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def thread_variables(count):
    """The variables that tell each library the number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "TOPSHELF_THREADS")
    return {name: str(count) for name in names}
