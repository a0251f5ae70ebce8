"""Gemma 4's ears: a conformer that looks at overlapping blocks (tools/mtmd/models/gemma4a.cpp, gemma4ua.cpp)."""

from fitplug.memory.clip_graph import NORMAL, RMS, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d
from fitplug.memory.graph.tensor import Tensor

CHUNK = PAST = 12
SEEN, DISTANCES = CHUNK + PAST, PAST + 1
"""Positions that a block sees, and distances that have a vector."""
BEFORE = 4
"""Frames before each that the convolution sees."""


def gemma4ua(g: ClipGraph) -> Tensor:
    """clip_graph_gemma4ua: one product of the raw samples."""
    cur = ggml.cont(ggml.permute(g.build_inp_raw(1), 1, 0, 2, 3))
    return g.build_mm(g.model.w("mm.a.input_projection.weight"), ggml.rms_norm(cur))


def gemma4a(g: ClipGraph) -> Tensor:
    """clip_graph_gemma4a: every product with a weight of this name clamped."""
    model, g.clamps = g.model, True
    cur = _subsampled(g)
    n = cur.ne[1]
    positions = ggml.new_input("f32", model.n_head * model.d_head, DISTANCES)
    mask = ggml.new_input("f32", SEEN, CHUNK, -(-n // CHUNK))
    for il in range(model.n_layer):
        name = f"a.blk.{il}"
        residual = _half(g, cur, name, "")
        residual = ggml.add(residual, _attention(g, residual, name, positions, mask))
        if model.has(f"{name}.conv_norm.weight"):
            residual = ggml.add(residual, _convolution(g, residual, name))
        residual = _half(g, residual, name, "_1")
        weight = model.optional(f"{name}.ln2.weight")
        cur = residual if weight is None else g.build_norm(residual, weight, None, RMS)
    if model.has("a.pre_encode.out.weight"):
        cur = g.linear(cur, "a.pre_encode.out")
    cur = ggml.rms_norm(cur)
    norm, projection = model.optional("mm.a.soft_emb_norm.weight"), model.optional("mm.a.input_projection.weight")
    cur = cur if norm is None else ggml.mul(cur, norm)
    return cur if projection is None else g.build_mm(projection, cur)


def _subsampled(g: ClipGraph) -> Tensor:
    model, cur = g.model, ggml.cont(ggml.transpose(g.build_inp_raw(1)))
    for i in range(2):
        cur = conv_2d(model.w(f"a.conv1d.{i}.weight"), cur, 2, 1)
        bias, norm = model.optional(f"a.conv1d.{i}.bias"), model.optional(f"a.conv1d.{i}.norm.weight")
        cur = cur if bias is None else ggml.add(cur, bias)
        if norm is not None:
            cur = g.build_norm(ggml.cont(ggml.permute(cur, 1, 2, 0, 3)), norm, None, NORMAL)
            cur = ggml.cont(ggml.permute(cur, 2, 0, 1, 3))
        cur = ggml.relu(cur)
    cur = ggml.cont(ggml.permute(cur, 1, 2, 0, 3))
    return g.linear(ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2]), "a.input_projection")


