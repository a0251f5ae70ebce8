"""An architecture that nobody knows is taken for the one it is most like."""

from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind
from fitplug.model.describe import describe

LIKE = {
    "llama-3.1-8b": "llama", "qwen3-4b": "qwen3", "qwen3-30b-a3b": "qwen3moe", "gemma-2-9b": "gemma2", "gemma-3-4b": "gemma3",
    "mixtral-8x7b": "llama", "deepseek-v2-lite": "deepseek2", "mamba2-2.7b": "mamba2", "lfm2-1.2b": "lfm2",
    "qwen3-next-80b-a3b": "qwen3next", "olmo-2-13b": "olmo2", "starcoder2-15b": "starcoder2", "falcon-40b": "falcon",
}  # fmt: skip
SAME_CACHE = sorted(LIKE.keys() - {"gemma-2-9b", "gemma-3-4b"})


def _renamed(name):
    """The model's header as its makers would have it after a change that llama.cpp has not heard of."""
    header = truth.header(name, "Q4_K_M")
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
    assert describe(_renamed("gemma-3-4b")).memory == "kv"
