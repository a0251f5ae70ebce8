"""Qwen's towers and those after them: pairs of frames, patches in squares (tools/mtmd/models/qwen2vl.cpp, qwen3vl.cpp, …)."""

from collections.abc import Callable
from typing import TypeAlias

from fitplug.memory.clip_graph import NORMAL, RMS, ClipGraph, rope_2d
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import Tensor, row_size

PATCH = "v.patch_embd.weight"
Heads: TypeAlias = Callable[[ClipGraph, Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""Q, K and V of one layer."""
Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
FULL, BY_COLUMN = -1, 1
"""MiMo's wa_pattern_mode."""


def _both_frames(g: ClipGraph) -> Tensor:
    """build_inp_with_temporal_merge: one picture as two frames."""
    raw, patch = g.build_inp_raw(), g.model.patch_size
    return ggml.add(conv_2d(g.model.w(PATCH), raw, patch), conv_2d(g.model.w(f"{PATCH}.1"), raw, patch))


def _in_squares(g: ClipGraph, cur: Tensor, side: int = 2) -> Tensor:
    """Patches reordered so that the neighbours of a square follow each other."""
    n = g.n_embd * side
    cur = ggml.reshape(ggml.cont(cur, n, g.n_x // side, g.n_y), n, g.n_x // side, side, g.n_y // side)
    return ggml.cont(ggml.permute(cur, 0, 2, 1, 3), g.n_embd, g.n_patches)


def _windows(g: ClipGraph) -> tuple[Tensor, Tensor]:
    """Where each group of four patches goes, and what sees what inside a window."""
    mask = ggml.new_input("f32", g.n_patches, g.n_patches)
    return g.positions(g.n_patches // 4), ggml.cast(mask, "f16") if g.flash_attn else mask


def _reordered(g: ClipGraph, cur: Tensor, rows: Tensor, unit: int = 4) -> Tensor:
    n = g.n_patches
    return ggml.reshape(ggml.get_rows(ggml.reshape(cur, unit * g.n_embd, n // unit), rows), g.n_embd, n)


def _back_in_order(g: ClipGraph, cur: Tensor) -> Tensor:
    n_out, n = g.model.number("projection_dim"), g.n_patches // 4
    return ggml.reshape(ggml.get_rows(ggml.reshape(cur, n_out, n), g.positions(n)), n_out, n)


def _whole_block(g: ClipGraph, inp: Tensor, il: int, kind: str, qkv: Heads, attend: Attend) -> Tensor:
    """Norm, attention, norm, feed-forward."""
    layer = g.model.layer
    normed = g.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), kind)
    inp = ggml.add(attend(*qkv(g, normed, il)), inp)
    cur = g.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), kind)
    return ggml.add(inp, g.build_ffn(cur, il, g.model.activation))


def _apart(g: ClipGraph, cur: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    model = g.model
    q, k, v = (g.linear(cur, f"v.blk.{il}.{name}") for name in ("attn_q", "attn_k", "attn_v"))
    q, k, v = (ggml.reshape(t, model.d_head, model.n_head, g.n_patches) for t in (q, k, v))
    return q, k, v


def _fused(g: ClipGraph, cur: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of one product; K follows after as much as the width of a token."""
    model, cur = g.model, g.linear(cur, f"v.blk.{il}.attn_qkv")
    head, k_at = row_size(cur.type, model.d_head), g.n_embd
    v_at = k_at + model.d_head * model.n_head_kv
    q, k, v = (
        ggml.view_3d(cur, model.d_head, n_head, g.n_patches, head, cur.nb[1], row_size(cur.type, at))
        for n_head, at in ((model.n_head, 0), (model.n_head_kv, k_at), (model.n_head_kv, v_at))
    )
    return q, k, v


def _roped(g: ClipGraph, il: int, positions: Tensor, mask: Tensor | None = None) -> Attend:
    return lambda q, k, v: g.build_attn(il, ggml.rope_multi(q, positions), ggml.rope_multi(k, positions), v, mask)


def qwen2vl(g: ClipGraph) -> Tensor:
    """clip_graph_qwen2vl: Qwen 2 and 2.5 VL."""
    return _windowed(g, RMS if g.model.kind == "qwen2.5vl_merger" else NORMAL, _apart)


def exaone4_5(g: ClipGraph) -> Tensor:
    """clip_graph_exaone4_5: Qwen 2.5 VL's with grouped heads."""
    return _windowed(g, RMS, _fused)


def _windowed(g: ClipGraph, kind: str, qkv: Heads) -> Tensor:
    """Windows in most layers, the whole picture in every so many."""
    model, pattern, n = g.model, g.model.window_pattern(), g.n_patches
    cur = _in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3))
    positions = g.positions(4 * n)
    cur = g.norm_if_any(cur, "v.pre_ln", kind) if qkv is _apart else cur
    mask = None
    if pattern:
        rows, mask = _windows(g)
        cur = _reordered(g, cur, rows)
    for il in range(model.n_layer):
        seen = mask if pattern and (il + 1) % pattern else None
        cur = _whole_block(g, cur, il, kind, qkv, _roped(g, il, positions, seen))
    cur = g.mlp(ggml.reshape(g.norm_if_any(cur, "v.post_ln", kind), 4 * g.n_embd, n // 4), "mm.0", "mm.2")
    return _back_in_order(g, cur) if pattern else cur


def qwen3vl(g: ClipGraph) -> Tensor:
    """clip_graph_qwen3vl: with features of some layers beside the last one's."""
    model, n = g.model, g.n_patches
    cur = ggml.add(_in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3)), model.w("v.patch_embd.bias"))
    cur = ggml.add(cur, _in_squares(g, g.resize_position_embeddings()))
    positions = g.positions(4 * n)
    cur = g.norm_if_any(cur, "v.pre_ln", NORMAL)
    features: Tensor | None = None
    for il in range(model.n_layer):
        cur = _whole_block(g, cur, il, NORMAL, _fused, _roped(g, il, positions))
        if model.has(f"v.deepstack.{il}.fc1.weight"):
            area = model.n_merge * model.n_merge
            feature = g.norm(ggml.reshape(cur, g.n_embd * area, n // area), f"v.deepstack.{il}.norm")
            feature = g.mlp(feature, f"v.deepstack.{il}.fc1", f"v.deepstack.{il}.fc2")
            features = feature if features is None else ggml.concat(features, feature, 0)
    cur = g.mlp(ggml.reshape(g.norm_if_any(cur, "v.post_ln", NORMAL), 4 * g.n_embd, n // 4), "mm.0", "mm.2")
    return cur if features is None else ggml.concat(cur, features, 0)


def ling3vl(g: ClipGraph) -> Tensor:
    """clip_graph_ling3vl."""
    model, n = g.model, g.n_patches
    cur = _in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3))
    bias = model.optional("v.patch_embd.bias")
    cur = cur if bias is None else ggml.add(cur, bias)
    pos_embd, positions = _in_squares(g, g.resize_position_embeddings()), g.positions(4 * n)
    cur = g.build_vit(cur, n, NORMAL, model.activation, pos_embd, lambda t: ggml.rope_multi(t, positions))
    return g.mlp(ggml.reshape(g.norm(cur, "mm.input_norm"), 4 * g.n_embd, n // 4), "mm.0", "mm.2")


def minimax_m3(g: ClipGraph) -> Tensor:
    """clip_graph_minimax_m3."""
    n, merge = g.n_patches, g.model.n_merge
    cur = _in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3), merge)
    pos_h, pos_w = g.positions(n), g.positions(n)
    cur = g.build_vit(cur, n, NORMAL, "gelu_erf", None, rope_2d(pos_h, pos_w))
    cur = g.mlp(cur, "mm.1", "mm.2", "gelu_erf")
    cur = ggml.reshape(cur, cur.ne[0] * merge * merge, n // (merge * merge))
    return g.mlp(cur, "mm.merger.fc1", "mm.merger.fc2", "gelu_erf")


def youtuvl(g: ClipGraph) -> Tensor:
    """clip_graph_youtuvl: pixels sorted into squares of squares before the first product."""
    model, patch, n = g.model, g.model.patch_size, g.n_patches
    wide, rows, columns = 2 * patch, g.n_y // 2, g.n_x // 2
    cur = ggml.permute(ggml.reshape(g.build_inp_raw(), columns * wide, wide, rows, 3), 1, 2, 3, 0)
    cur = ggml.permute(ggml.cont(cur, wide * 3, columns, wide, rows), 0, 2, 1, 3)
    cur = ggml.permute(ggml.cont(cur, wide * 3, patch, 2, rows * columns), 1, 0, 2, 3)
    cur = ggml.permute(ggml.cont(cur, patch, 3, patch, n), 2, 0, 1, 3)
    cur = ggml.reshape(g.linear(ggml.cont(cur, 3 * patch * patch, n), "v.patch_embd"), g.n_embd, n)
    positions, whole, mask = g.positions(4 * n), model.numbers("wa_layer_indexes"), None
    cur = g.norm_if_any(cur, "v.pre_ln", NORMAL)
    if whole:
        order, mask = _windows(g)
        cur = _reordered(g, cur, order)
    for il in range(model.n_layer):
        seen = mask if whole and il not in whole else None
        cur = _whole_block(g, cur, il, NORMAL, _apart, _roped(g, il, positions, seen))
    if whole:
        cur = _reordered(g, cur, g.positions(n // 4))
    cur = g.norm_if_any(cur, "v.post_ln", NORMAL)
    cur = ggml.mul(ggml.rms_norm(cur), model.w("mm.input_norm.weight"))
    return g.mlp(ggml.reshape(cur, 4 * g.n_embd, n // 4), "mm.0", "mm.2")


def mimovl(g: ClipGraph) -> Tensor:
    """clip_graph_mimovl: bands of rows or of columns, with sinks, in most layers."""
    model, n, unit = g.model, g.n_patches, g.model.n_merge * g.model.n_merge
    cur = _in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3))
    by_row, by_column, order = g.positions(4 * n), g.positions(4 * n), ggml.new_input("f32", n // unit)
    there, back = ggml.cast(order, "i32"), ggml.argsort(order)
    mask = ggml.new_input("f32", n, n)
    mask = ggml.cast(mask, "f16") if g.flash_attn else mask
    before = FULL
    modes = model.numbers("wa_pattern_mode")
    if len(modes) != model.n_layer:
        raise UnknownGraphError(model.kind)
    for il, mode in enumerate(modes):
        if (mode == BY_COLUMN) != (before == BY_COLUMN):
            cur = _reordered(g, cur, there if mode == BY_COLUMN else back, unit)
        positions = by_column if mode == BY_COLUMN else by_row
        cur = _whole_block(g, cur, il, RMS, _headed, _banded(g, il, positions, None if mode == FULL else mask))
        before = mode
    if before == BY_COLUMN:
        cur = _reordered(g, cur, back, unit)
    cur = ggml.reshape(g.norm(cur, "v.post_ln"), g.n_embd * unit, n // unit)
    cur = ggml.gelu(g.build_mm(model.w("mm.0.weight"), cur))
    return g.build_mm(model.w("mm.2.weight"), cur)


def _headed(g: ClipGraph, cur: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """Heads as wide as their number makes the product."""
    model, cur = g.model, g.linear(cur, f"v.blk.{il}.attn_qkv")
    counts = (model.n_head, model.n_head_kv, model.n_head_kv)
    width = g.model.w("v.blk.0.attn_qkv.weight").ne[1] // sum(counts)
    row = row_size(cur.type, width)
    q, k, v = (
        ggml.view_3d(cur, width, count, g.n_patches, row, cur.nb[1], sum(counts[:i]) * row) for i, count in enumerate(counts)
    )
    return q, k, v


def _banded(g: ClipGraph, il: int, positions: Tensor, mask: Tensor | None) -> Attend:
    sinks = None if mask is None else g.model.w(f"v.blk.{il}.attn_sinks")
    return lambda q, k, v: g.build_attn(il, ggml.rope_multi(q, positions), ggml.rope_multi(k, positions), v, mask, sinks)


def glm4v(g: ClipGraph) -> Tensor:
    """clip_graph_glm4v: GLM-4.1V, GLM-OCR, GLM-5V."""
    model, n = g.model, g.model.n_merge
    positions = g.positions(4 * g.n_patches)
    cur = ggml.add(_in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3)), model.w("v.patch_embd.bias"))
    cur = g.norm_if_any(cur, "v.norm_embd", RMS)
    pos_embd = _in_squares(g, g.resize_position_embeddings()) if model.has("v.position_embd.weight") else None
    cur = g.build_vit(cur, g.n_patches, RMS, model.activation, pos_embd, lambda t: ggml.rope_multi(t, positions))
    n_out = g.n_patches // n // n
    cur = ggml.cont(ggml.permute(ggml.reshape(cur, g.n_embd, n, n, n_out), 2, 0, 1, 3))
    cur = conv_2d(model.w("mm.patch_merger.weight"), cur, n)
    cur = ggml.add(ggml.reshape(cur, cur.ne[2], n_out), model.w("mm.patch_merger.bias"))
    cur = ggml.gelu_erf(g.norm(g.build_mm(model.w("mm.model.fc.weight"), cur), "mm.post_norm"))
    up, gate = g.linear(cur, "mm.up"), g.linear(cur, "mm.gate")
    return g.linear(g.gated(gate, up, model.activation), "mm.down")
