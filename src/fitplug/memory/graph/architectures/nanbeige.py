"""Nanbeige: the same blocks run several times, each pass with a cache of its own (src/models/nanbeige.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.errors import UnknownGraphError


def build(g: GraphContext) -> None:
    """Draw the graph. A block's weights lie where its first pass does, on whichever device the pass itself is.

    Raises:
        UnknownGraphError: there are scales, which llama.cpp looks for by the number of the pass, not of the block.
    """
    n_phys = g.hparam("n_layer_phys") or g.n_layer
    if n_phys < g.n_layer and any(name.endswith(".scale") for name in g.model.tensors):
        raise UnknownGraphError(g.arch)
    normed_between = n_phys < g.n_layer and not g.get_bool("skip_loop_final_norm")
    cur = g.build_inp_embd()
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    kinds = g.params.blocks.kinds
    for il in g.layers(lambda il: (kinds[il % n_phys], (il + 1) % n_phys)):
        g.tap(il, cur)
        block, residual = il % n_phys, cur
        normed = g.build_norm(cur, g.w("attn_norm", block), LLM_NORM_RMS, il)
        q, k, v = g.build_qkv(block, normed)
        factors = g.rope_factors(block)
        q, k = ggml.rope_ext(q, inp_pos, factors), ggml.rope_ext(k, inp_pos, factors)
        cur = g.build_attn(inp_attn, g.w("attn_output", block), q, k, v, il)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(cur, residual)
        cur = ggml.add(g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", block), LLM_NORM_RMS, il), block), ffn_inp)
        if normed_between and (il + 1) % n_phys == 0 and il + 1 < g.n_layer:
            cur = g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS, il)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))
