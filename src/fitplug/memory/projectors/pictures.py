"""Towers of patches that other projectors of their own follow, by name of their file in tools/mtmd/models."""

from fitplug.memory.clip_graph import NORMAL, RMS, ClipGraph, rope_2d
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d, im2col_2d, interpolate
from fitplug.memory.graph.tensor import Tensor, row_size

LARGE_INTERNVIT = (3200, 45)
"""Width and layers of InternViT 6B, whose norms are RMS."""
PATCH = "v.patch_embd.weight"
SPARSE = 4
"""Muse Glimmer's layers from one that sees everything to the next (hparams.muse_glimmer_sparse_factor)."""


def pixtral(g: ClipGraph) -> Tensor:
    """clip_graph_pixtral: Pixtral, Mistral Small, LightOnOCR."""
    model, n = g.model, g.model.n_merge
    pos_h, pos_w = g.positions(g.n_patches), g.positions(g.n_patches)
    cur = g.build_vit(g.build_inp(), g.n_patches, RMS, model.activation, None, rope_2d(pos_h, pos_w))
    if model.has("mm.patch_merger.weight"):
        cur = ggml.mul(ggml.rms_norm(cur), model.w("mm.input_norm.weight"))
        cur = ggml.cont(ggml.permute(ggml.reshape(cur, g.n_embd, g.n_x, g.n_y), 2, 0, 1, 3))
        cur = im2col_2d(ggml.view_3d(cur, n, n, cur.ne[2], 0, 0), cur, n, "f32")
        cur = g.build_mm(model.w("mm.patch_merger.weight"), ggml.reshape(cur, cur.ne[0], cur.ne[1] * cur.ne[2]))
    cur = g.mlp(cur, "mm.1", "mm.2")
    if not model.has("v.token_embd.img_break"):
        return cur
    n_text, x, y = cur.ne[0], g.n_x // n, g.n_y // n
    breaks = ggml.scale(ggml.new_tensor(cur.type, n_text, 1, y))
    breaks = ggml.add(breaks, model.w("v.token_embd.img_break"))
    cur = ggml.concat(ggml.reshape(cur, n_text, x, y), breaks, 1)
    return ggml.view_2d(cur, n_text, x * y + y - 1, row_size(cur.type, n_text))


