"""Latent and sparse attention, encoder-decoders, drafts: every byte is llama.cpp's; FITPLUG_TRUTH_EVERY=1 tries every row."""

from itertools import pairwise

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.graph.architectures import MODULES, plain
from fitplug.memory.graph.blocks.block_positions import POSITIONS
from fitplug.memory.records import Kind
from fitplug.settings import Settings

LATENT = truth.Answers("latent")
EVERY = max(1, truth.EVERY // 4)
CARD = {"name": "RTX4090", "total_mib": 24564, "free_mib": 24000, "compute_capability": "8.9"}


@pytest.mark.parametrize("row", LATENT.answered[::EVERY], ids=truth.label)
def test_every_byte_is_llama_cpps(row):
    """Weights, caches and compute buffers, of every device and the host."""
    estimate = LATENT.estimator(row)(truth.settings(row["args"]))

    kinds = (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE)
    assert {kind: truth.predicted(estimate, kind) for kind in kinds} == {kind: truth.told(row, kind) for kind in kinds}


@pytest.mark.parametrize("row", LATENT.refused, ids=truth.label)
def test_what_llama_cpp_cannot_run_is_refused(row):
    """Two types of cache where keys hold the values, quantised values without flash attention, T5 with a cache per sequence."""
    with pytest.raises(RefusedError):
        LATENT.estimator(row)(truth.settings(row["args"]))


@pytest.mark.parametrize("name", LATENT.models)
def test_every_model_is_drawn(name):
    """None is answered by a formula."""
    architecture = LATENT.model(name).architecture

    assert architecture in {*MODULES, *plain.ROWS}


def _sizes(name, settings, **how):
    """Compute buffers on one card and the host."""
    row = {"model": name, "devices": [CARD], "runner": "llama-server"}
    estimator = LATENT.estimator(row)
    compute = ComputeEstimator(estimator.model, estimator.machine, estimator.runner, **how)
    return compute.sizes(truth.setup(estimator, settings))


@pytest.mark.parametrize("name", LATENT.models)
@pytest.mark.parametrize("n_gpu_layers", [99, 2])
def test_leaving_out_layers_changes_no_byte(name, n_gpu_layers):
    """Layers that hand their choice of cells on, or run several times, are told apart."""
    settings = Settings(n_ctx=4096, n_gpu_layers=n_gpu_layers)

    assert _sizes(name, settings) == _sizes(name, settings, shorten=False)


@pytest.mark.parametrize("name", ["deepseek4", "dots3note", "hy_v4"])
def test_a_longer_context_never_needs_less(name):
    """Masks and indexers' scores are as long as the context."""
    sizes = [_sizes(name, Settings(n_ctx=n_ctx, n_gpu_layers=99)) for n_ctx in (4096, 16384, 65536)]

    assert all(a <= b for less, more in pairwise(sizes) for a, b in zip(less, more, strict=True))


def test_blocks_of_positions_are_those_of_an_empty_cache():
    """MiniMax M3 scores 256 positions whatever the context: the host's part grows by a mask in f16 and a map of cells."""
    short, long = (_sizes("minimax-m3", Settings(n_ctx=n_ctx, n_gpu_layers=99))[-1] for n_ctx in (8192, 16384))
    cells = 8192

    assert POSITIONS == 256
    assert long - short == cells * (512 * 2 + 4)
