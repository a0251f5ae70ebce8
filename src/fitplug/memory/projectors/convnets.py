"""Projectors that are convolutions all through: Gemma 3n's MobileNet, Reka's ConvNeXt (mobilenetv5.cpp, yasa2.cpp)."""

from typing import NamedTuple

from fitplug.memory.clip_graph import ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d, conv_2d_direct, conv_2d_dw, interpolate
from fitplug.memory.graph.tensor import Tensor

STAGES, TOKENS = 4, 16
"""Gemma 3n's stages, and how many tokens it has along a side."""
POOLED = 8
"""The same of Reka's."""


# mobilenetv5.cpp


class Block(NamedTuple):
    """One of MobileNet's blocks."""

    name: str
    stride: int
    fused: bool
    """Its result is among those that are joined at the end."""


def gemma3nv(g: ClipGraph) -> Tensor:
    """clip_graph_mobilenetv5."""
    model = g.model
    cur = conv_2d_direct(model.w("v.conv_stem.conv.weight"), _same(g.build_inp_raw(), 3, 2), 2)
    bias = model.optional("v.conv_stem.conv.bias")
    cur = cur if bias is None else ggml.add(cur, bias)
    cur = ggml.gelu(_normed(g, cur, "v.conv_stem.bn.weight"))
    features: list[Tensor] = []
    for block in _mobile_blocks(g):
        cur = _mobile_block(g, cur, block)
        if block.fused:
            features.append(cur)
    cur = _fused(g, features) if features else cur
    n, side = cur.ne[2], cur.ne[0] * cur.ne[1]
    cur = ggml.cont(ggml.permute(ggml.permute(cur, 2, 1, 0, 3), 0, 2, 1, 3))
    cur = ggml.rms_norm(ggml.scale(ggml.cont(ggml.reshape(cur, n, side))))
    cur = ggml.mul(cur, model.w("mm.soft_emb_norm.weight"))
    return ggml.rms_norm(g.build_mm(model.w("mm.input_projection.weight"), cur))


def _mobile_blocks(g: ClipGraph) -> list[Block]:
    """What the file has, stage by stage; the ends of the last two of four stages are joined, else the last block's."""
    model, counts = g.model, [0] * STAGES
    first = ("conv_exp", "dw_start.conv", "pw_exp.conv", "attn.query.proj")
    for stage in range(STAGES):
        while any(model.has(f"v.blk.{stage}.{counts[stage]}.{name}.weight") for name in first):
            counts[stage] += 1
    whole = all(counts)
    last = max((stage for stage in range(STAGES) if counts[stage]), default=0)
    return [
        Block(f"v.blk.{stage}.{i}", 1 if i else 2, i == n - 1 and (stage >= STAGES - 2 if whole else stage == last))
        for stage, n in enumerate(counts)
        for i in range(n)
    ]


def _mobile_block(g: ClipGraph, cur: Tensor, block: Block) -> Tensor:
    if g.model.has(f"{block.name}.conv_exp.weight"):
        return _edge_residual(g, cur, block)
    return _attention(g, cur, block) if g.model.has(f"{block.name}.attn.query.proj.weight") else _inverted(g, cur, block)


