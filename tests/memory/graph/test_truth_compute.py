"""Compute buffers equal llama.cpp's own, to the byte; FITPLUG_TRUTH_EVERY=1 tries every row."""

from itertools import groupby

import pytest

import truth_support as truth
from fitplug.memory.graph.architectures import MODULES, plain
from fitplug.memory.records import Basis, Kind

ROWS = [row for name in ("memory", "archs") for row in truth.rows(name) if "error" not in row]


def _one_of_each_model():
    """The first settings of every model, rotated, so that all settings of the set are tried on some of them."""
    by_model = [list(rows) for _, rows in groupby(ROWS, key=lambda row: (row["model"], row["ftype"]))]
    return [rows[i % len(rows)] for i, rows in enumerate(by_model)]


SAMPLE = _one_of_each_model() + [row for name in ("memory", "archs") for row in truth.sample(name) if "error" not in row]


@pytest.mark.parametrize("row", SAMPLE, ids=truth.label)
def test_compute_buffers_are_exact(row):
    """On every device and on the host, flash attention as llama.cpp resolves it."""
    estimate = truth.estimate(row)

    assert truth.predicted(estimate, Kind.COMPUTE) == truth.told(row, "compute")
    assert estimate.resolved.flash_attn == bool(row["out"]["fa"])


@pytest.mark.parametrize("row", SAMPLE[::5], ids=truth.label)
def test_a_drawn_graph_says_that_it_is_exact(row):
    """And names the rule."""
    parts = [part for part in truth.estimate(row).parts if part.kind == Kind.COMPUTE]

    assert {(part.basis, part.source) for part in parts} == {(Basis.EXACT, "graph allocator")}


@pytest.mark.parametrize("row", SAMPLE[::3], ids=truth.label)
def test_leaving_out_repeated_layers_changes_nothing(row):
    """The shortened graphs and the bound on the token's graph against every layer of every graph."""
    short, full = truth.short_and_full(truth.estimator(row), truth.settings(row["args"]))

    assert short == full


def test_every_architecture_of_the_truth_is_drawn():
    """No row is answered by a formula."""
    drawn = {*plain.ROWS, *MODULES}

    assert {truth.model(row["model"], row["ftype"]).architecture for row in ROWS} <= drawn
