"""Granite Switch: a router chooses one of the file's adapters for each token (src/models/granite-switch.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnKv
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    tokens = ggml.new_input("i32", g.n_tokens)
    keys, values, queries = (ggml.new_input("f32", g.n_tokens) for _ in range(3))
    inpL = ggml.get_rows(g.need(g.tok_embd, "token_embd.weight"), tokens)  # noqa: N806 - llama.cpp's name
    if g.f_embedding_scale != 0.0:
        inpL = ggml.scale(inpL)  # noqa: N806 - as above
    inp_pos = g.build_inp_pos() if g.get_bool("rope.scaling.finetuned", default=True) else None
    inp_attn = g.build_attn_inp_kv()
    ids = _route(g, inp_attn, queries, keys, values)
    out_ids = g.build_inp_out_ids()
    for il in g.layers():
        residual = inpL
        cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        cur = _attention(g, inp_attn, inp_pos, ids, cur, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
            ids = ggml.reshape(ggml.get_rows(ggml.reshape(ids, 1, ids.ne[0]), out_ids), out_ids.ne[0])
        inpL = _feed_forward(g, cur, residual, ids, il)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS)
    g.keep_embd(cur)
    logits = ggml.scale(g.mm(g.output._replace(bias=None), cur))
    logits.is_output = True
    g.expand(logits)


def _route(g: GraphContext, inp: InpAttnKv, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The adapter of each token: one head of attention, in a layer of the cache after the last."""
    q, k, v = (ggml.pad(ggml.reshape(t, 1, 1, g.n_tokens), g.n_embd_head_v - 1) for t in (queries, keys, values))
    out = g.build_attn(inp, ABSENT, q, k, v, g.n_layer)
    slot = ggml.reshape(ggml.cont(ggml.view_2d(out, 1, g.n_tokens, out.nb[1])), g.n_tokens)
    return ggml.cast(ggml.round(ggml.clamp(slot)), "i32")


def _delta(g: GraphContext, name: str, cur: Tensor, ids: Tensor, il: int) -> Tensor:
    """build_switched_lora_delta: what each token's adapter adds."""
    n_in, n_tokens, _, _ = cur.ne
    a, b = (g.needed_tensor(f"blk.{il}.{name}.lora_{part}") for part in ("a", "b"))
    ids = ggml.reshape(ids, 1, n_tokens)
    out = ggml.mul_mat_id(b, ggml.mul_mat_id(a, ggml.reshape(cur, n_in, 1, n_tokens), ids), ids)
    return ggml.reshape(out, out.ne[0], n_tokens)


def _switched(g: GraphContext, name: str, cur: Tensor, ids: Tensor, il: int) -> Tensor:
    """build_switched_lora_mm."""
    return ggml.add(ggml.mul_mat(g.needed(name, il), cur), _delta(g, name, cur, ids, il))


def _attention(g: GraphContext, inp: InpAttnKv, inp_pos: Tensor | None, ids: Tensor, cur: Tensor, il: int) -> Tensor:
    layer, head = g.hparams(il), g.n_embd_head_v
    qkv = ggml.mul_mat(g.needed("attn_qkv", il), cur)
    parts: list[Tensor] = []
    offset = 0
    for n in (layer.n_head, layer.n_head_kv, layer.n_head_kv):
        parts.append(ggml.cont(ggml.view_2d(qkv, head * n, qkv.ne[1], qkv.nb[1], offset)))
        offset += head * n * F32
    names = ("attn_q", "attn_k", "attn_v")
    parts = [ggml.add(t, _delta(g, name, cur, ids, il)) for name, t in zip(names, parts, strict=True)]
    q, k, v = (ggml.reshape(t, head, t.ne[0] // head, g.n_tokens) for t in parts)
    if inp_pos is not None:
        factors = g.rope_factors(il)
        q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
    return _switched(g, "attn_output", g.build_attn(inp, ABSENT, q, k, v, il), ids, il)


def _feed_forward(g: GraphContext, cur: Tensor, residual: Tensor, ids: Tensor, il: int) -> Tensor:
    scaled = g.get_float("residual_scale") != 0.0
    ffn_inp = ggml.add(ggml.scale(cur) if scaled else cur, residual)
    cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
    gate, up = (_switched(g, name, cur, ids, il) for name in ("ffn_gate", "ffn_up"))
    cur = _switched(g, "ffn_down", ggml.mul(ggml.silu(gate), up), ids, il)
    return ggml.add(ggml.scale(cur) if scaled else cur, ffn_inp)
