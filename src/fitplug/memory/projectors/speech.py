"""Encoders of a speaker's voice (tools/mtmd/models/qwen3tts-spkenc.cpp, pockettts-spkenc.cpp, pockettts-seanet.cpp)."""

from fitplug.memory.clip_graph import ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import pad_reflect_1d
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import Tensor

SCALE, DILATIONS = 8, (2, 3, 4)
"""Parts of Res2Net, and how far each block's convolutions reach."""
RATIOS, DOWN = (4, 5, 6), 16
"""Strides of SEANet's stages and of Mimi's last convolution (hparams.seanet_ratios, mimi_downsample)."""


# qwen3tts-spkenc.cpp


def qwen3tts_spkenc(g: ClipGraph) -> Tensor:
    """clip_graph_qwen3tts_spkenc: ECAPA-TDNN."""
    if g.model.n_layer != len(DILATIONS):
        raise UnknownGraphError(g.model.kind)
    inp = ggml.reshape(g.build_inp_raw(1), g.nx, g.ny)
    cur = ggml.relu(_same(g, ggml.cont(ggml.transpose(inp)), "a.conv1d.0"))
    outs: list[Tensor] = []
    for il, dilation in enumerate(DILATIONS):
        cur = _squeezed(g, cur, f"a.blk.{il + 1}", dilation)
        outs.append(cur)
    cur = ggml.concat(ggml.concat(outs[0], outs[1], 0), outs[2], 0)
    cur = _pooled(g, ggml.relu(_same(g, cur, "a.conv_out")))
    cur = _same(g, cur, "mm.a.fc")
    return ggml.cont(ggml.reshape(cur, cur.ne[0]))


def _same(g: ClipGraph, cur: Tensor, name: str, dilation: int = 1) -> Tensor:
    """conv1d_same: as long as it was, by reflection."""
    w, b = g.model.w(f"{name}.weight"), g.model.w(f"{name}.bias")
    kernel, n_in, n_out, _ = w.ne
    cur, pad = ggml.cont(ggml.transpose(cur)), (kernel - 1) * dilation // 2
    cur = pad_reflect_1d(cur, pad, pad) if pad else cur
    cur = ggml.reshape(cur, cur.ne[0], n_in)
    columns = ggml.im2col(ggml.new_tensor("f32", kernel, n_in), cur, 1, 0, dilation, "f32")
    columns = ggml.reshape(columns, kernel * n_in, columns.ne[1])
    return ggml.add(ggml.mul_mat(ggml.reshape(w, kernel * n_in, n_out), columns), ggml.reshape(b, n_out))


def _squeezed(g: ClipGraph, inp: Tensor, name: str, dilation: int) -> Tensor:
    """se_res2net_block."""
    cur = ggml.relu(_same(g, inp, f"{name}.conv_pw1"))
    cur = ggml.relu(_same(g, _in_parts(g, cur, name, dilation), f"{name}.conv_pw2"))
    mean = ggml.cont(ggml.transpose(ggml.mean(ggml.cont(ggml.transpose(cur)))))
    gate = _same(g, ggml.relu(_same(g, mean, f"{name}.se_conv1")), f"{name}.se_conv2")
    return ggml.add(ggml.mul(cur, ggml.sigmoid(gate)), inp)


def _in_parts(g: ClipGraph, cur: Tensor, name: str, dilation: int) -> Tensor:
    """res2net: each part hears what the one before it made."""
    n, n_pos = cur.ne[0] // SCALE, cur.ne[1]
    result = previous = ggml.cont(ggml.view_2d(cur, n, n_pos, cur.nb[1]))
    for i in range(1, SCALE):
        part = ggml.cont(ggml.view_2d(cur, n, n_pos, cur.nb[1], i * n * cur.nb[0]))
        part = ggml.add(part, previous) if i > 1 else part
        previous = ggml.relu(_same(g, part, f"{name}.res2.{i - 1}", dilation))
        result = ggml.concat(result, previous, 0)
    return result


def _mean(cur: Tensor) -> Tensor:
    return ggml.mean(ggml.cont(ggml.transpose(cur)))


