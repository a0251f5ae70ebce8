"""An architecture that nobody knows is taken for the one it is most like."""

from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind
from fitplug.model.architectures import TABLE
from fitplug.model.describe import describe
from fitplug.model.nearest import signatures

LIKE = {
    "llama-3.1-8b": "llama", "qwen3-4b": "qwen3", "qwen3-30b-a3b": "qwen3moe", "gemma-2-9b": "gemma2", "gemma-3-4b": "gemma3",
    "mixtral-8x7b": "llama", "deepseek-v2-lite": "deepseek2", "mamba2-2.7b": "mamba2", "lfm2-1.2b": "lfm2",
    "qwen3-next-80b-a3b": "qwen3next", "olmo-2-13b": "olmo2", "starcoder2-15b": "starcoder2", "falcon-40b": "falcon",
}  # fmt: skip
CARD = [{"name": "card", "total_mib": 81920, "free_mib": 81000, "compute_capability": "8.9"}]
UNSIGNED = {"clip", "gptj", "gemma4-assistant"}
"""Without a model class, or a draft that does not load alone."""
SAME_CACHE = sorted(LIKE.keys() - {"gemma-2-9b", "gemma-3-4b"})


def _renamed(name):
    return _novelty(truth.header(name, "Q4_K_M"))


def _novelty(header):
    """The model's header as its makers would have it after a change that llama.cpp has not heard of."""
    known = header.metadata["general.architecture"]
    metadata = {
        key.replace(f"{known}.", "novelty.") if key.startswith(f"{known}.") else key: v for key, v in header.metadata.items()
    }
    return replace(header, metadata={**metadata, "general.architecture": "novelty"})


def _rows(name):
    return [
        row for row in truth.rows("memory")
        if (row["model"], row["ftype"]) == (name, "Q4_K_M") and "out" in row and "-fa" not in row["args"]
    ][:4]  # fmt: skip


@pytest.mark.parametrize(("name", "family"), LIKE.items())
def test_it_is_taken_for_the_family_whose_tensors_it_has(name, family):
    model = describe(_renamed(name))

    assert (model.architecture, model.drawn_as, model.known) == ("novelty", family, False)
    assert any(f"'{family}'" in assumption for assumption in model.assumptions)


@pytest.mark.parametrize("name", LIKE)
def test_what_it_takes_of_a_gpu_is_modelled_and_not_less_than_the_familys(name):
    for row in _rows(name):
        estimate = Estimator(describe(_renamed(name)), truth.machine(row["devices"]), truth.RUNNERS[row["runner"]])(
            truth.settings(row["args"])
        )
        ours = [truth.predicted(estimate, kind) for kind in (Kind.CONTEXT, Kind.COMPUTE)]
        told = [truth.told(row, kind) for kind in (Kind.CONTEXT, Kind.COMPUTE)]
        for device in {*told[0], *told[1]} & {"CUDA0", "CUDA1"}:
            assert sum(found.get(device, 0) for found in ours) >= sum(found.get(device, 0) for found in told)
        assert {part.basis for part in estimate.parts if part.kind is not Kind.OVERHEAD} == {Basis.MODELLED}


@pytest.mark.parametrize("name", SAME_CACHE)
def test_its_weights_and_cache_are_the_familys(name):
    for row in _rows(name):
        estimate = Estimator(describe(_renamed(name)), truth.machine(row["devices"]), truth.RUNNERS[row["runner"]])(
            truth.settings(row["args"])
        )
        for kind in (Kind.MODEL, Kind.CONTEXT):
            assert truth.predicted(estimate, kind) == truth.told(row, kind)


def test_windows_without_a_pattern_are_not_believed():
    """Which layers have one is not said, so every cache is as long as the context."""
    settings, known = truth.settings(["-c", "32768", "--swa-full"]), truth.model("gemma-3-4b", "Q4_K_M")
    model, runner = describe(_renamed("gemma-3-4b")), truth.RUNNERS["llama-server"]
    found = [Estimator(each, truth.machine([]), runner)(settings) for each in (known, model)]

    assert truth.predicted(found[0], Kind.CONTEXT) == truth.predicted(found[1], Kind.CONTEXT)


def test_no_cache_is_supposed_only_of_what_says_that_it_is_for_embeddings():
    header = _novelty(truth.header("bge-large", "Q4_K_M"))
    causal = {**header.metadata, "novelty.attention.causal": True, "novelty.pooling_type": 0}

    assert describe(header).memory == "none"
    assert describe(replace(header, metadata=causal)).memory != "none"


@pytest.mark.parametrize("name", truth.architectures())
def test_no_known_architecture_would_take_more_than_is_supposed_of_it_renamed(name):
    """Of caches and compute buffers, on the device and on the host."""
    known, runner = truth.header(f"tiny/{name}", "F32"), truth.RUNNERS["llama-server"]
    for args in (["-c", "8192", "-ngl", "1", "-fa", "off"], ["-c", "16384", "-np", "4"]):
        estimators = [Estimator(describe(each), truth.machine(CARD), runner) for each in (known, _novelty(known))]
        try:
            told, ours = (estimator(truth.settings(args)) for estimator in estimators)
        except RefusedError:
            continue
        for kind in (Kind.CONTEXT, Kind.COMPUTE):
            supposed = truth.predicted(ours, kind)
            assert all(supposed.get(device, 0) >= n for device, n in truth.predicted(told, kind).items())


@pytest.mark.parametrize("family", sorted(TABLE.keys() - UNSIGNED))
def test_every_architecture_with_tensors_of_its_own_can_be_the_nearest(family):
    """Its signature says what a file must have."""
    assert family in signatures()
