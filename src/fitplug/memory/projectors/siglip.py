"""SigLIP's tower with several projectors (tools/mtmd/models/siglip.cpp)."""

from fitplug.memory.clip_graph import NORMAL, ClipGraph
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.tensor import Tensor


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
