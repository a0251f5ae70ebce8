"""The graphs of the projectors, one function each, line by line after tools/mtmd/models/*.cpp."""

from collections.abc import Callable, Mapping

from fitplug.memory.clip_graph import NORMAL, RMS, ClipGraph, activate, conv_2d, im2col_2d, rope_2d
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.tensor import Tensor, row_size

Build = Callable[[ClipGraph], Tensor]
LARGE_INTERNVIT = (3200, 45)
"""Width and layers of InternViT 6B, whose norms are RMS."""
PATCH = "v.patch_embd.weight"


# llava.cpp


def _llava_layers(g: ClipGraph) -> int:
    """How far the tower is climbed: to the layer before the last one, or to the deepest one that is looked at."""
    features = g.model.numbers("feature_layer")
    return max(features) if features else g.model.n_layer - (g.model.kind != "adapter")


def llava(g: ClipGraph) -> Tensor:
    """clip_graph_llava: LLaVA and its kin, Granite Vision."""
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
    cur = ggml.get_rows(ggml.reshape(cur, cur.ne[0], cur.ne[1]), g.positions(g.n_patches))
    return _llava_projector(g, cur)


def _llava_block(g: ClipGraph, inp: Tensor, il: int, n_pos: int) -> Tensor:
    model, layer = g.model, g.model.layer
    cur = g.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), NORMAL)
    q, k, v = (g.linear(cur, f"v.blk.{il}.{name}") for name in ("attn_q", "attn_k", "attn_v"))
    q, k, v = (ggml.reshape(t, model.d_head, model.n_head, n_pos) for t in (q, k, v))
    inp = ggml.add(g.build_attn(il, q, k, v), inp)
    cur = g.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), NORMAL)
    return ggml.add(inp, g.build_ffn(cur, il, model.activation))


def _llava_projector(g: ClipGraph, cur: Tensor) -> Tensor:
    if g.model.has("mm.3.weight"):  # Yi's
        cur = g.norm(g.linear(cur, "mm.0"), "mm.1")
        return g.norm(g.linear(ggml.gelu(cur), "mm.3"), "mm.4")
    cur = ggml.gelu(g.linear(cur, "mm.0"))
    return g.linear(cur, "mm.2") if g.model.has("mm.2.weight") else cur


# siglip.cpp


def _siglip(g: ClipGraph) -> Tensor:
    inp = g.build_inp()
    resized = g.model.kind in {"lfm2", "phi4"}
    pos_embd = g.resize_position_embeddings() if resized else g.model.w("v.position_embd.weight")
    return g.build_vit(inp, g.n_patches, NORMAL, g.model.activation, pos_embd)


def gemma3(g: ClipGraph) -> Tensor:
    """clip_graph_siglip for Gemma 3: pooled, normed, projected."""
    n, kernel = g.n_x, g.model.n_merge
    cur = ggml.cont(ggml.transpose(_siglip(g)), n, n, g.n_embd)
    cur = ggml.pool_2d(cur, kernel, kernel, kernel, kernel)
    cur = ggml.cont(ggml.transpose(ggml.reshape(cur, cur.ne[0] * cur.ne[0], g.n_embd)))
    cur = ggml.mul(ggml.rms_norm(cur), g.model.w("mm.soft_emb_norm.weight"))
    return ggml.mul_mat(ggml.cont(ggml.transpose(g.model.w("mm.input_projection.weight"))), cur)


def idefics3(g: ClipGraph) -> Tensor:
    """clip_graph_siglip for Idefics 3 and SmolVLM."""
    return g.build_mm(g.model.w("mm.model.fc.weight"), g.build_patch_merge_permute(_siglip(g), g.model.n_merge))


def lfm2(g: ClipGraph) -> Tensor:
    """clip_graph_siglip for LFM2-VL."""
    cur = g.build_patch_merge_permute(_siglip(g), g.model.n_merge)
    weight, bias = g.model.optional("mm.input_norm.weight"), g.model.optional("mm.input_norm.bias")
    if weight is not None:
        cur = ggml.mul(ggml.norm(cur), weight)
    if bias is not None:
        cur = ggml.add(cur, bias)
    return g.mlp(cur, "mm.1", "mm.2")


def janus_pro(g: ClipGraph) -> Tensor:
    """clip_graph_siglip for Janus Pro."""
    return g.mlp(_siglip(g), "mm.0", "mm.1", g.model.activation)


def phi4(g: ClipGraph) -> Tensor:
    """clip_graph_siglip for Phi 4."""
    return g.mlp(_siglip(g), "mm.0", "mm.2")


# pixtral.cpp


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


# qwen2vl.cpp, qwen3vl.cpp, glm4v.cpp


def _both_frames(g: ClipGraph) -> Tensor:
    """build_inp_with_temporal_merge: one picture as two frames."""
    raw, patch = g.build_inp_raw(), g.model.patch_size
    return ggml.add(conv_2d(g.model.w(PATCH), raw, patch), conv_2d(g.model.w(f"{PATCH}.1"), raw, patch))


