"""The same weights for every engine: an f32 checkpoint made from an int8 ONNX file.

The file is the dynamically quantised export of a BERT cross-encoder. Every integer is put back to
`(q - zero_point) * scale`, and the graph's quantised products become plain f32 ones:

```
DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul      becomes  MatMul with f32 weights
Gather of u8 rows -> DequantizeLinear                      becomes  Gather of f32 rows
```

So the f32 ONNX file is the graph that was quantised, and the folder for PyTorch and candle has the
same numbers. Whether they agree is checked on real pairs: int8 rounds activations too, so the
logits differ, but not by more than `LARGEST_DIFFERENCE`.
"""

import json
import re
import shutil
from pathlib import Path

import numpy
import onnx
from onnx import helper, numpy_helper
from safetensors.numpy import save_file

LARGEST_DIFFERENCE = 1.5
# Not to be read off the weights; a wrong number would show in the check of the logits.
HEADS = 12
WINDOW = 512
SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


class Graph:
    """An ONNX graph with its tensors by name, and its nodes by what they produce and consume."""

    def __init__(self, model):
        """Indexes the graph of the model."""
        self.graph = model.graph
        self.tensors = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.maker = {out: node for node in self.graph.node for out in node.output}
        self.users = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def only_user(self, node):
        """The one node that consumes the node's output."""
        (user,) = self.users[node.output[0]]
        return user

    def dequantised(self, quantised):
        """The f32 tensor of a quantised one; its scale and zero point are named after it."""
        stem = quantised.removesuffix("_quantized")
        zero = self.tensors[f"{stem}_zero_point"].astype(numpy.int32)
        scale = self.tensors[f"{stem}_scale"].astype(numpy.float32)
        integers = self.tensors[quantised].astype(numpy.int32) - zero
        return integers.astype(numpy.float32) * scale


def dequantise(model):
    """Turns the int8 model into its f32 form in place; answers the weights by PyTorch's names."""
    graph = Graph(model)
    weights = {n: t for n, t in graph.tensors.items() if re.search(r"\.(weight|bias)$", n)}
    replaced, gone, added = {}, set(), []
    for node in graph.graph.node:
        if node.op_type == "MatMulInteger":
            name, last, chain = product(graph, node)
            weight = graph.dequantised(node.input[1])
            weights[name] = numpy.ascontiguousarray(weight.T)
            quantise = graph.maker[node.input[0]]
            added.append(numpy_helper.from_array(weight, f"{name}.transposed"))
            inputs = [quantise.input[0], f"{name}.transposed"]
            replaced[last] = helper.make_node("MatMul", inputs, [last], name=f"{name}/MatMul")
            gone.update(chain)
        elif node.op_type == "DequantizeLinear":
            gather = graph.maker[node.input[0]]
            name = gather.input[0].removesuffix("_quantized")
            weights[name] = graph.dequantised(gather.input[0])
            added.append(numpy_helper.from_array(weights[name], name))
            inputs, last = [name, gather.input[1]], node.output[0]
            replaced[last] = helper.make_node("Gather", inputs, [last], name=f"{name}/Gather")
            gone.add(gather.output[0])
    rebuild(graph.graph, replaced, gone, added)
    return weights


def product(graph, node):
    """A quantised product: its weight's name, its f32 output, and the outputs that it replaces."""
    name = re.sub(r"/(MatMul|Gemm_MatMul)_quant$", "", node.name).strip("/").replace("/", ".")
    cast = graph.only_user(node)
    last = graph.only_user(cast)
    scale = next(i for i in last.input if i != cast.output[0])
    quantise = graph.maker[node.input[0]]
    return (
        f"{name}.weight",
        last.output[0],
        {node.output[0], cast.output[0], scale, *quantise.output},
    )


def rebuild(graph, replaced, gone, added):
    """Writes the nodes and the tensors back; tensors that nothing uses any more are dropped."""
    nodes = [
        replaced.get(node.output[0], node)
        for node in graph.node
        if not gone.intersection(node.output)
    ]
    used = {name for node in nodes for name in node.input}
    tensors = [t for t in graph.initializer if t.name in used] + added
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def bert_config(weights):
    """`config.json` of the checkpoint; the sizes are those of the weights."""
    vocabulary, hidden = weights["bert.embeddings.word_embeddings.weight"].shape
    layers = {m[1] for name in weights if (m := re.search(r"encoder\.layer\.(\d+)\.", name))}
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": HEADS,
        "intermediate_size": weights["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": weights["bert.embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": weights["bert.embeddings.token_type_embeddings.weight"].shape[0],
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }


def write_tokenizer(source, folder):
    """The tokenizer's files as transformers, FlashRank and fastembed want them."""
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    config = {
        **SPECIAL,
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": WINDOW,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL, indent=1))


def prepare(source, target):
    """Makes the folders `int8`, `f32` and `flashrank` in `target` from the model in `source`.

    They are kept: as long as the source has the same size and time, nothing is done again.
    """
    source, target = Path(source), Path(target)
    status = (source / "model.onnx").stat()
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    done = target / "made-from"
    if done.exists() and done.read_text() == stamp:
        return
    shutil.rmtree(target, ignore_errors=True)
    int8, f32 = target / "int8", target / "f32"
    flashrank = target / "flashrank" / "ms-marco-MiniLM-L-12-v2"
    for folder in (int8, f32, flashrank):
        folder.mkdir(parents=True)
        write_tokenizer(source, folder)
    model = onnx.load(source / "model.onnx")
    weights = dequantise(model)
    onnx.checker.check_model(model)
    onnx.save(model, f32 / "model.onnx")
    save_file(weights, f32 / "model.safetensors", metadata={"format": "pt"})
    for folder in (int8, f32, flashrank):
        (folder / "config.json").write_text(json.dumps(bert_config(weights), indent=1))
    shutil.copyfile(source / "model.onnx", int8 / "model.onnx")
    shutil.copyfile(source / "model.onnx", flashrank / "flashrank-MiniLM-L-12-v2_Q.onnx")
    done.write_text(stamp)


def largest_difference(target, pairs):
    """The largest difference of a logit between the f32 and the int8 file, one pair a tensor.

    Refuses a difference beyond `LARGEST_DIFFERENCE`: the weights would not be the same then.
    """
    from engines import OnnxRuntime

    logits = [
        numpy.array(OnnxRuntime(target / kind, "model.onnx", threads=1, batch=1).run(pairs)[0])
        for kind in ("int8", "f32")
    ]
    difference = float(numpy.abs(logits[0] - logits[1]).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(
            f"the dequantised weights give other logits than the int8 file: up to {difference:.3f}"
            f" apart, where {LARGEST_DIFFERENCE} is allowed"
        )
    return difference
