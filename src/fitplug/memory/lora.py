"""LoRA adapters: their two small matrices lie beside the weights that they change (src/llama-adapter.cpp).

llama-server applies them after the context was made, and llama_context::set_adapters_lora has the next batch, the warm-up,
reserve anew: the compute buffers are those of graphs with the adapters' products. What was tried at the context's start
(resolve_fused_ops) was tried without them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.formats.header import Header, Tensor
from fitplug.machine.backends import CPU_ALIGNMENT
from fitplug.memory.cpu_buffers import PACKED
from fitplug.memory.records import HOST
from fitplug.memory.weights import Placed, device_size, traits
from fitplug.model.records import Model
from fitplug.units import pad

A, B = ".lora_a", ".lora_b"
LOOKED_UP = "token_embd.weight"
"""The end of the names of tables, whose halves are turned round."""
NOT_HELD = "_norm.weight"
"""Norms that an adapter carries are passed over."""


class Pair(NamedTuple):
    """What an adapter adds to one weight: the product of B and A."""

    name: str
    a: Tensor
    b: Tensor


def pairs(adapter: Header, model: Model) -> list[Pair]:
    """The weights that an adapter changes.

    Raises:
        RefusedError: llama.cpp does not load this adapter with this model.
    """
    kind = adapter.metadata.get("adapter.type")
    if adapter.metadata.get("general.type") != "adapter" or kind != "lora":
        raise RefusedError(f"{_file(adapter)}: is no LoRA adapter that llama.cpp loads")
    architecture = adapter.metadata.get("general.architecture")
    if architecture != model.architecture:
        raise RefusedError(f"{_file(adapter)}: is an adapter for '{architecture}', the model is '{model.architecture}'")
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in adapter.tensors.items():
        if name.endswith((A, B)):
            halves.setdefault(name[: -len(A)], {})[name[-len(A) :]] = tensor
        elif not name.endswith(NOT_HELD):
            raise RefusedError(f"{_file(adapter)}: '{name}' is neither {A} nor {B}")
    return [_pair(adapter, model, name, found) for name, found in halves.items()]


def _pair(adapter: Header, model: Model, name: str, found: Mapping[str, Tensor]) -> Pair:
    base = model.tensors.get(name)
    if base is None or len(found) < 2:
        raise RefusedError(f"{_file(adapter)}: the model has no '{name}', or the adapter only half of it: a wrong base model?")
    a, b = found[A], found[B]
    looked_up = name.endswith(LOOKED_UP)
    inner, outer = (_ne(b, 1), _ne(a, 1)) if looked_up else (_ne(a, 0), _ne(b, 1))
    rank = _ne(a, 0) if looked_up else _ne(a, 1)
    if (inner, outer, rank) != (_ne(base, 0), _ne(base, 1), _ne(b, 0)):
        raise RefusedError(f"{_file(adapter)}: '{name}' has another shape than the model's: a wrong base model?")
    return Pair(name, a, b)


def _ne(tensor: Tensor, dimension: int) -> int:
    return tensor.shape[dimension] if dimension < len(tensor.shape) else 1


def _file(adapter: Header) -> str:
    return adapter.shards[0] if adapter.shards else "the adapter"


def _beside(adapter: Header, placed: Placed) -> Iterator[tuple[Pair, str]]:
    """What an adapter adds to each weight, and the buffer type that it lies in."""
    where = placed.tensors()
    for pair in pairs(adapter, placed.model):
        buffer = where.get(pair.name, HOST)
        yield pair, HOST if buffer in PACKED else buffer


def adapter_bytes(adapter: Header, placed: Placed) -> dict[str, int]:
    """Bytes of each buffer type that holds a part of the adapter.

    Raises:
        RefusedError: llama.cpp does not load this adapter with this model.
    """
    rows = {name: traits(row) for name, row in zip(placed.placement.names, placed.placement.backends, strict=True)}
    total: dict[str, int] = {}
    for pair, buffer in _beside(adapter, placed):
        for tensor in (pair.a, pair.b):
            own = rows.get(buffer)
            n_bytes = pad(tensor.n_bytes, CPU_ALIGNMENT) if own is None else device_size(tensor, own)
            total[buffer] = total.get(buffer, 0) + n_bytes
    return total


def by_weight(adapters: Sequence[Header], placed: Placed) -> dict[str, list[tuple[Pair, str]]]:
    """What all adapters add to each weight, the last one first: llama_adapter_loras is a hash table that grows at its front.

    Raises:
        RefusedError: llama.cpp does not load one of them with this model.
    """
    found: dict[str, list[tuple[Pair, str]]] = {}
    for adapter in reversed(adapters):
        for pair, buffer in _beside(adapter, placed):
            found.setdefault(pair.name, []).append((pair, buffer))
    return found