def _in_squares(g: ClipGraph, cur: Tensor) -> Tensor:
    """Patches reordered so that four neighbours follow each other."""
    n = g.n_embd * 2
    cur = ggml.reshape(ggml.cont(cur, n, g.n_x // 2, g.n_y), n, g.n_x // 2, 2, g.n_y // 2)
    return ggml.cont(ggml.permute(cur, 0, 2, 1, 3), g.n_embd, g.n_patches)


def qwen2vl(g: ClipGraph) -> Tensor:
    """clip_graph_qwen2vl: Qwen 2 and 2.5 VL."""
    model, pattern, n = g.model, g.model.window_pattern(), g.n_patches
    kind = RMS if model.kind == "qwen2.5vl_merger" else NORMAL
    cur = _in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3))
    positions = g.positions(4 * n)
    cur = g.norm_if_any(cur, "v.pre_ln", kind)
    mask = None
    if pattern:
        rows, mask = g.positions(n // 4), ggml.new_input("f32", n, n)
        mask = ggml.cast(mask, "f16") if g.flash_attn else mask
        cur = ggml.reshape(ggml.get_rows(ggml.reshape(cur, 4 * g.n_embd, n // 4), rows), g.n_embd, n)
    for il in range(model.n_layer):
        cur = _qwen2_block(g, cur, il, kind, positions, mask if pattern and (il + 1) % pattern else None)
    cur = g.mlp(ggml.reshape(g.norm_if_any(cur, "v.post_ln", kind), 4 * g.n_embd, n // 4), "mm.0", "mm.2")
    if pattern:
        n_out = model.number("projection_dim")
        cur = ggml.reshape(ggml.get_rows(ggml.reshape(cur, n_out, n // 4), g.positions(n // 4)), n_out, n // 4)
    return cur


def _qwen2_block(g: ClipGraph, inp: Tensor, il: int, kind: str, positions: Tensor, mask: Tensor | None) -> Tensor:
    model, layer = g.model, g.model.layer
    cur = g.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), kind)
    q, k, v = (g.linear(cur, f"v.blk.{il}.{name}") for name in ("attn_q", "attn_k", "attn_v"))
    q, k, v = (ggml.reshape(t, model.d_head, model.n_head, g.n_patches) for t in (q, k, v))
    cur = g.build_attn(il, ggml.rope_multi(q, positions), ggml.rope_multi(k, positions), v, mask)
    inp = ggml.add(cur, inp)
    cur = g.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), kind)
    return ggml.add(inp, g.build_ffn(cur, il, model.activation))


def qwen3vl(g: ClipGraph) -> Tensor:
    """clip_graph_qwen3vl: with features of some layers beside the last one's."""
    model, n = g.model, g.n_patches
    cur = ggml.add(_in_squares(g, ggml.permute(_both_frames(g), 1, 2, 0, 3)), model.w("v.patch_embd.bias"))
    cur = ggml.add(cur, _in_squares(g, g.resize_position_embeddings()))
    positions = g.positions(4 * n)
    cur = g.norm_if_any(cur, "v.pre_ln", NORMAL)
    features: Tensor | None = None
    for il in range(model.n_layer):
        cur = _qwen3_block(g, cur, il, positions)
        if model.has(f"v.deepstack.{il}.fc1.weight"):
            area = model.n_merge * model.n_merge
            feature = g.norm(ggml.reshape(cur, g.n_embd * area, n // area), f"v.deepstack.{il}.norm")
            feature = g.mlp(feature, f"v.deepstack.{il}.fc1", f"v.deepstack.{il}.fc2")
            features = feature if features is None else ggml.concat(features, feature, 0)
    cur = g.mlp(ggml.reshape(g.norm_if_any(cur, "v.post_ln", NORMAL), 4 * g.n_embd, n // 4), "mm.0", "mm.2")
    return cur if features is None else ggml.concat(cur, features, 0)


def _qwen3_block(g: ClipGraph, inp: Tensor, il: int, positions: Tensor) -> Tensor:
    model, layer = g.model, g.model.layer
    cur = g.linear(g.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), NORMAL), f"v.blk.{il}.attn_qkv")
    head, width = row_size(cur.type, model.d_head), row_size(cur.type, g.n_embd)
    q, k, v = (ggml.view_3d(cur, model.d_head, model.n_head, g.n_patches, head, cur.nb[1], i * width) for i in range(3))
    inp = ggml.add(g.build_attn(il, ggml.rope_multi(q, positions), ggml.rope_multi(k, positions), v), inp)
    cur = g.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), NORMAL)
    return ggml.add(inp, g.build_ffn(cur, il, model.activation))


def glm4v(g: ClipGraph) -> Tensor:
    """clip_graph_glm4v: GLM-4.1V, GLM-OCR."""
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
    gate, up = g.linear(cur, "mm.gate"), g.linear(cur, "mm.up")
    return g.linear(ggml.swiglu_split(gate, up), "mm.down")


# The others, by name of their file


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
    row, n_pos = row_size(table.type, g.n_embd), table.ne[1]
    for i, pos in enumerate((pos_x, pos_y)):
        inp = ggml.add(inp, ggml.get_rows(ggml.view_2d(table, g.n_embd, n_pos, row, i * n_pos * row), pos))
    cur = g.build_vit(inp, g.n_patches, RMS, model.activation, None, rope_2d(pos_x, pos_y))
    cur = ggml.pool_2d(ggml.cont(ggml.transpose(cur), g.n_x, g.n_y, g.n_embd), n, n, n, n)
    cur = ggml.reshape(cur, (g.n_x // n) * (g.n_y // n), g.n_embd)
    cur = ggml.scale(ggml.cont(ggml.transpose(cur)))
    bias, scale = model.optional("v.std_bias"), model.optional("v.std_scale")
    if bias is not None and scale is not None:
        cur = ggml.mul(ggml.sub(cur, bias), scale)
    return g.build_mm(model.w("mm.input_projection.weight"), ggml.rms_norm(cur))


def kimivl(g: ClipGraph) -> Tensor:
    """clip_graph_kimivl."""
    model, scale = g.model, g.model.n_merge
    pos_h, pos_w = g.positions(g.n_patches), g.positions(g.n_patches)
    pos_embd = g.resize_position_embeddings()
    cur = g.build_vit(g.build_inp(), g.n_patches, NORMAL, model.activation, pos_embd, rope_2d(pos_w, pos_h))
    cur = g.build_patch_merge_permute(cur, scale)
    width, n = cur.ne[0], cur.ne[1]
    cur = ggml.view_2d(cur, g.n_embd, n * scale * scale, row_size(cur.type, g.n_embd))
    cur = ggml.add(ggml.mul(ggml.norm(cur), model.w("mm.input_norm.weight")), model.w("mm.input_norm.bias"))
    return g.mlp(ggml.view_2d(cur, width, n, row_size(cur.type, width)), "mm.1", "mm.2")


def paddleocr(g: ClipGraph) -> Tensor:
    """clip_graph_paddleocr."""
    positions = g.positions(4 * g.n_patches)
    pos_embd = g.resize_position_embeddings()
    cur = g.build_vit(g.build_inp(), g.n_patches, NORMAL, g.model.activation, pos_embd, lambda t: ggml.rope_multi(t, positions))
    cur = g.build_patch_merge_permute(g.norm(cur, "mm.input_norm"), g.model.n_merge)
    return g.mlp(cur, "mm.1", "mm.2", g.model.activation)


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


# whisper-enc.cpp


def _whisper(g: ClipGraph) -> Tensor:
    model, n_pos = g.model, g.nx // 2
    cur = g.build_inp_raw(1)
    for i, stride in ((1, 1), (2, 2)):
        cur = ggml.conv_1d_ph(model.w(f"a.conv1d.{i}.weight"), cur, stride, 1)
        cur = ggml.gelu_erf(ggml.add(cur, model.w(f"a.conv1d.{i}.bias")))
    table = model.w("a.position_embd.weight")
    pos_embd = ggml.view_2d(table, table.ne[0], n_pos, table.nb[1])
    return g.build_vit(ggml.cont(ggml.transpose(cur)), n_pos, NORMAL, "gelu_erf", pos_embd)


def ultravox(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Ultravox."""
    model = g.model
    cur = g.build_stack(_whisper(g), model.number("projector.stack_factor"))
    cur = g.build_mm(model.w("mm.a.mlp.1.weight"), ggml.mul(ggml.rms_norm(cur), model.w("mm.a.norm_pre.weight")))
    cur = ggml.mul(ggml.rms_norm(ggml.glu(cur)), model.w("mm.a.norm_mid.weight"))
    return g.build_mm(model.w("mm.a.mlp.2.weight"), cur)


def qwen2a(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Qwen 2 Audio and 2.5 Omni."""
    return g.linear(_whisper(g), "mm.a.fc")


def voxtral(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Voxtral."""
    cur = g.build_stack(_whisper(g), g.model.number("projector.stack_factor"))
    cur = activate(g.build_mm(g.model.w("mm.a.mlp.1.weight"), cur), "gelu_erf")
    return g.build_mm(g.model.w("mm.a.mlp.2.weight"), cur)


PROJECTORS: Mapping[str, Build] = {
    "mlp": llava, "gemma3": gemma3, "idefics3": idefics3, "lfm2": lfm2, "janus_pro": janus_pro, "phi4": phi4,
    "pixtral": pixtral, "lightonocr": pixtral, "qwen2vl_merger": qwen2vl, "qwen2.5vl_merger": qwen2vl,
    "qwen3vl_merger": qwen3vl, "glm4v": glm4v, "internvl": internvl, "llama4": llama4, "gemma4v": gemma4v, "kimivl": kimivl,
    "paddleocr": paddleocr, "resampler": resampler, "ultravox": ultravox, "qwen2a": qwen2a, "voxtral": voxtral,
}  # fmt: skip
"""By projector type; the counterpart of clip_get_graph_builder."""
