"""Sound through Whisper's encoder and its kin (whisper-enc.cpp, qwen3a.cpp, dots3note.cpp, mimo-audio.cpp)."""

from fitplug.memory.clip_graph import NORMAL, RMS, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.convolutions import conv_2d
from fitplug.memory.graph.errors import UnknownGraphError
from fitplug.memory.graph.tensor import Tensor

F32 = 4
CHUNK = 100
"""Frames that Qwen 3's convolutions see at once."""
SKIPPED = 2
"""The layer whose output MiMo adds to the last one's."""


def _two_convolutions(g: ClipGraph) -> Tensor:
    """Frames to positions, half as many."""
    cur = g.build_inp_raw(1)
    for i, stride in ((1, 1), (2, 2)):
        cur = ggml.conv_1d_ph(g.model.w(f"a.conv1d.{i}.weight"), cur, stride, 1)
        cur = ggml.gelu_erf(ggml.add(cur, g.model.w(f"a.conv1d.{i}.bias")))
    return ggml.cont(ggml.transpose(cur))


def _whisper(g: ClipGraph) -> Tensor:
    model, n_pos = g.model, g.nx // 2
    inp = _two_convolutions(g)
    table = model.w("a.position_embd.weight")
    pos_embd = ggml.view_2d(table, table.ne[0], n_pos, table.nb[1])
    return g.build_vit(inp, n_pos, NORMAL, "gelu_erf", pos_embd)


def _stacked(g: ClipGraph, cur: Tensor) -> Tensor:
    return g.build_stack(cur, g.model.number("projector.stack_factor"))


