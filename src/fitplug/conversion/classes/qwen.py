"""Qwen, its mixtures, its hybrids with linear attention, and its vision and audio models' text parts (conversion/qwen*.py)."""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import (
    Key,
    Keys,
    Row,
    constant,
    dropped,
    halved,
    or_else,
    renamed,
    rope_width,
    split,
    squeezed,
    turned,
)
from fitplug.formats.header import Skipped

EXPERTS = (
    renamed(r"(mlp\.experts\.(?:gate_up|down)_proj)$", r"\1.weight"),
    halved(r"experts\.gate_up_proj\.weight$", "experts.gate_proj.weight", "experts.up_proj.weight"),
)
"""Experts that lie in one tensor already (Qwen2MoeModel.modify_tensors)."""
TURNED_EXPERTS = (EXPERTS[0], turned(r"mlp\.experts\.(gate_up|down)_proj\.weight$"), EXPERTS[1])
MOE_KEYS: Mapping[str, Key] = {
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}  # fmt: skip
QWEN3 = Row("qwen3")
QWEN3_MOE = Row("qwen3moe", MOE_KEYS, steps=EXPERTS)


def _deepstack(config: Config) -> Keys:
    return {"n_deepstack_layers": len(config.items("vision_config.deepstack_visual_indexes"))}