def _pooled(g: ClipGraph, x: Tensor) -> Tensor:
    """attentive_stats_pool: mean and deviation of what is worth hearing."""
    mean = ggml.repeat(ggml.cont(ggml.transpose(_mean(x))), x)
    variance = ggml.cont(ggml.transpose(_mean(ggml.sqr(ggml.sub(x, mean)))))
    deviation = ggml.repeat(ggml.sqrt(ggml.scale_bias(variance)), x)
    cur = _same(g, ggml.concat(ggml.concat(x, mean, 0), deviation, 0), "a.asp_tdnn")
    cur = _same(g, ggml.tanh(ggml.relu(cur)), "a.asp_attn")
    weights = ggml.cont(ggml.transpose(ggml.soft_max(ggml.cont(ggml.transpose(cur)))))
    mean = ggml.cont(ggml.transpose(ggml.scale(_mean(ggml.mul(weights, x)))))
    apart = ggml.sqr(ggml.sub(x, ggml.repeat(mean, x)))
    variance = ggml.cont(ggml.transpose(ggml.scale(_mean(ggml.mul(weights, apart)))))
    return ggml.concat(mean, ggml.sqrt(ggml.scale_bias(variance)), 0)


# pockettts-spkenc.cpp


def pockettts_spkenc(g: ClipGraph) -> Tensor:
    """clip_graph_pockettts_spkenc: Mimi's encoder."""
    model, layer = g.model, g.model.layer
    cur = _encoded(g, ggml.reshape(g.build_inp_raw(1), g.nx, g.ny))
    cur = ggml.cont(ggml.transpose(cur))
    n = cur.ne[1]
    positions, mask = g.positions(n), ggml.new_input("f32", n, n)
    for il in range(model.n_layer):
        name = f"a.blk.{il}"
        normed = g.build_norm(cur, layer(il, "ln1.weight"), layer(il, "ln1.bias"), "normal")
        q, k, v = (g.build_mm(model.w(f"{name}.attn_{part}.weight"), normed) for part in "qkv")
        q, k, v = (ggml.reshape(t, model.d_head, model.n_head, n) for t in (q, k, v))
        attended = g.attend(ggml.rope_ext(q, positions), ggml.rope_ext(k, positions), v, mask)
        attended = g.build_mm(model.w(f"{name}.attn_out.weight"), attended)
        cur = ggml.add(ggml.mul(attended, model.w(f"{name}.ls1.weight")), cur)
        normed = g.build_norm(cur, layer(il, "ln2.weight"), layer(il, "ln2.bias"), "normal")
        fed = ggml.gelu(g.build_mm(model.w(f"{name}.ffn_up.weight"), normed))
        fed = g.build_mm(model.w(f"{name}.ffn_down.weight"), fed)
        cur = ggml.add(ggml.mul(fed, model.w(f"{name}.ls2.weight")), cur)
    cur = _causal(ggml.cont(ggml.transpose(cur)), model.w("a.downsample.conv.weight"), None, DOWN, replicate=True)
    return g.build_mm(model.w("a.speaker_proj.weight"), ggml.cont(ggml.transpose(cur)))


def _encoded(g: ClipGraph, cur: Tensor) -> Tensor:
    """clip_graph_pockettts_seanet::encode."""
    cur = _named(g, cur, "a.seanet.conv_in", 1)
    for i, stride in enumerate(RATIOS):
        name = f"a.seanet.blk.{i}"
        inner = _named(g, ggml.elu(cur), f"{name}.res_conv1", 1)
        cur = ggml.add(cur, _named(g, ggml.elu(inner), f"{name}.res_conv2", 1))
        cur = _named(g, ggml.elu(cur), f"{name}.scale_conv", stride)
    return _named(g, ggml.elu(cur), "a.seanet.conv_out", 1)


def _named(g: ClipGraph, cur: Tensor, name: str, stride: int) -> Tensor:
    return _causal(cur, g.model.w(f"{name}.weight"), g.model.w(f"{name}.bias"), stride)


def _causal(cur: Tensor, w: Tensor, b: Tensor | None, stride: int, *, replicate: bool = False) -> Tensor:
    """clip_graph_pockettts_seanet::conv1d: padded before, and after to a whole number of strides."""
    kernel = w.ne[0]
    before = kernel - stride
    n_frames = -(-(cur.ne[0] - kernel + before) // stride)
    after = n_frames * stride + kernel - before - cur.ne[0]
    if replicate and before > 0:
        first = ggml.view_2d(cur, 1, cur.ne[1], cur.nb[1])
        cur = ggml.pad(ggml.concat(ggml.repeat_4d(first, before, cur.ne[1], 1, 1), cur, 0), after)
    else:
        cur = ggml.pad(cur, before + after)
    cur = ggml.conv_1d(w, cur, stride, 0, 1)
    cur = ggml.reshape(cur, cur.ne[0], cur.ne[1])
    return cur if b is None else ggml.add(cur, ggml.reshape(b, 1, b.ne[0]))
