"""What a server keeps in the host's memory later is told as a range, and counted nowhere."""

from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.memory.cache import cache_tensors, cells
from fitplug.memory.estimate import Estimator
from fitplug.memory.kept import kept, kept_notes
from fitplug.memory.sizes import alloc_size
from fitplug.settings import Settings
from fitplug.units import GIB, MIB

SERVER = replace(truth.RUNNERS["llama-server"], prompt_cache_mib=8192, ctx_checkpoints=32)
MACHINE = truth.machine([{"name": "a", "total_mib": 24000, "free_mib": 23000, "compute_capability": "8.9"}])
PLAIN, WINDOWED, RECURRENT = (
    truth.model("llama-3.1-8b", "Q4_K_M"),
    truth.model("gemma-3-4b", "Q4_K_M"),
    truth.model("qwen3-next-80b-a3b", "Q4_K_M"),
)


def _kept(model, runner=SERVER, **settings):
    estimate = Estimator(model, MACHINE, runner)(Settings(n_ctx=8192, **settings))
    return kept(model, estimate, runner), estimate


def test_prompts_fill_what_the_program_or_the_user_says():
    assert _kept(PLAIN)[0].prompts == 8192 * MIB
    assert _kept(PLAIN, cache_ram_mib=512)[0].prompts == 512 * MIB
    assert _kept(PLAIN, cache_ram_mib=0)[0].prompts == 0
    assert _kept(PLAIN, cache_ram_mib=-1)[0].prompts is None


def test_checkpoints_are_copies_of_what_cannot_be_rolled_back():
    """Nothing of ordinary caches; of windows what one slot has of them; of states all; as often as there are slots."""
    found, estimate = _kept(WINDOWED, n_seq_max=3)
    one = replace(estimate.resolved, n_seq_max=1, n_stream=1)
    size = cells(WINDOWED, one, kv_unified=False, swa_full=False)
    windows = sum(alloc_size(t.type, t.shape) for t in cache_tensors(WINDOWED, one, size) if WINDOWED.layers[t.il].is_swa)

    assert _kept(PLAIN)[0].checkpoints == 0
    assert found.checkpoints == 32 * 3 * windows > 0
    assert _kept(WINDOWED, swa_full=True)[0].checkpoints == 0
    assert _kept(WINDOWED, ctx_checkpoints=2)[0].checkpoints * 3 * 16 == found.checkpoints
    states = sum(p.n_bytes for p in _kept(RECURRENT)[1].parts if p.source == "recurrent state")
    assert _kept(RECURRENT, ctx_checkpoints=1)[0].checkpoints == states


@pytest.mark.parametrize("runner", [truth.RUNNERS["llama-cpp-python"], truth.RUNNERS["llama-fit-params"]])
def test_other_programs_keep_nothing(runner):
    assert _kept(WINDOWED, runner)[0][:2] == (0, 0)


def test_embeddings_leave_no_prompts_behind():
    assert _kept(WINDOWED, embedding=True)[0][:2] == (0, 0)


def test_a_note_says_when_the_host_has_less_than_that():
    found, estimate = _kept(PLAIN)

    assert not any("more than" in note for note in kept_notes(found, estimate, 9 * GIB))
    assert any("more than the 7.00 GiB" in note for note in kept_notes(found, estimate, 7 * GIB))
    unlimited = list(kept_notes(*_kept(PLAIN, cache_ram_mib=-1), 9 * GIB))
    assert len(unlimited) == 1
    assert "1.00 GiB" in unlimited[0]  # as many tokens as the context has, which the cache takes that for


def test_nothing_of_it_is_counted():
    """The parts are those of llama.cpp's own breakdown whatever the limits are."""
    few, many = (_kept(WINDOWED, cache_ram_mib=mib, ctx_checkpoints=n)[1].parts for mib, n in ((0, 0), (1 << 20, 999)))

    assert few == many
