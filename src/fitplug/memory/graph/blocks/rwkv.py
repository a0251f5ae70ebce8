"""RWKV's time mixing: a token meets its predecessor, then a decaying matrix per head (src/models/rwkv6-base.cpp and 7)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.states import store_state
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.recurrent import InpRs
from fitplug.memory.graph.tensor import Tensor


def low_rank(g: GraphContext, first: str, second: str, x: Tensor, il: int, act: str = "") -> Tensor:
    """Two matrices with little between them."""
    hidden = g.plain(first, x, il)
    return g.plain(second, ggml.unary(hidden, act) if act else hidden, il)


def weight(g: GraphContext, name: str, il: int) -> Tensor:
    """A weight that the architecture cannot do without."""
    return g.needed(name, il)


def slices(g: GraphContext, mixed: Tensor, n: int) -> list[Tensor]:
    """`n` inputs of n_embd each that lie one after another."""
    size = g.n_embd * g.n_tokens * F32
    return [ggml.view_2d(mixed, g.n_embd, g.n_tokens, mixed.nb[1], i * size) for i in range(n)]


def with_new_state(g: GraphContext, wkv_output: Tensor, il: int) -> Tensor:
    """The result holds the output and then the new states, which are kept."""
    s, output = g.rs.get_s_l(il), g.n_embd * g.n_tokens
    store_state(g, ggml.view_1d(wkv_output, s.ne[0] * g.n_seqs, output * F32), s)
    return ggml.view_1d(wkv_output, output)


def head_norm(g: GraphContext, cur: Tensor, n_head: int, il: int) -> Tensor:
    """A norm for each head, then time_mix_ln."""
    cur = ggml.norm(ggml.reshape(cur, g.n_embd // n_head, n_head, g.n_tokens))
    cur = ggml.reshape(cur, g.n_embd, g.n_tokens)
    return ggml.add(ggml.mul(cur, g.needed("time_mix_ln", il)), g.needed("time_mix_ln", il, "bias"))


def rwkv6_time_mix(g: GraphContext, inp: InpRs, cur: Tensor, x_prev: Tensor, il: int) -> Tensor:
    """llm_build_rwkv6_base::build_rwkv6_time_mix; without time_mix_first it is QRWKV's gated linear attention."""
    head_size = g.hparam("wkv_head_size")
    n_head, n_tokens = g.n_embd // head_size, g.n_tokens
    first = g.w("time_mix_first", il).weight
    xw, xk, xv, xr, xg = _rwkv6_inputs(g, cur, x_prev, il)
    r, k, v = (g.mm(g.w(f"time_mix_{name}", il), x) for name, x in (("receptance", xr), ("key", xk), ("value", xv)))
    gate = g.proj("time_mix_gate", xg, il)
    gate = ggml.sigmoid(gate) if first is None else ggml.silu(gate)
    n_head_kv = g.hparams(il).n_head_kv
    if n_head_kv not in (0, n_head):
        ggml.require("n_head % n_head_kv == 0", n_head % n_head_kv == 0)
        shape = (head_size, n_head // n_head_kv, n_head_kv, n_tokens)
        k, v = (ggml.repeat_4d(ggml.reshape(t, head_size, 1, n_head_kv, n_tokens), *shape) for t in (k, v))
    k, v, r = (ggml.reshape(t, head_size, n_head, n_tokens) for t in (k, v, r))

    w = low_rank(g, "time_mix_decay_w1", "time_mix_decay_w2", xw, il, "tanh")
    w = ggml.exp(ggml.neg(ggml.exp(ggml.add(w, weight(g, "time_mix_decay", il)))))
    w = ggml.reshape(w, head_size, n_head, n_tokens)
    if first is None:
        k = ggml.sub(k, ggml.mul(k, w))
    s = g.rs.get_s_l(il)
    state = g.build_rs(inp, s, s.ne[0], g.n_seqs)
    output = ggml.gated_linear_attn(k, v, r, w, state) if first is None else ggml.rwkv_wkv6(k, v, r, first, w, state)
    cur = with_new_state(g, output, il)
    cur = ggml.reshape(cur, g.n_embd, g.n_tokens) if first is None else head_norm(g, cur, n_head, il)
    cur = g.proj("time_mix_output", ggml.mul(cur, gate), il)
    return ggml.reshape(cur, g.n_embd, g.n_seq_tokens, g.n_seqs)


def _rwkv6_inputs(g: GraphContext, cur: Tensor, x_prev: Tensor, il: int) -> list[Tensor]:
    """How far each of the five projections looks back depends on the token."""
    n_embd, n_tokens = g.n_embd, g.n_tokens
    sx = ggml.reshape(ggml.sub(x_prev, cur), n_embd, n_tokens)
    cur = ggml.reshape(cur, n_embd, n_tokens)
    xxx = ggml.add(ggml.mul(sx, weight(g, "time_mix_lerp_x", il)), cur)
    w1, w2 = weight(g, "time_mix_w1", il), weight(g, "time_mix_w2", il)
    xxx = ggml.reshape(ggml.tanh(ggml.mul_mat(w1, xxx)), w1.ne[1] // 5, 1, 5, n_tokens)
    xxx = ggml.cont(ggml.permute(xxx, 0, 1, 3, 2))
    xxx = ggml.mul_mat(ggml.reshape(w2, w2.ne[0], w2.ne[1], 1, 5), xxx)
    fused = g.w("time_mix_lerp_fused", il).weight
    if fused is not None:
        sx, cur = ggml.reshape(sx, n_embd, 1, n_tokens), ggml.reshape(cur, n_embd, 1, n_tokens)
        return slices(g, ggml.add(ggml.mul(ggml.add(xxx, fused), sx), cur), 5)
    return [
        ggml.add(ggml.mul(ggml.add(x, weight(g, f"time_mix_lerp_{name}", il)), sx), cur)
        for name, x in zip("wkvrg", slices(g, xxx, 5), strict=True)
    ]


def rwkv7_time_mix(
    g: GraphContext, inp: InpRs, cur: Tensor, x_prev: Tensor, first_value: Tensor | None, il: int
) -> tuple[Tensor, Tensor]:
    """llm_build_rwkv7_base::build_rwkv7_time_mix; answers the first layer's V too, to which all later ones return."""
    head_size = g.hparam("wkv_head_size")
    n_head, n_tokens = g.n_embd // head_size, g.n_tokens
    gated = g.w("time_mix_g1", il).weight is not None and g.w("time_mix_g2", il).weight is not None
    xr, xw, xk, xv, xa, *xg = _rwkv7_inputs(g, cur, x_prev, il, 6 if gated else 5)
    r = g.proj("time_mix_receptance", xr, il)
    w = ggml.add(low_rank(g, "time_mix_w1", "time_mix_w2", xw, il, "tanh"), weight(g, "time_mix_w0", il))
    w = ggml.exp(ggml.scale(ggml.sigmoid(w)))
    k, v = g.proj("time_mix_key", xk, il), g.proj("time_mix_value", xv, il)
    if first_value is None:
        first_value = v
    else:
        back = ggml.add(low_rank(g, "time_mix_v1", "time_mix_v2", xv, il), weight(g, "time_mix_v0", il))
        v = ggml.add(v, ggml.mul(ggml.sub(first_value, v), ggml.sigmoid(back)))
    gate = low_rank(g, "time_mix_g1", "time_mix_g2", xg[0], il, "sigmoid") if gated else None
    a = ggml.add(low_rank(g, "time_mix_a1", "time_mix_a2", xa, il), weight(g, "time_mix_a0", il))
    a = ggml.sigmoid(a)
    kk = ggml.l2_norm(ggml.reshape(ggml.mul(k, weight(g, "time_mix_k_k", il)), head_size, n_head, n_tokens))
    ka = ggml.mul(k, weight(g, "time_mix_k_a", il))
    k = ggml.add(k, ggml.sub(ggml.mul(a, ka), ka))
    r, w, k, v, a = (ggml.reshape(t, head_size, n_head, n_tokens) for t in (r, w, k, v, a))

    s = g.rs.get_s_l(il)
    state = g.build_rs(inp, s, s.ne[0], g.n_seqs)
    output = ggml.rwkv_wkv7(r, w, k, v, ggml.neg(kk), ggml.mul(kk, a), state)
    ln, cur = g.w("time_mix_ln", il), with_new_state(g, output, il)
    normed = ln.weight is not None and ln.bias is not None
    cur = head_norm(g, cur, n_head, il) if normed else ggml.reshape(cur, g.n_embd, n_tokens)
    bonus = ggml.reshape(weight(g, "time_mix_r_k", il), head_size, n_head)
    rk = ggml.sum_rows(ggml.mul(ggml.mul(k, r), bonus))
    cur = ggml.add(cur, ggml.reshape(ggml.mul(v, rk), g.n_embd, n_tokens))
    if gate is not None:
        cur = ggml.mul(cur, gate)
    cur = g.proj("time_mix_output", cur, il)
    return ggml.reshape(cur, g.n_embd, g.n_seq_tokens, g.n_seqs), first_value


def _rwkv7_inputs(g: GraphContext, cur: Tensor, x_prev: Tensor, il: int, n: int) -> list[Tensor]:
    sx = ggml.repeat_4d(ggml.sub(x_prev, cur), g.n_embd, g.n_seq_tokens, g.n_seqs, n)
    return slices(g, ggml.add(ggml.mul(sx, weight(g, "time_mix_lerp_fused", il)), cur), n)
