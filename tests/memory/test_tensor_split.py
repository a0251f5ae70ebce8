"""-sm tensor: matrices cut by shares, the rest on every device; always marked as modelled."""

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Basis, Kind
from fitplug.settings import Settings

CARD = {"name": "a", "total_mib": 24000, "free_mib": 23000, "compute_capability": "8.9"}
LLAMA = truth.model("llama-3.1-8b", "Q4_K_M")


def _held(kind, split=(), n=2):
    estimator = Estimator(LLAMA, truth.machine([CARD] * n), truth.RUNNERS["llama-server"])
    parts = estimator(Settings(n_ctx=8192, split_mode="tensor", tensor_split=split)).parts
    return {p.device: p.n_bytes for p in parts if p.kind == kind and p.device != HOST}, parts


def test_caches_are_cut_by_their_heads():
    """All devices together hold the cache once."""
    held, _ = _held(Kind.CONTEXT, (3.0, 1.0))

    assert held["CUDA0"] == 3 * held["CUDA1"]
    assert sum(held.values()) == 2 * 1024 * 32 * 8192 * 2


def test_norms_are_on_every_device():
    """So the weights of all devices are a little more than those of one."""
    two, four = (_held(Kind.MODEL, n=n)[0] for n in (2, 4))

    assert 0 < sum(four.values()) - sum(two.values()) < 0.01 * LLAMA.n_bytes
    assert len(set(two.values())) == 1


def test_nothing_of_it_is_called_exact_on_a_device():
    """llama.cpp rounds the cuts; these figures do not."""
    _, parts = _held(Kind.MODEL)

    assert {p.basis for p in parts if p.device != HOST and p.kind != Kind.OVERHEAD} == {Basis.MODELLED}


def test_architectures_that_cannot_be_cut():
    """llama.cpp lists them (llm_arch_supports_sm_tensor)."""
    model = truth.model("tiny/mamba-dense", "F32")
    with pytest.raises(RefusedError, match="-sm layer"):
        Estimator(model, truth.machine([CARD]), truth.RUNNERS["llama-server"])(Settings(split_mode="tensor"))