def ultravox(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Ultravox."""
    model = g.model
    cur = _stacked(g, _whisper(g))
    cur = g.build_mm(model.w("mm.a.mlp.1.weight"), ggml.mul(ggml.rms_norm(cur), model.w("mm.a.norm_pre.weight")))
    cur = ggml.mul(ggml.rms_norm(ggml.glu(cur)), model.w("mm.a.norm_mid.weight"))
    return g.build_mm(model.w("mm.a.mlp.2.weight"), cur)


def qwen2a(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Qwen 2 Audio and 2.5 Omni."""
    return g.linear(_whisper(g), "mm.a.fc")


def voxtral(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Voxtral."""
    return g.mlp(_stacked(g, _whisper(g)), "mm.a.mlp.1", "mm.a.mlp.2", "gelu_erf")


def music_flamingo(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for Music Flamingo."""
    return g.mlp(_whisper(g), "mm.a.mlp.1", "mm.a.mlp.2", "gelu_erf")


def meralion(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for MERaLiON."""
    cur = g.norm(_stacked(g, _whisper(g)), "mm.a.norm_pre")
    cur = ggml.silu(g.linear(cur, "mm.a.mlp.0"))
    gate, pool = ggml.silu(g.linear(cur, "mm.a.mlp.1")), g.linear(cur, "mm.a.mlp.2")
    return g.linear(ggml.mul(gate, pool), "mm.a.mlp.3")


def glma(g: ClipGraph) -> Tensor:
    """clip_graph_whisper_enc for GLM-ASR."""
    cur = _stacked(g, g.norm(_whisper(g), "mm.a.norm_pre"))
    cur = g.mlp(cur, "mm.a.mlp.1", "mm.a.mlp.2", "gelu_erf")
    return ggml.concat(ggml.concat(g.model.w("v.boi"), cur, 1), g.model.w("v.eoi"), 1)


def _three_convolutions(g: ClipGraph, cur: Tensor) -> Tensor:
    """Each halves both sides; channels then go with what is left of the frequencies."""
    for i in (1, 2, 3):
        cur = conv_2d(g.model.w(f"a.conv2d.{i}.weight"), cur, 2, 1)
        cur = ggml.gelu_erf(ggml.add(cur, ggml.reshape(g.model.w(f"a.conv2d.{i}.bias"), 1, 1, cur.ne[2])))
    cur = ggml.cont(ggml.permute(cur, 2, 0, 1, 3))
    cur = ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])
    return ggml.mul_mat(g.model.w("a.conv_out.weight"), cur)


def qwen3a(g: ClipGraph) -> Tensor:
    """clip_graph_qwen3a: in chunks, each with the same positions."""
    table, n_chunks = g.model.w("a.position_embd.weight"), g.nx // CHUNK
    inp = ggml.view_4d(g.build_inp_raw(1), CHUNK, g.ny, 1, n_chunks, g.nx * F32, CHUNK * F32, CHUNK * F32, 0)
    inp = _three_convolutions(g, ggml.cont(inp))
    n_pos = inp.ne[1]
    positions = ggml.view_2d(table, table.ne[0], n_pos // n_chunks, table.nb[1])
    inp = ggml.add(inp, ggml.repeat_4d(positions, table.ne[0], n_pos, 1, 1))
    return g.mlp(g.build_vit(inp, n_pos, NORMAL, "gelu_erf", None), "mm.a.mlp.1", "mm.a.mlp.2", "gelu_erf")


def dots3note_a(g: ClipGraph) -> Tensor:
    """clip_graph_dots3note_a."""
    inp = _three_convolutions(g, g.build_inp_raw(1))
    positions = g.positions(inp.ne[1])
    cur = g.build_vit(inp, inp.ne[1], RMS, g.model.activation, None, lambda t: ggml.rope_ext(t, positions))
    return g.mlp(g.norm(cur, "mm.a.norm_pre"), "mm.a.mlp.1", "mm.a.mlp.3", "gelu_erf")


def mimo_audio(g: ClipGraph) -> Tensor:
    """clip_graph_mimo_audio: a tokenizer, its codes' embeddings, a small transformer over groups of them."""
    model, inp = g.model, _two_convolutions(g)
    n_pos, modes = inp.ne[1], model.numbers("wa_pattern_mode")
    if len(modes) != model.n_layer or model.n_layer <= SKIPPED:
        raise UnknownGraphError(model.kind)
    positions = g.positions(n_pos)
    whole, window = ggml.new_input("f32", n_pos, n_pos), ggml.new_input("f32", n_pos, n_pos)
    masks = [whole if mode == -1 else window for mode in modes]
    post_ln, g.post_ln = g.post_ln, ("", "")  # comes after the sum
    outs: list[Tensor] = []
    cur = g.build_vit(inp, n_pos, NORMAL, "gelu_erf", None, lambda t: ggml.rope_ext(t, positions), masks, outs)
    cur = ggml.add(ggml.reshape(cur, g.n_embd, n_pos), outs[SKIPPED])
    cur = g.build_norm(cur, model.w(post_ln[0]), model.optional(post_ln[1]), NORMAL)
    cur = ggml.conv_1d(model.w("a.downsample.conv.weight"), ggml.cont(ggml.transpose(cur)), 2, 0, 1)
    cur = g.norm(ggml.cont(ggml.transpose(ggml.gelu_erf(cur))), "a.downsample.norm")
    return _grouped(g, _spoken(g, cur))


def _spoken(g: ClipGraph, residual: Tensor) -> Tensor:
    """Residual vector quantisation, and the sum of the codes' embeddings."""
    codebook, table = g.model.w("a.rvq.codebook.weight"), g.model.w("mm.a.code_embd.weight")
    codes: list[Tensor] = []
    for i, bins in enumerate(g.model.numbers("rvq.codebook_size")):
        book = ggml.cont(ggml.view_2d(codebook, codebook.ne[0], bins, codebook.nb[1], i * codebook.nb[2]))
        norm = ggml.cont(ggml.transpose(ggml.sum_rows(ggml.sqr(book))))
        scores = ggml.sub(ggml.scale(ggml.mul_mat(book, residual)), norm)
        codes.append(ggml.argmax(scores))
        residual = ggml.sub(residual, ggml.get_rows(book, codes[-1]))
    cur: Tensor | None = None
    for i, code in enumerate(codes):
        rows = ggml.cont(ggml.view_2d(table, table.ne[0], table.ne[1], table.nb[1], i * table.nb[2]))
        embd = ggml.get_rows(rows, code)
        cur = embd if cur is None else ggml.add(cur, embd)
    if cur is None:
        raise UnknownGraphError(g.model.kind)
    return cur


def _grouped(g: ClipGraph, cur: Tensor) -> Tensor:
    model, size = g.model, g.model.number("local_group_size")
    n_groups = -(-cur.ne[1] // size)
    n = n_groups * size
    if n != cur.ne[1]:
        cur = ggml.pad(cur, 0, n - cur.ne[1])
    positions, mask = g.positions(n), ggml.new_input("f32", n, n)
    for il in range(model.number("local_block_count")):
        name = f"mm.a.local_blk.{il}"
        normed = ggml.mul(ggml.rms_norm(cur), model.w(f"{name}.ln1.weight"))
        q, k, v = (g.linear(normed, f"{name}.attn_{part}") for part in "qkv")
        q, k, v = (ggml.reshape(t, model.d_head, model.n_head, n) for t in (q, k, v))
        attended = g.attend(ggml.rope_ext(q, positions), ggml.rope_ext(k, positions), v, mask)
        cur = ggml.add(cur, g.build_mm(model.w(f"{name}.attn_out.weight"), attended))
        normed = ggml.mul(ggml.rms_norm(cur), model.w(f"{name}.ln2.weight"))
        up, gate = g.linear(normed, f"{name}.ffn_up"), g.linear(normed, f"{name}.ffn_gate")
        cur = ggml.add(cur, g.linear(ggml.swiglu_split(gate, up), f"{name}.ffn_down"))
    cur = ggml.mul(ggml.rms_norm(cur), model.w("mm.a.local_norm.weight"))
    return g.mlp(ggml.reshape(cur, g.n_embd * size, n_groups), "mm.a.mlp.1", "mm.a.mlp.2", "gelu_erf")
