"""LoRA adapters: their two small matrices lie beside the weights that they change (src/llama-adapter.cpp)."""

from collections.abc import Mapping
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.formats.header import Header, Tensor
from fitplug.machine.backends import CPU_ALIGNMENT
from fitplug.memory.records import HOST
from fitplug.memory.weights import REPACKED, Placed, device_size, traits
from fitplug.model.records import Model
from fitplug.units import pad

A, B = ".lora_a", ".lora_b"
NOT_HELD = "_norm.weight"
"""Norms that an adapter carries are passed over."""
HELD_PLAIN = frozenset((REPACKED, "AMX"))
"""Buffer types in which an adapter is not loaded: it lies in plain memory instead."""


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
    # a table of embeddings is looked up, so its halves are flipped
    inner, outer = (_ne(b, 1), _ne(a, 1)) if name == "token_embd.weight" else (_ne(a, 0), _ne(b, 1))
    if (inner, outer) != (_ne(base, 0), _ne(base, 1)):
        raise RefusedError(f"{_file(adapter)}: '{name}' has another shape than the model's: a wrong base model?")
    return Pair(name, a, b)


def _ne(tensor: Tensor, dimension: int) -> int:
    return tensor.shape[dimension] if dimension < len(tensor.shape) else 1


def _file(adapter: Header) -> str:
    return adapter.shards[0] if adapter.shards else "the adapter"


def adapter_bytes(adapter: Header, placed: Placed) -> dict[str, int]:
    """Bytes of each buffer type that holds a part of the adapter.

    Raises:
        RefusedError: llama.cpp does not load this adapter with this model.
    """
    where = placed.tensors()
    rows = {name: traits(row) for name, row in zip(placed.placement.names, placed.placement.backends, strict=True)}
    total: dict[str, int] = {}
    for pair in pairs(adapter, placed.model):
        buffer = where.get(pair.name, HOST)
        buffer = HOST if buffer in HELD_PLAIN else buffer
        for tensor in (pair.a, pair.b):
            own = rows.get(buffer)
            n_bytes = pad(tensor.n_bytes, CPU_ALIGNMENT) if own is None else device_size(tensor, own)
            total[buffer] = total.get(buffer, 0) + n_bytes
    return total
