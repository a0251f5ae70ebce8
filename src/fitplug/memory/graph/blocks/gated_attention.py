"""Full attention of the Qwen3-Next line, whose Q projection holds a gate for the output, too (src/models/qwen3next.cpp)."""

from collections.abc import Callable

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, LLM_NORM_RMS
from fitplug.memory.graph.blocks import F32
from fitplug.memory.graph.blocks.mixing import Inputs, attention_of
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def build_gated_attention(g: GraphContext, inputs: Inputs, cur: Tensor, il: int, *, folded: bool = False) -> Tensor:
    """build_layer_attn: every head's Q and gate lie side by side; `folded` into heads before they are split, or not."""
    layer = g.hparams(il)
    head, (n_head, n_head_kv) = layer.n_embd_head_k, g.heads(il)
    qkv = g.build_qkv(il, cur, reshape=False, heads=(2 * head, n_head, head, n_head_kv, head, n_head_kv))
    if folded:
        qkv = ggml.reshape(qkv[0], 2 * head, n_head, g.n_tokens), *qkv[1:]
    return gated(g, inputs, qkv, il, lambda q, k, v: g.build_attn(attention_of(inputs), ABSENT, q, k, v, il))


def gated(g: GraphContext, inputs: Inputs, qkv: tuple[Tensor, Tensor, Tensor], il: int, attend: Attend) -> Tensor:
    """The same around any attention, from the projections on."""
    layer, n_tokens = g.hparams(il), g.n_tokens
    head, (n_head, n_head_kv) = layer.n_embd_head_k, g.heads(il)
    q_full, k, v = qkv
    strides = (2 * head * F32, 2 * head * n_head * F32)
    q = ggml.view_3d(q_full, head, n_head, n_tokens, *strides)
    q = g.build_norm(q, g.w("attn_q_norm", il), LLM_NORM_RMS, il)
    k = g.build_norm(ggml.reshape(k, head, n_head_kv, n_tokens), g.w("attn_k_norm", il), LLM_NORM_RMS, il)
    v = ggml.reshape(v, head, n_head_kv, n_tokens)
    gate = ggml.cont(ggml.view_3d(q_full, head, n_head, n_tokens, *strides, head * F32), head * n_head, n_tokens)
    pos = g.need(inputs.pos)
    cur = attend(ggml.rope_multi(q, pos), ggml.rope_multi(k, pos), v)
    cur = ggml.mul(cur, ggml.sigmoid(gate))
    return g.proj("attn_output", cur, il)
