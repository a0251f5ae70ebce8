"""Adapters lie beside the weights that they change; those that do not belong to the model are refused as llama.cpp does."""

from dataclasses import replace

import pytest

import adapter_support as adapters
import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.formats.header import Header, Tensor
from fitplug.memory.companions import Companions
from fitplug.memory.compute import UNADAPTED
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Kind
from fitplug.settings import ScaledAdapter, Settings, TensorOverride

MODEL = truth.model("llama-3.1-8b", "Q4_K_M")
SERVER = truth.RUNNERS["llama-server"]
MACHINE = truth.machine([{"name": "a", "total_mib": 24000, "free_mib": 23000, "compute_capability": "8.9"}])
METADATA = {
    "general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama", "adapter.lora.alpha": 16.0,
}  # fmt: skip
RANK = 8


def _adapter(*names, metadata=METADATA):
    tensors = {}
    for name in names:
        n_in, n_out = MODEL.tensors[name].shape
        for half, shape in ((".lora_a", (n_in, RANK)), (".lora_b", (RANK, n_out))):
            tensors[name + half] = Tensor(name + half, "f16", shape, 2 * shape[0] * shape[1], 0)
    return Header(format="gguf", n_bytes=0, metadata=metadata, tensors=tensors, shards=("a.gguf",))


def _held(settings, *adapters):
    estimate = Estimator(MODEL, MACHINE, SERVER, Companions(adapters=adapters))(replace(settings, lora=("a.gguf",)))
    held = {}
    for part in estimate.parts:
        if part.source == "adapter":
            held[part.device] = held.get(part.device, 0) + part.n_bytes
    return held


def _halves(name):
    return 2 * RANK * sum(MODEL.tensors[name].shape)


FIRST, LAST = "blk.0.attn_q.weight", "blk.31.ffn_down.weight"


def test_an_adapter_lies_where_its_weights_lie():
    """On the GPU, on the CPU, or where an override sent them."""
    both = _adapter(FIRST, LAST)

    assert _held(Settings(n_ctx=512), both) == {"CUDA0": _halves(FIRST) + _halves(LAST)}
    assert _held(Settings(n_ctx=512, n_gpu_layers=0), both) == {HOST: _halves(FIRST) + _halves(LAST)}
    assert _held(Settings(n_ctx=512, n_gpu_layers=2), both) == {HOST: _halves(FIRST), "CUDA0": _halves(LAST)}
    moved = Settings(n_ctx=512, overrides=(TensorOverride("ffn_down", "CPU"),))
    assert _held(moved, both) == {"CUDA0": _halves(FIRST), HOST: _halves(LAST)}


def test_adapters_add_up():
    """Each stays loaded."""
    assert _held(Settings(n_ctx=512), _adapter(FIRST), _adapter(FIRST, LAST)) == {"CUDA0": 2 * _halves(FIRST) + _halves(LAST)}


def _estimate(settings, *adapters, model=MODEL):
    return Estimator(model, MACHINE, SERVER, Companions(adapters=adapters))(replace(settings, lora=("a.gguf",)))


def test_a_note_says_what_of_an_adapter_is_not_counted():
    """Nothing of a graph that is drawn; its products where a formula answers; all of it where it was not opened."""
    adapter, settings = _adapter(FIRST), Settings(n_ctx=512)

    assert not any("adapter" in note for note in _estimate(settings, adapter).notes)
    assert any("products" in note for note in _estimate(replace(settings, split_mode="tensor"), adapter).notes)
    assert "LoRA adapters are not counted" in _estimate(settings).notes


def test_an_adapter_of_scale_0_is_loaded_and_not_applied():
    """llama_context::set_adapters_lora passes it over; where it is the only one, nothing is reserved anew."""
    one, two, settings = _adapter(FIRST), _adapter(LAST), Settings(n_ctx=512)
    scaled = replace(settings, lora=("1.gguf",), lora_scaled=(ScaledAdapter("2.gguf", 0.0),))
    both = Estimator(MODEL, MACHINE, SERVER, Companions(adapters=(one, two), idle=frozenset({1})))(scaled)
    first = _estimate(settings, one)
    none = Estimator(MODEL, MACHINE, SERVER, Companions(adapters=(one,), idle=frozenset({0})))(replace(settings, lora=("1",)))

    assert both.n_bytes("CUDA0", Kind.COMPUTE) == first.n_bytes("CUDA0", Kind.COMPUTE)
    assert both.n_bytes("CUDA0", Kind.MODEL) == first.n_bytes("CUDA0", Kind.MODEL) + _halves(LAST)
    assert none.n_bytes("CUDA0", Kind.COMPUTE) == Estimator(MODEL, MACHINE, SERVER)(settings).n_bytes("CUDA0", Kind.COMPUTE)
    assert none.n_bytes("CUDA0", Kind.MODEL) == first.n_bytes("CUDA0", Kind.MODEL)


def test_a_compute_buffer_that_adapters_make_smaller_was_larger_before():
    """The context is made without adapters, so that what it took then must have been free."""
    row = next(row for row in adapters.ADAPTERS.answered if row["model"] == "tiny/minicpm-moe")
    model = adapters.model(row)
    beside = Companions(adapters=tuple(adapters.adapter(spec, model) for spec in row["adapters"]))
    settings = truth.settings(row["args"])
    machine = truth.machine(row["devices"])

    alone = Estimator(model, machine, SERVER)(settings)
    adapted = Estimator(model, machine, SERVER, beside)(replace(settings, lora=("a.gguf",)))

    assert any(p.source == UNADAPTED for p in adapted.parts)
    for device in (*machine.device_names(), HOST):
        context = [e.n_bytes(device, Kind.COMPUTE) for e in (alone, adapted)]
        before = sum(p.n_bytes for p in adapted.parts if p.source == UNADAPTED and p.device == device)
        assert before == max(0, context[0] - context[1])


@pytest.mark.parametrize("change", [
    lambda a: replace(a, metadata={**METADATA, "general.architecture": "qwen3"}),
    lambda a: replace(a, metadata={**METADATA, "general.type": "model"}),
    lambda a: replace(a, metadata={**METADATA, "adapter.type": "other"}),
    lambda a: replace(a, tensors={name: t for name, t in a.tensors.items() if name.endswith(".lora_a")}),
    lambda a: replace(a, tensors={name.replace("blk.0", "blk.99"): t for name, t in a.tensors.items()}),
    lambda a: replace(a, tensors={**a.tensors, "more": Tensor("more", "f32", (1,), 4, 0)}),
    lambda a: replace(a, tensors={name: t._replace(shape=(t.shape[0] + 1, t.shape[1])) for name, t in a.tensors.items()}),
])  # fmt: skip
def test_what_does_not_belong_to_the_model_is_refused(change):
    """Another architecture, no adapter, half an adapter, tensors that the model has not or that have another shape."""
    with pytest.raises(RefusedError, match=r"a\.gguf"):
        _held(Settings(n_ctx=512), change(_adapter(FIRST)))
