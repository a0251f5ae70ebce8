"""`GraphContext`: what an architecture's graph is written with, the counterpart of llm_graph_context (src/llama-graph.h)."""

from fitplug.memory.graph.base import ABSENT, LLM_NORM, LLM_NORM_GROUP, LLM_NORM_RMS, FusedNode, Linear
from fitplug.memory.graph.ffn import FeedForward
from fitplug.memory.graph.recurrent import Recurrent

__all__ = ["ABSENT", "LLM_NORM", "LLM_NORM_GROUP", "LLM_NORM_RMS", "FusedNode", "GraphContext", "Linear"]


class GraphContext(Recurrent, FeedForward):
    """Inputs, norms, attention, feed-forward blocks and states under llama.cpp's names.

    ```
    inpL = g.build_inp_embd()
    inp_pos, inp_attn, inp_out_ids = g.build_inp_pos(), g.build_attn_inp_kv(), g.build_inp_out_ids()
    for il in g.layers():
        cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        q, k, v = g.build_qkv(il, cur)
        ...
        cur = g.build_attn(inp_attn, g.w("attn_output", il), q, k, v, il)
    ```
    """
