"""From headers to models: llama.cpp's rules, on real headers and on impossible ones."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import truth_support as truth
from fitplug.errors import FitplugError, UnreadableError
from fitplug.extension import Architecture
from fitplug.formats.header import Header, Skipped, Tensor
from fitplug.model.architectures import ROWS, TABLE
from fitplug.model.describe import describe
from fitplug.model.layouts import GLM_INDEXER_BLOCKS

LLAMA = {
    "general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "llama.block_count": 8, "llama.context_length": 4096,
    "llama.embedding_length": 512, "llama.feed_forward_length": 1024, "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2, "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": Skipped("str", 1000),
}  # fmt: skip


def _as(architecture, **keys):
    """The metadata of another architecture with the same shape; None takes a key away."""
    metadata = {
        key.replace("llama.", f"{architecture}.", 1) if key.startswith("llama.") else key: v for key, v in LLAMA.items()
    }
    metadata["general.architecture"] = architecture
    for key, value in keys.items():
        metadata[f"{architecture}.{key.replace('__', '.')}"] = value
    return {key: value for key, value in metadata.items() if value is not None}


def _model(metadata, tensors=()):
    table = {name: Tensor(name, "f32", (32,), 128, 0) for name in tensors}
    return describe(Header(format="gguf", metadata=metadata, tensors=table, n_bytes=0))


@pytest.mark.parametrize("name", truth.architectures())
def test_llama_cpps_own_small_models_are_understood(name):
    """Nothing of what llama.cpp's tests write is refused or unknown."""
    model = truth.model(f"tiny/{name}", "F32")

    assert (model.known, model.refusals, model.assumptions) == (True, (), ())
    assert model.n_params == sum(t.n_elements for t in model.tensors.values())


def test_every_architecture_once():
    """Names are unique, and every row says which file it follows."""
    assert len(TABLE) == len(ROWS)
    assert all(row.path.startswith("src/models/") and row.name for row in ROWS)
    assert {row.name for row in ROWS if not row.loadable} == {"clip", "gptj"}


def test_scalars_stand_for_every_layer():
    """One head count for all, or an array with one for each."""
    scalar = _model(_as("llama"))
    array = _model(_as("llama", attention__head_count_kv=(2,) * 8))

    assert [layer.n_head_kv for layer in scalar.layers] == [layer.n_head_kv for layer in array.layers] == [2] * 8
    assert (scalar.n_vocab, scalar.layers[0].n_embd_head_k, scalar.tied_output) == (1000, 64, True)


def test_heads_of_all_layers_default_to_queries():
    """Without head_count_kv every query has a key of its own."""
    assert _model(_as("llama", attention__head_count_kv=None)).layers[3].n_embd_k_gqa == 512


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ({"attention__head_count_kv": (2,) * 7}, "7 entries where 8"),
        ({"attention__head_count": "eight"}, "wrong type"),
        ({"attention__head_count": -1}, "wrong type"),
        ({"rope__dimension_count": 32}, "32, 64 is expected"),
        ({"expert_count": 4}, "do not fit"),
        ({"expert_count": 4096, "expert_used_count": 2}, "4096 experts"),
        ({"nextn_predict_layers": 9}, "more MTP blocks"),
    ],
)
def test_what_llama_cpp_would_not_load_is_noted(keys, word):
    """The model can still be shown; the estimator refuses with this reason."""
    assert any(word in reason for reason in _model(_as("llama", **keys)).refusals)


@pytest.mark.parametrize("keys", [{"block_count": 0}, {"block_count": 513}, {"block_count": None}, {"embedding_length": "x"}])
def test_impossible_counts_end_the_reading(keys):
    """Without layers nothing can be said."""
    with pytest.raises(UnreadableError, match=next(iter(keys))):
        _model(_as("llama", **keys))


