"""DeepSeek-OCR: SAM's tower, then CLIP's or Qwen's over what it saw (tools/mtmd/models/deepseekocr.cpp, deepseekocr2.cpp)."""

from math import isqrt

from fitplug.memory.clip_graph import NORMAL, RMS, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d, interpolate
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import Tensor, row_size

GLOBAL = frozenset((2, 5, 8, 11))
"""SAM's layers that see the whole picture (clip_hparams::global_attn_indices)."""
QUERIES = 256
"""Of the second model for a picture of 1024 pixels a side."""


def deepseekocr(g: ClipGraph) -> Tensor:
    """clip_graph_deepseekocr: one tile."""
    model, side = g.model, g.nx
    raw = ggml.reshape(g.build_inp_raw(), side * side, 1, 3)
    seen = _sam(g, ggml.reshape(ggml.cont(ggml.permute(raw, 0, 2, 1, 3)), side, side, 3))
    n = seen.ne[0] * seen.ne[1]
    inp = ggml.cont(ggml.permute(ggml.reshape(seen, n, seen.ne[2], seen.ne[3]), 1, 0, 2, 3))
    table = _positions(g, inp.ne[1])
    inp = ggml.concat(ggml.repeat_4d(model.w("v.class_embd"), g.n_embd, 1, 1, 1), inp, 1)
    pos_embd = ggml.get_rows(table, ggml.cast(ggml.arange(table.ne[1]), "i32"))
    looked = g.build_vit(inp, table.ne[1], NORMAL, "gelu_quick", pos_embd)
    g.gf.expand(looked)
    seen = ggml.cont(ggml.permute(seen, 1, 2, 0, 3))
    seen = ggml.reshape(seen, seen.ne[0], n)
    looked = ggml.view_3d(looked, g.n_embd, n, 1, looked.nb[1], looked.nb[2], looked.nb[1])
    cur = ggml.mul_mat(model.w("mm.model.fc.weight"), ggml.concat(looked, seen, 0))
    cur = ggml.add(cur, model.w("mm.model.fc.bias"))
    n_out, grid = cur.ne[0], isqrt(n)
    cur = ggml.cont(ggml.permute(ggml.reshape(cur, n_out * grid, grid), 0, 2, 1, 3))
    cur = ggml.reshape(cur, n_out, grid, grid)
    cur = ggml.concat(cur, ggml.repeat_4d(model.w("v.image_newline"), n_out, 1, grid, 1), 1)
    return ggml.reshape(cur, n_out, (grid + 1) * grid)


def _positions(g: ClipGraph, n: int) -> Tensor:
    """The learned ones, stretched where the picture has another size."""
    table = g.model.w("v.position_embd.weight")
    side, stored = isqrt(n), isqrt(table.ne[1] - 1)
    if side == stored:
        return table
    row = row_size(table.type, table.ne[0])
    cls = ggml.view_2d(table, table.ne[0], 1, row, stored * stored)
    cur = interpolate(ggml.view_2d(table, table.ne[0], stored * stored, row), side, side, table.ne[0])
    return ggml.concat(ggml.reshape(cur, g.n_embd, side * side), cls, 1)


def deepseekocr2(g: ClipGraph) -> Tensor:
    """clip_graph_deepseekocr2: queries behind the picture, which see all of it."""
    model, seen = g.model, _sam(g, g.build_inp_raw())
    n = seen.ne[0] * seen.ne[1]
    if n != QUERIES:
        raise UnknownGraphError(model.kind)
    inp = ggml.cont(ggml.permute(ggml.reshape(seen, n, seen.ne[2], seen.ne[3]), 1, 0, 2, 3))
    queries = ggml.cast(model.w("v.resample_query_1024.weight"), "f32")
    inp = ggml.concat(inp, ggml.repeat_4d(queries, queries.ne[0], QUERIES, 1, 1), 1)
    n_pos = inp.ne[1]
    mask, positions = ggml.new_input("f32", n_pos, n_pos), ggml.cast(ggml.arange(n_pos), "i32")
    cur = g.build_vit(inp, n_pos, RMS, "silu", None, lambda t: ggml.rope_ext(t, positions), [mask] * model.n_layer)
    cur = ggml.cont(ggml.view_3d(cur, cur.ne[0], QUERIES, 1, cur.nb[1], cur.nb[2], cur.nb[1] * (n_pos - QUERIES)))
    g.gf.expand(cur)
    return ggml.add(ggml.mul_mat(model.w("mm.model.fc.weight"), cur), model.w("mm.model.fc.bias"))


# build_sam


def _columns(w: Tensor) -> str:
    """conv_2d_f32 keeps the pixels' precision."""
    return "f16" if w.type == "f16" else "f32"


def _sam(g: ClipGraph, raw: Tensor) -> Tensor:
    model, window = g.model, g.model.number("window_size")
    w = model.w("v.sam.patch_embd.weight")
    cur = conv_2d(w, raw, w.ne[0], type=_columns(w))
    width = model.number("sam.embedding_length")
    cur = ggml.add(cur, ggml.reshape(model.w("v.sam.patch_embd.bias"), 1, 1, width))
    cur = ggml.cont(ggml.permute(cur, 1, 2, 0, 3))
    near, far = ggml.new_input("i32", window, window), ggml.new_input("i32", cur.ne[1], cur.ne[2])
    table, side = model.w("v.sam.pos_embd.weight"), cur.ne[1]
    if table.ne[1] != side:
        table = interpolate(ggml.cont(ggml.permute(table, 2, 0, 1, 3)), side, side, width)
        table = ggml.cont(ggml.permute(table, 1, 2, 0, 3))
    cur = ggml.add(cur, table)
    for il in range(model.number("sam.block_count")):
        cur = _sam_block(g, cur, f"v.sam.blk.{il}", 0 if il in GLOBAL else window, far if il in GLOBAL else near)
    cur = _neck(g, ggml.cont(ggml.permute(cur, 2, 0, 1, 3)))
    g.gf.expand(cur)
    return cur


