"""Kimi-K3: KDA and latent attention, a residual mixed across layers, experts in a narrower space (src/models/kimi-k3.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks.hybrid_mla import build_mla
from fitplug.memory.graph.blocks.kda import KIMI_K3_KDA, build_kda_layer
from fitplug.memory.graph.blocks.mixing import Inputs, gating_op
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import SITU
from fitplug.memory.graph.tensor import Tensor

LATENT_ATTENTION = build_mla(gate="all")


def build(g: GraphContext) -> None:
    """Draw the graph."""
    residual = g.build_inp_embd()
    memory = g.build_inp_mem_hybrid_k()
    inputs = Inputs(memory.attn, memory.rs, None)
    out_ids = g.build_inp_out_ids()
    bank = Checkpoints(g)
    for il in g.layers(bank.key):
        cur = bank.mixed(residual, f"blk.{il}.attn_res_score")
        banked = bank.banks(il)
        if banked:
            bank.push(residual)
        cur = g.build_norm(cur, g.w("attn_norm", il), LLM_NORM_RMS, il)
        g.expand(cur)
        if g.hparams(il).is_recurrent:
            cur = build_kda_layer(g, memory.rs, cur, il, KIMI_K3_KDA)
        else:
            cur = LATENT_ATTENTION(g, inputs, cur, il)
        residual = cur if banked else ggml.add(residual, cur)
        cur = bank.mixed(residual, f"blk.{il}.ffn_res_score")
        cur = g.build_norm(cur, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        residual = ggml.add(residual, _feed_forward(g, cur, il))
    cur = ggml.get_rows(bank.mixed(residual, "output_res_score"), out_ids)
    g.build_output(g.build_norm(cur, g.w("output_norm"), LLM_NORM_RMS))


class Checkpoints:
    """Attention over the residual stream's own past: every few layers it is banked and starts anew (res_push, res_mix)."""

    def __init__(self, g: GraphContext) -> None:
        """Nothing banked yet."""
        self.g = g
        self.every = g.hparam("attn_res_block_size")
        self.stack: Tensor | None = None

    def banks(self, il: int) -> bool:
        """Whether layer `il` does so."""
        return self.every > 0 and il % self.every == 0

    def key(self, il: int) -> tuple[int, bool]:
        """How many are banked before layer `il`, and whether it banks one: what its mixing looks like."""
        return (-(-il // self.every) if self.every > 0 else 0), self.banks(il)

    def push(self, cur: Tensor) -> None:
        """Bank the residual."""
        checkpoint = ggml.reshape(cur, self.g.n_embd, 1, self.g.n_tokens)
        self.stack = checkpoint if self.stack is None else ggml.concat(self.stack, checkpoint, 1)

    def mixed(self, cur: Tensor, score: str) -> Tensor:
        """The residual and all that is banked, weighted by how they score; NAME.weight scores."""
        src, n_tokens = self.stack, self.g.n_tokens
        if self.every == 0 or src is None:
            return cur
        score_w, n = self.g.needed_tensor(f"{score}.weight"), src.ne[1]
        of_src = ggml.sum_rows(ggml.mul(ggml.rms_norm(src), score_w))
        of_src = ggml.reshape(of_src, n, n_tokens)
        of_cur = ggml.sum_rows(ggml.mul(ggml.rms_norm(cur), score_w))
        probs = ggml.soft_max(ggml.concat(of_src, of_cur, 0))
        p_src = ggml.cont(ggml.view_2d(probs, n, n_tokens, probs.nb[1]))
        p_cur = ggml.cont(ggml.view_2d(probs, 1, n_tokens, probs.nb[1], probs.nb[0] * n))
        return ggml.add(ggml.dsv4_hc_pre(src, p_src), ggml.mul(cur, p_cur))


def _feed_forward(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    if il < g.hparam("n_layer_dense_lead"):
        return _situ_ffn(g, cur, il, "")
    routed = g.plain("ffn_routed_down", cur, il) if g.w("ffn_routed_down", il).weight is not None else cur
    out = g.build_moe_ffn(
        routed, g.experts(il), il, type_op=SITU, gating_op=gating_op(g), probs_in=g.plain("ffn_gate_inp", cur, il),
        norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"),
    )  # fmt: skip
    norm = g.w("ffn_routed_norm", il)
    if norm.weight is not None:
        out = g.build_norm(out, norm, LLM_NORM_RMS, il)
    if g.w("ffn_routed_up", il).weight is not None:
        out = g.plain("ffn_routed_up", out, il)
    if g.w("ffn_gate_shexp", il).weight is not None:
        out = ggml.add(out, _situ_ffn(g, cur, il, "_shexp"))
    return out


def _situ_ffn(g: GraphContext, cur: Tensor, il: int, suffix: str) -> Tensor:
    """kimi_k3_situ: both branches are squashed, and the gate gates itself."""
    gate, up = g.plain(f"ffn_gate{suffix}", cur, il), g.plain(f"ffn_up{suffix}", cur, il)
    act = ggml.mul(ggml.scale(ggml.tanh(ggml.scale(gate))), ggml.sigmoid(gate))
    if g.get_float("activation.situ_linear_beta") > 0:
        up = ggml.scale(ggml.tanh(ggml.scale(up)))
    return g.plain(f"ffn_down{suffix}", ggml.mul(act, up), il)
