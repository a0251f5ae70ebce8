"""llama.cpp's answers about recurrent and hybrid models (fixtures/recurrent), and those models at any depth."""

import re
from functools import cache

import truth_support as truth
from fitplug.model.describe import describe

RECURRENT = truth.Answers("recurrent")


@cache
def model(name, times=1):
    """The model, with its layers `times` as often."""
    return describe(truth.header_of(deepened(RECURRENT.models[name], times)))


PROJECTION = "per_layer_model_proj.weight"
PER_LAYER = {"per_layer_token_embd.weight": 0, PROJECTION: 1}
"""Which of their sides has a part for each layer."""


def deepened(model, times):
    """The model with more layers, as its makers could have trained it.

    Layers without experts stay at the front, and so does the first one where layers have no period. Per-layer embeddings,
    which are listed by the numbers of their layers, are not repeated; one matrix with a part for each layer grows with them.
    """
    architecture = model["metadata"]["general.architecture"]
    value = {key.removeprefix(f"{architecture}."): value for key, value in model["metadata"].items()}
    n = value["block_count"]
    front = 0 if "full_attention_interval" in value else max(1, value.get("leading_dense_block_count", 0))
    order = [*range(n), *list(range(front, n)) * (times - 1)]
    metadata = {
        key: [value[il] for il in order] if isinstance(value, list) and len(value) == n and ".ple." not in key else value
        for key, value in model["metadata"].items()
    }
    blocks = {il: [] for il in range(-1, n)}
    for name, type_, shape in model["tensors"]:
        block = re.match(r"blk\.(\d+)\.(.*)", name)
        blocks[int(block[1]) if block else -1].append([block[2] if block else name, type_, shape])
    repeated = [
        [f"blk.{i}.{rest}", *others]
        for i, il in enumerate(order)
        for rest, *others in blocks[il]
        if i < n or not rest.startswith("ple_")
    ]
    metadata[f"{architecture}.block_count"] = len(order)
    before, after = (n, len(order)) if any(name == PROJECTION for name, *_ in blocks[-1]) else (1, 1)
    outside = [[name, type_, _for_layers(name, shape, before, after)] for name, type_, shape in blocks[-1]]
    return {**model, "metadata": metadata, "tensors": outside + repeated}


def _for_layers(name, shape, before, after):
    """The shape of a tensor outside the layers when they are more."""
    side = PER_LAYER.get(name)
    return [n // before * after if i == side else n for i, n in enumerate(shape)]
