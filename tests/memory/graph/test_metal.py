"""What llama.cpp's own Metal backend allocates; its order is known but for caches that touch and views of weights."""

import pytest

import backends_support as backends
import truth_support as truth
from fitplug.memory.records import Kind

SAMPLE = [row for row in backends.sample("metal") if row["runner"] != "llama-fit-params"]


@pytest.fixture(scope="module")
def estimates():
    return [backends.estimator(row)(truth.settings(row["args"])) for row in SAMPLE]


def test_weights_caches_and_flash_attention_are_exact(estimates):
    """On the device and on the host."""
    for row, estimate in zip(SAMPLE, estimates, strict=True):
        for kind in (Kind.MODEL, Kind.CONTEXT):
            assert truth.predicted(estimate, kind) == truth.told(row, kind.value), backends.label(row)
        assert estimate.resolved.flash_attn == bool(row["out"]["fa"]), backends.label(row)


def test_compute_buffers_are_exact_in_nineteen_of_twenty_and_close_in_nearly_all(estimates):
    """To five percent in forty-nine of fifty; none is short by more than an eighth."""
    unlike = far = 0
    for row, estimate in zip(SAMPLE, estimates, strict=True):
        ours, theirs = truth.predicted(estimate, Kind.COMPUTE), truth.told(row, Kind.COMPUTE.value)
        unlike += ours != theirs
        far += ours != pytest.approx(theirs, rel=0.05)
        assert all(ours[device] > n * 7 / 8 for device, n in theirs.items()), backends.label(row)

    assert unlike * 20 <= len(SAMPLE)
    assert far * 50 <= len(SAMPLE)
