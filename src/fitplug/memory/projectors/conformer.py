"""Conformers: convolutions between attention and two halves of a feed-forward (conformer.cpp, parakeet.cpp, …)."""

from fitplug.memory.clip_graph import NORMAL, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d, conv_2d_direct, conv_2d_dw_direct, roll
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import Tensor
from fitplug.memory.projectors.qformer import ask

POSITIONS = 512
"""Width of LFM2's relative positions."""
PAST = 4
"""Frames before each that LFM2's convolution sees."""
LOCAL_ATTENTION = 8192
"""From so many positions on Parakeet looks at windows; the warm-up has fewer."""


def _half(g: ClipGraph, cur: Tensor, norm: str, up: str, down: str) -> Tensor:
    """Half a feed-forward, added."""
    return ggml.add(cur, ggml.scale(g.mlp(g.norm(cur, norm), up, down, "silu")))


def _glu(cur: Tensor) -> Tensor:
    """The first half of each row, gated by the second; then channels are rows."""
    n = cur.ne[0] // 2
    gate = ggml.sigmoid(ggml.view_2d(cur, n, cur.ne[1], cur.nb[1], n * cur.nb[0]))
    return ggml.cont(ggml.transpose(ggml.mul(ggml.view_2d(cur, n, cur.ne[1], cur.nb[1]), gate)))


def _subsampled(g: ClipGraph, *, direct: bool) -> Tensor:
    """Frames to an eighth of them: five convolutions, a product."""
    model, cur = g.model, ggml.cont(ggml.transpose(g.build_inp_raw(1)))
    relu = ggml.relu_inplace if direct else ggml.relu
    pointwise = conv_2d_direct if direct else conv_2d
    cur = relu(ggml.add(conv_2d(model.w("a.conv1d.0.weight"), cur, 2, 1), model.w("a.conv1d.0.bias")))
    for i in (2, 5):
        cur = ggml.add(conv_2d_dw_direct(model.w(f"a.conv1d.{i}.weight"), cur, 2, 1), model.w(f"a.conv1d.{i}.bias"))
        cur = ggml.add(pointwise(model.w(f"a.conv1d.{i + 1}.weight"), cur, 1), model.w(f"a.conv1d.{i + 1}.bias"))
        cur = relu(cur)
    cur = ggml.cont(ggml.permute(cur, 0, 2, 1, 3))
    return g.linear(ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2]), "a.pre_encode.out")


# conformer.cpp


