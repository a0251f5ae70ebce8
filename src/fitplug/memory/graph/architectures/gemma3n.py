"""Gemma 3n: residuals side by side (AltUp), a low-rank shortcut (LAuReL), per-layer embeddings (src/models/gemma3n.cpp)."""

from fitplug.memory.cache import cells_of
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKvIswa
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import per_layer
from fitplug.memory.graph.blocks.per_layer import slice_2d
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

F32 = 4
N_ALTUP, I_ALTUP_ACT, N_EMBD_ALTUP, N_LAYER_SPARSITY = 4, 0, 256, 10
"""llama_hparams and the graph's own constants."""


def build(g: GraphContext) -> None:
    """Draw the graph."""
    embeddings = ggml.scale(g.build_inp_embd())
    inp_pos, inp_attn = g.build_inp_pos(), g.build_attn_inp_kv_iswa()
    inputs = per_layer.build_inputs(g, embeddings, N_EMBD_ALTUP)
    cur = _stacked(g, embeddings)
    for il in g.layers(lambda il: (il < N_LAYER_SPARSITY, -1 if g.hparams(il).has_kv else cells_of(g.model.layers, il))):
        predictions = _predict(g, cur, il)
        active = slice_2d(predictions, I_ALTUP_ACT)
        done = _block(g, inp_attn, inp_pos, active, il)
        cur = _with_inputs(g, inputs, _correct(g, predictions, done, il), il)
    cur = ggml.get_rows(_merged(g, cur), g.build_inp_out_ids())
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS)
    g.keep_embd(cur)
    logits = ggml.scale(ggml.tanh(ggml.scale(g.mm(g.output, cur))))
    logits.is_output = True
    g.expand(logits)


def _magnitude(t: Tensor) -> Tensor:
    return ggml.sqrt(ggml.sum_rows(ggml.sqr(t)))


def _rest(g: GraphContext, cur: Tensor) -> Tensor:
    """All residuals but the first."""
    matrix = g.n_embd * g.n_tokens * F32
    return ggml.view_3d(cur, g.n_embd, g.n_tokens, N_ALTUP - 1, g.n_embd * F32, matrix, matrix)


def _stacked(g: GraphContext, cur: Tensor) -> Tensor:
    """The other residuals, projected from the first."""
    target = _magnitude(cur)
    repeated = ggml.repeat_4d(cur, g.n_embd, g.n_tokens, N_ALTUP - 1, 1)
    added = ggml.mul_mat(g.needed_tensor("altup_proj.weight"), repeated)
    new = _magnitude(added)
    return ggml.concat(cur, ggml.div(ggml.mul(added, target), new), 2)


def _merged(g: GraphContext, cur: Tensor) -> Tensor:
    target = _magnitude(slice_2d(cur, I_ALTUP_ACT))
    back = ggml.mul_mat(g.needed_tensor("altup_unembd_proj.weight"), _rest(g, cur))
    new = _magnitude(back)
    back = ggml.div(ggml.mul(back, target), new)
    cur = slice_2d(cur, 0)
    for i in range(N_ALTUP - 1):
        cur = ggml.add(cur, slice_2d(back, i))
    return ggml.scale(cur)


