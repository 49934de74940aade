#!/usr/bin/env python3
"""Checks questions.jsonl against the documentation it was written from.

Reads the documents of the crates named in the workspace's Cargo.lock from
cargo's registry folder ($CARGO_HOME/registry/src, else ~/.cargo/registry/src);
`cargo fetch` puts them there. Verified:

* every line is an object with exactly the expected fields, ids are unique and
  in order, texts are unique, kinds and grades are known;
* every quote is 40 to 200 characters, whitespace-normalised, and found in its
  file in at least one locked version of the crate; in no version does it occur
  more often than once, so it names one place;
* the only files named are the ones the demo's corpus holds;
* a paraphrase question shares no content word, not even its stem, with any of
  its quotes;
* there are enough questions of every kind, over enough crates.

Prints counts and exits 0, or prints one line per violation and exits 1.
Standard library only.
"""

import collections
import glob
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
QUESTIONS = os.path.join(HERE, "questions.jsonl")
LOCK = os.path.join(HERE, "..", "..", "..", "..", "Cargo.lock")
CARGO_HOME = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")

AT_LEAST = {"plain": 28, "paraphrase": 28, "identifier": 18, "error": 10}
AT_LEAST_QUESTIONS = 80
AT_LEAST_CRATES = 45
QUOTE_CHARS = (40, 200)
TOP_LEVEL = ("readme", "changelog", "changes", "release")

# Words that carry no topic: sharing them between question and quote gives a
# lexical search nothing to hold on to.
STOP = set(
    """a about above across after again against ago all almost along already also although always am an and
    another any anyone anything are around as at away back be became because become been before being below
    between both but by came can cannot come could did do does doing done down during each either else enough
    even ever every few first for from further get gets getting give given go goes going got had has have
    having he her here him his how however i if in instead into is it its itself just keep kept know least
    less let lets like likely long longer made make makes making many may maybe me might mine more most much
    must my need needs neither never new no nor not nothing now of off often on once one only onto or other
    others otherwise our out over own per perhaps please put quite rather really same see several shall she
    should since so some something sometimes still such take taken takes than that the their them themselves
    then there these they thing things this those though through thus to together too two under until up upon
    us use used uses using very via want was way ways we well were what whatever when where whether which
    whichever while who whole whose why will with within without work works would yes yet you your""".split()
)

SUFFIXES = (
    "izations ization ations ation ingly edly ments ment ities ity ness ables able ibles ible ings ing ions"
    " ion ers er ors or ies ied est ed es ly s e y"
).split()


def normalise(text):
    """Runs of whitespace become one space."""
    return " ".join(text.split())


def stem(word):
    """Crude on purpose: strips endings until none fits, keeping three letters."""
    changed = True
    while changed:
        changed = False
        for suffix in SUFFIXES:
            if word.endswith(suffix) and len(word) - len(suffix) >= 3:
                word = word[: -len(suffix)]
                changed = True
                break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word


def content_stems(text):
    """Stem -> word for the words of a text that carry a topic.

    Identifiers are split at underscores and at case changes, so that
    `read_to_string` shares "read" and "string" with prose.
    """
    parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    words = re.findall(r"[a-z]+|[0-9]+", parts.lower())
    words += re.findall(r"[a-z0-9]+", text.lower())
    return {stem(w): w for w in words if len(w) > 1 and w not in STOP}


def locked_versions():
    """Crate name -> versions in Cargo.lock that come from a registry."""
    with open(LOCK, encoding="utf-8") as handle:
        lock = handle.read()
    versions = collections.defaultdict(set)
    for name, version in re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = "registry', lock):
        versions[name].add(version)
    return versions


def in_corpus(path):
    """Whether the demo indexes this file of a crate."""
    low = path.lower()
    if low.startswith("docs/"):
        return low.endswith(".md")
    return "/" not in path and low.startswith(TOP_LEVEL)


