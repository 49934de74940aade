#!/usr/bin/env python3
"""Whether a server does what its /openapi.json says: schemathesis against the real one.

    scripts/server_openapi.py [--if-possible] [--install] [--binary FILE] [--examples N] [--seed N]

A small index is made and served with a key. Requests are made from the description, valid ones and wrong
ones, the same with every run. No answer may be a 5xx, have a status or a type that is not described, or
a body that its schema does not allow; what the schema forbids has to be refused, and so has a request
without its key. That all that the schema allows is answered is not asked: a schema can't say what a filter or
a query has to mean.

schemathesis is installed into an environment of its own in target/server-openapi, with the packages that the
list beside this file pins. Where that can't be done, says so and ends with status 2; with --if-possible, 0. A
server that is not built is an error: `cargo build --release -p topshelf-cli`. A run takes one to two minutes, and
five at most. `--install` installs the packages and does nothing else.
"""

import argparse
import contextlib
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "scripts" / "server_openapi.txt"
ENVIRONMENT = ROOT / "target" / "server-openapi"
SECONDS = 300
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
TEXTS = {
    "fleas.md": "# Fleas\n\nAn adult flea lives for two to three months.\n",
    "ticks.md": "# Ticks\n\nTicks wait for a host for many months.\n",
}


def main():
    options = arguments()
    if options.install:
        return 0 if installed() or options.if_possible else 2
    if not options.binary.exists():
        print(f"{options.binary} is not built: cargo build --release -p topshelf-cli", file=sys.stderr)
        return 1
    schemathesis = installed()
    if schemathesis is None:
        print("#### OPENAPI NOT CHECKED: can't install schemathesis", file=sys.stderr)
        return 0 if options.if_possible else 2
    binary = str(options.binary.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        key = prepared(binary, scratch)
        with server(binary, scratch) as url:
            return check(schemathesis, url, key, scratch, options)


def installed():
    """The program, in an environment of its own; None if it can't be installed."""
    program = ENVIRONMENT / "bin" / "schemathesis"
    done = ENVIRONMENT / "installed.txt"
    if program.exists() and done.exists() and done.read_text() == PACKAGES.read_text():
        return program
    print("installing schemathesis", flush=True)
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", PACKAGES], timeout=300, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    done.write_text(PACKAGES.read_text())
    return program


def prepared(binary, scratch):
    """A small index and a file of keys; the key."""
    texts = scratch / "texts"
    texts.mkdir()
    for name, text in TEXTS.items():
        texts.joinpath(name).write_text(text)
    quiet = {"cwd": scratch, "capture_output": True, "text": True, "check": True, "timeout": 60}
    subprocess.run([binary, "index", "add", "texts", "--index", "small.index"], **quiet)
    new = [binary, "keys", "new", "schemathesis", "--file", "keys.toml", "--may-change"]
    made = subprocess.run(new, **quiet)
    return made.stdout.strip()


@contextlib.contextmanager
def server(binary, scratch):
    """A server for the block; its address."""
    command = [binary, "serve", "--port", "0", "--no-profile", "--no-cache", "--max-wait", "120s"]
    command += ["--index", "small.index", "--writable", "--keys", "keys.toml"]
    environment = {**os.environ, "TOPSHELF_SCORE_CACHE": "0"}
    with open(scratch / "server.log", "w+b") as log:
        process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=subprocess.PIPE, stderr=log)
        try:
            ready, _, _ = select.select([process.stdout], [], [], 60)
            url = process.stdout.readline().decode().strip() if ready else ""
            if not url.startswith("http://"):
                log.seek(0)
                raise SystemExit(f"the server did not start: {log.read().decode()}")
            yield url
            if process.poll() is not None:
                log.seek(0)
                print(f"the server has died: {log.read().decode()[-1000:]}", file=sys.stderr)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def check(schemathesis, url, key, scratch, options):
    """Runs it; its exit status, which is 1 if anything failed."""
    command = [
        schemathesis,
        "run",
        f"{url}/openapi.json",
        "--checks=" + ",".join(CHECKS),
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={options.examples}",
        f"--seed={options.seed}",
        "--generation-database=none",
        "--request-timeout=30",
        "--continue-on-failure",
        "--output-truncate=false",
        "--warnings=off",
        "--no-color",
        f"--header=Authorization: Bearer {key}",
    ]
    try:
        done = subprocess.run(command, cwd=scratch, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(f"not finished within {SECONDS} s", file=sys.stderr)
        return 1
    return 1 if done.returncode else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--if-possible", action="store_true", help="end with status 0 where it can't be installed")
    parser.add_argument("--install", action="store_true", help="install the packages and do nothing else")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "topshelf")
    examples = "random cases of a route, at most, beside the set ones"
    parser.add_argument("--examples", type=int, default=10, metavar="N", help=examples)
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
