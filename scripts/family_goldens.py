#!/usr/bin/env python3
"""Makes tiny checkpoints of every family of encoders, and what transformers computes with them.

They are the goldens of the native engine, for families whose real weights are in no package
registry. Each model is drawn at random from a seed of its own, saved as `save_pretrained` saves
any model, loaded again from its folder, and run in f32 on the CPU with one thread and the eager
attention, one sequence at a time and without padding.

    python3 -m venv goldens
    goldens/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 \\
        tokenizers==0.23.3 numpy==2.4.6
    goldens/bin/python scripts/family_goldens.py

writes crates/topshelf-models/tests/data/families/NAME/{config.json,model.safetensors,golden.json}
for every NAME, or for those that are named:

    goldens/bin/python scripts/family_goldens.py --only bert-cross --only electra-cross

and with the folder of a real all-MiniLM-L6-v2 (`../shared/MODELS.md` says where that is from),

    goldens/bin/python scripts/family_goldens.py --minilm FOLDER

writes only all-MiniLM-L6-v2.golden.json beside the families; its weights stay where they are.

golden.json, lengths in tokens, floats with seven significant digits:

    noise       the largest difference of any figure below from the same model run in f64
    sequences   [{
        ids         [length]
        type_ids    [length]; zeros where the family knows no token types
        logits      [labels]           models with a classification head, before any sigmoid
        cls_hidden  [hidden]           the same: the last hidden state of the first token
        check       [mean, rms]        the same: over all last hidden states of the sequence
        hidden      [length * hidden]  models without a head: all last hidden states, row by row
    }]

Running it again on the same machine gives the same bytes.
"""

import argparse
import copy
import json
import pathlib
import shutil
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

DATA = pathlib.Path(__file__).parent.parent / "crates/topshelf-models/tests/data"
FAMILIES = DATA / "families"
MADE_BY = (
    f"scripts/family_goldens.py, transformers {transformers.__version__}, "
    f"torch {torch.__version__.split('+')[0]}"
)

LENGTHS = [1, 2, 3, 17, 33, 64, 80]
MORE_LENGTHS = 3
VOCABULARY = 120
# Ids below are left to padding and the like, so that no sequence holds the padding's.
FIRST_ID = 4
# The least standard deviation of the logits of a model that is worth testing with.
LEAST_SPREAD = 0.3


@dataclass
class Model:
    """One checkpoint to be made."""

    kind: type
    config: dict
    # Whether the inputs have tokens of both types; else the model is not given any types.
    types: bool = False
    # Changes of the saved config.json, for spellings that are common among published models.
    # None removes a key.
    spelling: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    # By how much a matrix lengthens its input; less where the norm comes first, since there the
    # states grow from block to block and the rounding with them.
    gain: float = 2.0


