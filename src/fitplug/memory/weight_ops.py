"""Which operation uses a weight, and which backends can do it with that type: this decides where a weight may lie.

The table is llama.cpp's LLM_TENSOR_INFOS (src/llama-arch.cpp), the tests are weight_buft_supported
(src/llama-model-loader.cpp) and the backends' supports_op.
"""

import re
from typing import NamedTuple

from fitplug.formats.header import Tensor
from fitplug.machine.backends import WeightRules
from fitplug.model.records import Model

INPUT = -1
"""Layer number of the input layer's tensors, which llama.cpp always keeps on the CPU."""
OUTPUT = -2
"""Layer number of the output layer's tensors."""

_BY_OP = {
    "GET_ROWS": "attn_compressor_ape attn_rel_b d2t ffn_gate_tid2eid indexer_compressor_ape markov_w1 nextn.embed_tokens "
    "per_layer_token_embd position_embd selector_predecessor selector_successor token_embd token_types",
    "MUL": "altup_correct_scale altup_router_norm attn_compressor_norm attn_conv_base attn_k_norm attn_kv_a_norm attn_norm "
    "attn_norm_2 attn_output_norm attn_q_a_norm attn_q_norm attn_res_score attn_sub_norm channel_mix_lerp_k "
    "channel_mix_lerp_r cls.norm convnext.gamma convnext.norm cross_attn_norm dec.output_norm enc.output_norm "
    "ffn_conv_base ffn_norm ffn_norm_exps ffn_res_score ffn_routed_norm ffn_sub_norm hc_attn_norm hc_attn_scale "
    "hc_ffn_norm hc_ffn_scale indexer.k_norm indexer.q_norm indexer_compressor_norm laurel_post_norm layer_output_norm "
    "layer_output_scale nextn.enorm nextn.hnorm nextn.shared_head_norm output_hc_norm output_hc_scale output_norm "
    "output_res_score per_layer_proj_norm ple_norm_conv ple_norm_key ple_norm_query posnet.attn_norm posnet.norm "
    "posnet.norm1 posnet.norm2 post_attention_norm post_ffw_norm post_ffw_norm_1 post_ffw_norm_2 post_norm "
    "pre_ffw_norm_2 ssm_b_norm ssm_c_norm ssm_conv1d_k ssm_conv1d_q ssm_conv1d_v ssm_d ssm_dt_norm ssm_norm "
    "time_mix_k_a time_mix_k_k time_mix_lerp_x time_mix_ln time_mix_r_k token_embd_norm",
    "ADD": "exp_probs_b exp_probs_b_vl hc_attn_base hc_ffn_base hrm.z_l_init output_hc_base time_mix_a0 time_mix_decay "
    "time_mix_lerp_fused time_mix_lerp_g time_mix_lerp_k time_mix_lerp_r time_mix_lerp_v time_mix_lerp_w time_mix_v0 "
    "time_mix_w0",
    "MUL_MAT": "altup_correct_coef altup_predict_coef altup_proj altup_router altup_unembd_proj attn_compressor_gate "
    "attn_compressor_kv attn_conv_proj attn_gate attn_k attn_k_b attn_kv attn_kv_a_mqa attn_kv_b attn_o attn_output "
    "attn_output_a attn_output_b attn_q attn_q_a attn_q_b attn_qkv attn_v attn_v_b channel_mix_key "
    "channel_mix_receptance channel_mix_value cls cls.output conf_proj convnext.pw1 convnext.pw2 cross_attn_k "
    "cross_attn_o cross_attn_q cross_attn_v dense_2 dense_3 fc ffn_conv_proj ffn_down ffn_down_shexp ffn_gate "
    "ffn_gate_inp ffn_gate_inp_shexp ffn_gate_shexp ffn_latent_down ffn_latent_up ffn_routed_down ffn_routed_up ffn_up "
    "ffn_up_shexp hc_attn_down hc_attn_fn hc_attn_inject hc_attn_up hc_ffn_down hc_ffn_fn hc_ffn_inject hc_ffn_up "
    "indexer.attn_k indexer.attn_q_b indexer.k_proj indexer.proj indexer.q_proj indexer_compressor_gate "
    "indexer_compressor_kv inp_gate laurel_l laurel_r markov_w2 nextn.eh_proj nextn.post_projection "
    "nextn.pre_projection nextn.shared_head_head output output_hc_down output_hc_fn output_hc_up per_layer_model_proj "
    "ple_key ple_value posnet.attn_k posnet.attn_output posnet.attn_q posnet.attn_v proj selector_hidden "
    "shortconv.in_proj shortconv.out_proj ssm_alpha ssm_ba ssm_beta ssm_dt ssm_f_a ssm_f_b ssm_g ssm_g_a ssm_g_b ssm_in "
    "ssm_out ssm_x time_mix_a1 time_mix_a2 time_mix_decay_w1 time_mix_decay_w2 time_mix_g1 time_mix_g2 time_mix_gate "
    "time_mix_key time_mix_output time_mix_receptance time_mix_v1 time_mix_v2 time_mix_value time_mix_w1 time_mix_w2 "
    "vis_attn_output vis_attn_qkv vis_down vis_gate vis_up",
    "MUL_MAT_ID": "ffn_down_chexps ffn_down_exps ffn_gate_chexps ffn_gate_exps ffn_gate_up_exps ffn_up_chexps ffn_up_exps",
    "ROPE": "rope_factors_long rope_factors_short rope_freqs",
    "SSM_CONV": "ple_conv1d shortconv.conv ssm_conv1d",
    "SSM_SCAN": "ssm_a",
    "SCALE": "attn_sinks",
    "DIV": "ffn.act",
    "RWKV_WKV6": "time_mix_first",
    "IM2COL": "conv1d convnext.dw posnet.conv1 posnet.conv2",
    "NONE": "cross_attn_rel_b masked_embd_centroids masked_embd_ordering",
}
OPS = {name: op for op, names in _BY_OP.items() for name in names.split()}
"""Tensor name, without layer number and suffix → operation."""

