"""Graphs against llama.cpp's own, node by node (fixtures/truth/graphs.py): what equal sizes can hide."""

import gzip
import json
from math import prod

import pytest

import truth_support as truth
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.model.describe import describe

with gzip.open(truth.TRUTH / "graphs.json.gz", "rt") as file:
    MODELS = json.load(file)
SHAPELESS = {"VIEW", "CPY"}
"""Views of caches may be drawn with other shapes of the same length, since nothing is made of them."""


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["name"])
def test_every_node_and_its_sources_are_llama_cpps(model):
    """With all tensors that the loader takes, whether or not the graph uses them."""
    estimator = Estimator(describe(truth.header_of(model)), truth.machine([]), truth.RUNNERS["llama-server"])

    for args, nodes in model["graphs"]:
        assert _drawn(estimator, truth.settings(args)) == [_theirs(node) for node in nodes]


def _theirs(line):
    op, type_, shape, sources, is_output = line.split("|")
    shape = [int(n) for n in shape.split(",")]
    return op, type_, prod(shape) if op in SHAPELESS else shape, sources, is_output == "1"


def _drawn(estimator, settings):
    """The prompt's graph in the same form."""
    setup = truth.setup(estimator, settings)
    drawing = ComputeEstimator(estimator.model, estimator.machine, estimator.runner)
    params = drawing.params(setup)
    n_seqs = setup.resolved.n_seq_max
    nodes = drawing.draw(params(setup.resolved.n_ubatch, n_seqs, n_seqs)).gf.nodes
    numbers = {id(t): str(i) for i, t in enumerate(nodes)}
    return [
        (
            t.op, t.type, prod(t.ne) if t.op in SHAPELESS else list(t.ne),
            " ".join(numbers.get(id(s), f"={prod(s.ne)}") for s in t.src if s is not None), t.is_output,
        )
        for t in nodes
    ]  # fmt: skip
