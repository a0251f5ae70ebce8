"""What must hold of recurrent and hybrid graphs, whatever llama.cpp answered."""

import pytest

import recurrent_support as recurrent
import truth_support as truth
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.settings import Settings

CARD = {"name": "RTX4090", "total_mib": 24564, "free_mib": 24000, "compute_capability": "8.9"}
H200 = {"name": "H200", "total_mib": 143771, "free_mib": 141000, "compute_capability": "9.0"}
SERVER = truth.RUNNERS["llama-server"]
STATES_ONLY = ("mamba-2.8b", "mamba2-odd-state", "rwkv6-7b", "qrwkv6-32b", "rwkv7-2.9b", "arwkv7-7b")


def _asked(name, times, cards, settings, **how):
    """What a `ComputeEstimator` is asked about, and with."""
    model, machine = recurrent.model(name, times), truth.machine(cards)
    setup = truth.setup(Estimator(model, machine, SERVER), settings)
    return ComputeEstimator(model, machine, SERVER, **how), setup


@pytest.mark.parametrize("name", recurrent.RECURRENT.models)
@pytest.mark.parametrize("n_gpu_layers", [99, 13])
def test_leaving_out_layers_changes_no_byte(name, n_gpu_layers):
    """A model several times as deep is laid out from a few of its layers as from all."""
    settings = Settings(n_ctx=8192, n_gpu_layers=n_gpu_layers, n_seq_max=2)
    cut, setup = _asked(name, 3, [H200, CARD], settings)
    full, _ = _asked(name, 3, [H200, CARD], settings, shorten=False)

    assert cut.sizes(setup) == full.sizes(setup)


@pytest.mark.parametrize("name", STATES_ONLY)
def test_states_alone_make_no_buffer_grow_with_the_context(name):
    """Without attention nothing is as long as the context."""
    short, long = (_asked(name, 1, [H200], Settings(n_ctx=n_ctx, n_gpu_layers=99)) for n_ctx in (4096, 1 << 20))

    assert short[0].sizes(short[1]) == long[0].sizes(long[1])


def _backends_of(name, op):
    """Where the scheduler puts nodes of one op: names."""
    settings = Settings(n_ctx=4096, n_gpu_layers=99)
    estimator, setup = _asked(name, 1, [CARD], settings)
    params = estimator.params(setup)(512, 1, 512)
    schedule = Scheduler(params.backends, n_copies=1, op_offload=True).schedule(estimator.draw(params).gf)
    return {params.backends[b].name for t, b in zip(schedule.nodes, schedule.node_backends, strict=True) if t.op == op}


@pytest.mark.parametrize(("name", "op", "backend"), [
    ("mamba-2.8b", "SSM_SCAN", "CUDA0"), ("mamba2-odd-state", "SSM_SCAN", "CPU"),
    ("mamba-2.8b", "SSM_CONV", "CUDA0"), ("mamba-odd-convolution", "SSM_CONV", "CPU"),
])  # fmt: skip
def test_states_that_cuda_has_no_kernel_for_are_scanned_on_the_cpu(name, op, backend):
    """ggml-cuda.cu, ggml_backend_cuda_device_supports_op knows some sizes of states and convolutions."""
    assert _backends_of(name, op) == {backend}
