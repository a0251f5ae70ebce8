"""BitNet: norms within each block; logits from the token embeddings where they lie (src/models/bitnet.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import PAR, SILU


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    inp_pos, inp_attn, out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        residual = inpL
        q, k, v = g.build_qkv(il, g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il))
        cur = g.build_attn(inp_attn, ABSENT, ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos), v, il)
        cur = g.build_norm(cur, g.w("attn_sub_norm", il), LLM_NORM_RMS, il)
        cur = g.mm(g.w("attn_output", il), cur)
        if il == g.n_layer - 1:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(cur, residual)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        up, gate = g.w("ffn_up", il)._replace(bias=None), g.w("ffn_gate", il)._replace(bias=None)
        cur = g.build_ffn(cur, up, gate, ABSENT, SILU, PAR, il)
        cur = g.build_norm(cur, g.w("ffn_sub_norm", il), LLM_NORM_RMS, il)
        inpL = ggml.add(g.proj("ffn_down", cur, il), ffn_inp)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS)
    g.keep_embd(cur)
    logits = g.build_lora_mm(g.tok_embd, cur)
    logits.is_output = True
    g.expand(logits)