def lfm2a(g: ClipGraph) -> Tensor:
    """clip_graph_conformer: LFM2's ears."""
    n_pos_embd = ((((g.nx + 1) // 2 + 1) // 2 + 1) // 2) * 2 - 1
    positions = ggml.new_input("f32", POSITIONS, n_pos_embd)
    g.gf.expand(positions)
    cur = _subsampled(g, direct=True)
    for il in range(g.model.n_layer):
        name = f"a.blk.{il}"
        residual = _half(g, cur, f"{name}.ffn_norm", f"{name}.ffn_up", f"{name}.ffn_down")
        residual = ggml.add(residual, _relative(g, g.norm(residual, f"{name}.ln1"), name, positions))
        residual = ggml.add(residual, _lfm2_convolution(g, g.norm(residual, f"{name}.norm_conv"), name))
        residual = _half(g, residual, f"{name}.ffn_norm_1", f"{name}.ffn_up_1", f"{name}.ffn_down_1")
        cur = g.norm(residual, f"{name}.ln2")
    return g.mlp(g.norm(cur, "mm.a.mlp.0"), "mm.a.mlp.1", "mm.a.mlp.3", "gelu_erf")


def _relative(g: ClipGraph, cur: Tensor, name: str, positions: Tensor) -> Tensor:
    """Attention whose scores are a product with the keys and one with the distances."""
    model = g.model
    q = _heads(g, cur, f"{name}.attn_q")
    by_key, by_distance = (ggml.permute(ggml.add(q, model.w(f"{name}.pos_bias_{part}")), 0, 2, 1, 3) for part in "uv")
    k = ggml.cont(ggml.permute(_heads(g, cur, f"{name}.attn_k"), 0, 2, 1, 3))
    v = ggml.cont(ggml.permute(_heads(g, cur, f"{name}.attn_v"), 1, 2, 0, 3))
    near = ggml.cont(ggml.permute(ggml.mul_mat(by_key, k), 1, 0, 2, 3))
    p = ggml.permute(_heads(g, positions, f"{name}.linear_pos"), 0, 2, 1, 3)
    far = ggml.cont(ggml.permute(ggml.mul_mat(by_distance, p), 1, 0, 2, 3))
    n, n_q, n_head = far.ne[:3]
    far = ggml.reshape(ggml.pad(far, 1), n_q, n + 1, n_head)
    far = ggml.cont(ggml.view_3d(far, n_q, n, n_head, far.nb[1], far.nb[2], far.nb[0] * n_q), n, n_q, n_head)
    far = ggml.view_3d(far, near.ne[0], far.ne[1], far.ne[2], far.nb[1], far.nb[2])
    weights = ggml.soft_max(ggml.scale(ggml.add(near, far)))
    cur = ggml.permute(ggml.mul_mat(weights, v), 2, 0, 1, 3)
    return g.linear(ggml.cont(cur, cur.ne[0] * cur.ne[1], cur.ne[2]), f"{name}.attn_out")


def _heads(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    cur = g.linear(cur, name)
    return ggml.reshape(cur, g.model.d_head, g.model.n_head, cur.ne[1])


def _lfm2_convolution(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    model = g.model
    cur = _glu(g.linear(cur, f"{name}.conv_pw1"))
    cur = ggml.pad(roll(ggml.pad(cur, PAST)), PAST)
    cur = ggml.add(ggml.ssm_conv(cur, model.w(f"{name}.conv_dw.weight")), model.w(f"{name}.conv_dw.bias"))
    cur = ggml.add(ggml.mul(cur, model.w(f"{name}.conv_norm.weight")), model.w(f"{name}.conv_norm.bias"))
    return g.linear(ggml.silu(cur), f"{name}.conv_pw2")


# parakeet.cpp


def parakeet(g: ClipGraph) -> Tensor:
    """clip_graph_parakeet."""
    model, cur = g.model, _subsampled(g, direct=False)
    n = cur.ne[1]
    if n > LOCAL_ATTENTION:
        raise UnknownGraphError(model.kind)
    mask, positions = ggml.new_input("f32", n, n), _sinusoids(g, 2 * n - 1)
    for il in range(model.n_layer):
        name = f"a.blk.{il}"
        cur = _bare_half(g, cur, f"{name}.ffn_norm", f"{name}.ffn_up", f"{name}.ffn_down")
        cur = ggml.add(cur, _shifted(g, g.norm(cur, f"{name}.ln1"), name, positions, mask))
        cur = ggml.add(cur, _parakeet_convolution(g, g.norm(cur, f"{name}.norm_conv"), name))
        cur = _bare_half(g, cur, f"{name}.ffn_norm_1", f"{name}.ffn_up_1", f"{name}.ffn_down_1")
        cur = g.norm(cur, f"{name}.ln2")
    cur = ggml.mul(ggml.rms_norm(cur), model.w("mm.a.norm_pre.weight"))
    return g.mlp(cur, "mm.a.mlp.1", "mm.a.mlp.2", "relu_sqr")


def _bare_half(g: ClipGraph, cur: Tensor, norm: str, up: str, down: str) -> Tensor:
    """The same without the biases that a file may have."""
    fed = ggml.silu(g.build_mm(g.model.w(f"{up}.weight"), g.norm(cur, norm)))
    return ggml.add(cur, ggml.scale(g.build_mm(g.model.w(f"{down}.weight"), fed)))


def _sinusoids(g: ClipGraph, n: int) -> Tensor:
    half = g.n_embd // 2
    theta = ggml.mul(ggml.repeat_4d(ggml.new_input("f32", half), half, n, 1, 1), ggml.new_input("f32", 1, n))
    sin, cos = (ggml.reshape(t, 1, half, n) for t in (ggml.sin(theta), ggml.cos(theta)))
    return ggml.reshape(ggml.cont(ggml.concat(sin, cos, 0)), g.n_embd, n)


def _shifted(g: ClipGraph, cur: Tensor, name: str, positions: Tensor, mask: Tensor) -> Tensor:
    """Attention with relative positions, as Parakeet turns them."""
    model, n = g.model, cur.ne[1]
    d_head = g.n_embd // model.n_head
    q, k, v = (g.build_mm(model.w(f"{name}.attn_{part}.weight"), cur) for part in "qkv")
    q, k, v = (ggml.reshape(t, d_head, model.n_head, n) for t in (q, k, v))
    p = g.build_mm(model.w(f"{name}.linear_pos.weight"), positions)
    p = ggml.cont(ggml.permute(ggml.reshape(p, d_head, model.n_head, positions.ne[1]), 0, 2, 1, 3))
    by_key = ggml.add(q, model.w(f"{name}.pos_bias_u"))
    near = ggml.mul_mat(ggml.permute(k, 0, 2, 1, 3), ggml.permute(by_key, 0, 2, 1, 3))
    by_distance = ggml.cont(ggml.permute(ggml.add(q, model.w(f"{name}.pos_bias_v")), 0, 2, 1, 3))
    far = ggml.mul_mat(p, by_distance)
    window, n_q, n_head = far.ne[:3]
    far = ggml.cont(ggml.reshape(ggml.pad(far, 1), n_q, window + 1, n_head))
    far = ggml.cont(ggml.view_3d(far, n_q, window, n_head, window * 4, far.nb[2], far.nb[0] * (window // 2 + 1)))
    far = ggml.cont(ggml.view_3d(far, near.ne[0], near.ne[1], far.ne[2], far.nb[1], far.nb[2]))
    weights = ggml.soft_max(ggml.add(ggml.scale(ggml.add(near, far)), mask))
    cur = ggml.mul_mat(weights, ggml.cont(ggml.permute(v, 1, 2, 0, 3)))
    cur = ggml.cont(ggml.permute(cur, 2, 0, 1, 3), g.n_embd, n)
    return g.build_mm(model.w(f"{name}.attn_out.weight"), cur)


def _parakeet_convolution(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    model, pad = g.model, (g.model.number("conv_kernel_size") - 1) // 2
    cur = ggml.pad(_glu(g.build_mm(model.w(f"{name}.conv_pw1.weight"), cur)), 2 * pad)
    cur = ggml.sub(ggml.ssm_conv(cur, model.w(f"{name}.conv_dw.weight")), model.w(f"{name}.conv_norm_mean"))
    cur = ggml.div(cur, ggml.sqrt(model.w(f"{name}.conv_norm_var")))
    cur = ggml.add(ggml.mul(cur, model.w(f"{name}.conv_norm.weight")), model.w(f"{name}.conv_norm.bias"))
    return g.build_mm(model.w(f"{name}.conv_pw2.weight"), ggml.silu(cur))


# granite-speech.cpp


def granite_speech(g: ClipGraph) -> Tensor:
    """clip_graph_granite_speech: attention inside blocks, then queries."""
    model, size, features = g.model, g.model.number("chunk_size"), g.model.numbers("feature_layer")
    distances = g.positions(size * size)
    mask = ggml.new_input("f32", size, size, 1, -(-g.nx // size)) if g.nx % size else None
    cur = g.linear(ggml.cont(ggml.transpose(g.build_inp_raw(1))), "a.input_projection")
    seen = [cur] if 0 in features else []
    for il in range(model.n_layer):
        name = f"a.blk.{il}"
        residual = _half(g, cur, f"{name}.ffn_norm", f"{name}.ffn_up", f"{name}.ffn_down")
        residual = ggml.add(residual, _in_blocks(g, g.norm(residual, f"{name}.ln1"), name, distances, mask))
        residual = ggml.add(residual, _granite_convolution(g, g.norm(residual, f"{name}.norm_conv"), name))
        residual = _half(g, residual, f"{name}.ffn_norm_1", f"{name}.ffn_up_1", f"{name}.ffn_down_1")
        cur = g.norm(residual, f"{name}.ln2")
        if il + 1 in features:
            seen.append(cur if not seen else ggml.concat(seen.pop(), cur, 0))
        if il + 1 == model.n_layer // 2:
            spelled = ggml.soft_max(g.linear(cur, "a.enc_ctc_out"))
            cur = ggml.add(cur, g.linear(spelled, "a.enc_ctc_out_mid"))
    return _asked(g, ggml.concat(seen[0], cur, 0) if seen else cur)


def _in_blocks(g: ClipGraph, cur: Tensor, name: str, distances: Tensor, mask: Tensor | None) -> Tensor:
    model, size = g.model, g.model.number("chunk_size")
    n_blocks = -(-g.nx // size)
    n, d_head = n_blocks * size, model.d_head
    cur = ggml.pad(cur, 0, n - g.nx) if n > g.nx else cur
    q, k, v = (g.build_mm(model.w(f"{name}.attn_{part}.weight"), cur) for part in "qkv")
    q, k, v = (ggml.reshape(t, d_head, model.n_head, size, n_blocks) for t in (q, k, v))
    near = ggml.mul_mat(ggml.cont(ggml.permute(k, 0, 2, 1, 3)), ggml.permute(q, 0, 2, 1, 3))
    p = ggml.get_rows(model.w(f"{name}.attn_rel_pos_emb"), distances)
    p = ggml.reshape(ggml.reshape(p, d_head, size, size), d_head, size, 1, size)
    far = ggml.cont(ggml.permute(ggml.mul_mat(p, ggml.permute(q, 0, 1, 3, 2)), 0, 2, 3, 1))
    weights = ggml.soft_max_ext(ggml.add(near, far), mask)
    cur = ggml.mul_mat(ggml.cont(ggml.permute(v, 1, 2, 0, 3)), weights)
    cur = ggml.cont(ggml.permute(cur, 0, 2, 1, 3), g.n_embd, n)
    cur = ggml.view_2d(cur, g.n_embd, g.nx, cur.nb[1]) if n > g.nx else cur
    return g.linear(cur, f"{name}.attn_out")


def _granite_convolution(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    model, pad = g.model, g.model.number("conv_kernel_size") // 2
    cur = ggml.pad(_glu(g.linear(cur, f"{name}.conv_pw1")), 2 * pad)
    cur = ggml.mul(ggml.ssm_conv(cur, model.w(f"{name}.conv_dw.weight")), model.w(f"{name}.conv_norm.weight"))
    return g.linear(ggml.silu(ggml.add(cur, model.w(f"{name}.conv_norm.bias"))), f"{name}.conv_pw2")


def _asked(g: ClipGraph, cur: Tensor) -> Tensor:
    """The projector: a few queries for each window."""
    model, window = g.model, g.model.number("projector.window_size")
    n_queries, n_windows = window // model.number("projector.downsample_rate"), -(-g.nx // window)
    if n_windows * window > g.nx:
        cur = ggml.pad(cur, 0, n_windows * window - g.nx)
    seen = ggml.reshape(cur, cur.ne[0], window, n_windows)
    queries = g.build_norm(model.w("a.proj_query"), model.w("a.proj_norm.weight"), model.w("a.proj_norm.bias"), NORMAL)
    queries = ggml.repeat_4d(ggml.reshape(queries, g.n_embd, n_queries), g.n_embd, n_queries, n_windows, 1)
    for il in range(2):
        name = f"a.proj_blk.{il}"
        queries = ask(g, name, queries, seen, g.n_embd // model.number("projector.head_count"))
        fed = g.mlp(queries, f"{name}.ffn_up", f"{name}.ffn_down")
        queries = g.norm(ggml.add(fed, queries), f"{name}.ffn_norm")
    return g.linear(ggml.reshape(queries, g.n_embd, n_queries * n_windows), "a.proj_linear")