def sizes(hidden, layers, heads, intermediate, **more):
    """The configuration that most families share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "max_position_embeddings": 96,
    } | more


def modernbert(**more):
    """Four blocks: global, windowed, windowed, global; a token sees eight to each side."""
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1}
    tokens |= {"eos_token_id": 2, "sep_token_id": 2}
    more |= {"local_attention": 16, "global_attn_every_n_layers": 3}
    return sizes(32, 4, 4, 40) | tokens | more


# How transformers 4 wrote it, and with it nearly every published ModernBERT.
MODERNBERT_4 = {
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "layer_types": None,
    "rope_parameters": None,
}


def deberta_v2(**more):
    """As DeBERTa-v3 and the mxbai rerankers, with fewer buckets: relative positions only, no
    token types."""
    positions = {
        "relative_attention": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "max_position_embeddings": 512,
        "max_relative_positions": -1,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    }
    return sizes(32, 3, 4, 56, hidden_act="gelu", layer_norm_eps=1e-7) | positions | more


ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5}
DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 72,
    "max_position_embeddings": 96,
}

MODELS = {
    "bert-cross": Model(
        transformers.BertForSequenceClassification, sizes(48, 3, 4, 72), types=True
    ),
    "bert-gelu-new-cross": Model(
        transformers.BertForSequenceClassification, sizes(32, 2, 2, 48, hidden_act="gelu_new")
    ),
    "bert-relu-cross": Model(
        transformers.BertForSequenceClassification, sizes(32, 2, 4, 50, hidden_act="relu")
    ),
    "bert-base-model": Model(
        transformers.BertModel,
        sizes(32, 3, 2, 72),
        types=True,
        options={"add_pooling_layer": False},
    ),
    "roberta-cross": Model(
        transformers.RobertaForSequenceClassification,
        sizes(32, 2, 4, 72, type_vocab_size=1) | ROBERTA,
    ),
    "xlm-roberta-cross": Model(
        transformers.XLMRobertaForSequenceClassification,
        sizes(36, 2, 3, 60, type_vocab_size=1) | ROBERTA,
    ),
    "distilbert-cross": Model(transformers.DistilBertForSequenceClassification, DISTILBERT),
    "electra-cross": Model(
        transformers.ElectraForSequenceClassification,
        sizes(40, 2, 4, 56, embedding_size=24),
        types=True,
    ),
    "modernbert-cross": Model(
        transformers.ModernBertForSequenceClassification,
        modernbert(classifier_pooling="cls"),
        spelling=MODERNBERT_4,
        gain=1.4,
    ),
    "modernbert-mean-cross": Model(
        transformers.ModernBertForSequenceClassification,
        modernbert(classifier_pooling="mean"),
        spelling=MODERNBERT_4,
        gain=1.4,
    ),
    "modernbert-base-model": Model(transformers.ModernBertModel, modernbert(), gain=1.4),
    "deberta-v2-cross": Model(
        transformers.DebertaV2ForSequenceClassification,
        deberta_v2(),
        spelling={"pos_att_type": "p2c|c2p"},
    ),
    # Sequences are longer than the largest distance told apart: the outermost buckets are used.
    "deberta-v2-separate-cross": Model(
        transformers.DebertaV2ForSequenceClassification,
        deberta_v2(share_att_key=False, position_buckets=16, max_relative_positions=40),
    ),
}


def generator(name, purpose):
    """Random numbers that depend on nothing but the name of a model and what they are for."""
    return np.random.default_rng(zlib.crc32(f"{name} {purpose}".encode()))


def draw(rng, name, shape, gain):
    """A parameter's values, such that no part of a model is idle or saturated.

    A matrix multiplies the length of its input by the gain or so: attention is then far from
    uniform and the activation sees both signs. Words weigh more than places do.
    """
    values = rng.standard_normal(shape)
    if len(shape) > 1 and "embeddings." in name and "projection" not in name:
        return values * (0.3 if "position" in name or "type" in name else 0.6)
    if len(shape) > 1:
        return values * gain / np.sqrt(shape[1])
    if name.endswith("weight"):
        return 1 + 0.2 * values.clip(-3, 3)
    return 0.1 * values


def redraw(model, rng, gain):
    """Replaces all parameters, in the order of their names."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = draw(rng, name, tuple(parameter.shape), gain)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def save(name, spec, folder):
    """Draws a checkpoint and writes config.json and model.safetensors."""
    config = spec.kind.config_class(**spec.config, num_labels=1)
    model = spec.kind(config, **spec.options)
    redraw(model, generator(name, "weights"), spec.gain)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    if spec.spelling:
        path = folder / "config.json"
        config = json.loads(path.read_text()) | spec.spelling
        kept = {key: value for key, value in sorted(config.items()) if value is not None}
        path.write_text(json.dumps(kept, indent=2) + "\n")


def load(kind, folder, **options):
    """A model of a folder, in f32 and ready to run."""
    model = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, **options
    )
    return model.eval()


def sequences(name, types):
    """Random inputs: each a query and a passage where there are types."""
    rng = generator(name, "inputs")
    made = []
    for length in LENGTHS + [int(n) for n in rng.integers(4, 80, MORE_LENGTHS)]:
        ids = rng.integers(FIRST_ID, VOCABULARY, length)
        query = int(rng.integers(1, length + 1))
        type_ids = [int(types and place >= query) for place in range(length)]
        made.append({"ids": ids.tolist(), "type_ids": type_ids})
    return made


