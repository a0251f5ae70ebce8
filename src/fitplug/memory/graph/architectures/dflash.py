"""DFlash and DSpark: a block of tokens is drafted at once over a target's states (src/models/dflash.cpp).

What a context is reserved for is a batch of tokens; the graph that writes the target's states into the cache comes later.
"""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.architectures.deepseek4 import build_hc_head, windowed_layer
from fitplug.memory.graph.architectures.eagle3 import to_target_vocabulary
from fitplug.memory.graph.attention import InpAttnKv, InpAttnKvIswa, mul_mat_hadamard
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.blocks.block_drafts import MarkovHead, build_block_conv, build_selector
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.ffn import GELU, PAR, SILU
from fitplug.memory.graph.tensor import Tensor


def build(g: GraphContext) -> None:
    """Draw the graph; a draft without embeddings or an output of its own uses the target's."""
    inp_pos = g.build_inp_pos()
    over_streams = g.hparam("dsv4_hc_mult") > 0
    if over_streams:
        tokens, cur, state = _deepseek4_stages(g, inp_pos)
    else:
        tokens, cur = _layers(g, inp_pos)
        state = cur
    g.keep_embd(state)
    logits = g.build_lora_mm(g.output_or_lent(g.output), cur, g.output.scale)
    selects = not over_streams and g.w("selector_hidden").weight is not None
    if selects and g.get_float("logit_scale"):
        logits = ggml.scale(logits)
    if selects and g.get_float("final_logit_softcapping") > 0:
        logits = ggml.scale(ggml.tanh(ggml.scale(logits)))
    if not over_streams:
        logits = to_target_vocabulary(g, logits)
    g.expand(logits)
    if g.w("markov_w1").weight is not None:
        logits = MarkovHead(g, tokens, state)(logits)
    logits.is_output = True
    g.t_logits = logits
    if selects:
        build_selector(g, tokens, logits, state)


def build_feed(g: GraphContext) -> None:
    """Keys and values of a target's states, straight into the cache."""
    inp_pos = g.build_inp_pos()
    fc = g.w("fc")
    states = g.build_lora_mm(fc.weight, ggml.new_input("f32", g.need(fc.weight).ne[0], g.n_tokens), fc.scale)
    states = g.build_norm(states, g.w("enc.output_norm"), LLM_NORM_RMS)
    over_streams = g.hparam("dsv4_hc_mult") > 0
    windowed = over_streams or g.model.swa_type is not None
    both = g.build_attn_inp_kv_iswa() if windowed else None
    whole = g.build_attn_inp_kv() if both is None else both.base
    for il in g.layers():
        inp = both.swa if both is not None and (over_streams or g.hparams(il).is_swa) else whole
        k, v = _latent_key(g, inp_pos, states, il) if over_streams else _keys_and_values(g, inp_pos, states, il)
        if inp.k_rot is not None:
            k = mul_mat_hadamard(k, inp.k_rot)
        g.expand(inp.cache.cpy_k(k, inp.k_idxs, il))
        if v is not None:
            v = mul_mat_hadamard(v, inp.v_rot) if inp.v_rot is not None else v
            g.expand(inp.cache.cpy_v(v, inp.v_idxs, il))
    states.is_output = True
    g.expand(states)


def _latent_key(g: GraphContext, inp_pos: Tensor, states: Tensor, il: int) -> tuple[Tensor, None]:
    kv = g.build_norm(g.build_lora_mm(g.w("attn_kv", il).weight, states), g.w("attn_kv_a_norm", il), LLM_NORM_RMS, il)
    return ggml.rope_ext(ggml.reshape(kv, g.n_embd_head_k, 1, g.n_tokens), inp_pos), None


