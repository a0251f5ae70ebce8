"""MiniCPM-V's resampler, and the mergers that came after it (tools/mtmd/models/minicpmv.cpp)."""

from collections.abc import Iterable, Sequence

from fitplug.memory.clip_graph import NORMAL, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.tensor import Tensor


def resampler(g: ClipGraph) -> Tensor:
    """clip_graph_minicpmv: MiniCPM-V up to 4.5, whose projector is another transformer."""
    model, n = g.model, g.n_patches
    width = model.w("resampler.proj.weight").ne[0]
    omega = ggml.new_input("f32", width // 4)
    pos_h, pos_w = ggml.new_input("f32", 1, n), ggml.new_input("f32", 1, n)
    pos_embd = ggml.get_rows(model.w("v.position_embd.weight"), g.positions(n))
    cur = g.build_vit(g.build_inp(), n, NORMAL, model.activation, pos_embd)
    v = g.build_mm(model.w("resampler.kv.weight"), cur)
    q, v = g.norm(model.w("resampler.query"), "resampler.ln_q"), g.norm(v, "resampler.ln_kv")
    waves = ggml.repeat_4d(omega, omega.ne[0], n, 1, 1)
    theta_x, theta_y = ggml.mul(waves, pos_w), ggml.mul(waves, pos_h)
    x, y = (ggml.concat(ggml.sin(t), ggml.cos(t), 0) for t in (theta_x, theta_y))
    k = ggml.add(v, ggml.concat(x, y, 0))
    q, k, v = (g.linear(t, f"resampler.attn.{name}") for t, name in ((q, "q"), (k, "k"), (v, "v")))
    head = 128
    q, k, v = (ggml.reshape(t, head, width // head, t.ne[1]) for t in (q, k, v))
    cur = g.norm(g.linear(g.attend(q, k, v), "resampler.attn.out"), "resampler.ln_post")
    return g.build_mm(model.w("resampler.proj.weight"), cur)


def merger(g: ClipGraph) -> Tensor:
    """clip_graph_minicpmv4_6: squares of four, once inside the tower and once after it."""
    model, n, n_down = g.model, g.n_patches, (g.n_y // 2) * (g.n_x // 2)
    pos_embd = ggml.get_rows(model.w("v.position_embd.weight"), g.positions(n))
    cur = g.norm_if_any(ggml.add(g.build_inp(), pos_embd), "v.pre_ln", NORMAL)
    n_out = n_down
    if model.n_merge == 2:
        cur = _blocks(g, cur, range(model.n_layer), n)
    else:
        after = (*model.numbers("wa_layer_indexes"), 0)[0] + 1
        cur = _blocks(g, cur, range(after), n)
        cur = _merged(g, _in_windows(g, cur), n_down)
        cur = _blocks(g, cur, range(after, model.n_layer), n_down)
        n_out = (g.n_y // 2 // 2) * (g.n_x // 2 // 2)
    cur = g.norm_if_any(cur, "v.post_ln", NORMAL)
    cur = g.norm(_side_by_side(_quarters(g, cur, n_out)), "mm.input_norm")
    return g.mlp(cur, "mm.up", "mm.down", "gelu_erf")


def _blocks(g: ClipGraph, cur: Tensor, layers: Iterable[int], n_pos: int) -> Tensor:
    model, layer = g.model, g.model.layer
    for il in layers:
        normed = g.build_norm(cur, layer(il, "ln1.weight"), layer(il, "ln1.bias"), NORMAL)
        q, k, v = _heads(g, normed, f"v.blk.{il}", n_pos)
        cur = ggml.add(g.scaled(g.build_attn(il, q, k, v), il, "ls1"), cur)
        normed = g.build_norm(cur, layer(il, "ln2.weight"), layer(il, "ln2.bias"), NORMAL)
        cur = ggml.add(cur, g.scaled(g.build_ffn(normed, il, model.activation), il, "ls2"))
    return cur


def _heads(g: ClipGraph, cur: Tensor, name: str, n_pos: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (g.linear(cur, f"{name}.attn_{part}") for part in "qkv")
    q, k, v = (ggml.reshape(t, g.model.d_head, g.model.n_head, n_pos) for t in (q, k, v))
    return q, k, v


def _in_windows(g: ClipGraph, inp: Tensor) -> Tensor:
    """Attention between the four of a square."""
    n = g.n_patches
    mask = ggml.new_input("f32", n, n)
    mask = ggml.cast(mask, "f16") if g.flash_attn else mask
    cur = ggml.get_rows(g.norm(inp, "v.vit_merger.ln1"), g.positions(n))
    cur = g.linear(g.attend(*_heads(g, cur, "v.vit_merger", n), mask), "v.vit_merger.attn_out")
    return ggml.add(ggml.get_rows(cur, g.positions(n)), inp)


def _merged(g: ClipGraph, inp: Tensor, n_out: int) -> Tensor:
    """A square as one: the mean, and a feed-forward of all four."""
    parts = _quarters(g, inp, n_out)
    mean = ggml.add(parts[0], parts[1])
    mean = ggml.scale(ggml.add(ggml.add(mean, parts[2]), parts[3]))
    cur = g.norm(_side_by_side(parts), "v.vit_merger.ds_ln")
    return ggml.add(g.mlp(cur, "v.vit_merger.ds_ffn_up", "v.vit_merger.ds_ffn_down"), mean)


def _quarters(g: ClipGraph, cur: Tensor, n_out: int) -> Sequence[Tensor]:
    return [ggml.get_rows(cur, g.positions(n_out)) for _ in range(4)]


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    cur = parts[0]
    for part in parts[1:]:
        cur = ggml.concat(cur, part, 0)
    return cur
