"""The table of ggml's operations, under ggml's names without the prefix, with its arguments in its order (ggml/src/ggml.c).

What changes neither a shape nor whether a backend can compute it (scales, epsilons, frequencies) is left out, so
`ggml_rope_ext(ctx, a, pos, c, n_rot, …)` is `rope_ext(a, pos, c)` and `ggml_scale(ctx, a, s)` is `scale(a)`. Import the
module as `ggml`.

Where ggml asserts that shapes fit together, so does this: a model whose header makes llama.cpp abort is refused.
"""

from typing import NoReturn

from fitplug.memory.graph.errors import ShapesAbortError
from fitplug.memory.graph.tensor import (
    BLOCKS,
    Shape,
    Tensor,
    is_contiguous,
    nbytes,
    nelements,
    new_input,
    new_tensor,
    row_size,
)

__all__ = ["is_contiguous", "nelements", "new_input", "new_tensor", "row_size"]


def _onto(op: str, a: Tensor, src: list[Tensor | None]) -> Tensor:
    """A result that is written into `a`'s own memory (ggml_view_tensor)."""
    return Tensor(op, a.type, a.ne, src, a.nb, a)


def abort(assertion: str, *operands: Tensor) -> NoReturn:
    """GGML_ASSERT fails."""
    shapes = "".join(", " + "x".join(map(str, t.ne)) for t in operands)
    raise ShapesAbortError(f"llama.cpp aborts on these numbers of heads and widths: GGML_ASSERT({assertion}){shapes}")


def require(assertion: str, holds: bool) -> None:
    """GGML_ASSERT of a graph's builder."""
    if not holds:
        abort(assertion)


def _binary(op: str, a: Tensor, b: Tensor) -> Tensor:
    """ggml_add_impl and its like: `b` is repeated."""
    an, bn = a.ne, b.ne
    if an != bn and (an[0] % bn[0] or an[1] % bn[1] or an[2] % bn[2] or an[3] % bn[3]):
        abort("ggml_can_repeat(b, a)", a, b)
    return Tensor(op, a.type, an, [a, b])


# Elementwise: one source


def unary(a: Tensor, kind: str) -> Tensor:
    """GGML_OP_UNARY; `kind` is the operation in lower case."""
    t = Tensor("UNARY", a.type, a.ne, [a])
    t.param = kind
    return t


def silu(a: Tensor) -> Tensor:
    """ggml_silu."""
    return unary(a, "silu")


def sigmoid(a: Tensor) -> Tensor:
    """ggml_sigmoid."""
    return unary(a, "sigmoid")


def gelu(a: Tensor) -> Tensor:
    """ggml_gelu."""
    return unary(a, "gelu")


def gelu_erf(a: Tensor) -> Tensor:
    """ggml_gelu_erf."""
    return unary(a, "gelu_erf")


def gelu_quick(a: Tensor) -> Tensor:
    """ggml_gelu_quick."""
    return unary(a, "gelu_quick")


def relu(a: Tensor) -> Tensor:
    """ggml_relu."""
    return unary(a, "relu")


def tanh(a: Tensor) -> Tensor:
    """ggml_tanh."""
    return unary(a, "tanh")


def exp(a: Tensor) -> Tensor:
    """ggml_exp."""
    return unary(a, "exp")


def neg(a: Tensor) -> Tensor:
    """ggml_neg."""
    return unary(a, "neg")


def softplus(a: Tensor) -> Tensor:
    """ggml_softplus."""
    return unary(a, "softplus")


def elu(a: Tensor) -> Tensor:
    """ggml_elu."""
    return unary(a, "elu")


def sgn(a: Tensor) -> Tensor:
    """ggml_sgn."""
    return unary(a, "sgn")


def round(a: Tensor) -> Tensor:  # noqa: A001 - ggml's own name for it
    """ggml_round."""
    return unary(a, "round")


def hardswish(a: Tensor) -> Tensor:
    """ggml_hardswish."""
    return unary(a, "hardswish")


def hardsigmoid(a: Tensor) -> Tensor:
    """ggml_hardsigmoid."""
    return unary(a, "hardsigmoid")


