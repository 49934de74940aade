#!/usr/bin/env python3
"""Prints the golden pairs of the default models, as ONNX Runtime scores them.

The expected scores in crates/topshelf-models/catalogue.toml come from here. They are made
by another runtime on purpose, so that a golden pair checks weights, tokenizer and settings
and not merely that Topshelf agrees with itself.

Usage:
    pip install onnxruntime tokenizers numpy safetensors
    python scripts/model_goldens.py CROSS_ENCODER_FOLDER BI_ENCODER_FOLDER LATE_INTERACTION_FOLDER

Each folder holds model.onnx and tokenizer.json, as the folders of the model store do
(`topshelf models show NAME` prints where that is).

Each input is a batch of one without padding: dynamic quantisation takes one activation scale
for a whole batch, so under ONNX Runtime a score depends on what else is in the batch.

    cross-encoder: logit of "[CLS] query [SEP] passage [SEP]"
    bi-encoder:    cosine of the first token's states (CLS pooling, L2 norm); the instruction
                   goes before the query, nothing before the passage
    late interaction: MaxSim; a marker behind [CLS], the query padded with [MASK] to 32 tokens
                   that are not attended to, the passage without its punctuation
"""

import pathlib
import sys

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer

QUERY = "How many people live in Berlin?"
PASSAGES = [
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square "
    "kilometers.",
    "Berlin is well known for its museums.",
]
INSTRUCTION = "Represent this sentence for searching relevant passages: "
MAX_TOKENS = 512
QUERY_TOKENS = 32
PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class Model:
    """A model folder under ONNX Runtime."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        self.inputs = {value.name for value in self.session.get_inputs()}

    def run(self, text, pair=None):
        """The first output for one sequence: [1, labels] or [1, seq, hidden]."""
        encoding = self.tokenizer.encode(text, pair)
        return self.run_ids(encoding.ids, encoding.type_ids, encoding.attention_mask)

    def run_ids(self, ids, type_ids, mask):
        """The same for ids."""
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": type_ids}
        feed = {
            name: np.array([ids], dtype=np.int64)
            for name, ids in feed.items()
            if name in self.inputs
        }
        return self.session.run(None, feed)[0]


class LateInteraction(Model):
    """A model with a projection behind its states."""

    def __init__(self, folder):
        super().__init__(folder)
        path = pathlib.Path(folder) / "projection-0.safetensors"
        self.projection = load_file(str(path))["linear.weight"]

    def vectors(self, text, marker, tokens=None):
        """A unit vector for each token: [tokens, 96]."""
        encoding = self.tokenizer.encode(text)
        ids = [encoding.ids[0], self.tokenizer.token_to_id(marker), *encoding.ids[1:]]
        mask = [1] * len(ids)
        if tokens is not None:
            padding = tokens - len(ids)
            ids += [self.tokenizer.token_to_id("[MASK]")] * padding
            mask += [0] * padding
        states = self.run_ids(ids, [0] * len(ids), mask)[0]
        if tokens is None:
            words = [self.tokenizer.id_to_token(token) for token in ids]
            states = states[[word not in PUNCTUATION for word in words]]
        vectors = states @ self.projection.T
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def unit(vector):
    return vector / np.linalg.norm(vector)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    cross_encoder, bi_encoder = (Model(folder) for folder in sys.argv[1:3])
    late_interaction = LateInteraction(sys.argv[3])

    print(f"onnxruntime {onnxruntime.__version__}")
    print("cross-encoder, logit")
    for passage in PASSAGES:
        print(f"  {float(cross_encoder.run(QUERY, passage).reshape(-1)[0]):8.4f}  {passage}")

    print("bi-encoder, cosine")
    query = unit(bi_encoder.run(INSTRUCTION + QUERY)[0, 0])
    for passage in PASSAGES:
        vector = unit(bi_encoder.run(passage)[0, 0])
        print(f"  {float(query @ vector):8.4f}  {passage}")

    print("late interaction, MaxSim")
    query = late_interaction.vectors(QUERY, "[unused0]", QUERY_TOKENS)
    for passage in PASSAGES:
        vectors = late_interaction.vectors(passage, "[unused1]")
        print(f"  {float((query @ vectors.T).max(axis=1).sum()):8.4f}  {passage}")


if __name__ == "__main__":
    main()
