"""EAGLE-3: one layer that drafts tokens from a target's hidden states (src/models/eagle3.cpp).

A context is reserved for the decoder; its encoder is laid out when it first runs.
"""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph; a draft without embeddings or an output of its own uses the target's."""
    n_embd, n_tokens, il = g.n_embd, g.n_tokens, 0
    tokens, states = ggml.new_input("i32", n_tokens), ggml.new_input("f32", n_embd, n_tokens)
    embd = ggml.get_rows(g.tok_embd_or_lent, tokens)
    inp_pos, inp_attn = g.build_inp_pos(), g.build_attn_inp_kv()
    embd_norm = g.build_norm(embd, g.w("attn_norm", il), LLM_NORM_RMS, il)
    states_norm = g.build_norm(states, g.w("attn_norm_2", il), LLM_NORM_RMS)
    residual = states_norm if g.get_bool("norm_before_residual") else states
    q, k, v = _qkv(g, ggml.concat(embd_norm, states_norm, 0), il)
    factors = g.rope_factors(il)
    q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
    cur = g.build_attn(inp_attn, g.w("attn_output", il)._replace(bias=None), q, k, v, il)
    ffn_inp = ggml.add(cur, residual)
    cur = g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
    cur = ggml.add(cur, ffn_inp)
    cur.is_output = True
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS)
    logits = to_target_vocabulary(g, g.build_lora_mm(g.output_or_lent(g.w("output")), cur))
    logits.is_output = True
    g.t_logits = logits
    g.expand(logits)


def build_feed(g: GraphContext) -> None:
    """The encoder, which fuses the states of three layers of the target."""
    fc = g.needed("fc")
    cur = ggml.new_input("f32", fc.ne[0], g.n_tokens)
    if g.get_bool("norm_before_fc"):
        cur = g.build_norm(cur, g.w("enc.output_norm"), LLM_NORM_RMS)
    cur = g.build_lora_mm(fc, cur)
    cur.is_output = True
    g.expand(cur)


def _qkv(g: GraphContext, cur: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    layer = g.hparams(il)
    q, k, v = (g.build_lora_mm(g.w(name, il).weight, cur) for name in ("attn_q", "attn_k", "attn_v"))
    head = layer.n_embd_head_v
    return (
        ggml.reshape(q, head, g.n_head, g.n_tokens),
        ggml.reshape(k, head, g.n_head_kv, g.n_tokens),
        ggml.reshape(v, head, g.n_head_kv, g.n_tokens),
    )


def to_target_vocabulary(g: GraphContext, cur: Tensor) -> Tensor:
    """Values of a smaller vocabulary written to the target's tokens, where the file has a table for that."""
    d2t = g.tensor("d2t")
    if d2t is None:
        return cur
    n_draft, n, n_vocab = cur.ne[0], cur.ne[1], g.model.n_vocab
    whole = ggml.fill(ggml.new_tensor("f32", 1, n_vocab, n))
    whole = ggml.set_rows(whole, ggml.reshape(cur, 1, n_draft, n), ggml.reshape(d2t, n_draft, 1, 1))
    return ggml.reshape(whole, n_vocab, n)