def gelu_inplace(a: Tensor) -> Tensor:
    """ggml_gelu_inplace."""
    t = _onto("UNARY", a, [a])
    t.param = "gelu"
    return t


def relu_inplace(a: Tensor) -> Tensor:
    """ggml_relu_inplace."""
    t = _onto("UNARY", a, [a])
    t.param = "relu"
    return t


def xielu(a: Tensor) -> Tensor:
    """ggml_xielu."""
    return unary(a, "xielu")


def sqr(a: Tensor) -> Tensor:
    """ggml_sqr."""
    return Tensor("SQR", a.type, a.ne, [a])


def sqrt(a: Tensor) -> Tensor:
    """ggml_sqrt."""
    return Tensor("SQRT", a.type, a.ne, [a])


def log(a: Tensor) -> Tensor:
    """ggml_log."""
    return Tensor("LOG", a.type, a.ne, [a])


def sin(a: Tensor) -> Tensor:
    """ggml_sin."""
    return Tensor("SIN", a.type, a.ne, [a])


def cos(a: Tensor) -> Tensor:
    """ggml_cos."""
    return Tensor("COS", a.type, a.ne, [a])


def scale(a: Tensor) -> Tensor:
    """ggml_scale."""
    return Tensor("SCALE", a.type, a.ne, [a])


scale_bias = scale


def scale_inplace(a: Tensor) -> Tensor:
    """ggml_scale_inplace."""
    return _onto("SCALE", a, [a])


def clamp(a: Tensor) -> Tensor:
    """ggml_clamp."""
    return Tensor("CLAMP", a.type, a.ne, [a])


def fill(a: Tensor) -> Tensor:
    """ggml_fill."""
    return Tensor("FILL", a.type, a.ne, [a])


# Elementwise: several sources


def add(a: Tensor, b: Tensor) -> Tensor:
    """ggml_add."""
    return _binary("ADD", a, b)


def add_inplace(a: Tensor, b: Tensor) -> Tensor:
    """ggml_add_inplace."""
    return _onto("ADD", a, [a, b])


