"""Who takes part: each engine's command, environment and settings.

All cross-encoders run ms-marco-MiniLM-L12-v2 and all bi-encoders bge-small-en-v1.5, from the int8
ONNX file in Topshelf's store or from the f32 form that `checkpoint` makes of its integers.
"""

import dataclasses
import fnmatch
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = ROOT / "target" / "bench-models"
PEERS = ROOT / "target" / "bench-peers" / "release"
TOPSHELF = ROOT / "target" / "release" / "examples" / "engine"
CROSS_ENCODER = "minilm-l12"
BI_ENCODER = "bge-small"
REFERENCE = "topshelf-int8"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclasses.dataclass(frozen=True)
class Engine:
    """One engine: how it is started, what it is told to load, and in what precision it computes."""

    name: str
    precision: str
    what: str
    command: list
    settings: dict
    environment: dict = dataclasses.field(default_factory=dict)


def cross_encoders(threads):
    """The engines for pairs, fastest known first."""
    int8, f32 = str(MODELS / "int8"), str(MODELS / "f32")
    return [
        *(topshelf(p, {"TOPSHELF_ENGINE": "native"}) for p in ("int8", "bf16", "f32")),
        topshelf("int8", {"TOPSHELF_ENGINE": "onnx"}, name="topshelf-onnx"),
        *(onnxruntime("int8", int8, batch, threads) for batch in (8, 1, 32, 0)),
        onnxruntime("int8", int8, 1, threads, lanes=True),
        *(onnxruntime("f32", f32, batch, threads) for batch in (8, 1, 32, 0)),
        sentence_transformers("f32", {"folder": f32, "threads": threads}),
        sentence_transformers("bf16", {"folder": f32, "threads": threads, "dtype": "bfloat16"}),
        python(
            "flashrank",
            "int8",
            "FlashRank: one padded batch for each query",
            {"engine": "flashrank", "cache": str(MODELS / "flashrank")},
        ),
        python(
            "fastembed",
            "int8",
            "fastembed TextCrossEncoder: padded batches of 64, unsorted",
            {"engine": "fastembed", "folder": int8, "file": "model.onnx", "threads": threads},
        ),
        peer("rten", "int8", "rten: one sequence a tensor, one thread each", int8, threads),
        peer("candle", "f32", "candle: sorted batches of 8", f32, threads),
    ]


def bi_encoders(folder, threads):
    """The engines for embedding; the folder is that of the bi-encoder in the store."""
    return [
        topshelf("int8", {"TOPSHELF_ENGINE": "native"}, family="bi-encoder"),
        *(onnxruntime("int8", folder, batch, threads) for batch in (8, 1, 32)),
        onnxruntime("int8", folder, 1, threads, lanes=True),
    ]


def topshelf(precision, environment, name=None, family="cross-encoder"):
    """Topshelf, by the example program `engine` of its library.

    A run repeats the same texts, so the cache of their tokens is off: the others tokenise, too.
    """
    engine = environment["TOPSHELF_ENGINE"]
    model = CROSS_ENCODER if family == "cross-encoder" else BI_ENCODER
    return Engine(
        name or f"topshelf-{precision}",
        precision,
        f"Topshelf, {engine} engine, {precision}",
        [str(TOPSHELF)],
        {"model": model, "family": family},
        {**environment, "TOPSHELF_PRECISION": precision, "TOPSHELF_TOKEN_CACHE": "0"},
    )


def onnxruntime(precision, folder, batch, threads, lanes=False):
    """ONNX Runtime with one batch size; 0 is one padded batch of all."""
    settings = {
        "engine": "onnxruntime",
        "folder": str(folder),
        "file": "model.onnx",
        "threads": threads,
        "batch": batch,
        "lanes": lanes,
    }
    how = f"sorted batches of {batch}" if batch else "one padded batch"
    name = f"ort-{precision}-{batch or 'all'}"
    if lanes:
        name, how = f"{name}-lanes", f"{how}, as many at once as threads, one thread each"
    return python(name, precision, f"ONNX Runtime {precision}: {how}", settings)


def sentence_transformers(precision, settings):
    """sentence-transformers in one precision."""
    what = f"sentence-transformers CrossEncoder.predict, {precision}, batches of 32"
    settings = {"engine": "sentence-transformers", **settings}
    return python(f"st-{precision}", precision, what, settings)


def python(name, precision, what, settings):
    """An engine of `engines.py`."""
    command = [sys.executable, str(HERE / "engines.py")]
    return Engine(name, precision, what, command, settings, OFFLINE)


def peer(name, precision, what, folder, threads):
    """An engine of the Rust workspace beside this file."""
    settings = {"folder": folder, "threads": threads}
    return Engine(f"{name}-{precision}", precision, what, [str(PEERS / name)], settings)


def chosen(engines, patterns):
    """The engines whose names match one of the patterns (`*` and `?` as in a shell)."""
    return [e for e in engines if any(fnmatch.fnmatch(e.name, p) for p in patterns)]
