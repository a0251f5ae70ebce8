"""Hunyuan V4: gated latent attention to what an indexer picks, over several residual streams (src/models/hy-v4.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.architectures.deepseek2 import feed_forward
from fitplug.memory.graph.attention import InpAttnK
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks.absorbed import Heads, absorbed, compressed_query
from fitplug.memory.graph.blocks.lightning_indexer import InpAttnKDsa, build_attn_dsa, build_attn_inp_k_dsa, build_top_k
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import SIGMOID
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph."""
    embd = g.build_inp_embd()
    attend = GatedAttention(g, g.build_inp_pos())
    out_ids = g.build_inp_out_ids()
    hc, n_embd, n_tokens, dense = g.hparam("dsv4_hc_mult"), g.n_embd, g.n_tokens, g.hparam("n_layer_dense_lead")
    streams = ggml.repeat_4d(ggml.reshape(embd, n_embd, 1, n_tokens), n_embd, hc, n_tokens, 1)
    for il in g.layers(lambda il: il < dense):
        cur, post = build_hc_pre(g, streams, "hc_attn", il)
        cur = attend(g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il), il)
        streams = build_hc_post(cur, streams, post)
        cur, post = build_hc_pre(g, streams, "hc_ffn", il)
        cur = g.build_norm(cur, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur = feed_forward(g, cur, il, dense=il < dense, gating=SIGMOID)
        streams = build_hc_post(cur, streams, post)

    flat = ggml.get_rows(ggml.reshape(streams, n_embd * hc, n_tokens), out_ids)
    cur = _head(g, ggml.reshape(flat, n_embd, hc, g.n_outputs))
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


class GatedAttention:
    """The attention of one graph; a layer without an indexer sees what the one before it chose."""

    def __init__(self, g: GraphContext, inp_pos: Tensor) -> None:
        """Build the inputs."""
        self.g, self.inp_pos = g, inp_pos
        self.inp: InpAttnKDsa | InpAttnK = build_attn_inp_k_dsa(g) if g.hparam("indexer_top_k") > 0 else g.build_attn_inp_k()
        self.top_k: Tensor | None = None

    def __call__(self, cur: Tensor, il: int) -> Tensor:
        """build_attention and build_attention_dsa."""
        g, inp, layer = self.g, self.inp, self.g.hparams(il)
        qr = compressed_query(g, cur, il)
        if isinstance(inp, InpAttnKDsa) and layer.n_embd_indexer:
            self.top_k = build_top_k(g, inp, cur, qr, self.inp_pos, il)
        heads = Heads(g.n_head, layer.n_rot, g.model.n_embd_head_k_mla, g.hparam("n_lora_kv"))
        q, k, v = absorbed(g, heads, qr, cur, self.inp_pos, il)
        sinks, v_mla = g.w("attn_sinks", il).weight, g.needed("attn_v_b", il)
        if isinstance(inp, InpAttnKDsa):
            out = build_attn_dsa(
                g, inp, q, k, v, g.need(self.top_k, "the choice of an indexer before it"), il, v_mla=v_mla, sinks=sinks
            )
        else:
            out = g.build_attn(inp, ABSENT, q, k, v, il, v_mla=v_mla, sinks=sinks)
        out = ggml.mul(out, ggml.sigmoid(ggml.mul_mat(g.needed("attn_gate", il), cur)))
        return g.proj("attn_output", out, il)


def build_hc_pre(g: GraphContext, x: Tensor, name: str, il: int) -> tuple[Tensor, Tensor]:
    """build_hc_pre: what a block reads, and how much of its output each stream gets."""
    n_embd, hc, nt, _ = x.ne
    fn, scale, base = (g.needed(f"{name}_{part}", il) for part in ("fn", "scale", "base"))
    mixes = ggml.mul_mat(fn, ggml.rms_norm(ggml.reshape(x, hc * n_embd, nt)))
    halves: list[Tensor] = []
    for i in range(2):
        rows = ggml.view_2d(mixes, hc, nt, mixes.nb[1], i * hc * mixes.nb[0])
        rows = ggml.mul(rows, ggml.view_1d(scale, 1, i * scale.nb[0]))
        halves.append(ggml.sigmoid(ggml.add(rows, ggml.view_1d(base, hc, i * hc * base.nb[0]))))
    pre, post = ggml.scale_bias(halves[0]), ggml.scale_bias(ggml.scale(halves[1]))
    return _reduced(g, x, pre), post


def _reduced(g: GraphContext, x: Tensor, weights: Tensor) -> Tensor:
    """hy_v4_hc_reduce: the streams' weighted sum; the casts of f32 to f32 copy all the same."""
    n_embd, hc, nt, _ = x.ne
    x = ggml.cast(x, "f32")
    result: Tensor | None = None
    for i in range(hc):
        cur = ggml.mul(
            ggml.view_2d(x, n_embd, nt, x.nb[2], i * x.nb[1]), ggml.view_2d(weights, 1, nt, weights.nb[1], i * weights.nb[0])
        )
        result = cur if result is None else ggml.add(result, cur)
    return ggml.cast(g.need(result), "f32")


def build_hc_post(cur: Tensor, residual: Tensor, post: Tensor) -> Tensor:
    """build_hc_post: the streams after a block."""
    n_embd, hc, nt, _ = residual.ne
    cur, post, residual = ggml.cast(cur, "f32"), ggml.cast(post, "f32"), ggml.cast(residual, "f32")
    out: Tensor | None = None
    for i in range(hc):
        stream = ggml.view_2d(residual, n_embd, nt, residual.nb[2], i * residual.nb[1])
        stream = ggml.add(stream, ggml.mul(cur, ggml.view_2d(post, 1, nt, post.nb[1], i * post.nb[0])))
        stream = ggml.reshape(stream, n_embd, 1, nt)
        out = stream if out is None else ggml.concat(out, stream, 1)
    return ggml.cast(residual if out is None else out, "f32")


def _head(g: GraphContext, x: Tensor) -> Tensor:
    """build_hc_head: what is left of the streams at the end."""
    n_embd, hc, nt, _ = x.ne
    mixes = ggml.mul_mat(g.needed("output_hc_fn"), ggml.rms_norm(ggml.reshape(x, hc * n_embd, nt)))
    pre = ggml.add(ggml.mul(mixes, g.needed("output_hc_scale")), g.needed("output_hc_base"))
    return _reduced(g, x, ggml.scale_bias(ggml.sigmoid(pre)))
