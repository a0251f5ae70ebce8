"""Per-layer embeddings: a second, narrow embedding of each token for every layer (src/models/gemma3n.cpp, gemma4.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build_inputs(g: GraphContext, embeddings: Tensor, width: int) -> Tensor:
    """build_inp_per_layer and project_per_layer_inputs: [width, n_tokens, n_layer]."""
    tokens = ggml.new_input("i32", g.n_tokens)
    selected = ggml.get_rows(g.needed_tensor("per_layer_token_embd.weight"), tokens)
    selected = ggml.scale(ggml.reshape(selected, width, g.n_layer, g.n_tokens))
    g.expand(selected)
    projected = ggml.scale(ggml.mul_mat(g.needed_tensor("per_layer_model_proj.weight"), embeddings))
    projected = ggml.reshape(projected, width, g.n_layer, g.n_tokens)
    projected = g.build_norm(projected, g.w("per_layer_proj_norm"), LLM_NORM_RMS)
    both = ggml.scale(ggml.add(projected, selected))
    return ggml.cont(ggml.permute(both, 0, 2, 1, 3))


def mix(g: GraphContext, inputs: Tensor, cur: Tensor, il: int) -> Tensor:
    """What the layer's own embedding adds to `cur`, gated by it."""
    cur = ggml.gelu(g.build_lora_mm(g.w("inp_gate", il).weight, cur))
    cur = g.build_lora_mm(g.w("proj", il).weight, ggml.mul(cur, slice_2d(inputs, il)))
    return g.build_norm(cur, g.w("post_norm", il), LLM_NORM_RMS, il)


def slice_2d(t: Tensor, index: int) -> Tensor:
    """The `index`-th matrix of a stack."""
    width, rows = t.ne[0], t.ne[1]
    return ggml.view_2d(t, width, rows, ggml.row_size(t.type, width), index * width * rows * 4)
