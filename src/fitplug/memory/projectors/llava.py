"""LLaVA and what has its tower: MobileVLM, GLM-Edge (tools/mtmd/models/llava.cpp)."""

from math import isqrt

from fitplug.memory.clip_graph import NORMAL, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d, conv_2d_dw
from fitplug.memory.graph.tensor import Tensor

MOBILE_SIDE = 24
"""MobileVLM's patches along a side, whatever the picture."""


def _llava_layers(g: ClipGraph) -> int:
    """How far the tower is climbed: to the layer before the last one, or to the deepest one that is looked at."""
    features = g.model.numbers("feature_layer")
    return max(features) if features else g.model.n_layer - (g.model.kind != "adapter")


def _tower(g: ClipGraph) -> Tensor:
    model, features = g.model, g.model.numbers("feature_layer")
    inp, n_pos = g.build_inp(), g.n_patches
    if model.has("v.class_embd"):
        inp, n_pos = ggml.concat(inp, model.w("v.class_embd"), 1), n_pos + 1
    inp = ggml.add(inp, ggml.get_rows(model.w("v.position_embd.weight"), g.positions(n_pos)))
    cur = g.norm_if_any(inp, "v.pre_ln", NORMAL)
    stack: list[Tensor] = []
    n_layer = _llava_layers(g)
    for il in range(n_layer):
        if il in features:
            stack.append(cur)
        cur = _llava_block(g, cur, il, n_pos)
    cur = g.norm_if_any(cur, "v.post_ln", NORMAL)
    if n_layer in features:
        stack.append(cur)
    if stack:
        cur = stack[0]
        for other in stack[1:]:
            cur = ggml.concat(cur, other, 0)
    return cur


def _patches(g: ClipGraph) -> Tensor:
    """The tower's result without what stands for the whole picture."""
    cur = _tower(g)
    return ggml.get_rows(ggml.reshape(cur, cur.ne[0], cur.ne[1]), g.positions(g.n_patches))


def _llava_block(g: ClipGraph, inp: Tensor, il: int, n_pos: int) -> Tensor:
    model, layer = g.model, g.model.layer
    cur = g.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), NORMAL)
    q, k, v = (g.linear(cur, f"v.blk.{il}.{name}") for name in ("attn_q", "attn_k", "attn_v"))
    q, k, v = (ggml.reshape(t, model.d_head, model.n_head, n_pos) for t in (q, k, v))
    inp = ggml.add(g.build_attn(il, q, k, v), inp)
    cur = g.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), NORMAL)
    return ggml.add(inp, g.build_ffn(cur, il, model.activation))


def llava(g: ClipGraph) -> Tensor:
    """clip_graph_llava: LLaVA and its kin, Granite Vision."""
    cur = _patches(g)
    if g.model.has("mm.3.weight"):  # Yi's
        cur = g.norm(g.linear(cur, "mm.0"), "mm.1")
        return g.norm(g.linear(ggml.gelu(cur), "mm.3"), "mm.4")
    cur = ggml.gelu(g.linear(cur, "mm.0"))
    return g.linear(cur, "mm.2") if g.model.has("mm.2.weight") else cur


def _in_rows(g: ClipGraph, cur: Tensor, up: str, down: str) -> Tensor:
    cur = ggml.permute(g.mlp(cur, up, down), 1, 0, 2, 3)
    return ggml.cont(cur, MOBILE_SIDE, MOBILE_SIDE, cur.ne[1], cur.ne[2])


def _mobile_block(g: ClipGraph, cur: Tensor, number: int, stride: int) -> Tensor:
    """A convolution, a gate from the whole picture, a product: channels first at the end."""
    name = f"mm.model.mb_block.{number}.block"
    cur = conv_2d_dw(g.model.w(f"{name}.0.0.weight"), cur, stride, 1)
    cur = g.norm(ggml.cont(ggml.permute(cur, 1, 2, 0, 3)), f"{name}.0.1")
    squashed = ggml.hardswish(ggml.cont(ggml.permute(cur, 2, 0, 1, 3)))
    width, height = squashed.ne[:2]
    cur = ggml.pool_2d(squashed, width, height, width, height)
    cur = ggml.reshape(cur, cur.ne[0] * cur.ne[1] * cur.ne[2], cur.ne[3])
    cur = ggml.hardsigmoid(g.linear(ggml.relu(g.linear(cur, f"{name}.1.fc1")), f"{name}.1.fc2"))
    cur = ggml.mul(squashed, ggml.reshape(cur, 1, 1, cur.ne[0], cur.ne[1]))
    cur = ggml.reshape(cur, width * height, cur.ne[2], cur.ne[3])
    cur = g.build_mm(g.model.w(f"{name}.2.0.weight"), ggml.cont(ggml.permute(cur, 1, 0, 2, 3)))
    return g.norm(ggml.reshape(cur, cur.ne[0], width, height, cur.ne[3]), f"{name}.2.1")


def ldp(g: ClipGraph) -> Tensor:
    """clip_graph_llava for MobileVLM."""
    rows = _in_rows(g, _patches(g), "mm.model.mlp.1", "mm.model.mlp.3")
    cur = _mobile_block(g, rows, 1, 1)
    cur = ggml.add(rows, ggml.cont(ggml.permute(cur, 2, 0, 1, 3)))
    cur = _mobile_block(g, cur, 2, 2)
    return ggml.reshape(cur, cur.ne[0], cur.ne[1] * cur.ne[2], cur.ne[3])


def ldpv2(g: ClipGraph) -> Tensor:
    """clip_graph_llava for MobileVLM V2."""
    rows = ggml.pool_2d(_in_rows(g, _patches(g), "mm.model.mlp.0", "mm.model.mlp.2"), 2, 2, 2, 2)
    cur = conv_2d_dw(g.model.w("mm.model.peg.0.weight"), rows, 1, 1)
    cur = ggml.add(ggml.cont(ggml.permute(cur, 1, 2, 0, 3)), g.model.w("mm.model.peg.0.bias"))
    cur = ggml.add(cur, ggml.cont(ggml.permute(rows, 1, 2, 0, 3)))
    return ggml.reshape(cur, cur.ne[0], cur.ne[1] * cur.ne[2], cur.ne[3])


def glm_edge(g: ClipGraph) -> Tensor:
    """clip_graph_llava for GLM-Edge."""
    model, cur = g.model, _tower(g)
    side = isqrt(cur.ne[1])
    cur = ggml.permute(cur, 1, 0, 2, 3)
    cur = conv_2d(model.w("adapter.conv.weight"), ggml.cont(cur, side, side, cur.ne[1]), 2)
    cur = ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2])
    cur = ggml.add(ggml.cont(ggml.permute(cur, 1, 0, 2, 3)), model.w("adapter.conv.bias"))
    cur = g.build_mm(model.w("adapter.linear.linear.weight"), cur)
    cur = ggml.gelu_inplace(g.norm(cur, "adapter.linear.norm1"))
    gate = g.build_mm(model.w("adapter.linear.gate.weight"), cur)
    up = g.build_mm(model.w("adapter.linear.dense_h_to_4h.weight"), cur)
    cur = g.build_mm(model.w("adapter.linear.dense_4h_to_h.weight"), ggml.swiglu_split(gate, up))
    return ggml.concat(ggml.concat(model.w("adapter.boi"), cur, 1), model.w("adapter.eoi"), 1)