def _squared(cur: Tensor, scale: int, n_x: int, n_y: int) -> Tensor:
    """Half of a pixel shuffle."""
    n = cur.ne[0]
    cur = ggml.permute(ggml.reshape(cur, n * scale, n_x // scale, n_y), 0, 2, 1, 3)
    return ggml.cont(cur, n * scale * scale, n_x // scale, n_y // scale)


def internvl(g: ClipGraph) -> Tensor:
    """clip_graph_internvl."""
    model, n_pos = g.model, g.n_patches + 1
    cls = model.w("v.class_embd")
    inp = ggml.concat(g.build_inp(), ggml.repeat_4d(cls, cls.ne[0], 1, 1, 1), 1)
    kind = RMS if (g.n_embd, model.n_layer) == LARGE_INTERNVIT else NORMAL
    cur = g.build_vit(inp, n_pos, kind, model.activation, model.w("v.position_embd.weight"))
    cur = ggml.cont(ggml.view_3d(cur, g.n_embd, g.n_patches, 1, cur.nb[1], cur.nb[2]))
    cur = ggml.permute(_squared(cur, model.n_merge, g.n_y, g.n_x), 0, 2, 1, 3)
    cur = ggml.cont(cur, cur.ne[0], cur.ne[1] * cur.ne[2], cur.ne[3])
    return g.mlp(g.norm(cur, "mm.model.mlp.0"), "mm.model.mlp.1", "mm.model.mlp.3")


def llama4(g: ClipGraph) -> Tensor:
    """clip_graph_llama4."""
    model, n_pos, patch = g.model, g.n_patches + 1, g.model.patch_size
    pos_h, pos_w = g.positions(n_pos), g.positions(n_pos)
    kernel = ggml.reshape(model.w(PATCH), patch, patch, 3, g.n_embd)
    inp = g.build_mm(model.w(PATCH), im2col_2d(kernel, g.build_inp_raw(), patch, "f32"))
    inp = ggml.concat(ggml.reshape(inp, g.n_embd, g.n_patches), model.w("v.class_embd"), 1)
    cur = g.build_vit(inp, n_pos, NORMAL, model.activation, model.w("v.position_embd.weight"), rope_2d(pos_w, pos_h))
    cur = ggml.view_2d(cur, g.n_embd, g.n_patches, row_size(cur.type, g.n_embd))
    cur = _squared(cur, model.n_merge, g.n_x, g.n_y)
    cur = ggml.cont(cur, cur.ne[0], g.n_patches // model.n_merge // model.n_merge)
    cur = ggml.gelu(g.build_mm(model.w("mm.model.mlp.1.weight"), cur))
    cur = ggml.gelu(g.build_mm(model.w("mm.model.mlp.2.weight"), cur))
    return g.build_mm(model.w("mm.model.fc.weight"), cur)


def gemma4v(g: ClipGraph) -> Tensor:
    """clip_graph_gemma4v: every product clamped."""
    model, n, table = g.model, g.model.n_merge, g.model.w("v.position_embd.weight")
    g.clamps = True
    inp = conv_2d(model.w(PATCH), ggml.scale_bias(g.build_inp_raw()), model.patch_size)
    inp = ggml.cont(ggml.transpose(ggml.reshape(inp, g.n_patches, g.n_embd)))
    pos_x, pos_y = g.positions(g.n_patches), g.positions(g.n_patches)
    inp = _placed(g, inp, table, pos_x, pos_y)
    cur = g.build_vit(inp, g.n_patches, RMS, model.activation, None, rope_2d(pos_x, pos_y))
    cur = ggml.pool_2d(ggml.cont(ggml.transpose(cur), g.n_x, g.n_y, g.n_embd), n, n, n, n)
    cur = ggml.reshape(cur, (g.n_x // n) * (g.n_y // n), g.n_embd)
    cur = ggml.scale(ggml.cont(ggml.transpose(cur)))
    bias, scale = model.optional("v.std_bias"), model.optional("v.std_scale")
    if bias is not None and scale is not None:
        cur = ggml.mul(ggml.sub(cur, bias), scale)
    return g.build_mm(model.w("mm.input_projection.weight"), ggml.rms_norm(cur))


def gemma4uv(g: ClipGraph) -> Tensor:
    """clip_graph_gemma4uv: no tower, one product of merged patches."""
    model, patch, n, table = g.model, g.model.patch_size, g.n_patches, g.model.w("v.position_embd.weight")
    cur = im2col_2d(ggml.new_tensor("f32", patch, patch, 3), g.build_inp_raw(), patch, "f32")
    cur = g.norm(ggml.reshape(cur, cur.ne[0], cur.ne[1] * cur.ne[2] * cur.ne[3]), "v.patch_norm.1")
    cur = g.norm(ggml.add(ggml.mul_mat(model.w(PATCH), cur), model.w("v.patch_embd.bias")), "v.patch_norm.2")
    cur = g.norm(_placed(g, cur, table, g.positions(n), g.positions(n)), "v.patch_norm.3")
    return g.build_mm(model.w("mm.input_projection.weight"), ggml.rms_norm(cur))


def _placed(g: ClipGraph, inp: Tensor, table: Tensor, pos_x: Tensor, pos_y: Tensor) -> Tensor:
    """Learned positions, a table of columns and one of rows."""
    row, n_pos = row_size(table.type, g.n_embd), table.ne[1]
    for i, pos in enumerate((pos_x, pos_y)):
        inp = ggml.add(inp, ggml.get_rows(ggml.view_2d(table, g.n_embd, n_pos, row, i * n_pos * row), pos))
    return inp


def kimivl(g: ClipGraph) -> Tensor:
    """clip_graph_kimivl."""
    model = g.model
    pos_h, pos_w = g.positions(g.n_patches), g.positions(g.n_patches)
    pos_embd = g.resize_position_embeddings()
    cur = g.build_vit(g.build_inp(), g.n_patches, NORMAL, model.activation, pos_embd, rope_2d(pos_w, pos_h))
    return _normed_squares(g, cur)


def _normed_squares(g: ClipGraph, cur: Tensor) -> Tensor:
    scale = g.model.n_merge
    cur = g.build_patch_merge_permute(cur, scale)
    width, n = cur.ne[0], cur.ne[1]
    cur = ggml.view_2d(cur, g.n_embd, n * scale * scale, row_size(cur.type, g.n_embd))
    cur = g.norm(cur, "mm.input_norm")
    return g.mlp(ggml.view_2d(cur, width, n, row_size(cur.type, width)), "mm.1", "mm.2")


def kimik25(g: ClipGraph) -> Tensor:
    """clip_graph_kimik25: positions in two dimensions."""
    model, table, n = g.model, g.model.w("v.position_embd.weight"), g.n_patches
    pos_h, pos_w = g.positions(n), g.positions(n)
    if table.ne[1:3] != (g.n_x, g.n_y):
        table = interpolate(ggml.permute(table, 2, 1, 0, 3), g.n_y, g.n_x, g.n_embd)
        table = ggml.permute(table, 2, 1, 0, 3)
    inp = ggml.add(g.build_inp(), ggml.cont(table, g.n_embd, n))
    return _normed_squares(g, g.build_vit(inp, n, NORMAL, model.activation, None, rope_2d(pos_w, pos_h)))


def paddleocr(g: ClipGraph) -> Tensor:
    """clip_graph_paddleocr."""
    positions = g.positions(4 * g.n_patches)
    pos_embd = g.resize_position_embeddings()
    cur = g.build_vit(g.build_inp(), g.n_patches, NORMAL, g.model.activation, pos_embd, lambda t: ggml.rope_multi(t, positions))
    cur = g.build_patch_merge_permute(g.norm(cur, "mm.input_norm"), g.model.n_merge)
    return g.mlp(cur, "mm.1", "mm.2", g.model.activation)


def dots_ocr(g: ClipGraph) -> Tensor:
    """clip_graph_dotsocr: dots.ocr, and dots.vlm whose last blocks have experts."""
    positions = g.positions(4 * g.n_patches)
    g.post_ln = ("mm.post_norm.weight", "v.post_ln.bias")
    cur = g.build_vit(g.build_inp(), g.n_patches, RMS, g.model.activation, None, lambda t: ggml.rope_multi(t, positions))
    cur = g.build_patch_merge_permute(g.norm(cur, "mm.input_norm"), g.model.n_merge)
    return g.mlp(cur, "mm.0", "mm.2", "gelu_erf")


def deepseek4v(g: ClipGraph) -> Tensor:
    """clip_graph_deepseek4v: squares of patches, in rows that sentinels end."""
    model, n, positions = g.model, g.model.n_merge, g.positions(4 * g.n_patches)
    cur = g.build_vit(g.build_inp(), g.n_patches, RMS, model.activation, None, lambda t: ggml.rope_multi(t, positions))
    cur = ggml.cont(ggml.permute(ggml.reshape(cur, g.n_embd, g.n_x, g.n_y), 2, 0, 1, 3))
    if g.n_x % n or g.n_y % n:
        cur = ggml.pad(cur, -g.n_x % n, -g.n_y % n)
    cur = im2col_2d(ggml.view_3d(cur, n, n, cur.ne[2], 0, 0), cur, n, "f32")
    cur = g.mlp(ggml.reshape(cur, cur.ne[0], cur.ne[1] * cur.ne[2]), "mm.1", "mm.2", "gelu_erf")
    for name in ("v.token_embd.img_start", "v.token_embd.img_end", "v.image_newline", "v.token_embd.img_pad"):
        cur = ggml.concat(cur, ggml.reshape(model.w(name), cur.ne[0], 1), 1)
    width, height = -(-g.n_x // n), -(-g.n_y // n)
    rows, in_row = height + height % 2, width + 1  # dsv4_get_block_layout
    return ggml.get_rows(cur, g.positions(2 + rows * in_row + rows // 2 * in_row % 2 * 2))


def cogvlm(g: ClipGraph) -> Tensor:
    """clip_graph_cogvlm: norms after attention and feed-forward."""
    model, layer, n_pos, n_head, d_head = g.model, g.model.layer, g.n_patches + 1, g.model.n_head, g.model.d_head
    cur = ggml.add(ggml.concat(g.build_inp(), model.w("v.class_embd"), 1), model.w("v.position_embd.weight"))
    for il in range(model.n_layer):
        qkv = g.linear(cur, f"v.blk.{il}.attn_qkv")
        head, width = row_size(qkv.type, d_head), row_size(qkv.type, g.n_embd)
        q, k, v = (ggml.view_3d(qkv, d_head, n_head, n_pos, head, qkv.nb[1], i * width) for i in range(3))
        attended = g.build_norm(g.build_attn(il, q, k, v), layer(il, "ln1.weight"), layer(il, "ln1.bias"), NORMAL)
        cur = ggml.add(attended, cur)
        fed = g.build_norm(g.build_ffn(cur, il, model.activation), layer(il, "ln2.weight"), layer(il, "ln2.bias"), NORMAL)
        cur = ggml.add(fed, cur)
    cur = ggml.view_2d(cur, g.n_embd, g.n_patches, row_size(cur.type, g.n_embd))
    cur = ggml.gelu_inplace(g.norm(g.build_mm(model.w("mm.model.fc.weight"), cur), "mm.post_fc_norm"))
    up, gate = g.build_mm(model.w("mm.up.weight"), cur), g.build_mm(model.w("mm.gate.weight"), cur)
    cur = g.build_mm(model.w("mm.down.weight"), ggml.swiglu_split(gate, up))
    return ggml.concat(ggml.concat(model.w("v.boi"), cur, 1), model.w("v.eoi"), 1)


def hunyuanvl(g: ClipGraph) -> Tensor:
    """clip_graph_hunyuanvl: convolutions, a new line after each row."""
    model, merge = g.model, g.model.n_merge
    pos_embd = ggml.new_input("f32", g.n_embd, g.n_patches)
    cur = g.build_vit(g.build_inp(), g.n_patches, NORMAL, "gelu", pos_embd)
    cur = ggml.reshape(ggml.mul(ggml.rms_norm(cur), model.w("mm.pre_norm.weight")), g.n_embd, g.n_x, g.n_y)
    cur = ggml.gelu(_convolved(g, "mm.0", ggml.cont(ggml.permute(cur, 2, 0, 1, 3)), merge))
    cur = _convolved(g, "mm.2", cur, 1)
    width, height, n_out = g.n_x // merge, g.n_y // merge, cur.ne[2]
    lines = ggml.repeat_4d(ggml.reshape(model.w("v.image_newline"), 1, 1, n_out), 1, height, n_out, 1)
    cur = ggml.permute(ggml.concat(cur, lines, 0), 1, 2, 0, 3)
    cur = g.linear(ggml.cont(cur, n_out, (width + 1) * height), "mm.model.fc")
    begin, end = (ggml.reshape(t, t.ne[0], 1) for t in (model.w("mm.image_begin"), model.w("mm.image_end")))
    cur = ggml.concat(ggml.concat(begin, cur, 1), end, 1)
    return ggml.mul(ggml.rms_norm(cur), model.w("mm.post_norm.weight"))


def _convolved(g: ClipGraph, name: str, cur: Tensor, stride: int) -> Tensor:
    bias = g.model.optional(f"{name}.bias")
    cur = conv_2d(g.model.w(f"{name}.weight"), cur, stride)
    return cur if bias is None else ggml.add(cur, ggml.reshape(bias, 1, 1, bias.ne[0]))


def muse_glimmer(g: ClipGraph) -> Tensor:
    """clip_graph_muse_glimmer: three layers in blocks, one that sees everything."""
    model, n, side = g.model, g.n_patches, g.model.n_merge
    pos_w, pos_h = g.positions(n), g.positions(n)
    sparse, back, squares = g.positions(n), g.positions(n), g.positions(n)
    mask = ggml.new_input("f32", n, n)
    cur = ggml.get_rows(ggml.add(g.build_inp(), g.resize_position_embeddings()), sparse)
    masks = [None if il == model.n_layer - 1 or (il + 1) % SPARSE == 0 else mask for il in range(model.n_layer)]
    cur = g.build_vit(cur, n, NORMAL, "gelu_erf", None, rope_2d(pos_w, pos_h), masks)
    cur = ggml.get_rows(ggml.get_rows(cur, back), squares)
    n_out = (g.n_x // side) * (g.n_y // side)
    cur = ggml.cont(ggml.permute(ggml.reshape(cur, g.n_embd, side * side, n_out), 1, 0, 2, 3))
    cur = ggml.gelu_erf(g.build_mm(model.w("mm.0.weight"), ggml.reshape(cur, g.n_embd * side * side, n_out)))
    return g.build_mm(model.w("mm.2.weight"), ggml.gelu_erf(g.build_mm(model.w("mm.1.weight"), cur)))


def nemotron_v2_vl(g: ClipGraph) -> Tensor:
    """clip_graph_nemotron_v2_vl: registers before the patches."""
    model, registers = g.model, g.model.w("v.class_embd")
    inp = ggml.add(g.build_inp(), model.w("v.position_embd.weight"))
    inp, n_registers = ggml.concat(registers, inp, 1), registers.ne[1]
    cur = g.build_vit(inp, g.n_patches + n_registers, NORMAL, model.activation, None)
    row = row_size(cur.type, g.n_embd)
    cur = g.build_patch_merge_permute(ggml.view_2d(cur, g.n_embd, g.n_patches, row, n_registers * row), model.n_merge)
    cur = ggml.mul(ggml.rms_norm(cur), model.w("mm.model.mlp.0.weight"))
    return g.mlp(cur, "mm.model.mlp.1", "mm.model.mlp.3", "relu_sqr")


def step3vl(g: ClipGraph) -> Tensor:
    """clip_graph_step3vl: two convolutions after the tower."""
    model, n = g.model, g.n_patches
    pos_h, pos_w = g.positions(n), g.positions(n)
    inp = g.build_inp()
    cur = g.build_vit(inp, n, NORMAL, model.activation, g.resize_position_embeddings(), rope_2d(pos_w, pos_h))
    cur = ggml.cont(ggml.permute(cur, 1, 0, 2, 3), g.n_x, g.n_y, g.n_embd)
    for name in ("mm.0", "mm.1"):
        cur = conv_2d(model.w(f"{name}.weight"), cur, 2, 1)
        bias, (width, height, n_out, _) = model.optional(f"{name}.bias"), cur.ne
        if bias is not None:
            cur = ggml.add(ggml.cont(ggml.transpose(ggml.reshape(cur, width * height, n_out))), bias)
            cur = ggml.reshape(ggml.cont(ggml.transpose(cur)), width, height, n_out)
    cur = ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2], cur.ne[3])
    return ggml.mul_mat(model.w("mm.model.fc.weight"), ggml.cont(ggml.permute(cur, 1, 0, 2, 3)))