def read_documents(versions, crate, path):
    """The normalised texts of a file, one for each locked version that has it."""
    texts = []
    for version in sorted(versions.get(crate, ())):
        pattern = os.path.join(CARGO_HOME, "registry", "src", "*", f"{crate}-{version}", path)
        for found in sorted(glob.glob(pattern))[:1]:
            with open(found, encoding="utf-8", errors="replace") as handle:
                texts.append(normalise(handle.read()))
    return texts


def check_answer(where, answer, versions, say):
    """Checks the shape and the place of one answer."""
    if set(answer) != {"crate", "file", "quote", "grade"}:
        say(f"{where}: an answer has the fields {sorted(answer)}, wants crate, file, quote, grade")
        return
    crate, path, quote = answer["crate"], answer["file"], answer["quote"]
    if answer["grade"] not in (1, 2):
        say(f"{where}: grade {answer['grade']!r} is neither 1 nor 2")
    if quote != normalise(quote):
        say(f"{where}: quote is not whitespace-normalised: {quote!r}")
    low, high = QUOTE_CHARS
    if not low <= len(quote) <= high:
        say(f"{where}: quote has {len(quote)} characters, wants {low} to {high}: {quote!r}")
    if not in_corpus(path):
        say(f"{where}: {crate}/{path} is not a file the demo indexes")
    texts = read_documents(versions, crate, path)
    if not texts:
        say(f"{where}: {crate}/{path} not found in any locked version; run `cargo fetch`, or fix the name")
    elif not any(quote in text for text in texts):
        say(f"{where}: quote not found in {crate}/{path}: {quote!r}")
    elif max(text.count(quote) for text in texts) > 1:
        say(f"{where}: quote occurs more than once in {crate}/{path}: {quote!r}")


def check_question(number, question, versions, say):
    """Checks one line."""
    where = question.get("id", f"line {number}")
    if set(question) != {"id", "kind", "text", "answers"}:
        say(f"{where}: has the fields {sorted(question)}, wants id, kind, text, answers")
        return
    if where != f"q{number:03}":
        say(f"{where}: wants the id q{number:03}")
    if question["kind"] not in AT_LEAST:
        say(f"{where}: unknown kind {question['kind']!r}")
    if not any(a.get("grade") == 2 for a in question["answers"]):
        say(f"{where}: no answer of grade 2")
    for answer in question["answers"]:
        check_answer(where, answer, versions, say)
    if question["kind"] == "paraphrase":
        asked = content_stems(question["text"])
        for answer in question["answers"]:
            for shared in sorted(asked.keys() & content_stems(answer["quote"]).keys()):
                say(f"{where}: paraphrase shares {asked[shared]!r} with the quote {answer['quote']!r}")


def main():
    violations = []
    with open(QUESTIONS, encoding="utf-8") as handle:
        questions = [json.loads(line) for line in handle]
    versions = locked_versions()
    for number, question in enumerate(questions, 1):
        check_question(number, question, versions, violations.append)
    texts = collections.Counter(q.get("text") for q in questions)
    violations += [f"asked twice: {text!r}" for text, n in texts.items() if n > 1]
    for q in questions:
        places = collections.Counter((a.get("crate"), a.get("file"), a.get("quote")) for a in q.get("answers", ()))
        violations += [f"{q.get('id')}: answer listed twice: {place}" for place, n in places.items() if n > 1]

    kinds = collections.Counter(q.get("kind") for q in questions)
    crates = {a.get("crate") for q in questions for a in q.get("answers", ())}
    answers = sum(len(q.get("answers", ())) for q in questions)
    if len(questions) < AT_LEAST_QUESTIONS:
        violations.append(f"{len(questions)} questions, wants at least {AT_LEAST_QUESTIONS}")
    if len(crates) < AT_LEAST_CRATES:
        violations.append(f"answers from {len(crates)} crates, wants at least {AT_LEAST_CRATES}")
    for kind, least in AT_LEAST.items():
        if kinds[kind] < least:
            violations.append(f"{kinds[kind]} questions of kind {kind}, wants at least {least}")

    for line in violations:
        print(line)
    by_kind = ", ".join(f"{kinds[kind]} {kind}" for kind in AT_LEAST)
    print(f"{len(questions)} questions ({by_kind}); {answers} answers in {len(crates)} crates; {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