def _modalities(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    routed = ggml.scale(g.build_norm(cur, g.w("altup_router_norm", il), LLM_NORM_RMS, il))
    return ggml.tanh(ggml.mul_mat(g.needed("altup_router", il), routed))


def _predict(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    modalities = _modalities(g, slice_2d(cur, I_ALTUP_ACT), il)
    coefs = ggml.reshape(g.build_lora_mm(g.w("altup_predict_coef", il).weight, modalities), N_ALTUP, N_ALTUP, g.n_tokens)
    permuted = ggml.cont(ggml.permute(cur, 1, 2, 0, 3))
    predictions = ggml.cont(ggml.permute(ggml.mul_mat(permuted, coefs), 0, 2, 1, 3))
    return ggml.add(predictions, cur)


def _correct(g: GraphContext, predictions: Tensor, done: Tensor, il: int) -> Tensor:
    modalities = _modalities(g, done, il)
    innovation = ggml.sub(done, slice_2d(predictions, I_ALTUP_ACT))
    coefs = ggml.scale(g.build_lora_mm(g.w("altup_correct_coef", il).weight, modalities))
    coefs = ggml.cont(ggml.transpose(coefs), 1, g.n_tokens, N_ALTUP)
    innovation = ggml.repeat_4d(innovation, g.n_embd, g.n_tokens, N_ALTUP, 1)
    return ggml.add(ggml.mul(innovation, coefs), predictions)


def _with_inputs(g: GraphContext, inputs: Tensor, corrected: Tensor, il: int) -> Tensor:
    """The per-layer embedding, added to all residuals but the first."""
    first = ggml.mul(slice_2d(corrected, I_ALTUP_ACT), g.needed("altup_correct_scale", il))
    first = per_layer.mix(g, inputs, first, il)
    head, rest = slice_2d(corrected, 0), _rest(g, corrected)
    return ggml.concat(head, ggml.add(rest, first), 2)


def _block(g: GraphContext, inp_attn: InpAttnKvIswa, inp_pos: Tensor, active: Tensor, il: int) -> Tensor:
    normed = g.build_norm(active, g.w("attn_norm", il), LLM_NORM_RMS, il)
    laurel = g.build_lora_mm(g.w("laurel_r", il).weight, g.build_lora_mm(g.w("laurel_l", il).weight, normed))
    laurel = ggml.add(g.build_norm(laurel, g.w("laurel_post_norm", il), LLM_NORM_RMS, il), normed)
    cur = _attention(g, inp_attn, inp_pos, normed, il)
    cur = ggml.add(g.build_norm(cur, g.w("post_attention_norm", il), LLM_NORM_RMS, il), active)
    both = ggml.scale(ggml.add(cur, laurel))
    cur = _feed_forward(g, g.build_norm(both, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
    return ggml.add(g.build_norm(cur, g.w("post_ffw_norm", il), LLM_NORM_RMS), both)


def _attention(g: GraphContext, inp_attn: InpAttnKvIswa, inp_pos: Tensor, cur: Tensor, il: int) -> Tensor:
    wo, q_norm = g.w("attn_output", il)._replace(bias=None), g.w("attn_q_norm", il)
    if g.hparams(il).has_kv:
        q, k, v = g.build_qkv(il, cur)
        q = g.build_norm(q, q_norm, LLM_NORM_RMS, il)
        k = g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
        v = ggml.rms_norm(v)
        return g.build_attn(inp_attn, wo, ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos), v, il)
    width, n_head = g.n_embd_head_k, g.n_head
    if g.w("attn_qkv", il).weight is not None:
        qkv = g.build_lora_mm(g.w("attn_qkv", il).weight, cur)
        q = ggml.cont(ggml.view_2d(qkv, width * n_head, g.n_tokens, qkv.nb[1]))
    else:
        q = g.build_lora_mm(g.w("attn_q", il).weight, cur)
    q = g.build_norm(ggml.reshape(q, width, n_head, g.n_tokens), q_norm, LLM_NORM_RMS, il)
    return g.build_attn(inp_attn, wo, ggml.rope_ext(q, inp_pos), None, None, il)


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    up, gate = g.build_lora_mm(g.w("ffn_up", il).weight, cur), g.build_lora_mm(g.w("ffn_gate", il).weight, cur)
    if il < N_LAYER_SPARSITY:
        mean = ggml.mean(gate)
        std = ggml.sqrt(ggml.scale(ggml.sum_rows(ggml.sqr(ggml.sub(gate, mean)))))
        cutoff = ggml.add(mean, ggml.scale(std))
        gate = ggml.relu(ggml.sub(gate, cutoff))
    return g.build_lora_mm(g.w("ffn_down", il).weight, ggml.mul(up, ggml.gelu(gate)))
