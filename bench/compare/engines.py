"""The peers that are Python packages, one class each, behind `protocol`.

A class has `imports()`, which loads its packages; a constructor, which is timed as the load; and
`run(items)`, which answers scores and the number of tokens read (or `None`). Runs end with the
scores in the order of the items, whatever order the engine works in.
"""

import importlib
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import protocol

WINDOW = 512


def read_tokenizer(folder):
    """The model's tokenizer: cuts the passage at the window, pads nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(WINDOW, strategy="longest_first")
    tokenizer.no_padding()
    return tokenizer


class OnnxRuntime:
    """ONNX Runtime on an ONNX file: cross-encoders (pairs) and bi-encoders (texts).

    `batch` sequences a tensor, longest first and padded within the batch; 0 is one batch of all.
    With `lanes`, as many batches run at once as there are threads, each on one thread.
    """

    @staticmethod
    def imports():
        """Loads the packages."""
        for name in ("numpy", "onnxruntime", "tokenizers"):
            importlib.import_module(name)

    def __init__(self, folder, file, threads, batch, lanes=False):
        """Opens the file with `threads` threads for each operator, or one with `lanes`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if lanes else threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(Path(folder) / file), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = read_tokenizer(folder)
        self.batch = batch
        self.pool = ThreadPoolExecutor(threads) if lanes else None

    def run(self, items):
        """The logits of pairs, or the first text's vector."""
        encodings = self.tokenizer.encode_batch([pair_or_text(item) for item in items])
        order = sorted(range(len(items)), key=lambda i: -len(encodings[i].ids))
        size = self.batch or len(items)
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        mapped = self.pool.map if self.pool else map
        answers = mapped(lambda batch: self.rows([encodings[i] for i in batch]), batches)
        rows = dict(zip(order, itertools.chain.from_iterable(answers), strict=True))
        scores = rows[0] if rows[0].size > 1 else [rows[i][0] for i in range(len(items))]
        return scores, sum(len(e.ids) for e in encodings)

    def rows(self, encodings):
        """One row for each sequence: its logit, or its normalised first hidden state."""
        import numpy

        shape = (len(encodings), max(len(e.ids) for e in encodings))
        ids, mask, types = (numpy.zeros(shape, dtype=numpy.int64) for _ in range(3))
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length] = encoding.ids
            types[row, :length] = encoding.type_ids
            mask[row, :length] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        output = self.session.run(None, inputs)[0]
        if output.ndim == 2:
            return output
        first = output[:, 0]
        return first / numpy.linalg.norm(first, axis=1, keepdims=True)


def pair_or_text(item):
    """A pair as the tokenizer wants it; a text as it is."""
    return item if isinstance(item, str) else tuple(item)


class SentenceTransformers:
    """sentence-transformers' `CrossEncoder` as its documentation shows it, on the CPU."""

    @staticmethod
    def imports():
        """Loads the packages."""
        importlib.import_module("sentence_transformers")

    def __init__(self, folder, threads, dtype=None):
        """Loads the checkpoint, in `dtype` where one is given."""
        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(threads)
        options = {"model_kwargs": {"dtype": dtype}} if dtype else {}
        self.model = CrossEncoder(folder, device="cpu", **options)

    def run(self, items):
        """The logits; the batch size and everything else are the defaults."""
        return self.model.predict([tuple(item) for item in items]), None


class FlashRank:
    """FlashRank with a folder in the place of its download; one request for each query."""

    NAME = "ms-marco-MiniLM-L-12-v2"

    @staticmethod
    def imports():
        """Loads the packages."""
        importlib.import_module("flashrank")

    def __init__(self, cache):
        """Opens the model in the cache folder; the threads are ONNX Runtime's default."""
        from flashrank import Ranker

        self.ranker = Ranker(model_name=self.NAME, cache_dir=cache, log_level="WARNING")

    def run(self, items):
        """The logits, taken back from the probabilities that FlashRank answers."""
        from flashrank import RerankRequest

        probabilities = {}
        numbered = enumerate(items)
        for query, group in itertools.groupby(numbered, key=lambda entry: entry[1][0]):
            passages = [{"id": place, "text": item[1]} for place, item in group]
            for hit in self.ranker.rerank(RerankRequest(query=query, passages=passages)):
                probabilities[hit["id"]] = float(hit["score"])
        return [logit(probabilities[i]) for i in range(min(len(items), protocol.SHOWN))], None


def logit(probability):
    """The inverse of the sigmoid, kept finite where f32 has rounded to 0 or 1."""
    probability = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(probability / (1 - probability))


class FastEmbed:
    """fastembed's `TextCrossEncoder` with a local folder; the batch size is its default."""

    NAME = "local/cross-encoder"

    @staticmethod
    def imports():
        """Loads the packages."""
        importlib.import_module("fastembed.rerank.cross_encoder")

    def __init__(self, folder, file, threads):
        """Registers the folder as a custom model and opens it."""
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        source = ModelSource(hf=self.NAME)
        TextCrossEncoder.add_custom_model(self.NAME, sources=source, model_file=file)
        self.model = TextCrossEncoder(self.NAME, threads=threads, specific_model_path=folder)

    def run(self, items):
        """The logits."""
        return list(self.model.rerank_pairs([tuple(item) for item in items])), None


ENGINES = {
    "onnxruntime": OnnxRuntime,
    "sentence-transformers": SentenceTransformers,
    "flashrank": FlashRank,
    "fastembed": FastEmbed,
}

if __name__ == "__main__":
    protocol.serve(ENGINES)
