"""DeepSeek 4: a window of raw cells beside compressed ones, over several residual streams (src/models/deepseek4.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttn, mul_mat_hadamard
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks.compressed import CSA_RATIO, HCA_RATIO, CompressedCache, Compressor
from fitplug.memory.graph.blocks.hyper_connections import build_hc_mean, build_hc_post, build_hc_pre, collapse
from fitplug.memory.graph.blocks.lightning_indexer import best_cells, build_top_k_mask, per_stream
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import SQRT_SOFTPLUS
from fitplug.memory.graph.tensor import Tensor
from fitplug.units import pad


def build(g: GraphContext) -> None:
    """Draw the graph."""
    embd = g.build_inp_embd()
    tokens = g.need(g.inp_tokens)
    inp_pos, out_ids = g.build_inp_pos(), g.build_inp_out_ids()
    attend = Attention(g, inp_pos)
    g.expand(attend.kq_mask)
    hc, n_embd, n_tokens, hashed = g.hparam("dsv4_hc_mult"), g.n_embd, g.n_tokens, g.hparam("dsv4_hash_layer_count")
    streams = ggml.repeat_4d(ggml.reshape(embd, n_embd, 1, n_tokens), n_embd, hc, n_tokens, 1)
    for il in g.layers(lambda il: il < hashed):
        _tap(g, streams, il)
        mix = build_hc_pre(g, streams, "hc_attn", il)
        cur = attend(g.build_norm(mix.cur, g.w("attn_norm", il), LLM_NORM_RMS, il), il)
        streams = build_hc_post(g, cur, streams, mix, il)
        mix = build_hc_pre(g, streams, "hc_ffn", il)
        for t in (streams, mix.post, mix.comb):
            g.expand(t)
        cur = g.build_norm(mix.cur, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur = _feed_forward(g, cur, tokens if il < hashed else None, il)
        streams = build_hc_post(g, cur, streams, mix, il)
        g.pin_to_layer(streams, il)

    _tap(g, streams, g.n_layer)
    streams.is_output = streams.is_output or g.keeps_states
    flat = ggml.get_rows(ggml.reshape(streams, n_embd * hc, n_tokens), out_ids)
    cur = build_hc_head(g, ggml.reshape(flat, n_embd, hc, g.n_outputs))
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


def _tap(g: GraphContext, streams: Tensor, il: int) -> None:
    """What a draft reads of a layer's input is the mean of its streams."""
    if il in g.taps.inputs:
        mean = build_hc_mean(streams)
        g.tap(il, mean)
        g.expand(mean)


def build_mtp(g: GraphContext) -> None:
    """Its MTP block: a layer without compressed cells over the streams that the trunk left (graph_mtp)."""
    hc, n_embd, n_tokens, il = g.hparam("dsv4_hc_mult"), g.n_embd, g.n_tokens, g.n_layer
    tokens, state = ggml.new_input("i32", n_tokens), ggml.new_input("f32", n_embd * hc, n_tokens)
    own = g.w("nextn.embed_tokens", il).weight
    embd = ggml.get_rows(own if own is not None else g.need(g.tok_embd, "token_embd.weight"), tokens)
    inp_pos, out_ids, inp_attn = g.build_inp_pos(), g.build_inp_out_ids(), g.build_attn_inp_k_iswa()
    state = g.build_norm(ggml.reshape(state, n_embd, hc, n_tokens), g.w("nextn.hnorm", il), LLM_NORM_RMS, il)
    embd = g.build_norm(embd, g.w("nextn.enorm", il), LLM_NORM_RMS, il)
    embd = ggml.repeat_4d(ggml.reshape(embd, n_embd, 1, n_tokens), n_embd, hc, n_tokens, 1)
    eh_proj = g.w("nextn.eh_proj", il).weight
    streams = g.build_lora_mm(eh_proj, ggml.concat(embd, state, 0), g.tensor(f"blk.{il}.nextn.eh_proj.scale"))
    streams = windowed_layer(g, inp_attn, inp_pos, streams, il)
    flat = ggml.get_rows(ggml.reshape(streams, n_embd * hc, n_tokens), out_ids)
    flat.is_output = True
    cur = build_hc_head(g, ggml.reshape(flat, n_embd, hc, g.n_outputs))
    own_norm, own_head = g.w("nextn.shared_head_norm", il), g.w("nextn.shared_head_head", il).weight
    cur = g.build_norm(cur, own_norm if own_norm.weight is not None else g.w("output_norm"), LLM_NORM_RMS)
    cur.is_output = True
    logits = ggml.mul_mat(own_head if own_head is not None else g.need(g.output.weight, "output.weight"), cur)
    logits.is_output = True
    g.t_logits = logits
    g.expand(logits)


