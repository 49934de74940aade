"""What the cases share: their list, what is expected, and how they are run and told."""

import json
import math
import pathlib
import sys
import traceback
import types

CASES = []
# A name that no server has.
NOBODY = "no-such-model"


def case(function):
    """Makes a function a case; its name, with spaces, is what is told of it."""
    CASES.append(function)
    return function


def main():
    """Runs the cases whose names have the word of the command line."""
    given = types.SimpleNamespace(**json.loads(pathlib.Path(sys.argv[1]).read_text()))
    given.order = sorted(range(len(given.documents)), key=lambda i: -given.relevance[i])
    failed = False
    for function in CASES:
        name = function.__name__.replace("_", " ")
        if sys.argv[2] not in name:
            continue
        try:
            function(given)
        except Exception as error:  # whatever a client raises is told with the case
            failed = True
            line = traceback.extract_tb(error.__traceback__)[1].lineno
            told = " ".join(f"{type(error).__module__}.{type(error).__name__}: {error}".split())
            print(f"FAILED {name} (line {line}): {told[:600]}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    sys.exit(failed)


def same(given, found, top=None, scores="relevance"):
    """The results, as (index, score), are those of `topshelf rerank`."""
    found, scores = list(found), getattr(given, scores)
    order = given.order[:top]
    assert [index for index, _ in found] == order, f"order {found}, expected {order}"
    near(found, [(index, scores[index]) for index in order])


def near(found, expected):
    """Each score is the expected one, to a millionth."""
    for (index, score), (_, wanted) in zip(found, expected, strict=True):
        close = math.isclose(score, wanted, rel_tol=1e-6, abs_tol=1e-6)
        assert close, f"document {index} has {score}, expected {wanted}"


def raises(kinds, call, status=None, word=""):
    """The call raises one of these classes, exactly; its text has the word."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    try:
        answer = call()
    except Exception as error:
        names = " or ".join(kind.__name__ for kind in kinds)
        told = f"{type(error).__name__} instead of {names}: {error}"
        assert type(error) in kinds, told
        seen = getattr(error, "status_code", None) or getattr(error, "http_status", None)
        assert status is None or seen == status, f"status {seen}, expected {status}: {error}"
        assert word.lower() in str(error).lower(), f"nothing of '{word}' in: {error}"
    else:
        raise AssertionError(f"nothing was raised, the answer is {answer}")
