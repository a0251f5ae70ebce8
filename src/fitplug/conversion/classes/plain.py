"""Decoders with little of their own (conversion/llada.py, bitnet.py, jais.py, plm.py, talkie.py, hrm_text.py, …)."""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.classes.llama import GRANITE, GRANITE_MOE, VOCAB, WINDOW
from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import (
    Class,
    Keys,
    Row,
    column,
    constant,
    dropped,
    halved,
    or_else,
    placed,
    renamed,
    turned,
)
from fitplug.formats.header import Value

_LAYER = r"model\.layers\.(\d+)\."


def _llada_head(config: Config) -> Value:
    given = config.get("head_dim")
    return given or config.number("hidden_size", "d_model") // max(1, config.number("num_attention_heads", "n_heads"))


_LLADA = Row("llada", {
    **VOCAB, "rope.dimension_count": _llada_head, "context_length": or_else(4096, "max_sequence_length"),
    "embedding_length": or_else(4096, "d_model"), "feed_forward_length": or_else(12288, "mlp_hidden_size"),
    "attention.causal": constant(False), "diffusion.shift_logits": constant(False),
})  # fmt: skip
_BITNET = Row("bitnet", {"rope.scaling.type": constant("linear"), "rope.scaling.factor": constant(1.0)})
_JAIS = Row(
    "jais",
    {
        "context_length": "n_positions", "embedding_length": "n_embd", "feed_forward_length": "n_inner",
        "attention.head_count": "n_head", "attention.layer_norm_epsilon": "layer_norm_epsilon",
        "attention.max_alibi_bias": constant(8.0),
    },
    steps=(
        dropped(r"\.attn\.bias$|relative_pe\.slopes$"), turned(r"\.(c_attn|c_proj|c_fc|c_fc2)\.weight$"),
    ),
    common=False,
)  # fmt: skip
"""Slopes in the weights say what max_alibi_bias is: 8 for all that are known."""
_PLAMO = Row("plamo", {
    "context_length": constant(4096), "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": constant(5),
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}, common=False)  # fmt: skip
_PLM = Row("plm", {
    **VOCAB, "attention.kv_lora_rank": "kv_lora_rank", "attention.value_length": "v_head_dim",
    "attention.key_length": lambda c: c.number("qk_nope_head_dim") + c.number("qk_rope_head_dim"),
    "rope.dimension_count": "qk_rope_head_dim",
})  # fmt: skip


def _joined(shape: Shape, _: Config) -> Iterable[Shape]:
    """Query, key and value become one tensor (RuGPT3XLModel.modify_tensors)."""
    match = re.fullmatch(_LAYER + r"self_attn\.([qkv])_proj\.(weight|bias)", shape.name)
    if match is None:
        yield shape
    elif match[2] == "q":
        n = (*shape.shape[:-1], 3 * shape.shape[-1])
        yield shape._replace(name=f"blk.{match[1]}.attn_qkv.{match[3]}", shape=n)


_TALKIE = Row(
    "talkie", {"attention.layer_norm_rms_epsilon": constant(2.0**-23), "logit_scale": constant(0.0)},
    steps=(
        renamed(r"^model\.blocks\.(\d+)\.attn_gain\.a_g$", r"blk.\1.attn_output.scale"),
        renamed(r"^model\.blocks\.(\d+)\.mlp_gain\.a_g$", r"blk.\1.ffn_down.scale"), dropped(r"^lm_head_gain\.w_g$"),
        column(r"\.attn\.head_gain\.head_g$"), renamed(r"^(?!blk\.)(.*)(?<!\.weight)$", r"\1.weight"),
    ),
)  # fmt: skip
"""The logits' scale is a weight."""


def _hrm_stack(config: Config) -> int:
    return config.number("num_layers_per_stack", "num_hidden_layers")


def _hrm_blocks(config: Config) -> int:
    """Blocks count each time they run."""
    return _hrm_stack(config) * config.number("H_cycles") * (config.number("L_cycles") + 1)