_MTP = {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head.norm"}


def _mtp(shape: Shape, config: Config) -> Iterable[Shape]:
    """mtp.* is the block after the last one (_QwenMtpMixin.filter_tensors)."""
    name = re.sub(r"^model\.mtp\.", "mtp.", shape.name)
    layer = re.fullmatch(r"mtp\.layers\.(\d+)\.(.+)", name)
    if layer:
        name = f"model.layers.{config.n_layer + int(layer[1])}.{layer[2]}"
    elif (other := re.fullmatch(r"mtp\.(\w+)\.(\w+)", name)) and other[1] in _MTP:
        name = f"model.layers.{config.n_layer}.{_MTP[other[1]]}.{other[2]}"
    yield shape._replace(name=name)


def _key_rows(config: Config) -> int:
    return config.number("linear_num_key_heads") * config.number("linear_key_head_dim")


def _value_rows(config: Config) -> int:
    return config.number("linear_num_value_heads") * config.number("linear_value_head_dim")


def _recurrent(config: Config) -> Keys:
    """Which layers are linear attention; the blocks of MTP are not."""
    types = config.items("layer_types")
    if not types:
        return {}
    further = (False,) * (config.n_blocks - config.n_layer)
    return {"attention.recurrent_layers": (*(kind == "linear_attention" for kind in types), *further)}


_NEXT_KEYS: Mapping[str, Key] = {
    **MOE_KEYS, "ssm.conv_kernel": "linear_conv_kernel_dim", "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads", "ssm.time_step_rank": "linear_num_value_heads", "ssm.inner_size": _value_rows,
    "full_attention_interval": or_else(4, "full_attention_interval"), "rope.dimension_count": rope_width(0.25),
}  # fmt: skip
_NEXT_STEPS = (
    _mtp, renamed(r"\.dt_bias$", ".dt_proj.bias"), squeezed("conv1d"),
    split(r"in_proj_qkvz\.", ("in_proj_qkv.", lambda c: 2 * _key_rows(c) + _value_rows(c)), ("in_proj_z.", _value_rows)),
    *EXPERTS,
)  # fmt: skip
QWEN3_NEXT = Row(
    "qwen3next", _NEXT_KEYS, derive=(_recurrent,), steps=_NEXT_STEPS, nextn=("mtp_num_hidden_layers", "mtp.layers")
)
_SECTIONS: Mapping[str, Key] = {"rope.dimension_sections": constant((11, 11, 10, 0))}
"""Of Qwen3.5, where the checkpoint does not give its own (_Qwen35MRopeMixin)."""
QWEN35 = QWEN3_NEXT._replace(architecture="qwen35", keys={**_NEXT_KEYS, **_SECTIONS})
QWEN35_MOE = QWEN35._replace(architecture="qwen35moe")
_THINKER = (renamed(r"thinker\.", ""),)
_QWEN3_VL = Row("qwen3vl", derive=(_deepstack,), steps=_THINKER)
_QWEN3_VL_MOE = Row("qwen3vlmoe", MOE_KEYS, derive=(_deepstack,), steps=(*_THINKER, *TURNED_EXPERTS))
_NO_DEEPSTACK: Mapping[str, Key] = {"n_deepstack_layers": constant(0)}
_QWEN2_VL = Row("qwen2vl", steps=_THINKER)

_TABLES = {
    "layer_multipliers": "layer_multipliers",
    "head_offsets": "ngram_heads_offsets",
    "head_vocab_sizes": "ngram_heads_vocab_sizes",
}
"""Numbers of 64 bits that are tensors in the checkpoint and keys in GGUF: their values lie in the weights."""
_SHARD = ".ngram_embedding.shard_"


def _n_grams(config: Config) -> Keys:
    """Embeddings of n-grams in one layer, where there are such (Qwen4ExpTextModel.set_gguf_parameters)."""
    layers, ends = config.numbers("ple_layer_ids"), config.numbers("eos_token_id")
    if not layers:
        return {}
    tables = {
        f"ple.{key}": next(
            (t.shape[0] for n, t in config.tensors.items() if n.endswith(f"ple_embedding.{name}") and t.shape), 0
        )
        for key, name in _TABLES.items()
    }
    width = next((t.shape[0] for n, t in config.tensors.items() if _SHARD in n and t.shape), None)
    image = config.get("image_token_id")
    return {
        "ple.layers": tuple(i - 1 for i in layers), "ple.ngram_size": config.number("ngram_size"),
        "ple.heads_per_ngram": config.number("heads_per_ngram"), "ple.conv_kernel": config.number("ple_conv_kernel_size"),
        "ple.eos_token_id": ends[-1] if ends else config.number("eos_token_id"),
        **({"ple.image_token_id": image} if isinstance(image, int) else {}),
        **({"embedding_length_per_layer_input": width} if width is not None else {}),
        **{key: Skipped("u64", n, n_bytes=8 * n) for key, n in tables.items()},
    }  # fmt: skip


def _ratios(config: Config) -> Keys:
    ratio = config.number("indexer_compress_ratio")
    return {
        "attention.compress_ratios": tuple(ratio if kind == "full_attention" else 0 for kind in config.items("layer_types"))
    }


def _n_gram_tensors(shape: Shape, config: Config) -> Iterable[Shape]:
    """Shards of the table become one; one projection is the indexer's query and key (Qwen4ExpTextModel.modify_tensors)."""
    index = re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.indexer\.index_qk_proj\.weight", shape.name)
    if shape.name.endswith(tuple(f"ple_embedding.{name}" for name in _TABLES.values())):
        return
    if _SHARD in shape.name:
        if f"{_SHARD}0." in f"{shape.name}.":
            rows = sum(tensor.shape[-1] for name, tensor in config.tensors.items() if _SHARD in name and tensor.shape)
            yield shape._replace(name="per_layer_token_embd.weight", shape=(shape.shape[0], rows))
    elif index and len(shape.shape) == 2:
        query = min(config.number("indexer_n_heads") * config.number("indexer_head_dim"), shape.shape[1])
        for part, n in (("q", query), ("k", shape.shape[1] - query)):
            yield shape._replace(name=f"blk.{index[1]}.indexer.{part}_proj.weight", shape=(shape.shape[0], n))
    else:
        yield shape


_QWEN4_EXP = QWEN35._replace(
    architecture="qwen4exp", nextn=(), derive=(_recurrent, _ratios, _n_grams),
    keys={
        **_NEXT_KEYS, **_SECTIONS, "hyper_connection.count": "hc_count", "hyper_connection.low_rank": "hc_lowrank",
        "attention.indexer.head_count": "indexer_n_heads", "attention.indexer.key_length": "indexer_head_dim",
        "attention.indexer.top_k": "indexer_budget",
    },
    steps=(dropped(r"^(model\.)?mtp\."), _n_gram_tensors, *_NEXT_STEPS),
)  # fmt: skip


def _spoken(config: Config) -> int:
    """Words, and then codes of sound."""
    return config.number("text_vocab_size") + config.number("vocab_size")


def _spoken_words(config: Config) -> Keys:
    """Only codes that mean something may be said (Qwen3TTSTalkerModel.set_gguf_parameters)."""
    n, end = _spoken(config), config.number("text_vocab_size") + config.number("codec_eos_token_id")
    return {
        "tokenizer.ggml.suppress_tokens": tuple(i for i in range(n - 1024, n) if i != end), "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_eos_token": False,
    }  # fmt: skip


def _one_table(shape: Shape, config: Config) -> Iterable[Shape]:
    """Embeddings of words are folded with their projection, those of codes follow (Qwen3TTSTalkerModel.modify_tensors)."""
    if shape.name == "model.text_embedding.weight":
        yield shape._replace(name="token_embd.weight", shape=(config.number("hidden_size"), _spoken(config)))
    elif shape.name != "model.codec_embedding.weight" and not shape.name.startswith("text_projection."):
        yield shape


_QWEN3_TTS = Row(
    "qwen3tts", prefix="talker.", n_words=_spoken, derive=(_spoken_words,),
    steps=(dropped(r"^code_predictor\."), _one_table, renamed(r"^codec_head\.weight$", "output.weight")),
)  # fmt: skip

ROWS: Mapping[str, Row] = {
    "Qwen3TTSForConditionalGeneration": _QWEN3_TTS,
    **dict.fromkeys(("Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM"), _QWEN4_EXP),
    "QWenLMHeadModel": Row("qwen"),
    **dict.fromkeys(
        ("Qwen2ForCausalLM", "Qwen2AudioForConditionalGeneration", "KORMoForCausalLM", "AudioFlamingo3ForConditionalGeneration",
         "DotsOCRForCausalLM"), Row("qwen2"),
    ),
    "Qwen2Model": Row("qwen2", steps=(renamed("^", "model."),)),
    **dict.fromkeys(
        ("Qwen2VLModel", "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5OmniModel"), _QWEN2_VL
    ),
    "Qwen2MoeForCausalLM": Row("qwen2moe", MOE_KEYS, steps=EXPERTS),
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3Model": QWEN3,
    "StepVLForConditionalGeneration": QWEN3,
    "Qwen3MoeForCausalLM": QWEN3_MOE,
    "RND1": Row("rnd1", {
        **MOE_KEYS, "attention.causal": constant(False), "tokenizer.ggml.mask_token_id": "mask_token_id"}, steps=EXPERTS),
    "DreamModel": Row("dream", {"attention.causal": constant(False), "tokenizer.ggml.mask_token_id": "mask_token_id"}),
    "Qwen3NextForCausalLM": QWEN3_NEXT,
    "Qwen3_5ForCausalLM": QWEN35,
    "Qwen3_5ForConditionalGeneration": QWEN35,
    "MiniCPMV4_6ForConditionalGeneration": QWEN35._replace(steps=(dropped(r"^model\.merger\.|^mtp"), *_NEXT_STEPS)),
    "Qwen3_5MoeForCausalLM": QWEN35_MOE,
    "Qwen3_5MoeForConditionalGeneration": QWEN35_MOE,
    "Qwen3VLForConditionalGeneration": _QWEN3_VL,
    "Qwen3ASRForConditionalGeneration": Row("qwen3vl", _NO_DEEPSTACK, steps=_THINKER),
    "Qwen3VLMoeForConditionalGeneration": _QWEN3_VL_MOE,
    "Qwen3OmniMoeForConditionalGeneration": _QWEN3_VL_MOE._replace(keys={**MOE_KEYS, **_NO_DEEPSTACK}, derive=()),
}  # fmt: skip