def windowed_layer(g: GraphContext, inp_attn: InpAttn, inp_pos: Tensor, streams: Tensor, il: int) -> Tensor:
    """A layer over a window alone, without compressed cells."""
    mix = build_hc_pre(g, streams, "hc_attn", il)
    cur = g.build_norm(mix.cur, g.w("attn_norm", il), LLM_NORM_RMS, il)
    _, q, kv = queries_and_keys(g, inp_pos, cur, il)
    cur = g.build_attn(inp_attn, ABSENT, q, kv, kv, il, sinks=g.w("attn_sinks", il).weight)
    streams = build_hc_post(g, grouped_output(g, inp_pos, cur, il), streams, mix, il)
    mix = build_hc_pre(g, streams, "hc_ffn", il)
    cur = g.build_norm(mix.cur, g.w("ffn_norm", il), LLM_NORM_RMS, il)
    return build_hc_post(g, _feed_forward(g, cur, None, il), streams, mix, il)


def _feed_forward(g: GraphContext, cur: Tensor, tokens: Tensor | None, il: int) -> Tensor:
    """Routed experts, in the first layers by a table of tokens, and the shared one."""
    experts, selected = g.experts(il), None
    if tokens is not None:
        selected = ggml.get_rows(g.needed("ffn_gate_tid2eid", il), tokens)
        experts = experts._replace(exp_probs_b=None)
    out = g.build_moe_ffn(
        cur, experts, il, gating_op=SQRT_SOFTPLUS, norm_w=g.get_bool("expert_weights_norm"),
        w_scale=g.get_float("expert_weights_scale"), selected_experts_in=selected,
    )  # fmt: skip
    return ggml.add(out, g.ffn(cur, il, suffix="_shexp"))


def build_hc_head(g: GraphContext, x: Tensor) -> Tensor:
    """What is left of the streams at the end."""
    n_embd, hc, nt, _ = x.ne
    mixes = ggml.mul_mat(g.needed("output_hc_fn"), ggml.rms_norm(ggml.reshape(x, hc * n_embd, nt)))
    pre = ggml.add(ggml.mul(mixes, g.needed("output_hc_scale")), g.needed("output_hc_base"))
    return collapse(g, x, ggml.scale_bias(ggml.sigmoid(pre)), -1)


