"""A real card: what llama.cpp allocated there, what its kernels took besides, and what the driver said was gone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import truth_support as truth
from fitplug.memory.estimate import Estimator
from fitplug.memory.overhead import SEEN
from fitplug.memory.records import Kind
from fitplug.memory.targets import SCRATCH
from fitplug.model.describe import describe
from fitplug.units import MIB, pad

CARD = json.loads((Path(__file__).parents[2] / "fixtures" / "cards" / "h200.json").read_text())
RUNS = CARD["runs"]
STEP = 2 * MIB
"""The pool grows by so much."""


def _named(run):
    return " ".join((run["model"], run["ftype"], *run["args"]))


def _model(run):
    if run["ftype"] not in ("F16", "BF16"):
        return truth.model(run["model"], run["ftype"])
    whole = truth._real_models()[run["model"], "Q8_0"]
    tensors = [(name, kind if kind == "f32" else run["ftype"].lower(), shape) for name, kind, shape in whole["tensors"]]
    return describe(truth.header_of({**whole, "tensors": tensors}))


def _estimate(run, **changed):
    card = {"total_mib": CARD["total_bytes"] >> 20, "free_mib": CARD["total_bytes"] >> 20, "name": CARD["device"],
            "compute_capability": CARD["compute_capability"], "n_cores": CARD["n_cores"]}  # fmt: skip
    settings = replace(truth.settings(run["args"]), **{"n_seq_max": 4 if "-np" in run["args"] else 1, **changed})
    return Estimator(_model(run), truth.machine([card], host_bytes=128 << 30), truth.RUNNERS["llama-server"])(settings)


def _scratch(estimate):
    return sum(part.n_bytes for part in estimate.parts if part.source == SCRATCH)


@pytest.mark.parametrize("run", RUNS, ids=map(_named, RUNS))
def test_what_is_allocated_is_what_was_allocated(run):
    """To the byte; layers on the CPU let the compute buffer grow a little when the context is not full."""
    estimate = _estimate(run)
    found = {kind.value: estimate.n_bytes("CUDA0", kind) for kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE)}

    grown = run["buffers"]["compute"] - found["compute"]
    assert {**found, "compute": found["compute"] + grown} == run["buffers"]
    assert grown == 0 if "16" not in run["args"] else 0 <= grown < found["compute"] // 32


@pytest.mark.parametrize("run", RUNS, ids=map(_named, RUNS))
def test_kernels_take_what_they_took(run):
    """In steps of the pool's; where all scores are kept it depends on how many cells there were."""
    estimate = _estimate(run, **({"n_ctx": run["cells"]} if run["cells"] else {}))

    assert _scratch(estimate) == pad(run["pool"], STEP)


@pytest.mark.parametrize("run", RUNS, ids=map(_named, RUNS))
def test_the_driver_takes_the_rest(run):
    """Between the least and the most that is said of such cards."""
    row = SEEN[CARD["compute_capability"].partition(".")[0]]
    rest = run["taken"] - sum(run["buffers"].values()) - pad(run["pool"], STEP)

    assert row.low * MIB <= rest <= row.high * MIB
