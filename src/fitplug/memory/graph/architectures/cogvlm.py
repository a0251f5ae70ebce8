"""CogVLM, reading text: every token has an output, whether it is asked for or not (src/models/cogvlm.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.context import GraphContext


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    inp_pos, inp_attn = g.build_inp_pos(), g.build_attn_inp_kv()
    head, n_tokens = g.n_embd_head_v, g.n_tokens
    for il in g.layers():
        cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        qkv = g.build_lora_mm(g.w("attn_qkv", il).weight, cur)
        q, k, v = (
            ggml.view_3d(qkv, head, n, n_tokens, head * F32, qkv.nb[1], i * g.n_embd * F32)
            for i, n in enumerate((g.n_head, g.n_head_kv, g.n_head_kv))
        )
        q, k = ggml.rope(q, inp_pos), ggml.rope(k, inp_pos)
        cur = g.build_attn(inp_attn, g.w("attn_output", il)._replace(bias=None), q, k, v, il)
        ffn_inp = ggml.add(cur, inpL)
        cur = g.ffn(g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        inpL = ggml.add(cur, ffn_inp)  # noqa: N806 - as above
    g.build_output(g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS))
