"""cohere2moe: attention and experts side by side, the last layer for all tokens (src/models/cohere2moe.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttn
from fitplug.memory.graph.base import LLM_NORM, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, SIGMOID
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    norm = norm_kind(g)
    n_dense = g.hparam("n_layer_dense_lead")
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name for it
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv_iswa(), g.build_inp_out_ids()
    for il in g.layers(lambda il: il < n_dense):
        turned = inp_pos if g.hparams(il).is_swa or il < n_dense else None
        inpL = layer(g, inp_attn, turned, inpL, il)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("output_norm"), norm)
    cur.is_output = True
    cur = ggml.get_rows(cur, out_ids)
    g.keep_embd(cur)
    logits = g.build_lora_mm(g.output.weight, cur)
    if g.get_float("logit_scale"):
        logits = ggml.scale(logits)
    logits.is_output = True
    g.expand(logits)


def norm_kind(g: GraphContext) -> str:
    """RMS only where the header has its epsilon."""
    return LLM_NORM_RMS if g.get_float("attention.layer_norm_rms_epsilon") else LLM_NORM


def layer(g: GraphContext, inp_attn: InpAttn, inp_pos: Tensor | None, residual: Tensor, il: int) -> Tensor:
    """Attention, turned by position where `inp_pos` is given, and feed-forward of the same input."""
    normed = g.build_norm(residual, g.w("attn_norm", il), norm_kind(g), il)
    q, k, v = g.build_qkv(il, normed)
    if inp_pos is not None:
        factors = g.rope_factors(il)
        q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
    attn_out = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
    return ggml.add(ggml.add(_feed_forward(g, normed, il), residual), attn_out)


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    if g.w("ffn_gate_inp", il).weight is None:
        return g.ffn(cur, il)
    out = g.build_moe_ffn(
        cur, g.experts(il), il, norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"),
        gating_op=GATING_FUNCS.get(g.model.get_int("expert_gating_func"), SIGMOID),
    )  # fmt: skip
    if g.w("ffn_up_shexp", il).weight is None:
        return out
    return ggml.scale(ggml.add(out, g.ffn(cur, il, suffix="_shexp")))