def add_id(a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """ggml_add_id."""
    return Tensor("ADD_ID", a.type, a.ne, [a, b, ids])


def sub(a: Tensor, b: Tensor) -> Tensor:
    """ggml_sub."""
    return _binary("SUB", a, b)


def mul(a: Tensor, b: Tensor) -> Tensor:
    """ggml_mul."""
    return _binary("MUL", a, b)


def div(a: Tensor, b: Tensor) -> Tensor:
    """ggml_div."""
    return _binary("DIV", a, b)


def glu(a: Tensor, b: Tensor | None = None, kind: str = "swiglu") -> Tensor:
    """GGML_OP_GLU: gate `a` with `b`, or the first half of `a`'s rows with the second (ggml_glu_impl)."""
    ne = a.ne
    t = Tensor("GLU", a.type, ne if b is not None else (ne[0] // 2, ne[1], ne[2], ne[3]), [a, b])
    t.param = kind
    return t


def swiglu_split(a: Tensor, b: Tensor) -> Tensor:
    """ggml_swiglu_split."""
    return glu(a, b)


# Norms, softmax, sums


def rms_norm(a: Tensor) -> Tensor:
    """ggml_rms_norm."""
    return Tensor("RMS_NORM", a.type, a.ne, [a])


def norm(a: Tensor) -> Tensor:
    """ggml_norm."""
    return Tensor("NORM", a.type, a.ne, [a])


def group_norm(a: Tensor) -> Tensor:
    """ggml_group_norm."""
    return Tensor("GROUP_NORM", a.type, a.ne, [a])


def l2_norm(a: Tensor) -> Tensor:
    """ggml_l2_norm."""
    return Tensor("L2_NORM", a.type, a.ne, [a])


def soft_max(a: Tensor) -> Tensor:
    """ggml_soft_max."""
    return Tensor("SOFT_MAX", a.type, a.ne, [a, None, None])


def soft_max_ext(a: Tensor, mask: Tensor | None, sinks: Tensor | None = None) -> Tensor:
    """ggml_soft_max_ext and ggml_soft_max_add_sinks."""
    return Tensor("SOFT_MAX", a.type, a.ne, [a, mask, sinks])


def sum_rows(a: Tensor) -> Tensor:
    """ggml_sum_rows."""
    return Tensor("SUM_ROWS", a.type, (1, a.ne[1], a.ne[2], a.ne[3]), [a])


def mean(a: Tensor) -> Tensor:
    """ggml_mean."""
    return Tensor("MEAN", "f32", (1, a.ne[1], a.ne[2], a.ne[3]), [a])


# Positions


def rope_ext(a: Tensor, pos: Tensor, freq_factors: Tensor | None = None) -> Tensor:
    """ggml_rope_ext."""
    return Tensor("ROPE", a.type, a.ne, [a, pos, freq_factors])


rope_multi = rope_ext
rope = rope_ext


def rope_ext_back(a: Tensor, pos: Tensor, freq_factors: Tensor | None = None) -> Tensor:
    """ggml_rope_ext_back."""
    return Tensor("ROPE_BACK", a.type, a.ne, [a, pos, freq_factors])


def arange(n: int) -> Tensor:
    """ggml_arange; `n` is the number of steps."""
    return Tensor("ARANGE", "f32", (n, 1, 1, 1), [])


# Matrix products


def mul_mat(a: Tensor, b: Tensor) -> Tensor:
    """ggml_mul_mat."""
    an, bn = a.ne, b.ne
    if an[0] != bn[0] or bn[2] % an[2] or bn[3] % an[3]:
        abort("ggml_can_mul_mat(a, b)", a, b)
    return Tensor("MUL_MAT", "f32", (an[1], bn[1], bn[2], bn[3]), [a, b])


def mul_mat_id(as_: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """ggml_mul_mat_id."""
    if as_.ne[0] != b.ne[0]:
        abort("as->ne[0] == b->ne[0]", as_, b)
    return Tensor("MUL_MAT_ID", "f32", (as_.ne[1], ids.ne[0], b.ne[2], 1), [as_, b, ids])


def flash_attn_ext(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    max_bias: float = 0.0,
    logit_softcap: float = 0.0,
    sinks: Tensor | None = None,
    n_kv_max: int = 0,
) -> Tensor:
    """ggml_flash_attn_ext, ggml_flash_attn_ext_add_sinks and ggml_flash_attn_ext_set_n_kv_max."""
    if k.ne[0] != q.ne[0] or q.ne[2] % k.ne[2] or q.ne[3] != k.ne[3]:
        abort("ggml_can_mul_mat(k, q)", k, q)
    t = Tensor("FLASH_ATTN_EXT", "f32", (v.ne[0], q.ne[2], q.ne[1], q.ne[3]), [q, k, v, mask, sinks])
    t.param = (max_bias, logit_softcap, n_kv_max)
    return t


# Rows: picking, writing, sorting


def get_rows(a: Tensor, ids: Tensor) -> Tensor:
    """ggml_get_rows."""
    n = ids.ne
    return Tensor("GET_ROWS", "i32" if a.type == "i32" else "f32", (a.ne[0], n[0], n[1], n[2]), [a, ids])


def set_rows(a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """ggml_set_rows: write `b` into `a`; the sources stand in ggml's own odd order."""
    an, bn = a.ne, b.ne
    if an[0] != bn[0] or an[2] != bn[2] or an[3] != bn[3]:
        abort("a->ne[0] == b->ne[0]", a, b)
    if bn[1] != ids.ne[0]:
        abort("b->ne[1] == c->ne[0]", b, ids)
    return _onto("SET_ROWS", a, [b, ids, a])


def argsort(a: Tensor) -> Tensor:
    """ggml_argsort."""
    return Tensor("ARGSORT", "i32", a.ne, [a])


def argsort_top_k(a: Tensor, k: int) -> Tensor:
    """ggml_argsort_top_k: a view of the whole sorted thing."""
    t = argsort(a)
    return view_4d(t, k, t.ne[1], t.ne[2], t.ne[3], t.nb[1], t.nb[2], t.nb[3], 0)


def top_k(a: Tensor, k: int) -> Tensor:
    """ggml_top_k."""
    return Tensor("TOP_K", "i32", (k, a.ne[1], a.ne[2], a.ne[3]), [a])


def argmax(a: Tensor) -> Tensor:
    """ggml_argmax."""
    return Tensor("ARGMAX", "i32", (a.ne[1], 1, 1, 1), [a])


# Views: no memory of their own


def reshape(a: Tensor, ne0: int, ne1: int = 1, ne2: int = 1, ne3: int = 1) -> Tensor:
    """ggml_reshape_1d … _4d."""
    if nelements(a) != ne0 * ne1 * ne2 * ne3:
        abort(f"ggml_nelements(a) == {ne0}*{ne1}*{ne2}*{ne3}", a)
    block, size = BLOCKS[a.type]
    nb1 = ne0 // block * size
    nb2 = nb1 * ne1
    return Tensor("RESHAPE", a.type, (ne0, ne1, ne2, ne3), [a], (size, nb1, nb2, nb2 * ne2), a)


def _view(a: Tensor, ne: Shape, nb: Shape, offset: int) -> Tensor:
    """ggml_view_impl; what is viewed lies within what it is a view of (ggml_new_tensor_impl)."""
    t = Tensor("VIEW", a.type, ne, [a], nb, a, offset)
    base = t.view_src or a
    if row_size(a.type, ne[0]) * ne[1] * ne[2] * ne[3] + t.view_offs > nbytes(base):
        abort("data_size + view_offs <= ggml_nbytes(view_src)", t, base)
    return t


def view_1d(a: Tensor, ne0: int, offset: int = 0) -> Tensor:
    """ggml_view_1d."""
    block, size = BLOCKS[a.type]
    nb1 = ne0 // block * size
    return _view(a, (ne0, 1, 1, 1), (size, nb1, nb1, nb1), offset)


def view_2d(a: Tensor, ne0: int, ne1: int, nb1: int, offset: int = 0) -> Tensor:
    """ggml_view_2d."""
    nb2 = nb1 * ne1
    return _view(a, (ne0, ne1, 1, 1), (BLOCKS[a.type][1], nb1, nb2, nb2), offset)


def view_3d(a: Tensor, ne0: int, ne1: int, ne2: int, nb1: int, nb2: int, offset: int = 0) -> Tensor:
    """ggml_view_3d."""
    return _view(a, (ne0, ne1, ne2, 1), (BLOCKS[a.type][1], nb1, nb2, nb2 * ne2), offset)


def view_4d(a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int, nb1: int, nb2: int, nb3: int, offset: int = 0) -> Tensor:
    """ggml_view_4d."""
    return _view(a, (ne0, ne1, ne2, ne3), (BLOCKS[a.type][1], nb1, nb2, nb3), offset)


def permute(a: Tensor, axis0: int, axis1: int, axis2: int, axis3: int) -> Tensor:
    """ggml_permute: dimension i of `a` becomes dimension axis_i."""
    ne, nb = [0, 0, 0, 0], [0, 0, 0, 0]
    ne[axis0], ne[axis1], ne[axis2], ne[axis3] = a.ne
    nb[axis0], nb[axis1], nb[axis2], nb[axis3] = a.nb
    return Tensor("PERMUTE", a.type, (ne[0], ne[1], ne[2], ne[3]), [a], (nb[0], nb[1], nb[2], nb[3]), a)


def transpose(a: Tensor) -> Tensor:
    """ggml_transpose."""
    ne, nb = a.ne, a.nb
    return Tensor("TRANSPOSE", a.type, (ne[1], ne[0], ne[2], ne[3]), [a], (nb[1], nb[0], nb[2], nb[3]), a)


# Copies


def cont(a: Tensor, *ne: int) -> Tensor:
    """ggml_cont, ggml_cont_1d … _4d."""
    return Tensor("CONT", a.type, _padded(ne) if ne else a.ne, [a])


def cpy(a: Tensor, b: Tensor) -> Tensor:
    """ggml_cpy: write `a` into `b`."""
    if nelements(a) != nelements(b):
        abort("ggml_nelements(a) == ggml_nelements(b)", a, b)
    return _onto("CPY", b, [a, b])


def cast(a: Tensor, type: str) -> Tensor:  # noqa: A002 - ggml's own name for it
    """ggml_cast; ggml makes the result its own second source, which the allocator's counting sees."""
    t = Tensor("CPY", type, a.ne, [a])
    t.src.append(t)
    return t


def concat(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """ggml_concat."""
    ne = list(a.ne)
    if any(n != m for i, (n, m) in enumerate(zip(ne, b.ne, strict=True)) if i != dim):
        abort("a->ne[d] == b->ne[d]", a, b)
    ne[dim] += b.ne[dim]
    return Tensor("CONCAT", a.type, _padded(ne), [a, b])


def repeat(a: Tensor, b: Tensor) -> Tensor:
    """ggml_repeat: `a` as often as fills `b`'s shape."""
    return Tensor("REPEAT", a.type, b.ne, [a])


def repeat_4d(a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int) -> Tensor:
    """ggml_repeat_4d."""
    return Tensor("REPEAT", a.type, (ne0, ne1, ne2, ne3), [a])


def pad(a: Tensor, p0: int, p1: int = 0, p2: int = 0, p3: int = 0) -> Tensor:
    """ggml_pad, and ggml_pad_ext with both sides of a dimension in one number."""
    ne = a.ne
    return Tensor("PAD", a.type, (ne[0] + p0, ne[1] + p1, ne[2] + p2, ne[3] + p3), [a])


pad_ext = pad


def set_1d(a: Tensor, b: Tensor) -> Tensor:
    """ggml_set_1d, ggml_set_2d (ggml_set_impl)."""
    if nelements(a) < nelements(b):
        abort("ggml_nelements(a) >= ggml_nelements(b)", a, b)
    return Tensor("SET", a.type, a.ne, [a, b])


# Convolutions


def im2col(a: Tensor, b: Tensor, s0: int, p0: int, d0: int, type: str) -> Tensor:  # noqa: A002 - ggml's own name for it
    """ggml_im2col in one dimension."""
    width = (b.ne[0] + 2 * p0 - d0 * (a.ne[0] - 1) - 1) // s0 + 1
    return Tensor("IM2COL", type, (a.ne[1] * a.ne[0], width, b.ne[2], 1), [a, b])


def conv_1d(a: Tensor, b: Tensor, s0: int, p0: int, d0: int) -> Tensor:
    """ggml_conv_1d."""
    columns = im2col(a, b, s0, p0, d0, "f32" if a.type == "bf16" else "f16")
    n = columns.ne
    result = mul_mat(reshape(columns, n[0], n[2] * n[1]), reshape(a, a.ne[0] * a.ne[1], a.ne[2]))
    return reshape(result, n[1], a.ne[2], n[2])


def conv_1d_ph(a: Tensor, b: Tensor, s: int, d: int) -> Tensor:
    """ggml_conv_1d_ph: padded by half the kernel."""
    return conv_1d(a, b, s, a.ne[0] // 2, d)


def conv_1d_dw(a: Tensor, b: Tensor, s0: int, p0: int, d0: int) -> Tensor:
    """ggml_conv_1d_dw."""
    columns = im2col(a, reshape(b, b.ne[0], 1, b.ne[1], b.ne[2]), s0, p0, d0, "f32" if a.type == "bf16" else "f16")
    result = mul_mat(columns, a)
    return reshape(result, result.ne[0], result.ne[2], 1)


def conv_1d_dw_ph(a: Tensor, b: Tensor, s0: int, d0: int) -> Tensor:
    """ggml_conv_1d_dw_ph."""
    return conv_1d_dw(a, b, s0, a.ne[0] // 2, d0)


def pool_2d(a: Tensor, k0: int, k1: int, s0: int, s1: int, p0: float = 0, p1: float = 0) -> Tensor:
    """ggml_pool_2d."""
    width = int((a.ne[0] + 2 * p0 - k0) / s0 + 1)
    height = int((a.ne[1] + 2 * p1 - k1) / s1 + 1)
    return Tensor("POOL_2D", "f32", (width, height, a.ne[2], a.ne[3]), [a])


# Recurrent mixers


def ssm_conv(sx: Tensor, c: Tensor) -> Tensor:
    """ggml_ssm_conv."""
    return Tensor("SSM_CONV", "f32", (c.ne[1], sx.ne[0] - c.ne[0] + 1, sx.ne[2], 1), [sx, c])


def ssm_scan(
    s: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, ids: Tensor, K: int = 1  # noqa: N803 - ggml's own names
) -> Tensor:  # fmt: skip
    """ggml_ssm_scan: output and states in one tensor."""
    n = nelements(x) + K * s.ne[0] * s.ne[1] * s.ne[2] * ids.ne[0]
    return Tensor("SSM_SCAN", "f32", (n, 1, 1, 1), [s, x, dt, A, B, C, ids])


def gated_delta_net(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, K: int = 1) -> Tensor:  # noqa: N803 - ggml's own name
    """ggml_gated_delta_net."""
    n, h, n_tokens, n_seqs = v.ne
    t = Tensor("GATED_DELTA_NET", "f32", (n * h, n_tokens * n_seqs + K * n * n_seqs, 1, 1), [q, k, v, g, beta, state])
    t.param = K
    return t


def _with_state(op: str, shape_of: Tensor, src: list[Tensor | None], state: Tensor) -> Tensor:
    n, h, n_tokens, _ = shape_of.ne
    return Tensor(op, "f32", (n * h, n_tokens + n * state.ne[1], 1, 1), src)


def rwkv_wkv6(k: Tensor, v: Tensor, r: Tensor, tf: Tensor, td: Tensor, state: Tensor) -> Tensor:
    """ggml_rwkv_wkv6."""
    return _with_state("RWKV_WKV6", k, [k, v, r, tf, td, state], state)


def rwkv_wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """ggml_rwkv_wkv7."""
    return _with_state("RWKV_WKV7", k, [r, w, k, v, a, b, state], state)


def gated_linear_attn(k: Tensor, v: Tensor, q: Tensor, g: Tensor, state: Tensor) -> Tensor:
    """ggml_gated_linear_attn."""
    return _with_state("GATED_LINEAR_ATTN", k, [k, v, q, g, state], state)


# Sparse attention and hyper-connections


def lightning_indexer(q: Tensor, k: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """ggml_lightning_indexer."""
    return Tensor("LIGHTNING_INDEXER", "f32", (k.ne[2], q.ne[2], 1, q.ne[3]), [q, k, weights, mask])


def dsv4_hc_pre(x: Tensor, weights: Tensor) -> Tensor:
    """ggml_dsv4_hc_pre, ggml_dsv4_hc_pre_gated."""
    return Tensor("DSV4_HC_PRE", "f32", (x.ne[0], x.ne[2], 1, 1), [x, weights])


dsv4_hc_pre_gated = dsv4_hc_pre


def dsv4_hc_post(x: Tensor, residual: Tensor, post: Tensor, comb: Tensor | None) -> Tensor:
    """ggml_dsv4_hc_post."""
    return Tensor("DSV4_HC_POST", "f32", (x.ne[0], residual.ne[1], x.ne[1], 1), [x, residual, post, comb])


def dsv4_hc_comb(mixes: Tensor, scale_: Tensor, base: Tensor) -> Tensor:
    """ggml_dsv4_hc_comb: `mixes` has (2 + hc) * hc rows."""
    hc = next(i for i in range(1, mixes.ne[0] + 1) if (2 + i) * i >= mixes.ne[0])
    return Tensor("DSV4_HC_COMB", "f32", (hc, hc, mixes.ne[1], 1), [mixes, scale_, base])


def _padded(ne: "tuple[int, ...] | list[int]") -> Shape:
    n = len(ne)
    return (ne[0], ne[1] if n > 1 else 1, ne[2] if n > 2 else 1, ne[3] if n > 3 else 1)
