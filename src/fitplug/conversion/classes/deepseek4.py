"""DeepSeek V4, and the draft that lies in its checkpoints (conversion/deepseek.py, DeepseekV4Model)."""

from collections.abc import Mapping

from fitplug.conversion.classes.deepseek import INDEXER
from fitplug.conversion.config import Config
from fitplug.conversion.dequantize import Method
from fitplug.conversion.row import Class, Key, Row, dropped, each, placed, renamed
from fitplug.errors import FitplugError
from fitplug.formats.header import Tensor

_EXPERTS = Method(
    r"\.scale",
    packed=((r"(\.ffn\.experts\.\d+\.w[123]\.weight)$", r"\1"),),
    shape=lambda n, _: (n[0] * 2, *n[1:]),
    type="mxfp4",
)
"""Experts in MXFP4, which stay so; all else in FP8 or as it is (dequant_model, _write_mxfp4_expert_tensor)."""


def _stored(_: Config, tensors: Mapping[str, Tensor]) -> Method:
    """The converter reads experts in MXFP4 only."""
    for name, tensor in tensors.items():
        if ".ffn.experts." not in name or not name.endswith(".weight"):
            continue
        if tensor.type not in ("u8", "i8") or f"{name.removesuffix('weight')}scale" not in tensors:
            raise FitplugError(f"{name[:80]} is no MXFP4: llama.cpp's converter reads experts of this model in MXFP4 only")
    return _EXPERTS


KEYS: Mapping[str, Key] = {
    **INDEXER, "rope.dimension_count": "qk_rope_head_dim", "attention.q_lora_rank": "q_lora_rank",
    "attention.sliding_window": "sliding_window", "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts", "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob", "swiglu_clamp_exp": each("swiglu_limit"),
    "swiglu_clamp_shexp": each("swiglu_limit"), "attention.output_group_count": "o_groups",
    "attention.output_lora_rank": "o_lora_rank", "attention.compress_ratios": "compress_ratios",
    "attention.compress_rope_freq_base": "compress_rope_theta", "hyper_connection.count": "hc_mult",
    "hyper_connection.sinkhorn_iterations": "hc_sinkhorn_iters", "hyper_connection.epsilon": "hc_eps",
    "hash_layer_count": "num_hash_layers",
    "embedding_length_out": lambda c: c.number("hidden_size") * c.number("hc_mult"),
}  # fmt: skip
_HYPER = {f"hc_{part}_{kind}": f"hc_{part}_{kind}.weight" for part in ("attn", "ffn") for kind in ("fn", "base", "scale")}
_NAMES: Mapping[str, str] = {
    **_HYPER, "attn.attn_sink": "attn_sinks.weight", "attn.wq_a.weight": "attn_q_a.weight",
    "attn.wq_b.weight": "attn_q_b.weight",
    "attn.q_norm.weight": "attn_q_a_norm.weight", "attn.wkv.weight": "attn_kv.weight",
    "attn.kv_norm.weight": "attn_kv_a_norm.weight", "attn.wo_a.weight": "attn_output_a.weight",
    "attn.wo_b.weight": "attn_output_b.weight", "attn.compressor.ape": "attn_compressor_ape.weight",
    "attn.compressor.wkv.weight": "attn_compressor_kv.weight", "attn.compressor.wgate.weight": "attn_compressor_gate.weight",
    "attn.compressor.norm.weight": "attn_compressor_norm.weight", "attn.indexer.wq_b.weight": "indexer.attn_q_b.weight",
    "attn.indexer.weights_proj.weight": "indexer.proj.weight", "attn.indexer.compressor.ape": "indexer_compressor_ape.weight",
    "attn.indexer.compressor.wkv.weight": "indexer_compressor_kv.weight",
    "attn.indexer.compressor.wgate.weight": "indexer_compressor_gate.weight",
    "attn.indexer.compressor.norm.weight": "indexer_compressor_norm.weight", "attn_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight", "ffn.gate.weight": "ffn_gate_inp.weight", "ffn.gate.bias": "exp_probs_b.bias",
    "ffn.gate.bias_vl": "exp_probs_b_vl.bias", "ffn.gate.tid2eid": "ffn_gate_tid2eid.weight",
    "ffn.shared_experts.w1.weight": "ffn_gate_shexp.weight", "ffn.shared_experts.w2.weight": "ffn_down_shexp.weight",
    "ffn.shared_experts.w3.weight": "ffn_up_shexp.weight", "ffn.experts.w1.weight": "ffn_gate_exps.weight",
    "ffn.experts.w2.weight": "ffn_down_exps.weight", "ffn.experts.w3.weight": "ffn_up_exps.weight",
}  # fmt: skip


def _hashed(name: str, config: Config) -> bool:
    """Whether a block's experts are chosen by a table."""
    return int(name.split(".")[1]) < config.number("num_hash_layers")


V4 = Row(
    "deepseek4", KEYS,
    steps=(
        dropped(r"^(mtp\.|aligner\.|image_)"),
        lambda shape, config: () if shape.name.endswith(".ffn.gate.bias") and _hashed(shape.name, config) else (shape,),
        renamed(r"^embed\.weight$", "token_embd.weight"), renamed(r"^head\.weight$", "output.weight"),
        renamed(r"^hc_head_(fn|base|scale)$", r"output_hc_\1.weight"), placed("layers", _NAMES),
    ),
    forced=((r"\.ffn_gate_tid2eid\.weight$", "i32"),), types={"f8_e4m3": "q8_0", "f8_e5m2": "q8_0", "f32": "f32",
        "bf16": "bf16"},
    stored=_stored,
)  # fmt: skip

ROWS: Mapping[str, Class] = {"DeepseekV4ForCausalLM": V4}