def test_nameless_and_unknown_architectures():
    """No name is an error; an unknown one is planned on stated assumptions."""
    with pytest.raises(UnreadableError, match=r"general\.architecture"):
        _model({key: value for key, value in LLAMA.items() if key != "general.architecture"})
    model = _model(_as("nobody-knows"))

    assert (model.known, model.memory, len(model.layers)) == (False, "kv", 8)
    assert "nobody-knows" in model.assumptions[0]


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ({"general.architecture": "llama", "general.type": "adapter"}, "--lora"),
        ({"general.architecture": "clip"}, "--mmproj"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.architecture": "flux"}, "stable-diffusion.cpp"),
        ({"general.architecture": "nobody"}, "'nobody'"),
    ],
)
def test_files_that_hold_no_language_model_are_named(metadata, word):
    with pytest.raises(UnreadableError, match=word):
        _model(metadata)


def test_plugins_win_over_the_table():
    """A plugin's architecture of the same name is asked first."""
    special = _model(_as("nobody-knows"))
    plugin = Architecture(names=["llama"], describe=lambda header: special)

    assert describe(Header(format="gguf", metadata=LLAMA, tensors={}, n_bytes=0), [plugin]) is special


def _windows(model):
    return [layer.is_swa for layer in model.layers]


@given(period=st.integers(0, 12), n=st.integers(1, 64))
def test_sliding_window_patterns(period, n):
    """Every period-th layer is dense; the first one of each with dense_first; 0 makes all windowed, 1 none."""
    keys = {"attention__sliding_window": 512, "attention__sliding_window_pattern": period, "block_count": n}
    last = _windows(_model(_as("gemma3", **keys)))
    first = _windows(_model(_as("laguna", **keys, leading_dense_block_count=0, expert_feed_forward_length=64)))

    assert last == [period == 0 or il % period < period - 1 for il in range(n)]
    assert first == [period == 0 or il % period != 0 for il in range(n)]


def test_a_pattern_in_the_file_comes_first():
    """An array says for each layer; the table's period is only a default."""
    pattern = (True, False, False, True, True, False, True, False)
    keys = {"attention__sliding_window": 512}

    assert _windows(_model(_as("gemma3", **keys, attention__sliding_window_pattern=pattern))) == list(pattern)
    assert _windows(_model(_as("gemma3", **keys))) == [True] * 5 + [False] + [True] * 2
    assert _model(_as("gemma3")).memory == "kv"


def test_windows_by_architecture():
    """Llama 4's length is fixed, Phi 3's is switched off, EXAONE 4 has one only with 64 layers."""
    llama4 = {"interleave_moe_layer_step": 1, "expert_feed_forward_length": 64}

    assert (_model(_as("llama4", **llama4)).n_swa, _model(_as("llama4", **llama4)).swa_type) == (8192, "chunked")
    assert _model(_as("llama4", **llama4, attention__sliding_window=0)).memory == "kv"
    assert _model(_as("phi3", attention__sliding_window=2047)).n_swa == 0
    assert _model(_as("exaone4", attention__sliding_window=4096)).memory == "kv"
    assert _model(_as("exaone4", attention__sliding_window=4096, block_count=64)).memory == "iswa"


def test_mtp_blocks_are_counted_and_have_no_cache():
    """In a plain run; DeepSeek 4 counts them only where they are in the file."""
    model = _model(_as("glm4", nextn_predict_layers=2))

    assert (model.n_layer_all, model.n_layer) == (8, 6)
    assert [layer.has_kv for layer in model.layers] == [True] * 6 + [False] * 2
    assert [layer.is_nextn for layer in model.layers[5:]] == [False, True, True]


