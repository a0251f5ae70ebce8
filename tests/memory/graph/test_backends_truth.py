"""What llama.cpp's own Vulkan backend allocates, to the byte; FITPLUG_TRUTH_EVERY=1 tries every row."""

import pytest

import backends_support as backends
import truth_support as truth
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind
from fitplug.settings import Settings

SAMPLE = [row for backend in ("vulkan",) for row in backends.sample(backend)]


@pytest.mark.parametrize("row", SAMPLE, ids=backends.label)
def test_every_byte_is_llama_cpps(row):
    """Weights, caches and compute buffers, on every device and on the host, and what becomes of flash attention."""
    estimate = backends.estimator(row)(truth.settings(row["args"]))

    for kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE):
        assert truth.predicted(estimate, kind) == truth.told(row, kind.value), kind
    assert estimate.resolved.flash_attn == bool(row["out"]["fa"])


@pytest.mark.parametrize("row", SAMPLE[::4], ids=backends.label)
def test_leaving_out_repeated_layers_changes_nothing_where_nodes_change_places(row):
    """The shortened graphs against every layer of every graph."""
    short, full = truth.short_and_full(backends.estimator(row), truth.settings(row["args"]))

    assert short == full


@pytest.mark.parametrize("row", SAMPLE[::16], ids=backends.label)
def test_figures_are_exact_where_the_driver_says_its_limits(row):
    """And modelled where they are only supposed."""
    settings = truth.settings(row["args"])
    for devices in (row["devices"], [_without_limits(device) for device in row["devices"]]):
        parts = backends.estimator({**row, "devices": devices})(settings).parts
        told = devices == row["devices"]
        expected = Basis.EXACT if told else Basis.MODELLED

        assert {part.basis for part in parts if part.kind == Kind.COMPUTE} == {expected}


def _without_limits(device):
    return {key: value for key, value in device.items() if key not in ("alignment", "host_alignment", "max_tensor_bytes")}


@pytest.mark.parametrize("backend", ["vulkan", "metal", "rocm"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b", "gemma-3-27b"])
def test_other_contexts_and_placements_are_answered_as_by_a_new_drawing(backend, name):
    """What is kept of a graph in another order, too."""
    device = {"backend": backend, "name": "any", "total_mib": 24576, "free_mib": 24000}
    model, machine = truth.model(name, "Q4_K_M"), truth.machine([device])
    estimator = Estimator(model, machine, truth.RUNNERS["llama-server"])
    kept, whole = (ComputeEstimator(model, machine, estimator.runner, shorten=shorten) for shorten in (True, False))

    for n_ctx, n_gpu_layers in ((512, 99), (8192, 99), (131072, 99), (8192, 12), (65536, 20), (8192, 99)):
        settings = Settings(n_ctx=n_ctx, n_gpu_layers=n_gpu_layers)
        setup = truth.setup(estimator, settings)
        assert kept.sizes(setup) == whole.sizes(setup), settings