_INPUTS = "masked_embd_centroids masked_embd_ordering per_layer_token_embd position_embd token_embd token_types"
_OUTPUTS = (
    "altup_proj altup_unembd_proj cls cls.norm cls.output conf_proj d2t dec.output_norm dense_2 dense_3 enc.output_norm fc "
    "markov_w1 markov_w2 nextn.post_projection output output_hc_base output_hc_down output_hc_fn output_hc_norm "
    "output_hc_scale output_hc_up output_norm output_res_score selector_hidden selector_predecessor selector_successor"
)
_CLASSES = dict.fromkeys(_INPUTS.split(), INPUT) | dict.fromkeys(_OUTPUTS.split(), OUTPUT)
_NAME = re.compile(
    r"(?:(?:enc\.|dec\.)?blk\.(?P<il>\d{1,9})\.|(?P<net>posnet|convnext)\.(?P<net_il>\d{1,9})\.)?(?P<rest>.+)", re.ASCII
)
_SUFFIXES = (".weight", ".bias", ".scale", ".input_scale", ".lora_a", ".lora_b")


class Use(NamedTuple):
    """What a weight is used for."""

    il: int
    """Its block; INPUT or OUTPUT for tensors of those layers."""
    base: str
    """Its name without block number and suffix."""
    op: str
    known: bool
    """Whether llama.cpp has a tensor of that name."""


def use(tensor: Tensor, model: Model) -> Use:
    """Which layer a tensor belongs to and what multiplies, adds or looks it up."""
    match = _NAME.fullmatch(tensor.name)
    if match is None:
        return Use(OUTPUT, tensor.name, "MUL_MAT", known=False)
    rest, suffix = _split_suffix(match["rest"])
    base = f"{match['net']}.{rest}" if match["net"] else rest
    number = match["il"] or match["net_il"]
    op = OPS.get(base, "MUL" if len(tensor.shape) < 2 else "MUL_MAT")
    il = int(number) if number is not None else _layer_class(base, model)
    return Use(il, base, _op(op, base, suffix, model), base in OPS)


def _split_suffix(rest: str) -> tuple[str, str]:
    for suffix in _SUFFIXES:
        if rest.endswith(suffix):
            return rest.removesuffix(suffix), suffix
    return rest, ""


def _layer_class(base: str, model: Model) -> int:
    """INPUT, OUTPUT, or 0: tensors without a number that belong to the blocks go with the first one."""
    if base == "token_embd_norm":  # LFM2 calls its output norm so (LLM_TENSOR_OUTPUT_NORM_LFM2)
        return OUTPUT if model.row.state == "shortconv" else 0
    return _CLASSES.get(base, 0)


def _op(op: str, base: str, suffix: str, model: Model) -> str:
    if suffix == ".bias":
        return "ADD_ID" if op == "MUL_MAT_ID" else "ADD"
    if suffix in (".lora_a", ".lora_b"):
        return "MUL_MAT_ID"
    if op == "SSM_SCAN" and (model.row.state != "ssm" or model.row.recurrent == "interval"):
        return "MUL"  # LLM_TENSOR_SSM_A_NOSCAN: delta nets multiply with it
    return "ADD" if base == "indexer_compressor_ape" and model.row.memory == "hybrid_idx" else op


_SUPER_BLOCK = 256


def gpu_supports(op: str, tensor: Tensor, model: Model, rules: WeightRules) -> bool:
    """Whether a backend can do `op` with this weight, in weight_buft_supported's trial shapes."""
    type_, shape = tensor.type, tensor.shape
    if rules.max_bytes is not None and tensor.n_bytes > rules.max_bytes:
        return False
    if op in ("MUL_MAT", "MUL_MAT_ID"):
        return type_ not in rules.no_mul_mat
    if op == "GET_ROWS":
        return type_ not in rules.no_get_rows and (type_ not in rules.whole_rows or shape[0] % _SUPER_BLOCK == 0)
    if op in ("MUL", "ADD", "DIV"):
        return rules.scalars is None or type_ in rules.scalars
    if op == "SCALE":
        return rules.scales is None or type_ in rules.scales
    if op == "SSM_CONV":
        return len(shape) > 1 and shape[1] % rules.conv_multiple == 0
    return op != "SSM_SCAN" or _scan_supported(shape, model, rules)


def _scan_supported(shape: tuple[int, ...], model: Model, rules: WeightRules) -> bool:
    """GGML_OP_SSM_SCAN: Mamba 2 if the weight is a row of scalars, else Mamba 1."""
    n_head = shape[1] if len(shape) > 1 else 1
    head_dim = model.hparam("ssm_d_inner") // n_head if n_head else 0
    if shape[0] == 1:
        return rules.scan_states is None or (model.hparam("ssm_d_state") in rules.scan_states and head_dim % 16 == 0)
    if rules.scan_first != "narrow":
        return rules.scan_first == "yes"
    n_group = model.hparam("ssm_n_group") if "ssm.group_count" in model.row.needs else 0
    return shape[0] == 16 and head_dim == 1 and n_head % 128 == 0 and n_group <= 1
