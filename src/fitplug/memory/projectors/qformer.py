"""Queries that ask a window of the encoder's output: Granite's projectors (granite4-vision.cpp, granite-speech.cpp)."""

from fitplug.memory.clip_graph import NORMAL, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import Tensor

HEAD = 64
"""Width of a head of Granite Vision's."""


def ask(g: ClipGraph, name: str, queries: Tensor, windows: Tensor, d_head: int) -> Tensor:
    """Attention among the queries of each window, and from them to the window."""
    for kind, seen in (("self", queries), ("cross", windows)):
        parts = zip("qkv", (queries, seen, seen), strict=True)
        q, k, v = (_flat(g, t, f"{name}.{kind}_attn_{part}") for part, t in parts)
        q, k, v = (
            ggml.reshape(t, d_head, t.ne[0] // d_head, of.ne[1], of.ne[2]) for t, of in ((q, queries), (k, seen), (v, seen))
        )
        cur = g.linear(g.attend(q, k, v), f"{name}.{kind}_attn_out")
        cur = ggml.add(ggml.reshape(cur, g.n_embd, queries.ne[1], queries.ne[2]), queries)
        queries = g.norm(cur, f"{name}.{kind}_attn_norm")
    return queries


def _flat(g: ClipGraph, cur: Tensor, name: str) -> Tensor:
    return g.linear(ggml.reshape(cur, cur.ne[0], cur.ne[1] * cur.ne[2]), name)


def granite4_vision(g: ClipGraph) -> Tensor:
    """clip_graph_granite4_vision: one picture of one tile."""
    model, layer, n, side = g.model, g.model.layer, g.n_patches, g.n_x
    cur = ggml.add(g.build_inp(), model.w("v.position_embd.weight"))
    outs: list[Tensor] = []
    for il in range(model.n_layer):
        normed = g.build_norm(cur, layer(il, "ln1.weight"), layer(il, "ln1.bias"), NORMAL)
        q, k, v = (g.linear(normed, f"v.blk.{il}.attn_{part}") for part in "qkv")
        q, k, v = (ggml.reshape(t, model.d_head, model.n_head, n) for t in (q, k, v))
        cur = ggml.add(ggml.reshape(g.build_attn(il, q, k, v), g.n_embd, n), cur)
        normed = g.build_norm(cur, layer(il, "ln2.weight"), layer(il, "ln2.bias"), NORMAL)
        cur = ggml.add(cur, g.build_ffn(normed, il, model.activation))
        outs.append(cur)
    result: Tensor | None = None
    features, offsets = model.numbers("feature_layer"), model.numbers("projector.spatial_offsets")
    for i, (il, offset) in enumerate(zip(features, offsets, strict=False)):
        if not 0 <= il < model.n_layer:
            raise UnknownGraphError(model.kind)
        stream = _stream(g, f"v.proj_blk.{i}", outs[il], side, pooled=offset < 0)
        result = stream if result is None else ggml.concat(result, stream, 0)
    if result is None:
        raise UnknownGraphError(model.kind)
    return result


def _stream(g: ClipGraph, name: str, cur: Tensor, side: int, *, pooled: bool) -> Tensor:
    """build_block: the windows of one layer, and fewer queries in each."""
    model = g.model
    window, query = model.number("projector.window_side"), model.number("projector.query_side")
    per_side = side // window
    new_side, n_windows = per_side * query, per_side * per_side
    cur = g.norm(cur, f"{name}.norm")
    seen = ggml.reshape(_gathered(g, cur, side * side), g.n_embd, window * window, n_windows)
    down = _pooled(g, cur, side, new_side) if pooled else _gathered(g, cur, new_side * new_side)
    queries = ggml.reshape(_gathered(g, down, new_side * new_side), g.n_embd, query * query, n_windows)
    queries = ggml.add(queries, model.w(f"{name}.query"))
    seen = ggml.add(seen, model.w(f"{name}.img_pos"))
    cur = ask(g, name, g.norm(queries, f"{name}.post_norm"), seen, HEAD)
    fed = _flat(g, cur, f"{name}.ffn_up")
    fed = ggml.reshape(g.linear(ggml.gelu_erf(fed), f"{name}.ffn_down"), g.n_embd, query * query, n_windows)
    cur = g.norm(ggml.add(fed, cur), f"{name}.ffn_norm")
    cur = ggml.reshape(cur, g.n_embd, query * query * n_windows)
    return g.linear(_gathered(g, cur, new_side * new_side), f"{name}.linear")


def _gathered(g: ClipGraph, cur: Tensor, n: int) -> Tensor:
    return ggml.get_rows(cur, g.positions(n))


def _pooled(g: ClipGraph, cur: Tensor, side: int, new_side: int) -> Tensor:
    """interp_down: the mean of squares."""
    kernel = side // new_side
    cur = ggml.cont(ggml.permute(ggml.reshape(cur, g.n_embd, side, side), 2, 0, 1, 3))
    cur = ggml.pool_2d(ggml.reshape(cur, side, side, g.n_embd), kernel, kernel, kernel, kernel)
    cur = ggml.cont(ggml.permute(ggml.reshape(cur, new_side, new_side, g.n_embd), 1, 2, 0, 3))
    return ggml.reshape(cur, g.n_embd, new_side * new_side)
