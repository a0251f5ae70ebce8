"""T5: the decoder, which sees itself and an encoder's output, and the encoder (src/models/t5.cpp, t5encoder.cpp).

A context is reserved for the decoder alone: the encoder's graph, which is drawn when text is encoded, finds the buffers there.
"""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS, Linear
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GELU, PAR, RELU, SEQ
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph of a plain run."""
    if g.arch == "t5encoder":
        _encoder(g)
    else:
        _decoder(g)


def _w(g: GraphContext, side: str, name: str, il: int) -> Linear:
    """A tensor of one side's layer."""
    stem = f"{side}.blk.{il}.{name}"
    return Linear(g.tensor(f"{stem}.weight"), g.tensor(f"{stem}.bias"))


def _decoder(g: GraphContext) -> None:
    n_tokens, n_enc = g.n_tokens, g.model.n_ctx_train
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    embd_enc = ggml.new_input("f32", g.model.n_embd_inp or g.n_embd, n_enc)
    pos_bucket = ggml.new_input("i32", g.params.n_ctx_seq, n_tokens)
    inp_self, inp_cross = g.build_attn_inp_kv(), g.build_attn_inp_cross()
    out_ids = g.build_inp_out_ids()
    n_layer = g.model.get_int("decoder_block_count", g.n_layer)
    for il in range(n_layer):
        cur = g.build_norm(inpL, _w(g, "dec", "attn_norm", il), LLM_NORM_RMS, il)
        q, k, v = _qkv(g, "dec", ("attn_q", "attn_k", "attn_v"), cur, cur, il)
        bias = _pos_bias(g, "dec", pos_bucket, il)
        cur = g.build_attn(inp_self, _w(g, "dec", "attn_o", il), q, k, v, il, kq_b=bias)
        residual = ggml.add(cur, inpL)
        cur = g.build_norm(residual, _w(g, "dec", "cross_attn_norm", il), LLM_NORM_RMS, il)
        q, k, v = _qkv(g, "dec", ("cross_attn_q", "cross_attn_k", "cross_attn_v"), cur, embd_enc, il)
        wo = _w(g, "dec", "cross_attn_o", il)._replace(bias=None)
        cur = g.build_attn(inp_cross, wo, q, k, v, il)
        if il == n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        inpL = _feed_forward(g, "dec", ggml.add(cur, residual), il)  # noqa: N806 - as above
    g.build_output(g.build_norm(inpL, g.w("dec.output_norm"), LLM_NORM_RMS))


def _encoder(g: GraphContext) -> None:
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    pos_bucket = ggml.new_input("i32", g.n_tokens, g.n_tokens)
    inp_attn, out_ids = g.build_attn_inp_no_cache(), g.build_inp_out_ids()
    for il in range(g.n_layer):
        residual = inpL
        cur = g.build_norm(inpL, _w(g, "enc", "attn_norm", il), LLM_NORM_RMS, il)
        q, k, v = _qkv(g, "enc", ("attn_q", "attn_k", "attn_v"), cur, cur, il)
        wo = _w(g, "enc", "attn_o", il)._replace(bias=None)
        cur = g.build_attn(inp_attn, wo, q, k, v, il, kq_b=_pos_bias(g, "enc", pos_bucket, il))
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        inpL = _feed_forward(g, "enc", ggml.add(cur, residual), il)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("enc.output_norm"), LLM_NORM_RMS)
    g.keep_embd(cur)
    g.expand(cur)


def _qkv(
    g: GraphContext, side: str, names: tuple[str, str, str], queries: Tensor, keys: Tensor, il: int
) -> tuple[Tensor, Tensor, Tensor]:
    layer = g.hparams(il)
    q, k, v = (g.mm(_w(g, side, name, il), cur) for name, cur in zip(names, (queries, keys, keys), strict=True))
    head_k, head_v, n_keys = layer.n_embd_head_k, layer.n_embd_head_v, keys.ne[1]
    return (
        ggml.reshape(q, head_k, g.n_head, g.n_tokens),
        ggml.reshape(k, head_k, g.n_head_kv, n_keys),
        ggml.reshape(v, head_v, g.n_head_kv, n_keys),
    )


def _pos_bias(g: GraphContext, side: str, pos_bucket: Tensor, il: int) -> Tensor:
    """build_pos_bias; layers without a table of their own use the first one's."""
    own = _w(g, side, "attn_rel_b", il).weight
    table = own if own is not None else g.needed_tensor(f"{side}.blk.0.attn_rel_b.weight")
    n_kv, n_tokens, _, _ = pos_bucket.ne
    bias = ggml.get_rows(table, ggml.reshape(pos_bucket, n_kv * n_tokens))
    return ggml.cont(ggml.permute(ggml.reshape(bias, bias.ne[0], n_kv, n_tokens), 2, 0, 1, 3))


def _feed_forward(g: GraphContext, side: str, ffn_inp: Tensor, il: int) -> Tensor:
    """T5 uses ReLU, Flan-T5 a gated GELU."""
    cur = g.build_norm(ffn_inp, _w(g, side, "ffn_norm", il), LLM_NORM_RMS, il)
    up, gate, down = (_w(g, side, f"ffn_{name}", il)._replace(bias=None) for name in ("up", "gate", "down"))
    gated = gate.weight is not None
    cur = g.build_ffn(cur, up, gate, down, GELU if gated else RELU, PAR if gated else SEQ, il)
    return ggml.add(cur, ffn_inp)
