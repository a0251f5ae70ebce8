"""The estimator: the same answer whatever was asked before, and every doubt said."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

import truth_support as truth
from fitplug.formats.header import Header
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Basis, Kind
from fitplug.model.describe import describe
from fitplug.settings import Settings

CARDS = [{"name": "a", "total_mib": 24000, "free_mib": 23000, "compute_capability": "8.9"}] * 2
MACHINE = truth.machine(CARDS)
SERVER = truth.RUNNERS["llama-server"]
LLAMA = truth.model("tiny/llama-dense", "F32")
SHARED = Estimator(LLAMA, MACHINE, SERVER)

asked = st.builds(
    Settings,
    n_ctx=st.sampled_from([512, 4096, 10000]),
    n_gpu_layers=st.integers(-1, 5),
    n_cpu_moe=st.integers(-1, 2),
    tensor_split=st.sampled_from([(), (1.0,), (1.0, 3.0)]),
    offload_kqv=st.booleans(),
    n_seq_max=st.integers(1, 3),
)


@settings(deadline=None)
@given(asked=asked)
def test_asking_again_changes_nothing(asked):
    """What is kept between calls never shows."""
    fresh = Estimator(LLAMA, MACHINE, SERVER)(asked)

    assert (SHARED(asked).parts, SHARED(asked).resolved) == (fresh.parts, fresh.resolved)


@settings(deadline=None)
@given(asked=asked)
def test_parts_add_up(asked):
    """Every part is on a device of the machine or the host, is not empty, and is counted once."""
    estimate = SHARED(asked)
    devices = {*MACHINE.device_names(), HOST}

    assert all(part.device in devices and part.n_bytes > 0 for part in estimate.parts)
    assert sum(estimate.n_bytes(device) for device in devices) == sum(part.n_bytes for part in estimate.parts)
    assert {part.device for part in estimate.parts if part.kind == Kind.OVERHEAD} == set(MACHINE.device_names())


def test_an_unknown_architecture_is_modelled_and_says_so():
    """Weights by their names, a cache in every layer, compute buffers by formula."""
    header = LLAMA.header
    metadata = {key.replace("llama.", "newcomer."): value for key, value in header.metadata.items()}
    metadata["general.architecture"] = "newcomer"
    model = describe(Header(format="gguf", metadata=metadata, tensors=header.tensors, n_bytes=header.n_bytes))
    estimate, known = (Estimator(m, MACHINE, SERVER)(Settings(n_ctx=4096)) for m in (model, LLAMA))

    assert {part.basis for part in estimate.parts if part.kind != Kind.OVERHEAD} == {Basis.MODELLED}
    assert any("newcomer" in note for note in estimate.notes)
    for kind in (Kind.MODEL, Kind.CONTEXT):
        assert {d: estimate.n_bytes(d, kind) for d in (HOST, "CUDA0", "CUDA1")} == {
            d: known.n_bytes(d, kind) for d in (HOST, "CUDA0", "CUDA1")
        }


def test_a_runners_own_needs_are_overhead():
    """Added on every device, never mixed with what llama.cpp counts."""
    greedy = replace(SERVER, name="greedy", overhead=lambda estimate, device: 1 << 20)
    plain, more = (Estimator(LLAMA, MACHINE, runner)(Settings(n_ctx=512)) for runner in (SERVER, greedy))

    assert more.n_bytes("CUDA0", Kind.OVERHEAD) - plain.n_bytes("CUDA0", Kind.OVERHEAD) == 1 << 20
    assert more.n_bytes("CUDA0", Kind.MODEL) == plain.n_bytes("CUDA0", Kind.MODEL)