def _normed(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    """rms_norm_2d over the channels, where the file has its weight."""
    weight = g.model.optional(name)
    if weight is None:
        return cur
    cur = ggml.mul(ggml.rms_norm(ggml.cont(ggml.permute(cur, 2, 1, 0, 3))), weight)
    return ggml.cont(ggml.permute(cur, 2, 1, 0, 3))


def _same(cur: Tensor, kernel: int, stride: int) -> Tensor:
    """pad_same_2d."""
    more = [max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in cur.ne[:2]]
    return ggml.pad(cur, *more) if any(more) else cur


def _edge_residual(g: ClipGraph, inp: Tensor, block: Block) -> Tensor:
    model, name = g.model, block.name
    strided = block.stride == 2
    cur = _same(inp, 3, 2) if strided else inp
    cur = conv_2d_direct(model.w(f"{name}.conv_exp.weight"), cur, block.stride, 0 if strided else 1)
    cur = ggml.gelu(_normed(g, cur, f"{name}.bn1.weight"))
    cur = _normed(g, conv_2d_direct(model.w(f"{name}.conv_pwl.weight"), cur), f"{name}.bn2.weight")
    return ggml.add(cur, inp) if not strided and inp.ne[2] == cur.ne[2] and inp.ne[0] == cur.ne[0] else cur


def _inverted(g: ClipGraph, inp: Tensor, block: Block) -> Tensor:
    model, name, cur = g.model, block.name, inp
    start, expand, mid, project = (
        model.optional(f"{name}.{part}.conv.weight") for part in ("dw_start", "pw_exp", "dw_mid", "pw_proj")
    )
    if start is not None:
        cur = _normed(g, conv_2d_dw(start, cur, 1, start.ne[0] // 2), f"{name}.dw_start.bn.weight")
    if expand is not None:
        cur = ggml.gelu(_normed(g, conv_2d_direct(expand, cur), f"{name}.pw_exp.bn.weight"))
    if mid is not None:
        strided = block.stride > 1
        cur = _same(cur, mid.ne[0], block.stride) if strided else cur
        cur = conv_2d_dw(mid, cur, block.stride, 0 if strided else mid.ne[0] // 2)
        cur = ggml.gelu(_normed(g, cur, f"{name}.dw_mid.bn.weight"))
    if project is not None:
        cur = _normed(g, conv_2d_direct(project, cur), f"{name}.pw_proj.bn.weight")
    cur = _scaled(g, cur, name)
    return ggml.add(cur, inp) if inp.ne[:3] == cur.ne[:3] else cur


def _scaled(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    gamma = g.model.optional(f"{name}.layer_scale.gamma")
    return cur if gamma is None else ggml.mul(cur, gamma)


def _attention(g: ClipGraph, inp: Tensor, block: Block) -> Tensor:
    """Many queries, one key and one value."""
    model, name = g.model, block.name
    cur = _normed(g, inp, f"{name}.norm.weight")
    q = conv_2d_direct(model.w(f"{name}.attn.query.proj.weight"), cur)
    k, v = (_down(g, cur, f"{name}.attn.{part}") for part in ("key", "value"))
    width, height, d_head = cur.ne[0], cur.ne[1], k.ne[2]
    n, n_head, n_kv = width * height, q.ne[2] // d_head, k.ne[0] * k.ne[1]
    q = ggml.reshape(ggml.reshape(q, n, d_head * n_head), n, d_head, n_head)
    q = ggml.cont(ggml.permute(q, 1, 0, 2, 3))
    k = ggml.cont(ggml.permute(ggml.reshape(ggml.reshape(k, n_kv, d_head), n_kv, d_head), 1, 0, 2, 3))
    v = ggml.cont(ggml.reshape(ggml.reshape(v, n_kv, d_head), n_kv, d_head))
    cur = ggml.mul_mat(v, ggml.soft_max(ggml.scale(ggml.mul_mat(k, q))))
    cur = ggml.reshape(ggml.cont(ggml.permute(cur, 1, 0, 2, 3)), n, d_head * n_head)
    cur = ggml.cont(ggml.reshape(cur, width, height, d_head * n_head))
    cur = conv_2d_direct(model.w(f"{name}.attn.output.proj.weight"), cur)
    return ggml.add(_scaled(g, cur, name), inp) if inp.ne[0] == cur.ne[0] and inp.ne[2] == cur.ne[2] else cur


def _down(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    """A key or a value, of half the picture where there is a convolution for it."""
    kernel = g.model.optional(f"{name}.down_conv.weight")
    if kernel is not None:
        cur = conv_2d_dw(kernel, _same(cur, kernel.ne[0], 2), 2, 0)
        cur = _normed(g, cur, f"{name}.norm.weight")
    return conv_2d_direct(g.model.w(f"{name}.proj.weight"), cur)


def _fused(g: ClipGraph, features: list[Tensor]) -> Tensor:
    """Multi-scale fusion: all as large as the first."""
    width, height = features[0].ne[:2]
    sized = [
        interpolate(t, t.ne[0] * (width // t.ne[0]), t.ne[1] * (width // t.ne[0]), t.ne[2])
        if t.ne[0] < width or t.ne[1] < height else t
        for t in features
    ]  # fmt: skip
    cur = sized[0]
    for other in sized[1:]:
        cur = ggml.concat(cur, other, 2)
    expand, project = (g.model.optional(f"v.msfa.ffn.pw_{part}.conv.weight") for part in ("exp", "proj"))
    if expand is not None:
        cur = ggml.gelu(_normed(g, conv_2d_direct(expand, cur), "v.msfa.ffn.pw_exp.bn.weight"))
    if project is not None:
        cur = _normed(g, conv_2d_direct(project, cur), "v.msfa.ffn.pw_proj.bn.weight")
    if cur.ne[0] > TOKENS:
        kernel = cur.ne[0] // TOKENS
        cur = ggml.pool_2d(cur, kernel, kernel, kernel, kernel)
    return _normed(g, cur, "v.msfa.norm.weight")


# yasa2.cpp


def yasa2(g: ClipGraph) -> Tensor:
    """clip_graph_yasa2."""
    model = g.model
    cur = conv_2d(model.w("v.patch_embd.weight"), g.build_inp_raw(), model.patch_size)
    cur = _over_channels(g, _biased(g, cur, "v.patch_embd.bias"), "v.patch_ln")
    stage = 0
    while model.has(f"v.stage.{stage}.down.conv.weight") or model.has(f"v.stage.{stage}.blk.0.dw.weight"):
        name, block = f"v.stage.{stage}", 0
        if model.has(f"{name}.down.conv.weight"):
            cur = conv_2d(model.w(f"{name}.down.conv.weight"), _over_channels(g, cur, f"{name}.down.ln"), 2)
            cur = _biased(g, cur, f"{name}.down.conv.bias")
        while model.has(f"{name}.blk.{block}.dw.weight"):
            cur = _conv_next(g, cur, f"{name}.blk.{block}")
            block += 1
        stage += 1
    width, height = cur.ne[:2]
    cur, table = _tokens(cur), model.optional("v.vision_pos_embed")
    if table is not None and table.ne[1] == cur.ne[1]:
        cur = ggml.add(cur, ggml.reshape(table, table.ne[0], table.ne[1]))
    cur = _picture(cur, width, height)
    across, down = (max(1, n // min(POOLED, n)) for n in (width, height))
    return g.mlp(_tokens(ggml.pool_2d(cur, across, down, across, down)), "mm.0", "mm.2", "gelu_erf")


def _tokens(cur: Tensor) -> Tensor:
    """Channels first."""
    cur = ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2], cur.ne[3])
    return ggml.cont(ggml.permute(cur, 1, 0, 2, 3))


def _picture(cur: Tensor, width: int, height: int) -> Tensor:
    """Channels last again."""
    n = cur.ne[0]
    return ggml.reshape(ggml.cont(ggml.permute(cur, 1, 0, 2, 3)), width, height, n)


def _biased(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    bias = g.model.optional(name)
    return cur if bias is None else ggml.add(cur, ggml.reshape(bias, 1, 1, bias.ne[0]))


def _weighted(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    weight = g.model.optional(f"{name}.weight")
    cur = cur if weight is None else ggml.mul(cur, ggml.reshape(weight, 1, 1, weight.ne[0]))
    return _biased(g, cur, f"{name}.bias")


def _over_channels(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    """layer_norm_channels."""
    cur = ggml.cont(ggml.permute(cur, 2, 1, 0, 3))
    centred = ggml.sub(cur, ggml.mean(cur))
    deviation = ggml.sqrt(ggml.clamp(ggml.mean(ggml.mul(centred, centred))))
    return _weighted(g, ggml.cont(ggml.permute(ggml.div(centred, deviation), 2, 1, 0, 3)), name)


def _conv_next(g: ClipGraph, inp: Tensor, name: str) -> Tensor:
    cur = _biased(g, conv_2d_dw(g.model.w(f"{name}.dw.weight"), inp, 1, 3), f"{name}.dw.bias")
    cur = _over_channels(g, cur, f"{name}.ln")
    width, height = cur.ne[:2]
    cur = _picture(_product(g, _tokens(cur), f"{name}.pw1"), width, height)
    cur = _responded(g, ggml.gelu_erf(cur), f"{name}.grn")
    return ggml.add(inp, _picture(_product(g, _tokens(cur), f"{name}.pw2"), width, height))


def _product(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    cur, bias = ggml.mul_mat(g.model.w(f"{name}.weight"), cur), g.model.optional(f"{name}.bias")
    return cur if bias is None else ggml.add(cur, ggml.reshape(bias, bias.ne[0]))


def _responded(g: ClipGraph, inp: Tensor, name: str) -> Tensor:
    """convnext_grn: each channel by its strength."""
    width, height, n, _ = inp.ne
    strength = ggml.sqrt(ggml.sum_rows(ggml.reshape(ggml.mul(inp, inp), width * height, n)))
    mean = ggml.clamp(ggml.mean(ggml.cont(ggml.permute(strength, 1, 0, 2, 3))))
    relative = ggml.cont(ggml.permute(ggml.div(strength, mean), 0, 2, 1, 3))
    return ggml.add(inp, _weighted(g, ggml.mul(inp, relative), name))
