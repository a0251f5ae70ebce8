"""Weights and caches equal llama.cpp's own accounting, to the byte; FITPLUG_TRUTH_EVERY=1 tries every row."""

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.records import Kind

ROWS = [row for name in ("memory", "archs") for row in truth.sample(name)]
ANSWERED = [row for row in ROWS if "error" not in row]
REFUSED = [row for name in ("memory", "archs") for row in truth.rows(name) if "error" in row]


@pytest.mark.parametrize("row", ANSWERED, ids=truth.label)
def test_weights_and_cache_are_exact(row):
    """Every device and the host, model and context."""
    estimator = truth.estimator(row)
    settings = truth.settings(row["args"])
    placement, resolved, parts = estimator.static(settings)

    static = {kind: _by_device(parts, kind) for kind in (Kind.MODEL, Kind.CONTEXT)}

    assert {kind: truth.told(row, kind) for kind in static} == static
    assert (row["out"]["n_ctx"], row["out"]["n_batch"]) == (resolved.n_ctx, resolved.n_batch)
    assert (row["out"]["n_ubatch"], row["out"]["n_seq_max"]) == (resolved.n_ubatch, resolved.n_seq_max)
    assert len(placement.names) == len(row["devices"])


@pytest.mark.parametrize("row", ANSWERED[::3], ids=truth.label)
def test_weights_lie_in_the_same_buffer_types(row):
    """Pinned, repacked and plain host memory are told apart as llama.cpp does."""
    _, _, parts = truth.estimator(row).static(truth.settings(row["args"]))

    held = {p.buffer or p.device: p.n_bytes for p in parts if p.kind == Kind.MODEL}

    assert {name: b["model"] for name, b in row["out"]["buffers"].items() if b["model"]} == held


@pytest.mark.parametrize("row", REFUSED, ids=truth.label)
def test_what_llama_cpp_refuses_is_refused(row):
    """Rows that llama.cpp answered with an error."""
    with pytest.raises(RefusedError):
        truth.estimate(row)


def _by_device(parts, kind):
    found = {}
    for part in parts:
        if part.kind == kind:
            found[part.device] = found.get(part.device, 0) + part.n_bytes
    return found