def _normed_if_any(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    weight = g.model.optional(f"{name}.weight")
    return cur if weight is None else g.build_norm(cur, weight, None, RMS)


def _half(g: ClipGraph, cur: Tensor, name: str, suffix: str) -> Tensor:
    """Half a feed-forward, added; its biases are not used."""
    model = g.model
    fed = g.build_norm(cur, model.w(f"{name}.ffn_norm{suffix}.weight"), None, RMS)
    fed = ggml.silu(g.build_mm(model.w(f"{name}.ffn_up{suffix}.weight"), fed))
    fed = g.build_mm(model.w(f"{name}.ffn_down{suffix}.weight"), fed)
    fed = _normed_if_any(g, fed, f"{name}.ffn_post_norm{suffix}")
    return ggml.add(cur, ggml.scale(fed))


def _attention(g: ClipGraph, residual: Tensor, name: str, positions: Tensor, mask: Tensor) -> Tensor:
    model, n, n_head, d_head = g.model, residual.ne[1], g.model.n_head, g.model.d_head
    own = model.has(f"{name}.attn_pre_norm.weight")
    cur = _normed_if_any(g, residual, f"{name}.attn_pre_norm" if own else f"{name}.ln1")
    q, k, v = (g.build_mm(model.w(f"{name}.attn_{part}.weight"), cur) for part in "qkv")
    q, k, v = (ggml.reshape(t, d_head, n_head, n) for t in (q, k, v))
    q, k = (_per_dimension(g, t, f"{name}.{scale}") for t, scale in ((q, "per_dim_scale"), (k, "per_dim_k_scale")))
    n_blocks = mask.ne[2]
    left = n_blocks * CHUNK - n
    q = ggml.reshape(ggml.pad(q, 0, 0, left), d_head, n_head, CHUNK, n_blocks)
    q = ggml.cont(ggml.permute(q, 0, 3, 1, 2))
    k = ggml.cont(ggml.permute(_overlapping(k, n_blocks), 0, 3, 1, 2))
    v = ggml.cont(ggml.permute(_overlapping(v, n_blocks), 1, 3, 0, 2))
    scores = ggml.mul_mat(k, q)
    if model.has(f"{name}.attn_k_rel.weight"):
        scores = ggml.add(scores, _by_distance(g, q, f"{name}.attn_k_rel", positions))
    scores = ggml.add(ggml.scale(ggml.tanh(ggml.scale(scores))), mask)
    cur = ggml.mul_mat(v, ggml.soft_max(scores))
    cur = ggml.cont(ggml.cont(ggml.permute(cur, 0, 2, 3, 1)), d_head * n_head, CHUNK * n_blocks)
    if left:
        cur = ggml.cont(ggml.view_2d(cur, d_head * n_head, n, cur.nb[1]))
    return _normed_if_any(g, g.linear(cur, f"{name}.attn_out"), f"{name}.attn_post_norm")


def _per_dimension(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    weight = g.model.optional(f"{name}.weight")
    cur = ggml.scale(cur)
    return cur if weight is None else ggml.mul(cur, ggml.reshape(weight, g.model.d_head))


def _overlapping(cur: Tensor, n_blocks: int) -> Tensor:
    """Blocks with what went before them."""
    d_head, n_head, n, _ = cur.ne
    cur = ggml.pad(cur, 0, 0, SEEN * n_blocks - n)
    return ggml.cont(ggml.view_4d(cur, d_head, n_head, SEEN, n_blocks, cur.nb[1], cur.nb[2], CHUNK * cur.nb[2], 0))


def _by_distance(g: ClipGraph, q: Tensor, name: str, positions: Tensor) -> Tensor:
    d_head, _, n_blocks, n_head = q.ne
    p = ggml.reshape(ggml.mul_mat(g.model.w(f"{name}.weight"), positions), d_head, n_head, DISTANCES)
    p = ggml.cont(ggml.permute(p, 0, 2, 1, 3))
    far = ggml.mul_mat(p, ggml.reshape(q, d_head, CHUNK * n_blocks, n_head))
    far = ggml.pad(ggml.reshape(far, DISTANCES, CHUNK, n_blocks, n_head), SEEN + 1 - DISTANCES)
    far = ggml.reshape(far, (SEEN + 1) * CHUNK, n_blocks, n_head)
    far = ggml.cont(ggml.view_3d(far, CHUNK * SEEN, n_blocks, n_head, far.nb[1], far.nb[2]))
    return ggml.reshape(far, SEEN, CHUNK, n_blocks, n_head)


def _convolution(g: ClipGraph, residual: Tensor, name: str) -> Tensor:
    """The names of its two norms are exchanged in the files, and put right when they are loaded."""
    model = g.model
    cur = g.build_norm(residual, model.w(f"{name}.conv_norm.weight"), None, RMS)
    cur = g.build_mm(model.w(f"{name}.conv_pw1.weight"), cur)
    n = cur.ne[0] // 2
    gate = ggml.sigmoid(ggml.cont(ggml.view_2d(cur, n, cur.ne[1], cur.nb[1], n * cur.nb[0])))
    cur = ggml.cont(ggml.transpose(ggml.mul(ggml.view_2d(cur, n, cur.ne[1], cur.nb[1]), gate)))
    cur = ggml.ssm_conv(ggml.pad(cur, BEFORE), model.w(f"{name}.conv_dw.weight"))
    bias = model.optional(f"{name}.conv_dw.bias")
    cur = cur if bias is None else ggml.add(cur, bias)
    cur = ggml.silu(_normed_if_any(g, cur, f"{name}.norm_conv"))
    return g.build_mm(model.w(f"{name}.conv_pw2.weight"), cur)
