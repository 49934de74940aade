#!/usr/bin/env python3
"""The reports of `eval` and `tune` in a real browser, headless Chromium.

    scripts/report_in_browser.py [--if-possible] [--binary FILE] [--keep FOLDER]

A small collection is made, measured and tuned on; both pages are opened without a network, in light and in
dark, wide and as narrow as a phone. Each has to render all of its charts, stay within the width of the
window, and change its background with the scheme. `--keep` leaves pages and screenshots there.

Needed: chromium. Where it is missing it is installed with apt-get, by root. Where that can't be done, says
so and ends with status 2; with --if-possible, 0.
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
ANIMALS = """badger beaver camel cheetah dolphin eagle falcon gecko hamster heron iguana jackal koala lemur
marmot newt otter panda quail raccoon salmon tapir vulture walrus""".split()


def chromium():
    """The browser, installed if need be; None where that is not possible."""
    names = ["chromium", "chromium-browser", "google-chrome"]
    found = next((path for path in map(shutil.which, names) if path), None)
    if found or os.geteuid() != 0 or not shutil.which("apt-get"):
        return found
    print("installing chromium", flush=True)
    lock = ["-o", "DPkg::Lock::Timeout=120"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run(
            ["apt-get", "-q", *lock, *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,  # what is missing is said below
        )
    return shutil.which("chromium")


def collection(folder):
    """A question about each animal, the document that answers it, and one that does not."""
    folder.joinpath("qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for n, animal in enumerate(ANIMALS):
        texts = {
            f"age-{n}": f"A {animal} lives for up to {n + 3} years.",
            f"home-{n}": f"How old is the {animal} house of the zoo? The {animal} moved in last spring.",
        }
        corpus += [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
        queries.append(json.dumps({"_id": f"q{n}", "text": f"how old does a {animal} get"}))
        qrels.append(f"q{n}\tage-{n}\t1")
    for name, lines in [("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)]:
        folder.joinpath(name).write_text("\n".join(lines) + "\n")


def topshelf(binary, folder, *arguments):
    subprocess.run(
        [binary, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TOPSHELF_SCORE_CACHE": "0"},
        check=True,
    )


def browse(browser, *arguments):
    """Runs the browser without a network; answers what it prints."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    return done.stdout


def pixel(path):
    """The red, green and blue of a screenshot's first pixel, where the background is."""
    data = path.read_bytes()
    width, channels = struct.unpack(">I", data[16:20])[0], {2: 3, 6: 4}[data[25]]
    assert width > 0
    packed, at = b"", 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    first = zlib.decompressobj().decompress(packed, 1 + channels)
    return tuple(first[1:4])


# Put beside a copy of the page: writes what the browser has made of it into its title.
PROBE = """<script>
const wide = document.documentElement.scrollWidth - window.innerWidth;
const flat = [...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height < 100);
const cut = [...document.querySelectorAll('svg text')].filter(t => {
  const a = t.getBoundingClientRect(), b = t.closest('svg').getBoundingClientRect();
  return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2;
});
document.title = JSON.stringify({wide, flat: flat.length, cut: cut.map(t => t.textContent),
  charts: document.querySelectorAll('svg').length, loaded: performance.getEntriesByType('resource').length});
</script>"""


def check(browser, page, charts):
    """Opens a page in every way; answers what is wrong with it."""
    wrong = []
    html = page.read_text()
    probed = page.with_suffix(".probe.html")
    probed.write_text(html.replace("</body>", PROBE + "</body>"))
    for width in (1100, 390):
        dom = browse(browser, f"--window-size={width},2000", "--dump-dom", probed.as_uri())
        title = dom.split("<title>", 1)[1].split("</title>", 1)[0].replace("&quot;", '"')
        found = json.loads(title.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
        if found["charts"] < charts:
            wrong.append(f"{found['charts']} charts, {charts} wanted")
        if found["wide"] > 0 or found["flat"] or found["cut"] or found["loaded"]:
            wrong.append(f"{width} wide: {found}")
    light, dark = page.with_suffix(".light.png"), page.with_suffix(".dark.png")
    browse(browser, "--window-size=1100,2400", f"--screenshot={light}", page.as_uri())
    browse(
        browser,
        "--window-size=1100,2400",
        "--blink-settings=preferredColorScheme=0",
        f"--screenshot={dark}",
        page.as_uri(),
    )
    if not sum(pixel(light)) > 600 > 200 > sum(pixel(dark)):
        wrong.append(f"backgrounds {pixel(light)} and {pixel(dark)}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--if-possible", action="store_true")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/topshelf")
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    binary = options.binary.resolve()
    if not binary.exists():
        print(f"{binary} is not built: cargo build --release -p topshelf-cli", file=sys.stderr)
        return 1
    browser = chromium()
    if not browser:
        print("#### REPORTS NOT OPENED: no chromium, and it can't be installed", file=sys.stderr)
        return 0 if options.if_possible else 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or pathlib.Path(scratch)).resolve()
        shutil.rmtree(folder / "data", ignore_errors=True)
        collection(folder / "data")
        data = ["--data", "data", "--index", "index", "--depth", "12"]
        systems = "bm25,hybrid,hybrid+rerank,hybrid+rerank+gate,hybrid+rerank@20ms,hybrid+rerank@1s"
        gate = ["--gate", "margin:dense:2>=0.02", "--force", "--systems", systems]
        topshelf(binary, folder, "models", "pull")
        topshelf(binary, folder, "eval", *data, *gate, "--no-profile", "--report", "eval.html")
        # Nothing may be lost, so that something is reranked and every chart has something to show.
        topshelf(binary, folder, "tune", *data, "--budget", "0%", "--report", "tune.html")
        failed = 0
        # Quality against time and deadline; for each of four systems recall, gains and calibration, and
        # the gate's curve. Then the front and depths, the blend, calibration, gains.
        for name, charts in [("eval", 2 + 4 * 3 + 1), ("tune", 2)]:
            wrong = check(browser, folder / f"{name}.html", charts)
            failed += bool(wrong)
            print(f"{name}.html: {'; '.join(wrong) or 'ok'}")
    print(f"{2 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