@torch.no_grad()
def outputs(model, sequence, types):
    """One sequence alone: logits [labels] (None without a head), hidden [length, hidden]."""
    inputs = {"input_ids": torch.tensor([sequence["ids"]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if types:
        inputs["token_type_ids"] = torch.tensor([sequence["type_ids"]])
    hidden = model.base_model(**inputs).last_hidden_state[0].numpy()
    if model.base_model is model:
        return None, hidden
    return model(**inputs).logits[0].numpy(), hidden


def figures(logits, hidden):
    """What golden.json says of one sequence."""
    if logits is None:
        return {"hidden": hidden}
    exact = hidden.astype(np.float64)
    check = np.array([exact.mean(), np.sqrt((exact**2).mean())])
    return {"logits": logits, "cls_hidden": hidden[0], "check": check}


def difference(some, others):
    """The largest difference of two sets of figures."""
    return max(float(np.abs(some[key] - others[key]).max()) for key in some)


def compact(values):
    """Floats of seven significant digits, flat."""
    return [float(f"{value:.7g}") for value in values.ravel().tolist()]


def write(path, head, rows):
    """JSON with one line for each row."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    path.write_text(json.dumps(head)[:-1] + ', "sequences": [\n' + lines + "\n]}\n")


def family(name):
    """Makes one checkpoint and its goldens."""
    spec, folder = MODELS[name], FAMILIES / name
    save(name, spec, folder)
    model = load(spec.kind, folder, **spec.options)
    double = copy.deepcopy(model).double()
    rows, noise = [], 0.0
    for sequence in sequences(name, spec.types):
        found = figures(*outputs(model, sequence, spec.types))
        noise = max(noise, difference(found, figures(*outputs(double, sequence, spec.types))))
        rows.append(sequence | {key: compact(values) for key, values in found.items()})
    spread = float(np.std([row["logits"] if "logits" in row else row["hidden"][0] for row in rows]))
    if not spread > LEAST_SPREAD:
        raise SystemExit(f"{name}: the outputs spread by {spread:.3f} only; change its seed")
    write(folder / "golden.json", {"made_by": MADE_BY, "noise": float(f"{noise:.1e}")}, rows)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: spread {spread:.2f}, noise {noise:.1e}, {size // 1000} kB", flush=True)


def minilm_texts():
    """Real texts: a word, a question, passages, a pair, and one of more than 200 tokens."""
    texts = json.loads((DATA / "pairs.json").read_text())
    queries, documents = texts["queries"], texts["documents"]
    singles = ["Yes", queries[0], documents[0], documents[1], " ".join(documents[:8])]
    return [[text] for text in singles] + [[queries[0], documents[0]]]


def minilm(folder):
    """The goldens of the real all-MiniLM-L6-v2: hidden states of CLS and the mean of all."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    model = load(transformers.BertModel, folder, add_pooling_layer=False)
    rows = []
    for texts in minilm_texts():
        encoding = tokenizer.encode(*texts)
        row = {"texts": texts, "ids": encoding.ids, "type_ids": encoding.type_ids}
        _, hidden = outputs(model, row, types=True)
        mean = hidden.astype(np.float64).mean(axis=0)
        rows.append(row | {"cls_hidden": compact(hidden[0]), "mean_hidden": compact(mean)})
        print(f"all-MiniLM-L6-v2: {len(encoding.ids)} tokens", flush=True)
    write(FAMILIES / "all-MiniLM-L6-v2.golden.json", {"made_by": MADE_BY}, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(MODELS), metavar="NAME",
                        help="make this model only; may be repeated")
    parser.add_argument("--minilm", type=pathlib.Path, metavar="FOLDER",
                        help="make the goldens of the real all-MiniLM-L6-v2 in FOLDER instead")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.minilm:
        minilm(arguments.minilm)
    else:
        for name in arguments.only or MODELS:
            family(name)


if __name__ == "__main__":
    main()
