"""Drawing graphs: what is unknown, what is missing, what a search relies on."""

from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.graph import UnknownGraph
from fitplug.memory.graph.architectures import MODULES, builder, plain
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.errors import NullTensorError, ShapesAbortError
from fitplug.memory.graph.layers import SHORT, WHOLE
from fitplug.memory.records import Kind
from fitplug.settings import Settings

CARD = [{"name": "card", "total_mib": 24564, "free_mib": 24000, "compute_capability": "8.9"}]
ROW = {"model": "llama-3.1-8b", "ftype": "Q4_K_M", "devices": CARD, "runner": "llama-server"}


def _params(row, settings, n_tokens=512):
    estimator = truth.estimator(row)
    drawing = ComputeEstimator(estimator.model, estimator.machine, estimator.runner)
    return drawing.params(truth.setup(estimator, settings))(n_tokens, 1, 1)


@pytest.mark.parametrize("architecture", sorted({*plain.ROWS, *MODULES}))
def test_every_registered_graph_can_be_imported(architecture):
    """No module is only promised."""
    assert callable(builder(architecture))


def test_an_unknown_architecture_is_said_to_be_unknown():
    """The caller falls back to a formula."""
    with pytest.raises(UnknownGraph):
        builder("nobody-knows-me")


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "blk.0.attn_q.weight", "blk.31.ffn_down.weight", "blk.3.attn_output.weight"]
)
def test_a_file_that_lacks_a_tensor_is_no_crash(name):
    """Either the graph is drawn without it, as llama.cpp would, or ggml would abort, or follow a null pointer."""
    params = _params(ROW, Settings(n_ctx=4096))
    model = params.model
    tensors = {n: t for n, t in model.header.tensors.items() if n != name}
    broken = replace(params, model=replace(model, header=replace(model.header, tensors=tensors)))

    with_it, without = GraphContext(params), GraphContext(broken)
    builder("llama")(with_it)
    try:
        builder("llama")(without)
    except (NullTensorError, ShapesAbortError):
        return
    assert len(without.gf.nodes) < len(with_it.gf.nodes)


def test_graphs_of_one_settings_do_not_leak_into_the_next():
    """One estimator asked again answers the same; so does a fresh one."""
    estimator = truth.estimator(ROW)
    settings = [Settings(n_ctx=c, n_gpu_layers=n) for c in (4096, 65536) for n in (-1, 10)]

    first = [truth.predicted(estimator(s), Kind.COMPUTE) for s in settings]

    assert first == [truth.predicted(estimator(s), Kind.COMPUTE) for s in settings]
    assert first == [truth.predicted(truth.estimator(ROW)(s), Kind.COMPUTE) for s in settings]
    assert len({tuple(sizes.items()) for sizes in first}) == len(settings)


@pytest.mark.parametrize("n_ctx", [4096, 32768])
def test_compute_grows_with_the_batch_and_the_context(n_ctx):
    """What planners search by."""
    estimator = truth.estimator(ROW)

    def device(**settings):
        return truth.predicted(estimator(Settings(**settings)), Kind.COMPUTE)["CUDA0"]

    assert device(n_ctx=n_ctx, n_ubatch=256) < device(n_ctx=n_ctx) < device(n_ctx=n_ctx, n_ubatch=1024)
    assert device(n_ctx=n_ctx) < device(n_ctx=4 * n_ctx)
    assert device(n_ctx=n_ctx) < device(n_ctx=n_ctx, flash_attn="off")


def test_a_long_model_is_drawn_in_a_few_layers():
    """Speed is a number of nodes, not of seconds."""
    params = _params(ROW, Settings(n_ctx=8192))
    short, full = (GraphContext(params.keeping(cut)) for cut in (SHORT, WHOLE))
    for g in (short, full):
        builder("llama")(g)

    assert 5 * len(short.gf.nodes) < len(full.gf.nodes)