def _neck(g: ClipGraph, cur: Tensor) -> Tensor:
    """Four convolutions, the last two of which halve the sides."""
    for i, pad in ((0, 0), (2, 1)):
        w = g.model.w(f"v.sam.neck.{i}.weight")
        cur = ggml.cont(ggml.permute(conv_2d(w, cur, 1, pad, _columns(w)), 1, 2, 0, 3))
        cur = ggml.cont(ggml.permute(g.norm(cur, f"v.sam.neck.{i + 1}"), 2, 0, 1, 3))
    for i in (2, 3):
        w = g.model.w(f"v.sam.net_{i}.weight")
        cur = conv_2d(w, cur, 2, 1, _columns(w))
    return cur


def _sam_block(g: ClipGraph, inp: Tensor, name: str, window: int, indices: Tensor) -> Tensor:
    cur = g.norm(inp, f"{name}.pre_ln")
    width, height = cur.ne[1:3]
    cur = _partitioned(cur, window) if window else cur
    cur = _sam_attention(g, cur, name, indices)
    cur = _united(cur, width, height, window) if window else cur
    cur = ggml.add(cur, inp)
    fed = g.mlp(g.norm(cur, f"{name}.post_ln"), f"{name}.mlp.lin1", f"{name}.mlp.lin2", g.model.activation)
    return ggml.add(fed, cur)


def _partitioned(cur: Tensor, window: int) -> Tensor:
    n, width, height, _ = cur.ne
    more_x, more_y = -width % window, -height % window
    if more_x or more_y:
        cur = ggml.pad(cur, 0, more_x, more_y)
    across, down = (width + more_x) // window, (height + more_y) // window
    cur = ggml.reshape(cur, n * window, across, window, down)
    return ggml.reshape(ggml.cont(ggml.permute(cur, 0, 2, 1, 3)), n, window, window, across * down)


def _united(cur: Tensor, width: int, height: int, window: int) -> Tensor:
    n, wide, high = cur.ne[0], width + -width % window, height + -height % window
    cur = ggml.reshape(cur, n * window, window, wide // window, high // window)
    cur = ggml.reshape(ggml.cont(ggml.permute(cur, 0, 2, 1, 3)), n, wide, high)
    return ggml.cont(ggml.view_4d(cur, n, width, height, 1, cur.nb[1], cur.nb[2], cur.nb[3], 0))


def _sam_attention(g: ClipGraph, cur: Tensor, name: str, indices: Tensor) -> Tensor:
    """Attention with a mask made of relative positions in both directions."""
    model, (_, width, height, n) = g.model, cur.ne
    n_embd, n_head = model.number("sam.embedding_length"), model.number("sam.head_count")
    d_head, n_pos = n_embd // n_head, width * height
    cur = ggml.add(ggml.mul_mat(model.w(f"{name}.attn.qkv.weight"), cur), model.w(f"{name}.attn.qkv.bias"))
    cur = ggml.reshape(cur, n_embd, 3, n_pos, n)
    views = [ggml.view_3d(cur, n_embd, n_pos, n, cur.nb[2], cur.nb[3], i * cur.nb[1]) for i in range(3)]
    q, k, v = (ggml.reshape(ggml.cont(t), d_head, n_head, n_pos, n) for t in views)
    across = _relative(model.w(f"{name}.attn.pos_w.weight"), indices, width)
    down = _relative(model.w(f"{name}.attn.pos_h.weight"), indices, height)
    asked = ggml.reshape(ggml.cont(ggml.permute(q, 0, 2, 1, 3)), d_head, width, height, n * n_head)
    across = ggml.mul_mat(across, ggml.cont(ggml.permute(asked, 0, 2, 1, 3)))
    across = ggml.reshape(ggml.cont(ggml.permute(across, 0, 2, 1, 3)), width, 1, n_pos, n_head * n)
    across = ggml.repeat_4d(across, width, height, n_pos, n_head * n)
    down = ggml.reshape(ggml.mul_mat(down, asked), 1, height, n_pos, n_head * n)
    mask = ggml.reshape(ggml.add(across, down), n_pos, n_pos, n_head, n)
    mask = ggml.cast(mask, "f16") if g.flash_attn else mask
    cur = g.linear(g.attend(q, k, v, mask), f"{name}.attn.out")
    return ggml.reshape(ggml.cont(cur), n_embd, width, height, n)


def _relative(table: Tensor, indices: Tensor, side: int) -> Tensor:
    """get_rel_pos: a vector for each pair of columns, or of rows."""
    n, length = table.ne[:2]
    wanted = 2 * side - 1
    if wanted != length:
        table = ggml.reshape(ggml.cont(ggml.permute(table, 1, 0, 2, 3)), length, 1, n)
        table = ggml.reshape(interpolate(table, wanted, 1, n), wanted, n)
        table = ggml.cont(ggml.permute(table, 1, 0, 2, 3))
    return ggml.reshape(ggml.get_rows(table, ggml.reshape(indices, side * side)), n, side, side)
