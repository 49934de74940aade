#!/usr/bin/env python3
"""Topshelf's decoder beside llama.cpp on this machine: `python3 bench/decoder.py`.

Both rerank the same passages with the same language model, the same GGUF file, on the same cores: one
question for each passage, of whose answer the first token is computed. They take turns, round by round, so
that whatever else the machine does hits both; the median of the rounds is told. llama.cpp comes as
`xllamacpp` from the Python package index, in a virtual environment in target/decoder-venv, and answers as
its server does, several questions at once. Tokens are those of the whole prompts, as llama.cpp counts them:
what questions have in common is read once by Topshelf and, for each slot, by llama.cpp, and counted for both
as if it were read each time. Loading is not counted. The report goes to standard output, with --record as
JSON into that file too. Linux only (affinity).
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "target" / "decoder-venv"
PEER = "xllamacpp==2026.10.11549"
QUERY = "what was decided about the native engine, and which figure decided it"
# Topshelf's template `yes-no`, word for word.
SYSTEM = (
    'Judge whether the document answers the query. The answer is "yes" or "no" and nothing else.'
)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-coder-1.5b", help="in the store, or a GGUF file")
    parser.add_argument("--passages", default="1,5,20", help="passages of a query, with commas")
    parser.add_argument("--length", type=int, default=320, help="characters of a passage")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2, help="how many cores both run on")
    parser.add_argument("--topshelf", type=Path, help="the program (default: built first)")
    parser.add_argument("--record", type=Path, help="write all times as JSON")
    return parser.parse_args()


def enter_environment():
    """Goes on in the virtual environment; makes it first."""
    if Path(sys.prefix) == ENVIRONMENT:
        return
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed.txt"
    if not stamp.exists() or stamp.read_text() != PEER:
        venv.create(ENVIRONMENT, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", PEER]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        stamp.write_text(PEER)
    os.execv(python, [str(python), *sys.argv])


def program(given):
    """Topshelf's program."""
    if given:
        return given.absolute()
    command = ["cargo", "build", "--release", "--locked", "-p", "topshelf-cli"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    return ROOT / "target" / "release" / "topshelf"


def gguf(topshelf, name):
    """The file of a model, pulled if it is not in the store."""
    if name.endswith(".gguf"):
        return str(Path(name).absolute())
    command = [topshelf, "models", "pull", name, "--json"]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return str(next(Path(told["models"][0]["folder"]).glob("*.gguf")))


def passages(length):
    """Paragraphs of the decision records, each on one line and cut to the length."""
    found = []
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        for paragraph in path.read_text().split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text) >= length and not text.startswith("|"):
                found.append(text[:length])
    return found


class Topshelf:
    """The program, asked for an order of some lines."""

    name = "topshelf"

    def __init__(self, path, model):
        self.path, self.model = path, model
        self.engine = None

    def rerank(self, texts):
        """Seconds that the questions took, without those of loading."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as documents:
            documents.write("\n".join(texts) + "\n")
            documents.flush()
            options = ["--docs", documents.name, "--rerank", f"llm-yes-no:{self.model}"]
            command = [self.path, "rerank", QUERY, *options, "--no-profile", "--no-cache", "--json"]
            told = subprocess.run(command, check=True, capture_output=True, text=True)
        ran = json.loads(told.stdout)["reranker"]
        if ran["pairs"] != len(texts):
            raise SystemExit(f"only {ran['pairs']} of {len(texts)} passages were scored")
        self.engine = ran["engine"]
        # The golden pair was asked about as well.
        return ran["milliseconds"] / 1e3 * len(texts) / (ran["usage"]["calls"])


class LlamaCpp:
    """llama.cpp's server, in this process."""

    name = "llama.cpp"

    def __init__(self, model, cores):
        import xllamacpp  # only there in the virtual environment

        parameters = xllamacpp.CommonParams()
        parameters.model.path = model
        parameters.n_ctx, parameters.n_parallel = 8192, 4
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = cores
        self.server, self.at_once = xllamacpp.Server(parameters), 4
        self.tokens = 0

    def ask(self, text):
        """Tokens of the prompt, read for the first token of the answer."""
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"<Query>: {QUERY}\n<Document>: {text}"},
        ]
        body = {"messages": messages, "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
        answer = self.server.handle_chat_completions(body)
        answer = answer if isinstance(answer, dict) else json.loads(answer)
        return answer["usage"]["prompt_tokens"]

    def rerank(self, texts):
        """Seconds that the questions took."""
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            self.tokens = sum(pool.map(self.ask, texts))
        return time.perf_counter() - start


def main():
    """Measures and tells."""
    options = arguments()
    enter_environment()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    topshelf = program(options.topshelf)
    model = gguf(topshelf, options.model)
    engines = [Topshelf(topshelf, model), LlamaCpp(model, options.cores)]
    texts = passages(options.length)
    record = {"model": Path(model).name, "cores": options.cores, "peer": PEER, "sizes": []}
    for engine in engines:
        engine.rerank(texts[:1])  # packs weights, fills the page cache
    print(f"{record['model']}, {options.cores} cores, {options.rounds} rounds in turns; {engines[0].engine}")
    print(f"{'passages':>8} {'tokens':>7} " + " ".join(f"{engine.name + ' tok/s':>16}" for engine in engines))
    for count in map(int, options.passages.split(",")):
        # Other passages each round, so that nothing is known from the last.
        times = {engine.name: [] for engine in engines}
        tokens = []
        for turn in range(options.rounds):
            some = [texts[(turn * count + place) % len(texts)] for place in range(count)]
            for engine in engines if turn % 2 == 0 else engines[::-1]:
                times[engine.name].append(engine.rerank(some))
            tokens.append(engines[1].tokens)
        rates = {
            name: statistics.median(n / seconds for n, seconds in zip(tokens, of, strict=True))
            for name, of in times.items()
        }
        shown = " ".join(f"{rate:16.1f}" for rate in rates.values())
        print(f"{count:8} {round(statistics.mean(tokens)):7} {shown}", flush=True)
        record["sizes"].append({"passages": count, "tokens": tokens, "seconds": times})
    if options.record:
        options.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