class Attention:
    """The attention of one graph: all layers see a window, those with a compress ratio cells that sum up what lies before."""

    def __init__(self, g: GraphContext, inp_pos: Tensor) -> None:
        """Build the inputs (llm_graph_context::build_inp_dsv4)."""
        self.g, self.inp_pos = g, inp_pos
        p, head = g.params, g.n_embd_head_k
        # the caches have a stream per sequence even where the user wants them unified
        n_kv = p.n_ctx_seq if p.swa_full else pad(min(p.n_ctx_seq, g.model.n_swa + p.n_ubatch), 256)
        index_head = g.hparam("indexer_head_size")
        self.raw = KvCache(g, n_kv, n_stream=p.n_seq_max, rotates_always=head == index_head)
        self.k_idxs = self.raw.build_input_k_idxs()
        self.kq_mask = ggml.new_input("f16" if g.flash_attn else "f32", n_kv, g.n_tokens // g.n_seqs, 1, g.n_seqs)
        self.k_rot = self.raw.build_input_k_rot()
        self.csa = CompressedCache(g, Compressor("attn_compressor", CSA_RATIO, overlaps=True, head=head))
        self.hca = CompressedCache(g, Compressor("attn_compressor", HCA_RATIO, overlaps=False, head=head))
        lid = Compressor("indexer_compressor", CSA_RATIO, overlaps=True, head=index_head)
        self.lid = CompressedCache(g, lid, is_index=True)

    def __call__(self, cur: Tensor, il: int) -> Tensor:
        """build_attention_impl."""
        layer = self.g.hparams(il)
        qr, q, kv = queries_and_keys(self.g, self.inp_pos, cur, il)
        if layer.compress_ratio == CSA_RATIO:
            self.csa.compress(self.csa.new_state(cur, il), il)
            self.lid.compress(self.lid.new_state(cur, il), il)
            out = self._attn(q, kv, self.csa, self._top_k(qr, cur, il), il)
        elif layer.compress_ratio == HCA_RATIO:
            self.hca.compress(self.hca.new_state(cur, il), il)
            out = self._attn(q, kv, self.hca, None, il)
        else:
            out = self._attn(q, kv, None, None, il)
        return grouped_output(self.g, self.inp_pos, out, il)

    def _top_k(self, qr: Tensor, cur: Tensor, il: int) -> Tensor:
        """build_lid_top_k: the compressed cells that score best."""
        g, lid = self.g, self.lid
        q = g.build_lora_mm(g.w("indexer.attn_q_b", il).weight, qr)
        q = ggml.reshape(q, g.hparam("indexer_head_size"), g.hparam("indexer_n_head"), cur.ne[1])
        q = mul_mat_hadamard(ggml.rope_ext(q, self.inp_pos), g.need(lid.k_rot))
        weights = ggml.scale(g.build_lora_mm(g.w("indexer.proj", il).weight, cur))
        k = seen_cells(lid, il)
        return best_cells(g, q, k, per_stream(weights, 1, k.ne[3]), lid.kq_mask, il)

    def _attn(self, q: Tensor, kv: Tensor, compressed: CompressedCache | None, top_k: Tensor | None, il: int) -> Tensor:
        """build_raw_attention, build_hca_attention, build_csa_lid_attention."""
        g, rot = self.g, self.k_rot
        if rot is not None:
            q, kv = mul_mat_hadamard(q, rot), mul_mat_hadamard(kv, rot)
        g.expand(q)
        g.expand(kv)
        g.expand(self.raw.cpy_k(kv, self.k_idxs, il))
        k, mask = self.raw.get_k(il), self.kq_mask
        n_kv_max = min(mask.ne[0], g.model.n_swa) + top_k.ne[0] if top_k is not None else 0
        if compressed is not None:
            more = compressed.kq_mask
            k = ggml.concat(k, seen_cells(compressed, il), 2)
            if top_k is not None:
                more = build_top_k_mask(more, top_k, more.type)
            mask = ggml.concat(mask, more, 0)
        out = g.build_attn_mha(q, k, k, mask, il, sinks=g.w("attn_sinks", il).weight, n_kv_max=n_kv_max)
        return out if rot is None else mul_mat_hadamard(out, rot)


def seen_cells(compressed: CompressedCache, il: int) -> Tensor:
    """As many compressed cells as the mask has."""
    k = compressed.cache.get_k(il)
    return ggml.view_4d(k, *k.ne[:2], compressed.kq_mask.ne[0], k.ne[3], *k.nb[1:])


def queries_and_keys(g: GraphContext, inp_pos: Tensor, cur: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """The compressed queries, Q, and the one head that is both K and V."""
    head, n_head, nt = g.n_embd_head_k, g.n_head, cur.ne[1]
    ggml.require("n_embd_head == n_embd_head_v", head == g.n_embd_head_v)
    qr = g.build_lora_mm(g.w("attn_q_a", il).weight, cur)
    qr = g.build_norm(qr, g.w("attn_q_a_norm", il), LLM_NORM_RMS, il)
    q = ggml.rms_norm(ggml.reshape(g.build_lora_mm(g.w("attn_q_b", il).weight, qr), head, n_head, nt))
    kv = g.build_norm(g.build_lora_mm(g.w("attn_kv", il).weight, cur), g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il)
    kv = ggml.reshape(kv, head, 1, nt)
    return qr, ggml.rope_ext(q, inp_pos), ggml.rope_ext(kv, inp_pos)


def grouped_output(g: GraphContext, inp_pos: Tensor, out: Tensor, il: int) -> Tensor:
    """The heads turned back, and projected group by group through a low rank."""
    n_groups, rank = g.hparam("dsv4_o_group_count"), g.hparam("dsv4_o_lora_rank")
    head, nt = g.n_embd_head_k, g.n_tokens
    ggml.require("n_head % n_groups == 0", g.n_head % n_groups == 0)
    out = ggml.rope_ext_back(ggml.reshape(out, head, g.n_head, nt), inp_pos)
    out = ggml.permute(ggml.reshape(out, head * g.n_head // n_groups, n_groups, nt), 0, 2, 1, 3)
    out = ggml.mul_mat(g.needed("attn_output_a", il), out)
    out = ggml.cont(ggml.permute(out, 0, 2, 1, 3), rank * n_groups, nt)
    return g.build_lora_mm(g.w("attn_output_b", il).weight, out)
