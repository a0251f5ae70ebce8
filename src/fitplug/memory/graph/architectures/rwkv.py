"""RWKV 6 and 7, and Qwen2 turned into them (src/models/rwkv6.cpp, rwkv6qwen2.cpp, rwkv7.cpp, arwkv7.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM, LLM_NORM_RMS, Linear
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.rwkv import rwkv6_time_mix, rwkv7_time_mix, weight
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor

SEVENTH = ("rwkv7", "arwkv7")
OF_QWEN2 = ("rwkv6qwen2", "arwkv7")
"""With Qwen2's feed-forward blocks and norms instead of RWKV's own."""


class TimeMix:
    """The time mixing of one graph, which in RWKV 7 remembers the first layer's V."""

    def __init__(self, g: GraphContext, inp: InpRs) -> None:
        """Nothing seen yet."""
        self.g, self.inp = g, inp
        self.first_value: Tensor | None = None

    def __call__(self, cur: Tensor, x_prev: Tensor, il: int) -> Tensor:
        """One layer's."""
        if self.g.arch not in SEVENTH:
            return rwkv6_time_mix(self.g, self.inp, cur, x_prev, il)
        cur, self.first_value = rwkv7_time_mix(self.g, self.inp, cur, x_prev, self.first_value, il)
        return cur


def build(g: GraphContext) -> None:
    """Draw the graph."""
    cur = g.build_inp_embd()
    own = g.arch not in OF_QWEN2
    if own:
        cur = g.build_norm(cur, g.w("token_embd_norm"), LLM_NORM, 0)
    inp = g.build_rs_inp()
    out_ids = g.build_inp_out_ids()
    mix, layer = TimeMix(g, inp), _own_layer if own else _qwen2_layer
    rescale = g.model.get_int("rescale_every_n_layers") if g.arch == "rwkv6" else 0
    for il in g.layers(lambda il: (il == 0, rescale and (il + 1) % rescale == 0)):
        cur = ggml.reshape(cur, g.n_embd, g.n_seq_tokens, g.n_seqs)
        cur = layer(g, inp, mix, cur, il, out_ids if il == g.n_layer - 1 else None)
        if rescale and (il + 1) % rescale == 0:
            cur = ggml.scale(cur)
    cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM if own else LLM_NORM_RMS)
    g.build_output(cur)


def _own_layer(g: GraphContext, inp: InpRs, mix: TimeMix, residual: Tensor, il: int, out_ids: Tensor | None) -> Tensor:
    """Time mixing and channel mixing, each with a token of the past of its own."""
    shift = g.build_rwkv_token_shift_load(inp, il)
    att_shift, ffn_shift = (
        ggml.view_3d(shift, g.n_embd, 1, g.n_seqs, shift.nb[1], shift.nb[2], i * g.n_embd * F32) for i in range(2)
    )
    att_norm = g.build_norm(residual, g.w("attn_norm", il), LLM_NORM, il)
    ffn_inp = ggml.add(mix(att_norm, _previous(g, att_shift, att_norm), il), residual)
    ffn_norm = g.build_norm(ffn_inp, g.w("attn_norm_2", il), LLM_NORM, il)
    x_prev = _previous(g, ffn_shift, ffn_norm)
    shift = ggml.concat(_last(g, att_norm), _last(g, ffn_norm), 1)
    g.expand(g.build_rwkv_token_shift_store(shift, il))
    ffn_inp, ffn_norm, x_prev = (ggml.reshape(t, g.n_embd, g.n_tokens) for t in (ffn_inp, ffn_norm, x_prev))
    if out_ids is not None:
        ffn_inp, ffn_norm, x_prev = (ggml.get_rows(t, out_ids) for t in (ffn_inp, ffn_norm, x_prev))
    return ggml.add(_channel_mix(g, ffn_norm, x_prev, il), ffn_inp)


def _channel_mix(g: GraphContext, cur: Tensor, x_prev: Tensor, il: int) -> Tensor:
    """build_rwkv6_channel_mix, build_rwkv7_channel_mix."""
    sx = ggml.sub(x_prev, cur)
    xk = ggml.add(ggml.mul(sx, weight(g, "channel_mix_lerp_k", il)), cur)
    k = ggml.sqr(ggml.relu(g.proj("channel_mix_key", xk, il)))
    value = g.proj("channel_mix_value", k, il)
    if g.arch in SEVENTH:
        return value
    xr = ggml.add(ggml.mul(sx, weight(g, "channel_mix_lerp_r", il)), cur)
    return ggml.mul(ggml.sigmoid(g.proj("channel_mix_receptance", xr, il)), value)


def _qwen2_layer(g: GraphContext, inp: InpRs, mix: TimeMix, residual: Tensor, il: int, out_ids: Tensor | None) -> Tensor:
    """Time mixing in place of attention."""
    shift = g.build_rwkv_token_shift_load(inp, il)
    att_norm = g.build_norm(residual, g.w("attn_norm", il), LLM_NORM_RMS, il)
    cur = mix(att_norm, _previous(g, shift, att_norm), il)
    g.expand(g.build_rwkv_token_shift_store(_last(g, att_norm), il))
    ffn_inp = ggml.reshape(ggml.add(cur, residual), g.n_embd, g.n_tokens)
    if out_ids is not None:
        ffn_inp = ggml.get_rows(ffn_inp, out_ids)
    norm = Linear(g.w("ffn_norm", il).weight)
    return ggml.add(g.ffn(g.build_norm(ffn_inp, norm, LLM_NORM_RMS, il), il), ffn_inp)


def _previous(g: GraphContext, shift: Tensor, cur: Tensor) -> Tensor:
    """Each token's predecessor: the last batch's last token, then this batch's but the last."""
    return ggml.concat(shift, ggml.view_3d(cur, g.n_embd, g.n_seq_tokens - 1, g.n_seqs, cur.nb[1], cur.nb[2]), 1)


def _last(g: GraphContext, cur: Tensor) -> Tensor:
    """The last token of each sequence."""
    return ggml.view_3d(cur, g.n_embd, 1, g.n_seqs, cur.nb[1], cur.nb[2], (g.n_seq_tokens - 1) * g.n_embd * F32)
