"""Adapters are held to what llama.cpp reserves with them: their products in the compute buffer, and their own buffers."""

from collections import Counter
from dataclasses import replace

import pytest

import adapter_support as adapters
import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.companions import Companions
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind

ROWS = adapters.ADAPTERS.answered
EVERY = max(1, truth.EVERY // 7)
"""FITPLUG_TRUTH_EVERY=1 tries every row."""


def _label(row):
    return f"{row['model']}-{len(row['devices'])}gpu {' '.join(row['args'])}"


@pytest.mark.parametrize("row", ROWS[::EVERY], ids=_label)
def test_compute_buffers_with_adapters_are_exact(row):
    """Dense, with experts, recurrent, latent; some weights or all, the embeddings too; one adapter or three."""
    estimate = adapters.estimate(row)
    held = Counter()
    for part in estimate.parts:
        if part.source == "adapter":
            held[part.device] += part.n_bytes

    assert truth.predicted(estimate, Kind.COMPUTE) == truth.told(row, "compute")
    assert dict(held) == adapters.told(row)
    assert {part.basis for part in estimate.parts if part.kind == Kind.COMPUTE} == {Basis.EXACT}


@pytest.mark.parametrize("row", adapters.ADAPTERS.refused, ids=_label)
def test_what_makes_llama_cpp_abort_is_refused(row):
    """Embeddings that are the output as well: the adapter of one fits the other's product no more."""
    with pytest.raises(RefusedError, match=r"llama\.cpp stops|llama\.cpp aborts|the same"):
        adapters.estimate(row)


@pytest.mark.parametrize("row", [row for row in ROWS if row["adapters"]][:: 3 * EVERY], ids=_label)
def test_leaving_out_repeated_layers_changes_nothing(row):
    """Layers that an adapter changes differ from those that it leaves alone."""
    model = adapters.model(row)
    beside = tuple(adapters.adapter(spec, model) for spec in row["adapters"])
    machine, runner = truth.machine(row["devices"]), truth.RUNNERS[row["runner"]]
    estimator = Estimator(model, machine, runner, Companions(adapters=beside))
    settings = replace(truth.settings(row["args"]), lora=("a.gguf",))
    setup = truth.setup(estimator, settings)

    short, full = (
        ComputeEstimator(model, machine, runner, adapters=beside, shorten=shorten).sizes(setup) for shorten in (True, False)
    )

    assert short == full


def test_what_measures_applies_no_adapter():
    """llama-fit-params knows --lora and never loads one."""
    row = next(row for row in ROWS if row["adapters"] and row["set"] == "truth")
    model = adapters.model(row)
    beside = Companions(adapters=tuple(adapters.adapter(spec, model) for spec in row["adapters"]))
    machine, settings = truth.machine(row["devices"]), truth.settings(row["args"])
    measuring = truth.RUNNERS["llama-fit-params"]

    alone = Estimator(model, machine, measuring)(settings)
    with_it = Estimator(model, machine, measuring, beside)(replace(settings, lora=("a.gguf",)))

    assert truth.predicted(with_it, Kind.COMPUTE) == truth.predicted(alone, Kind.COMPUTE)
