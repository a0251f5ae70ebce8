"""Recurrent and hybrid models: every byte equals llama.cpp's; FITPLUG_TRUTH_EVERY=1 tries every row."""

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.graph.architectures.hybrids import MODULES
from fitplug.memory.records import Kind
from recurrent_support import RECURRENT

EVERY = max(1, truth.EVERY // 4)


@pytest.mark.parametrize("row", RECURRENT.answered[::EVERY], ids=truth.label)
def test_every_byte_is_llama_cpps(row):
    """Weights, states, caches and compute buffers, of every device and the host."""
    estimate = RECURRENT.estimator(row)(truth.settings(row["args"]))

    kinds = (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE)
    assert {kind: truth.predicted(estimate, kind) for kind in kinds} == {kind: truth.told(row, kind) for kind in kinds}


@pytest.mark.parametrize("row", RECURRENT.refused, ids=truth.label)
def test_what_llama_cpp_cannot_run_is_refused(row):
    """Caches of two types where keys hold the values, and sequences that do not divide a micro-batch reserved for one."""
    with pytest.raises(RefusedError):
        RECURRENT.estimator(row)(truth.settings(row["args"]))


def test_no_architecture_is_drawn_unasked():
    """llama.cpp was asked about each of them, here or about the small models of its own tests."""
    asked = {model["metadata"]["general.architecture"] for model in RECURRENT.models.values()}
    small = {truth.model(f"tiny/{name}", "f16").architecture for name in truth.architectures()}

    assert set(MODULES) <= asked | small
