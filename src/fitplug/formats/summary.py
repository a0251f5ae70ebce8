"""Where a header's bytes are: by type, by layer, by expert. Pure sums over the table of tensors, exact."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from fitplug.formats.header import Header, Tensor

_LAYER = re.compile(r"((?:.*?\.)??(?:blk|layers|h|blocks|block)\.\d{1,6})\.", re.DOTALL)
"""GGUF's "blk.7." (also "enc.blk.7.", "v.blk.7."); in safetensors "model.layers.7.", "transformer.h.7." and the like."""
_ONE_EXPERT = re.compile(r"\.(?:experts\.|ffn_(?:gate|up|down)\.)(\d{1,6})\.")
"""A tensor for each: Hugging Face's "mlp.experts.3.up_proj.weight", llama.cpp's old "ffn_up.3.weight"."""
_ALL_EXPERTS = re.compile(r"\.(?:ffn_(?:gate|up|down|gate_up)_exps|experts)\.(?!\d)")
"""A tensor for all, the expert as its last dimension: "ffn_up_exps.weight", "mlp.experts.gate_up_proj". Not grovemoe's chunk
experts ("_chexps"), which several experts share, and not arctic's norm before them ("ffn_norm_exps")."""
_MAX_EXPERTS = 1 << 16


class TypeShare(NamedTuple):
    """What one type of tensors takes."""

    type: str
    n_tensors: int
    n_elements: int
    n_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """With the scales that quantised blocks carry; 0 for empty tensors."""
        return self.n_bytes * 8 / self.n_elements if self.n_elements else 0.0


class LayerShare(NamedTuple):
    """What one layer takes."""

    name: str
    """As the file calls it: "blk.7", "model.layers.7"."""
    n_tensors: int
    n_bytes: int
    expert_bytes: Sequence[int] = ()
    """Of each routed expert, by its number; empty in a dense layer."""


def by_type(header: Header) -> list[TypeShare]:
    """A histogram of the tensors' types, most bytes first."""
    found: dict[str, tuple[int, int, int]] = {}
    for tensor in header.tensors.values():
        count, elements, n_bytes = found.get(tensor.type, (0, 0, 0))
        found[tensor.type] = count + 1, elements + tensor.n_elements, n_bytes + tensor.n_bytes
    return sorted((TypeShare(name, *sums) for name, sums in found.items()), key=lambda share: (-share.n_bytes, share.type))


def bits_per_weight(header: Header) -> float:
    """Of all tensors together; 0 for a file without any."""
    shares = by_type(header)
    return TypeShare("", 0, sum(s.n_elements for s in shares), sum(s.n_bytes for s in shares)).bits_per_weight


def by_layer(header: Header) -> list[LayerShare]:
    """Every layer in the file's order."""
    layers: dict[str, list[Tensor]] = {}
    for tensor in header.tensors.values():
        match = _LAYER.match(tensor.name)
        if match:
            layers.setdefault(match[1], []).append(tensor)
    return [
        LayerShare(name, len(tensors), sum(tensor.n_bytes for tensor in tensors), expert_bytes(tensors))
        for name, tensors in layers.items()
    ]


def outside_layers(header: Header) -> list[Tensor]:
    """Embeddings, the output, last norms: what belongs to no layer."""
    return [tensor for tensor in header.tensors.values() if not _LAYER.match(tensor.name)]


def expert_bytes(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Bytes of each routed expert among a layer's tensors; a shared expert is none of them."""
    found: dict[int, int] = {}
    for tensor in tensors:
        one = _ONE_EXPERT.search(tensor.name)
        if one:
            found[int(one[1])] = found.get(int(one[1]), 0) + tensor.n_bytes
        elif _ALL_EXPERTS.search(tensor.name) and tensor.shape and 0 < tensor.shape[-1] <= _MAX_EXPERTS:
            count = tensor.shape[-1]
            for expert in range(count):
                found[expert] = found.get(expert, 0) + tensor.n_bytes // count
    return tuple(found[expert] for expert in sorted(found))
