"""DeepSeek V2 and V3, Mistral 4: latent attention and shared experts (src/models/deepseek2.cpp)."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import InpAttnK, InpAttnKv
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GATING_FUNCS, SIGMOID, SOFTMAX
from fitplug.memory.graph.tensor import Tensor

F32 = 4
GLM_LITE_LAYERS, GLM_LITE_VOCAB = (47, 48), 154880


def build(g: GraphContext) -> None:
    """Draw the graph."""
    inpL = g.build_inp_embd()  # noqa: N806 - llama.cpp's name
    scale = g.build_inp_attn_scale() if g.get_float("attention.temperature_scale") else None
    inp_pos = g.build_inp_pos()
    inp_attn = g.build_attn_inp_k() if g.model.is_mla else g.build_attn_inp_kv()
    out_ids = g.build_inp_out_ids()
    dense = g.hparam("n_layer_dense_lead")
    for il in g.layers(lambda il: il < dense):
        residual = inpL
        cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        cur = latent_attention(g, inp_attn, inp_pos, scale, cur, il)
        if il == g.n_layer - 1 and not g.keeps_states:
            cur, residual = ggml.get_rows(cur, out_ids), ggml.get_rows(residual, out_ids)
        ffn_inp = ggml.add(cur, residual)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur = feed_forward(g, cur, il, dense=il < dense, gating=default_gating(g))
        inpL = ggml.add(cur, ffn_inp)  # noqa: N806 - as above
    cur = g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS)
    if g.keeps_states:
        cur.is_output = True
        cur = ggml.get_rows(cur, out_ids)
    g.build_output(cur)


def default_gating(g: GraphContext) -> str:
    """Of files without expert_gating_func: those of GLM 4.7 Lite mean sigmoid (load_arch_hparams)."""
    is_glm_lite = g.arch == "deepseek2" and g.n_layer in GLM_LITE_LAYERS and g.model.n_vocab == GLM_LITE_VOCAB
    return SIGMOID if is_glm_lite else SOFTMAX


def feed_forward(g: GraphContext, cur: Tensor, il: int, *, dense: bool, gating: str = SOFTMAX) -> Tensor:
    """A dense block in the leading layers, else routed experts and the shared one; `gating` where the header does not say."""
    if dense:
        return g.ffn(cur, il)
    out = g.build_moe_ffn(
        cur, g.experts(il), il,
        gating_op=GATING_FUNCS.get(g.model.get_int("expert_gating_func"), gating),
        norm_w=g.get_bool("expert_weights_norm"), w_scale=g.get_float("expert_weights_scale"),
    )  # fmt: skip
    return ggml.add(out, g.ffn(cur, il, suffix="_shexp"))


def latent_attention(
    g: GraphContext, inp: InpAttnK | InpAttnKv, inp_pos: Tensor, scale: Tensor | None, cur: Tensor, il: int
) -> Tensor:
    """Attention of one layer with its output projection, the output's bias left out."""
    if g.arch == "deepseek2-ocr":
        q, k, v = g.build_qkv(il, cur)
        return g.build_attn(
            inp, g.w("attn_output", il)._replace(bias=None), ggml.rope_ext(q, inp_pos), ggml.rope_ext(k, inp_pos), v, il
        )
    q = latent_queries(g, cur, il)
    kv, k_pe = latent_keys(g, inp_pos, cur, il)
    parts = (_absorbed if isinstance(inp, InpAttnK) else _decompressed)(g, inp_pos, q, kv, k_pe, il)
    q, k, v = parts
    if scale is not None:
        q = ggml.mul(q, scale)
    v_mla = g.needed("attn_v_b", il) if isinstance(inp, InpAttnK) else None
    return g.build_attn(inp, g.w("attn_output", il)._replace(bias=None), q, k, v, il, v_mla=v_mla)


def latent_queries(g: GraphContext, cur: Tensor, il: int) -> Tensor:
    """Q of every head, through its own low rank where the file has that."""
    if g.w("attn_q", il).weight is not None:
        q = ggml.mul_mat(g.needed("attn_q", il), cur)
    else:
        q_a = ggml.mul_mat(g.needed("attn_q_a", il), cur)
        q_a = g.build_norm(q_a, g.w("attn_q_a_norm", il), LLM_NORM_RMS, il)
        q = ggml.mul_mat(g.needed("attn_q_b", il), q_a)
    return ggml.reshape(q, _head_k(g), g.n_head, g.n_tokens)


def latent_keys(g: GraphContext, inp_pos: Tensor, cur: Tensor, il: int) -> tuple[Tensor, Tensor]:
    """The compressed K and V, normed, and the part of K that all heads share, turned by position."""
    lora, n_rot = g.hparam("n_lora_kv"), g.hparams(il).n_rot
    both, row = ggml.mul_mat(g.needed("attn_kv_a_mqa", il), cur), (lora + n_rot) * F32
    kv = ggml.view_2d(both, lora, g.n_tokens, row)
    k_pe = ggml.rope_ext(ggml.view_3d(both, n_rot, 1, g.n_tokens, row, row, lora * F32), inp_pos)
    return g.build_norm(kv, g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il), k_pe


def _absorbed(g: GraphContext, inp_pos: Tensor, q: Tensor, kv: Tensor, k_pe: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q is taken into the latent space, where all heads share one K, of which V is the first part."""
    n_rot, lora = g.hparams(il).n_rot, g.hparam("n_lora_kv")
    nope = _head_k(g) - n_rot
    q_nope = ggml.view_3d(q, nope, g.n_head, g.n_tokens, q.nb[1], q.nb[2])
    q_pe = ggml.view_3d(q, n_rot, g.n_head, g.n_tokens, q.nb[1], q.nb[2], nope * F32)
    q_pe = ggml.rope_ext(q_pe, inp_pos)
    q_nope = ggml.mul_mat(g.needed("attn_k_b", il), ggml.permute(q_nope, 0, 2, 1, 3))
    q = ggml.concat(ggml.permute(q_nope, 0, 2, 1, 3), q_pe, 0)
    kv = ggml.reshape(kv, lora, 1, g.n_tokens)
    return q, ggml.concat(kv, k_pe, 0), kv


def _decompressed(
    g: GraphContext, inp_pos: Tensor, q: Tensor, kv: Tensor, k_pe: Tensor, il: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Old files: K and V of every head are computed and cached."""
    n_rot, n_head, n_tokens, head_v = g.hparams(il).n_rot, g.n_head, g.n_tokens, g.n_embd_head_v
    nope = _head_k(g) - n_rot
    both = ggml.mul_mat(g.needed("attn_kv_b", il), kv)
    head = (nope + head_v) * F32
    k_nope = ggml.view_3d(both, nope, n_head, n_tokens, head, head * n_head)
    v = ggml.cont(ggml.view_3d(both, head_v, n_head, n_tokens, head, head * n_head, nope * F32))
    q = ggml.rope_ext(q, inp_pos)
    return q, ggml.concat(k_nope, ggml.repeat_4d(k_pe, n_rot, n_head, n_tokens, 1), 0), v


def _head_k(g: GraphContext) -> int:
    """hparams.n_embd_head_k_mla: the size of a head that is not absorbed."""
    return g.model.n_embd_head_k_mla if g.model.is_mla else g.n_embd_head_k
