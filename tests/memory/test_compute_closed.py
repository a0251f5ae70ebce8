"""The closed forms, held to llama.cpp's answers as loosely as they are meant."""

import statistics

import truth_support as truth
from fitplug.memory.cache import cells
from fitplug.memory.compute_closed import closed_parts
from fitplug.memory.records import Basis


def _ratios():
    """Formula over truth, for every device of a sample of real models."""
    for row in truth.sample("memory", 29):
        if "error" in row:
            continue
        estimator, settings = truth.estimator(row), truth.settings(row["args"])
        placement, resolved, _ = estimator.static(settings)
        size = cells(estimator.model, resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
        parts = closed_parts(estimator.model, placement, resolved, settings, estimator.placed(placement, settings), size)
        assert {part.basis for part in parts} == {Basis.MODELLED}
        for device, told in truth.told(row, "compute").items():
            yield sum(part.n_bytes for part in parts if part.device == device) / told


def test_formulas_are_near_and_rather_too_large():
    """Half are within a fifth, and few are short: running out of memory is worse than leaving some free."""
    ratios = list(_ratios())

    assert 1 <= statistics.median(ratios) <= 1.2
    assert sum(ratio < 1 for ratio in ratios) <= 0.15 * len(ratios)
