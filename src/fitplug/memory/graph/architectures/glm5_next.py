"""GLM5-Next: KDA, latent attention over pools of cells that an indexer picks, hyper-connections (src/models/glm5-next.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks.hyper_connections import build_hc_mean, build_hc_post, build_hc_pre
from fitplug.memory.graph.blocks.kda import GLM5_KDA, build_kda_layer
from fitplug.memory.graph.blocks.kpool import KPoolAttention
from fitplug.memory.graph.blocks.mixing import after_dense_lead, deepseek_experts, dense, with_shared_expert
from fitplug.memory.graph.context import GraphContext

FEED_FORWARD = after_dense_lead(with_shared_expert(deepseek_experts()), dense())


def build(g: GraphContext) -> None:
    """Draw the graph."""
    embd = g.build_inp_embd()
    memory = g.build_inp_mem_hybrid_k()
    sparse = KPoolAttention(g, memory)
    out_ids = g.build_inp_out_ids()
    hc, n_embd, n_tokens = g.hparam("dsv4_hc_mult"), g.n_embd, g.n_tokens
    streams = ggml.repeat_4d(ggml.reshape(embd, n_embd, 1, n_tokens), n_embd, hc, n_tokens, 1)
    for il in g.layers():
        mix = build_hc_pre(g, streams, "hc_attn", il)
        cur = g.build_norm(mix.cur, g.w("attn_norm", il), LLM_NORM_RMS, il)
        g.expand(cur)
        recurrent = g.hparams(il).is_recurrent
        cur = build_kda_layer(g, memory.rs, cur, il, GLM5_KDA) if recurrent else sparse(cur, il)
        streams = build_hc_post(g, cur, streams, mix, il)
        mix = build_hc_pre(g, streams, "hc_ffn", il)
        cur = FEED_FORWARD(g, g.build_norm(mix.cur, g.w("ffn_norm", il), LLM_NORM_RMS, il), il)
        streams = build_hc_post(g, cur, streams, mix, il)

    flat = ggml.get_rows(ggml.reshape(streams, n_embd * hc, n_tokens), out_ids)
    cur = build_hc_mean(ggml.reshape(flat, n_embd, hc, g.n_outputs))
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))