def _layers(g: GraphContext, inp_pos: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens, and the normed output of ordinary layers."""
    inp_attn = g.build_attn_inp_kv_iswa() if g.model.swa_type is not None else g.build_attn_inp_kv()
    tokens = ggml.new_input("i32", g.n_tokens)
    inpL = ggml.get_rows(g.tok_embd_or_lent, tokens)  # noqa: N806 - llama.cpp's name
    if g.f_embedding_scale != 0.0:
        inpL = ggml.scale(inpL)  # noqa: N806 - as above
    act = GELU if g.model.get("hidden_activation") in ("gelu", "gelu_pytorch_tanh") else SILU
    for il in g.layers():
        cur = g.build_norm(inpL, g.w("attn_norm", il), LLM_NORM_RMS, il)
        cur, conv = build_block_conv(g, cur, "attn", il)
        cur = _attention(g, inp_attn, inp_pos, cur, il)
        if conv is not None:
            cur = conv(cur)
        cur = _post_norm(g, "post_attention_norm", cur, il)
        ffn_inp = ggml.add(cur, inpL)
        cur = g.build_norm(ffn_inp, g.w("ffn_norm", il), LLM_NORM_RMS, il)
        cur, conv = build_block_conv(g, cur, "ffn", il)
        cur = g.ffn(cur, il, act, PAR)
        if conv is not None:
            cur = conv(cur)
        inpL = ggml.add(_post_norm(g, "post_ffw_norm", cur, il), ffn_inp)  # noqa: N806 - as above
        out_scale = g.w("layer_output_scale", il).weight
        if out_scale is not None:
            inpL = ggml.mul(inpL, out_scale)  # noqa: N806 - as above
    return tokens, g.build_norm(inpL, g.w("output_norm"), LLM_NORM_RMS)


def _post_norm(g: GraphContext, name: str, cur: Tensor, il: int) -> Tensor:
    w = g.w(name, il)
    return cur if w.weight is None else g.build_norm(cur, w, LLM_NORM_RMS, il)


def _attention(g: GraphContext, inp: InpAttnKv | InpAttnKvIswa, inp_pos: Tensor, cur: Tensor, il: int) -> Tensor:
    layer = g.hparams(il)
    q = ggml.reshape(g.proj("attn_q", cur, il), layer.n_embd_head_v, g.n_head, g.n_tokens)
    q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
    q = ggml.rope_ext(q, inp_pos, _factors(g))
    k, v = _keys_and_values(g, inp_pos, cur, il)
    sinks = g.w("attn_sinks", il).weight
    cur = g.build_attn(inp, g.w("attn_output", il)._replace(bias=None), q, k, v, il, sinks=sinks)
    return ggml.scale(cur) if g.get_float("attention.value_scale") else cur


def _factors(g: GraphContext) -> Tensor | None:
    has_factors = g.model.n_pos_per_embd == 1 and "rope_freqs.weight" in g.model.tensors
    return g.rope_factors(0) if has_factors else None


def _keys_and_values(g: GraphContext, inp_pos: Tensor, cur: Tensor, il: int) -> tuple[Tensor, Tensor]:
    layer, n_tokens = g.hparams(il), g.n_tokens
    k = g.proj("attn_k", cur, il)
    shared = g.w("attn_v", il).weight is None
    v = k if shared else g.proj("attn_v", cur, il)
    k, v = (ggml.reshape(t, layer.n_embd_head_v, g.n_head_kv, n_tokens) for t in (k, v))
    k = g.build_norm(k, g.w("attn_k_norm", il), LLM_NORM_RMS, il)
    if shared:
        v = ggml.rms_norm(v)
    return ggml.rope_ext(k, inp_pos, _factors(g)), v


def _deepseek4_stages(g: GraphContext, inp_pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens, the normed output of layers of DeepSeek 4's kind, and the same before its norm (graph_dsv4)."""
    inp_attn = g.build_attn_inp_k_iswa()
    hc, n_embd, n_tokens = g.hparam("dsv4_hc_mult"), g.n_embd, g.n_tokens
    tokens = ggml.new_input("i32", n_tokens)
    embd = ggml.get_rows(g.tok_embd_or_lent, tokens)
    streams = ggml.repeat_4d(ggml.reshape(embd, n_embd, 1, n_tokens), n_embd, hc, n_tokens, 1)
    for il in g.layers():
        streams = windowed_layer(g, inp_attn, inp_pos, streams, il)
    state = build_hc_head(g, streams)
    return tokens, g.build_norm(state, g.w("output_norm"), LLM_NORM_RMS), state
