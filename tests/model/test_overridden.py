"""Metadata that --override-kv replaces counts where llama.cpp's loader takes it, and nowhere else."""

import gzip
import json

import pytest

import adapter_support as adapters
import flags_support as flags
import truth_support as truth
from fitplug.errors import RefusedError, UnreadableError
from fitplug.formats.header import Header
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Kind
from fitplug.model.describe import describe
from fitplug.model.overridden import overridden
from fitplug.settings import KvOverride

ROWS = [json.loads(line) for line in gzip.decompress((flags.FLAGS.folder / "overrides.jsonl.gz").read_bytes()).splitlines()]


def _estimate(row):
    settings = flags.settings(row["args"])
    model = describe(adapters.model(row).header, (), settings.kv_overrides)
    return Estimator(model, truth.machine(row["devices"]), truth.RUNNERS[row["runner"]])(settings)


@pytest.mark.parametrize("row", [row for row in ROWS if "out" in row], ids=flags.label)
def test_every_byte_is_llama_cpps(row):
    """Of models with another number of experts, another window or length, another pooling."""
    estimate = _estimate(row)

    for kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE):
        assert truth.predicted(estimate, kind) == truth.told(row, kind)


@pytest.mark.parametrize("row", [row for row in ROWS if "error" in row], ids=flags.label)
def test_what_llama_cpp_does_not_load_so_is_refused(row):
    """Other widths or numbers of layers than the tensors have."""
    with pytest.raises((RefusedError, UnreadableError)):
        _estimate(row)


def _told(*overrides, **metadata):
    header = Header(
        format="gguf", metadata={key.replace("_", "."): value for key, value in metadata.items()}, tensors={}, n_bytes=0
    )
    return dict(overridden(header, [KvOverride(*each) for each in overrides]).metadata)


def test_only_values_of_the_same_kind_are_replaced():
    """GGUFMeta::GKV::validate_override; arrays are read without asking."""
    assert _told(("a", 2), a=1) == {"a": 2}
    assert _told(("a", 2.0), a=1) == {"a": 1}
    assert _told(("a", True), a=1) == {"a": 1}
    assert _told(("a", 1), a=False) == {"a": False}
    assert _told(("a", "y"), a="x") == {"a": "y"}
    assert _told(("a", 2), a=(1, 1)) == {"a": (1, 1)}


def test_of_two_for_one_key_the_first_counts():
    """std::unordered_map::insert keeps what is there."""
    assert _told(("a", 2), ("a", 3), a=1) == {"a": 2}
    assert _told(("a", 2.0), ("a", 3), a=1) == {"a": 1}


def test_a_key_that_is_not_there_is_taken_unless_it_may_be_an_array():
    """get_key takes the override alone; get_key_or_arr looks into the file first."""
    assert _told(("llama.pooling_type", 3)) == {"llama.pooling_type": 3}
    assert _told(("llama.expert_used_count", 3), ("x.attention.head_count", 4)) == {}
    assert _told(("llama.pooling_type", 3.0), ("llama.rope.freq_base", 3)) == {}
    assert _told(("llama.rope.freq_base", 3.0)) == {"llama.rope.freq_base": 3.0}
