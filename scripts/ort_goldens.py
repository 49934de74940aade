"""Scores of the default models under ONNX Runtime, for the tests of topshelf-models.

    pip install onnxruntime tokenizers numpy
    python scripts/ort_goldens.py STORE > crates/topshelf-models/tests/data/ort_goldens.json

STORE is the folder of pulled models (`topshelf models list` names it). Texts come from
tests/data/pairs.json: five subjects with four queries and ten documents each, and each query is
paired with the documents of its subject. Every sequence runs alone (a batch of one), because the files
quantise activations with one scale for the whole tensor. Each score is taken twice: with the
graph optimisations off and on. The difference of the two is what ONNX Runtime differs from itself.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

DATA = pathlib.Path(__file__).parent.parent / "crates/topshelf-models/tests/data"
BGE_QUERY = "Represent this sentence for searching relevant passages: "


def load(folder, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(str(folder / "model.onnx"), options)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_first")

    def run(*texts):
        encoding = tokenizer.encode(*texts)
        [output] = session.run(None, {
            "input_ids": np.array([encoding.ids]),
            "attention_mask": np.array([encoding.attention_mask]),
            "token_type_ids": np.array([encoding.type_ids]),
        })
        return output

    return run


def unit(hidden):
    vector = hidden[0, 0].astype(np.float64)
    return vector / np.linalg.norm(vector)


def main():
    store = pathlib.Path(sys.argv[1])
    texts = json.loads((DATA / "pairs.json").read_text())
    queries, documents = texts["queries"], texts["documents"]
    pairs = [(q, q // 4 * 10 + k) for q in range(len(queries)) for k in range(10)]
    levels = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]

    logits, cosines = [], []
    for level in levels:
        cross = load(store / "cross-encoder--ms-marco-MiniLM-L12-v2", level)
        logits.append([float(cross(queries[q], documents[d])[0, 0]) for q, d in pairs])
        bi = load(store / "BAAI--bge-small-en-v1.5", level)
        query_vectors = [unit(bi(BGE_QUERY + text)) for text in queries]
        document_vectors = [unit(bi(text)) for text in documents]
        cosines.append([float(query_vectors[q] @ document_vectors[d]) for q, d in pairs])

    rows = [
        [q, d, round(logits[0][i], 5), round(logits[1][i], 5),
         round(cosines[0][i], 6), round(cosines[1][i], 6)]
        for i, (q, d) in enumerate(pairs)
    ]
    print(json.dumps({
        "made_by": f"scripts/ort_goldens.py, onnxruntime {ort.__version__}",
        "columns": ["query", "document", "logit, optimisations off", "logit, on",
                    "cosine, optimisations off", "cosine, on"],
    })[:-1] + ', "rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}")


if __name__ == "__main__":
    main()
