"""Samples of a sketch are what a drawing for their context would be."""

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.memory.graph.layers import SAMPLE
from fitplug.memory.graph.samples import Sample
from fitplug.memory.graph.sketches import Samples
from fitplug.settings import Settings
from graph_models import MODELS

CARD = {"name": "RTX4090", "total_mib": 24564, "free_mib": 24000, "compute_capability": "8.9"}
VULKAN = {"backend": "vulkan", "name": "any", "total_mib": 24576, "free_mib": 24000}
RPC = {"backend": "rpc", "name": "any", "served_by": "cuda", "total_mib": 24576, "free_mib": 24000}
METAL = {"backend": "metal", "name": "M3", "kind": "igpu", "total_mib": 24576, "free_mib": 24000}
CONTEXTS = (8192, 512, 131072, 100)
OTHERS = ({}, {"type_k": "q8_0", "type_v": "q8_0"}, {"flash_attn": "off", "n_seq_max": 2}, {"n_ubatch": 64, "n_gpu_layers": 1})


def _said(sample):
    """All that is ever asked of a sample."""
    return (
        sample.kinds, sample.structure, sample.shapes, sample.fused, sample.needed, sample.frame, sample.n_made,
        [sample.answers(i) for i in range(len(sample.tensors))],
        [backend.alloc_size(t) for t in sample.tensors for backend in sample.asked],
        {key: [sample.tensors[n].serial - sample.tensors[0].serial for n in numbers] for key, numbers in sample.parts.items()},
    )  # fmt: skip


@pytest.mark.parametrize("name", list(MODELS)[:: max(1, truth.EVERY)])
@pytest.mark.parametrize("card", [CARD, VULKAN, METAL, RPC], ids=["cuda", "vulkan", "metal", "rpc"])
def test_another_context_is_sketched_as_it_is_drawn(name, card):
    """Shapes, answers, what is fused; and what a sample has it has as plain numbers."""
    model = MODELS[name]()
    estimator = Estimator(model, truth.machine([card], host_bytes=1 << 40), truth.RUNNERS["llama-server"])
    compute = ComputeEstimator(model, estimator.machine, estimator.runner)
    samples = Samples(compute.draw)
    asked = 0
    for others in OTHERS:
        for n_ctx in CONTEXTS:
            try:
                params = compute.params(truth.setup(estimator, Settings(n_ctx=n_ctx, **others)))
                for n in (1, 64):
                    drawn = Sample(params(n * 2, 2, 2), compute.draw(params(n * 2, 2, 2).keeping(SAMPLE)).gf)
                    asked += 1
                    found = samples(params(n * 2, 2, 2))
                    assert _said(found) == _said(drawn)
                    assert {type(n) for t in found.tensors for n in (*t.ne, *t.nb, t.n_bytes)} == {int}
            except RefusedError:
                continue
    assert asked


def test_most_contexts_are_not_drawn():
    """Of a model whose windowed layers see no more than their window, once that is full."""
    model, drawn = MODELS["latent/hy_v4"](), []
    estimator = Estimator(model, truth.machine([CARD], host_bytes=1 << 40), truth.RUNNERS["llama-server"])
    compute = ComputeEstimator(model, estimator.machine, estimator.runner)
    samples = Samples(lambda params: drawn.append(params) or compute.draw(params))
    for n_ctx in range(8192, 65536, 1024):
        samples(compute.params(truth.setup(estimator, Settings(n_ctx=n_ctx)))(512, 1, 1))

    assert len(drawn) == 1
