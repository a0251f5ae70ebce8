"""Laws of the cache and of the recurrent states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.cache import cache_tensors, cells
from fitplug.memory.context import resolve
from fitplug.memory.sizes import alloc_size, row_padding_bytes, row_size
from fitplug.settings import CACHE_TYPES, Settings

SERVER, BATCH = truth.RUNNERS["llama-server"], truth.RUNNERS["llama-cpp-python"]
KINDS = {
    "kv": "tiny/llama-dense", "iswa": "tiny/gemma3-dense", "recurrent": "tiny/mamba2-dense", "hybrid": "tiny/jamba-dense",
    "dsa": "tiny/deepseek32-moe", "msa": "tiny/minimax-m3-moe", "dsv4": "tiny/deepseek4-moe",
    "hybrid_idx": "tiny/glm5-next-moe", "dsa_iswa": "tiny/dots3note-moe",
}  # fmt: skip
models = st.sampled_from(sorted(KINDS.values())).map(lambda name: truth.model(name, "F32"))
contexts = st.integers(1, 1 << 20)
sequences = st.integers(1, 64)


def _resolve(model, **settings):
    chosen = Settings(**settings)
    return resolve(model, chosen, SERVER, 99), chosen


def _n_bytes(model, **settings):
    resolved, chosen = _resolve(model, **settings)
    size = cells(model, resolved, kv_unified=chosen.kv_unified, swa_full=chosen.swa_full)
    found = {}
    for tensor in cache_tensors(model, resolved, size):
        kind = "state" if tensor.part in ("r", "s", "ple", "state_kv", "state_score") else "kv"
        found[kind] = found.get(kind, 0) + alloc_size(tensor.type, tensor.shape)
    return found.get("kv", 0), found.get("state", 0)


@pytest.mark.parametrize(("kind", "name"), KINDS.items())
def test_every_kind_is_covered(kind, name):
    """The models of these laws are of the kinds they stand for."""
    assert truth.model(name, "F32").memory == kind


@given(model=models, n_ctx=contexts, more=st.integers(0, 1 << 18), n=sequences)
def test_longer_contexts_never_take_less(model, n_ctx, more, n):
    """And the state does not depend on the context."""
    (kv, state), (kv_more, state_more) = (_n_bytes(model, n_ctx=c, n_seq_max=n) for c in (n_ctx, n_ctx + more))

    assert kv <= kv_more
    assert state == state_more


@given(model=models, n_ctx=contexts, n=sequences)
def test_states_are_one_a_sequence(model, n_ctx, n):
    """n sequences have n times the state of one."""
    assert _n_bytes(model, n_ctx=n_ctx, n_seq_max=n)[1] == n * _n_bytes(model, n_ctx=n_ctx)[1]


@given(model=models, n_ctx=contexts, n=sequences)
def test_a_unified_cache_never_shrinks_with_sequences(model, n_ctx, n):
    """Windows grow with the sequences that share a cache."""
    kv, more = (_n_bytes(model, n_ctx=n_ctx, n_seq_max=k, kv_unified=True)[0] for k in (n, n + 1))

    assert kv <= more


@given(model=models, n_ctx=contexts, n=sequences, unified=st.booleans())
def test_full_windows_hold_at_least_what_cut_ones_do(model, n_ctx, n, unified):
    """--swa-full never takes less."""
    cut, full = (_n_bytes(model, n_ctx=n_ctx, n_seq_max=n, kv_unified=unified, swa_full=f)[0] for f in (False, True))

    assert cut <= full


@given(n_ctx=contexts, n=sequences, unified=st.booleans(), batch=st.integers(64, 8192), ubatch=st.integers(1, 8192))
def test_the_contexts_arithmetic(n_ctx, n, unified, batch, ubatch):
    """Rounded up to 256 cells; batches never longer than what they are cut from."""
    resolved, _ = _resolve(
        truth.model("tiny/llama-dense", "F32"), n_ctx=n_ctx, n_seq_max=n, kv_unified=unified, n_batch=batch, n_ubatch=ubatch
    )

    assert resolved.n_ctx_seq % 256 == 0
    assert resolved.n_ctx == resolved.n_ctx_seq * (1 if unified else n)
    assert resolved.n_ctx >= n_ctx
    assert resolved.n_ubatch <= resolved.n_batch <= n_ctx
    assert resolved.n_outputs_max == n


@given(n=st.integers(2, 64), data=st.data())
def test_a_batch_that_cannot_hold_every_sequence_is_refused(n, data):
    """llama.cpp aborts: one output for each is reserved at the start."""
    batch = data.draw(st.integers(1, n - 1))

    with pytest.raises(RefusedError, match="-np"):
        _resolve(truth.model("tiny/llama-dense", "F32"), n_ctx=8192, n_seq_max=n, n_batch=batch)


def test_types_in_order_of_size():
    """A wider type never makes a smaller cache."""
    sizes = {t: _n_bytes(truth.model("llama-3.1-8b", "Q4_K_M"), n_ctx=8192, type_k=t, type_v=t)[0] for t in CACHE_TYPES}
    order = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "f32"]

    assert [sizes[t] for t in order] == sorted(sizes[t] for t in order)
    assert sizes["bf16"] == sizes["f16"] == 2 * 1024 * 32 * 8192 * 2


def test_an_encoder_reserves_all_outputs():
    """And so does a runner that asks for the whole batch."""
    model = truth.model("tiny/llama-dense", "F32")

    assert resolve(model, Settings(n_ctx=4096, n_batch=1024), BATCH, 99).n_outputs_max == 1024


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [
        ("tiny/llama-dense", {"type_v": "q8_0", "flash_attn": "off"}, "flash attention"),
        ("tiny/grok-moe", {"type_v": "q8_0", "type_k": "q8_0"}, "cannot use it"),
        ("tiny/laguna-moe", {"type_k": "q8_0"}, "divide"),
        ("tiny/deepseek2-moe", {"type_k": "f16", "type_v": "f32"}, "same"),
        ("tiny/llama-dense", {"type_k": "q2_K"}, "-ctk"),
        ("tiny/llama-dense", {"n_seq_max": 257}, "-np"),
        ("tiny/llama-dense", {"n_ctx": 1 << 40}, "too long"),
        ("tiny/llama-dense", {"n_batch": 0, "n_ubatch": 0}, "-b"),
    ],
)
def test_refusals_name_their_cause(name, settings, word):
    """Combinations that llama.cpp does not start with."""
    with pytest.raises(RefusedError, match=word):
        _resolve(truth.model(name, "F32"), **{"n_ctx": 4096, **settings})


@given(n=st.integers(1, 1 << 14).map(lambda n: 32 * n), n_rows=st.integers(1, 64))
def test_quantised_rows_take_up_to_512_more(n, n_rows):
    """On a backend with row padding, once a tensor; floats never do."""
    extra = alloc_size("q8_0", (n, n_rows), 512) - alloc_size("q8_0", (n, n_rows))

    assert extra == row_padding_bytes("q8_0", n, 512) == row_size("q8_0", -n % 512)
    assert row_padding_bytes("f16", n, 512) == 0
