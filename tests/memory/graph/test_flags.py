"""Options that llama-server has besides are held to what llama.cpp takes with them: embeddings, and where weights lie."""

import pytest

import flags_support as flags
import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind
from fitplug.memory.targets import HANDED_OVER

ROWS = flags.FLAGS.answered
EVERY = max(1, truth.EVERY // 6)
"""FITPLUG_TRUTH_EVERY=1 tries every row."""
EMBEDDING = [row for row in ROWS if {"--embeddings", "--rerank"} & {*row["args"]}]


@pytest.mark.parametrize("row", ROWS[::EVERY], ids=flags.label)
def test_every_byte_is_llama_cpps(row):
    """Dense, with experts, recurrent, latent, encoders: weights, caches and compute buffers on every device and the host."""
    estimate = flags.estimate(row)

    for kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE):
        assert truth.predicted(estimate, kind) == truth.told(row, kind)
    assert {part.basis for part in estimate.parts if part.kind == Kind.COMPUTE} <= {Basis.EXACT}


@pytest.mark.parametrize("row", EMBEDDING[::EVERY], ids=flags.label)
def test_the_outputs_of_embeddings_are_counted_where_llama_cpp_counts_them_nowhere(row):
    """Every token of a batch has its logits and its embedding in the host's memory (llama_context::output_reserve)."""
    found = [part for part in flags.estimate(row).parts if part.source == HANDED_OVER]

    assert [part.n_bytes for part in found] == [row["out"]["outputs"]]
    assert {part.kind for part in found} == {Kind.OVERHEAD}


@pytest.mark.parametrize("row", flags.FLAGS.refused[::EVERY], ids=flags.label)
def test_what_llama_cpp_refuses_or_aborts_on_is_refused(row):
    """Mean pooling where sequences do not divide a micro-batch, and what is refused without these options, too."""
    with pytest.raises(RefusedError):
        flags.estimate(row)


@pytest.mark.parametrize("row", EMBEDDING[:: 5 * EVERY], ids=flags.label)
def test_leaving_out_repeated_layers_changes_nothing(row):
    """Pooling comes after the last layer."""
    short, full = truth.short_and_full(flags.estimator(row), flags.settings(row["args"]))

    assert short == full


@pytest.mark.parametrize(("model", "words", "told"), [
    ("llama-3.1-8b", "--embeddings", True), ("llama-3.1-8b", "--embeddings --pooling last", False),
    ("llama-3.1-8b", "--rerank", False), ("llama-3.1-8b", "--embeddings -b 4096 -ub 4096", False),
    ("llama-3.1-8b", "-ub 64", False),
    ("bge-large", "--rerank -ub 64", True), ("bge-large", "--embeddings --pooling last -ub 64", True),
])  # fmt: skip
def test_a_note_says_how_long_an_input_may_be(model, words, told):
    """All of it in one micro-batch, unless the last token is read from a cache (server_slot::can_split)."""
    estimator = Estimator(truth.model(model, "Q4_K_M"), truth.machine([]), truth.RUNNERS["llama-server"])
    notes = estimator(flags.settings(["-c", "4096", *words.split()])).notes

    assert any("at most" in note and "-ub" in note for note in notes) == told