def test_recurrent_layers():
    """By the absence of KV heads, or all but every n-th."""
    jamba = _model(
        _as("jamba", attention__head_count_kv=(0, 2) * 4, ssm__conv_kernel=4, ssm__inner_size=1024, ssm__state_size=16,
            ssm__time_step_rank=32)
    )  # fmt: skip
    qwen = truth.model("tiny/qwen3next-moe", "F32")

    assert [layer.is_recurrent for layer in jamba.layers] == [True, False] * 4
    assert [layer.has_kv for layer in jamba.layers] == [False, True] * 4
    assert {(layer.n_embd_r, layer.n_embd_s) for layer in jamba.layers if layer.is_recurrent} == {(3 * 1024, 16 * 1024)}
    assert [layer.is_recurrent for layer in qwen.layers] == [not layer.has_kv for layer in qwen.layers]
    assert {layer.is_recurrent for layer in qwen.layers} == {True, False}


def test_glms_own_indexer_table():
    """Two full indexers, then one of every four, in the long-context model; all of them in the earlier ones."""
    mla = {
        "attention__key_length_mla": 192, "attention__value_length_mla": 128, "attention__indexer__key_length": 128,
        "attention__indexer__top_k": 8, "attention__indexer__head_count": 4, "expert_count": 4, "expert_used_count": 2,
        "expert_feed_forward_length": 64, "block_count": 78,
    }  # fmt: skip
    long = _model(_as("glm-dsa", **mla, context_length=1 << 20))
    short = _model(_as("glm-dsa", **mla))

    assert [il for il in range(78) if long.layers[il].n_embd_indexer][:5] == [0, 1, 2, 6, 10]
    assert sum(bool(layer.n_embd_indexer) for layer in long.layers) == 2 + (GLM_INDEXER_BLOCKS - 2) // 4
    assert all(layer.n_embd_indexer == 128 for layer in short.layers)


def test_loops_and_routers_add_layers():
    """Nanbeige runs its blocks several times with a cache each; Granite's router is one more block with one head."""
    looped = _model(_as("nanbeige", num_loops=3))
    routed = _model(_as("graniteswitch", logit_scale=1.0))

    assert (looped.n_layer_all, looped.hparam("n_layer_phys"), sum(layer.has_kv for layer in looped.layers)) == (24, 8, 24)
    assert (routed.n_layer_all, routed.layers[8].n_head_kv, routed.layers[8].has_kv) == (9, 1, True)


def test_old_files_with_separate_experts_are_refused():
    """Mixtral files of 2023 hold one tensor an expert."""
    assert any("one by one" in reason for reason in _model(LLAMA, ["blk.0.ffn_gate.3.weight"]).refusals)


KEYS = st.sampled_from(
    ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count", "expert_count",
     "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window", "vocab_size",
     "attention.sliding_window_pattern", "attention.shared_kv_layers", "nextn_predict_layers", "expert_used_count",
     "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "attention.indexer.types", "attention.compress_ratios",
     "attention.recurrent_layers", "full_attention_interval", "num_loops", "rope.dimension_sections", "ple.layers",
     "deepstack_mapping", "wkv.head_size", "token_shift_count", "shortconv.l_cache", "kda.head_dim", "target_layers"]
)  # fmt: skip
NUMBERS = st.one_of(st.integers(-2, 600), st.integers(-(1 << 70), 1 << 70))
VALUES = st.one_of(
    NUMBERS, st.booleans(), st.floats(), st.text(max_size=4), st.lists(NUMBERS, max_size=9).map(tuple),
    st.lists(st.text(max_size=2), max_size=3).map(tuple), st.builds(Skipped, st.just("u32"), st.integers(0, 1 << 62)),
)  # fmt: skip


@given(architecture=st.sampled_from(sorted(TABLE)), keys=st.dictionaries(KEYS, VALUES, max_size=8))
def test_hostile_metadata_is_a_model_or_one_line(architecture, keys):
    """Whatever the values, describing ends with a model of at most 512 layers or with an error of fitplug's own."""
    metadata = _as(architecture) | {f"{architecture}.{key}": value for key, value in keys.items()}
    with contextlib.suppress(FitplugError):
        assert len(_model(metadata).layers) <= 512