def _hrm_names(shape: Shape, config: Config) -> Iterable[Shape]:
    """The blocks of H come after those of L (HrmTextModel.modify_tensors)."""
    match = re.fullmatch(r"model\.([LH])_module\.layers\.(\d+)\.(.+)", shape.name)
    if match is None:
        yield shape._replace(name=re.sub(r"^model\.z_L_init$", "hrm.z_l_init", shape.name))
        return
    block = int(match[2]) + (_hrm_stack(config) if match[1] == "H" else 0)
    parts = {
        "attn.gqkv_proj.weight": ("attn_gate", "attn_q", "attn_k", "attn_v"),
        "mlp.gate_up_proj.weight": ("ffn_gate", "ffn_up"),
    }
    for part in parts.get(match[3], ()):
        n = (shape.shape[0], shape.shape[1] // len(parts[match[3]]))
        yield shape._replace(name=f"blk.{block}.{part}.weight", shape=n)
    if match[3] not in parts:
        yield shape._replace(name=f"model.layers.{block}.{re.sub('^attn', 'self_attn', match[3])}")


_HRM = Row(
    "hrm_text",
    {
        "rope.dimension_count": lambda c: c.head_dim, "embedding_scale": "embedding_scale", "hrm.layers_per_stack": _hrm_stack,
        "hrm.h_cycles": "H_cycles", "hrm.l_cycles": "L_cycles", "hrm.prefix_lm": lambda c: bool(c.given("prefix_lm")),
    },
    steps=(_hrm_names,), blocks=_hrm_blocks,
)  # fmt: skip


def _glimmer_norms(shape: Shape, config: Config) -> Iterable[Shape]:
    """Norms of query and key are made up (MuseGlimmerModel.modify_tensors)."""
    match = re.fullmatch(_LAYER + r"self_attn\.q_proj\.weight", shape.name)
    if match:
        for part in "qk":
            yield Shape(f"blk.{match[1]}.attn_{part}_norm.weight", "f32", (config.head_dim,))
    yield shape


_SWITCH: Mapping[str, str] = {
    "self_attn.qkv_proj.base_layer.weight": "attn_qkv.weight", "self_attn.o_proj.base_layer.weight": "attn_output.weight",
    "shared_mlp.output_linear.base_layer.weight": "ffn_down.weight", "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight", "shared_mlp.gate.base_layer.weight": "ffn_gate.weight",
    "shared_mlp.up.base_layer.weight": "ffn_up.weight",
    **{f"{where}{end}": f"{part}.lora_{letter.lower()}"
       for letter in "AB"
       for where, end, part in (
           ("self_attn.qkv_proj.", f"lora_{letter}_slices.0", "attn_q"), ("self_attn.qkv_proj.", f"lora_{letter}_slices.1",
               "attn_k"),
           ("self_attn.qkv_proj.", f"lora_{letter}_slices.2", "attn_v"), ("self_attn.o_proj.", f"lora_{letter}", "attn_output"),
           ("shared_mlp.input_linear.", f"lora_{letter}_slices.0", "ffn_gate"),
           ("shared_mlp.input_linear.", f"lora_{letter}_slices.1", "ffn_up"),
           ("shared_mlp.output_linear.", f"lora_{letter}", "ffn_down"))},
}  # fmt: skip


def _one_more(shape: Shape, _: Config) -> Iterable[Shape]:
    """Adapters lie in one tensor after one of zeros (GraniteSwitchModel._lora_a)."""
    if re.search(r"lora_[AB](_slices\.\d)?$", shape.name) and len(shape.shape) == 4:
        shape = shape._replace(shape=(*shape.shape[:2], shape.shape[3] + 1))
    yield shape


def _switch(config: Config) -> Keys:
    return {
        **({} if config.given("num_local_experts") else {"expert_used_count": 0}),
        "adapters.count": config.number("num_adapters"),
        "adapters.lora_rank": config.number("max_lora_rank"), "adapters.token_ids_activate": config.items("adapter_token_ids"),
        "adapters.token_ids_substitute": config.items("adapter_substitute_token_ids"),
        "adapters.router_gain": config.real("control_token_gain", default=15.0),
    }  # fmt: skip


_GRANITE_SWITCH = Row(
    "graniteswitch", GRANITE_MOE.keys, derive=(_switch,), without=GRANITE.without, blocks=lambda config: config.n_layer - 1,
    steps=(
        dropped(r"^(model\.)?switch\.|(^|\.)(adapter_token_ids|control_to_substitute_lut)$|^lm_head\.weight$"), _one_more,
        halved(r"shared_mlp\.input_linear\.base_layer\.", "shared_mlp.gate.base_layer.", "shared_mlp.up.base_layer."),
        placed(r"model\.layers", _SWITCH),
    ),
)  # fmt: skip
_CHAMELEON = Row("chameleon", {"swin_norm": or_else(False, "swin_norm")}, steps=(dropped(r"^model\.vqmodel"),))

ROWS: Mapping[str, Class] = {
    "LLaDAModelLM": _LLADA,
    **dict.fromkeys(("BitnetForCausalLM", "BitNetForCausalLM"), _BITNET),
    "JAISLMHeadModel": _JAIS,
    "PlamoForCausalLM": _PLAMO,
    "PLMForCausalLM": _PLM,
    "RuGPT3XLForCausalLM": Row("gpt2", steps=(_joined,)),
    "TalkieForCausalLM": _TALKIE,
    "HrmTextForCausalLM": _HRM,
    "MuseGlimmerForConditionalGeneration": Row("muse-glimmer", {
        **WINDOW, "final_logit_softcapping": "final_logit_softcapping", "logit_scale": "output_multiplier"},
        steps=(_glimmer_norms,)),
    "GraniteSwitchForCausalLM": _GRANITE_SWITCH,
    **dict.fromkeys(("ChameleonForCausalLM", "ChameleonForConditionalGeneration"), _CHAMELEON),
}  # fmt: skip
