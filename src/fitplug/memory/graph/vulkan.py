"""Vulkan (ggml/src/ggml-vulkan/ggml-vulkan.cpp): what it can compute, what that takes, in which order.

The devices differ in little that sizes depend on: the limits that their drivers state, which are columns of the table of
backends and keys of a machine file. Subgroups, f16 and cooperative matrices decide which kernels run, not what is laid out for
them. Supposed is what the drivers of all cards of today have: shuffles and votes in subgroups, Vulkan's memory model, f16.
"""

from collections.abc import Mapping, Sequence

from fitplug.machine.backends import Backend as Traits
from fitplug.memory.graph.backends import OFFLOAD_MIN_BATCH, Backend, KeepAlive, Order, Uses, batch_size
from fitplug.memory.graph.supports import (
    FLOATS,
    HALVES,
    Rule,
    always,
    contiguous_rows,
    every,
    first_contiguous,
    first_is,
    first_rows_contiguous,
    src,
    typed,
)
from fitplug.memory.graph.tensor import BLOCKS, PREC_F32, Tensor, is_contiguous, is_quantized, nbytes
from fitplug.memory.graph.vulkan_order import Ordering

SMALL_QUANTS = frozenset(("q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"))
MUL_MAT_TYPES = FLOATS | SMALL_QUANTS | frozenset((
    "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs",
    "iq4_nl", "mxfp4", "nvfp4", "tq1_0", "tq2_0",
))  # fmt: skip
GET_ROWS_TYPES = MUL_MAT_TYPES | {"i32"}
WRITTEN_TYPES = FLOATS | SMALL_QUANTS | {"iq4_nl"}
"""SET_ROWS, and copies from f32."""
READ_TYPES = (FLOATS | SMALL_QUANTS | {"iq4_nl"}) - {"f32"}
"""Copies to f32."""
FLASH_ATTN_TYPES = FLOATS | {"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"}
UNARY = frozenset((
    "exp", "expm1", "elu", "gelu", "gelu_erf", "gelu_quick", "silu", "relu", "xielu", "neg", "tanh", "sigmoid", "hardsigmoid",
    "hardswish", "abs", "softplus", "step", "round", "ceil", "floor", "trunc", "sgn",
))  # fmt: skip
GATED_DELTA_NET_STATES = frozenset((16, 32, 64, 128))
SSM_STATES = frozenset((128, 256))


class VulkanBackend(Backend):
    """One device that Vulkan shows."""

    optimizes_from = 3
    reorders = True

    def __init__(self, name: str, traits: Traits) -> None:
        self.name = name
        self.alignment = traits.alignment
        self.max_size = traits.max_buffer_bytes or self.max_size
        self.max_tensor = traits.max_tensor_bytes or self.max_size

    def supports_op(self, t: Tensor) -> bool:
        """ggml_backend_vk_device_supports_op."""
        if nbytes(t) > self.max_tensor or any(s is not None and nbytes(s) > self.max_tensor for s in t.src):
            return False
        rule = SUPPORTS.get(t.op)
        if t.op == "LIGHTNING_INDEXER":
            return _lightning_indexer(t, self.alignment)
        return rule is not None and rule(t)

    def offloads_op(self, t: Tensor) -> bool:
        """ggml_backend_vk_device_offload_op."""
        return batch_size(t) >= OFFLOAD_MIN_BATCH

    def graph_optimize(self, nodes: Sequence[Tensor], after: Tensor | None, uses: Uses, keep: KeepAlive) -> Order:  # noqa: ARG002 - it looks at nothing behind
        """ggml_vk_graph_optimize."""
        return Ordering(nodes, uses, keep).run()


def _dim01_contiguous(t: Tensor) -> bool:
    block, size = BLOCKS[t.type]
    ne, nb = t.ne, t.nb
    return nb[0] == size and nb[1] == nb[0] * ne[0] // block and (ne[3] == 1 or nb[3] == nb[2] * ne[2])


def _mul_mat(t: Tensor) -> bool:
    a, b = src(t, 0), src(t, 1)
    outer = a if t.op == "MUL_MAT" else src(t, 2)
    if a.type not in MUL_MAT_TYPES or outer.ne[3] != b.ne[3]:
        return False
    if not ((a.type in FLOATS or _dim01_contiguous(a)) and (b.type in HALVES or _dim01_contiguous(b))):
        return False
    return not (a.type == "bf16" and b.type == "f16") and not (b.type == "bf16" and a.type != "bf16")


def _mul_mat_id(t: Tensor) -> bool:
    return t.param != PREC_F32 and _mul_mat(t)


def _flash_attn(t: Tensor) -> bool:
    q, k, v, mask, sinks = src(t, 0), src(t, 1), src(t, 2), t.src[3], t.src[4]
    if k.ne[0] % 8 or v.ne[0] % 8 or q.type != "f32" or (sinks is not None and sinks.type != "f32"):
        return False
    if (mask is not None and mask.type != "f16") or (k.type == "bf16") != (v.type == "bf16"):
        return False
    return k.type in FLASH_ATTN_TYPES and v.type in FLASH_ATTN_TYPES


def _copy(t: Tensor) -> bool:
    """CPY, CONT."""
    a = src(t, 0)
    b = t.src[1] if len(t.src) > 1 else None
    to = b.type if b is not None else a.type
    if (a.type == "f32" and to in WRITTEN_TYPES | {"i32"}) or (to == "f32" and a.type in READ_TYPES | {"i32"}):
        return True
    if a.type != to or BLOCKS[a.type][1] % 2:
        return False
    return not is_quantized(a.type) or (is_contiguous(a) and is_contiguous(t))


def _repeat(t: Tensor) -> bool:
    size = BLOCKS[t.type][1]
    return size == BLOCKS[src(t, 0).type][1] and size in {2, 4}


def _concat(t: Tensor) -> bool:
    a, b = src(t, 0), src(t, 1)
    if a.type != b.type or a.type != t.type:
        return False
    return not is_quantized(a.type) or all(contiguous_rows(x) for x in (a, b, t))


def _ssm_scan(t: Tensor) -> bool:
    """Mamba 2 only: its A is one number for each head."""
    s, a = src(t, 0), src(t, 3)
    if any(x is not None and is_quantized(x.type) for x in t.src[:6]):
        return False
    return a.nb[1] == BLOCKS["f32"][1] and s.ne[0] in SSM_STATES and s.ne[1] % 16 == 0


def _lightning_indexer(t: Tensor, alignment: int) -> bool:
    q, k, weights, mask = (src(t, i) for i in range(4))
    if k.type not in FLASH_ATTN_TYPES or q.ne[0] != 128:
        return False
    for x in (q, k, weights, mask, t):
        size = BLOCKS[x.type][1]
        if x.nb[0] != size or any(nb % size for nb in x.nb[1:]) or (x.view_src is not None and x.view_offs % alignment):
            return False
    return True


def _soft_max(t: Tensor) -> bool:
    mask = t.src[1]
    return src(t, 0).type == "f32" and is_contiguous(src(t, 0)) and (mask is None or mask.type in HALVES)


def _hyper_connection(t: Tensor) -> bool:
    if any(x is not None and x.type != "f32" for x in (t, *t.src)):
        return False
    streams = {"DSV4_HC_PRE": 0, "DSV4_HC_POST": 1}.get(t.op)
    return streams is None or src(t, streams).ne[1] == 4


_same_float = every(typed(HALVES), lambda t: t.type == src(t, 0).type)
_rows_of_f32 = every(first_is("f32"), first_rows_contiguous)
_f32 = every(first_is("f32"), first_contiguous)

SUPPORTS: Mapping[str, Rule] = {
    "UNARY": lambda t: t.param in UNARY and _same_float(t),
    "GLU": lambda t: _same_float(t) and (t.src[1] is None or t.src[1].type == t.type),
    "MUL_MAT": _mul_mat,
    "MUL_MAT_ID": _mul_mat_id,
    "FLASH_ATTN_EXT": _flash_attn,
    "GET_ROWS": first_is(*GET_ROWS_TYPES),
    "SET_ROWS": lambda t: src(t, 0).type in HALVES and src(t, 1).type in {"i32", "i64"} and t.type in WRITTEN_TYPES,
    "CPY": _copy,
    "CONT": _copy,
    "REPEAT": _repeat,
    "ROPE": lambda t: contiguous_rows(t) and contiguous_rows(src(t, 0)),
    **dict.fromkeys(("ROPE_BACK", "NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "RMS_NORM"), always),
    **dict.fromkeys(("RWKV_WKV6", "RWKV_WKV7"), always),
    "GROUP_NORM": first_contiguous,
    **dict.fromkeys(("NORM", "L2_NORM"), typed({"f32"})),
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), typed(HALVES, n=2)),
    "ADD_ID": lambda t: typed({"f32"}, n=2)(t) and src(t, 2).type == "i32",
    **dict.fromkeys(("SQR", "SQRT", "SIN", "COS", "CLAMP", "LOG"), _same_float),
    **dict.fromkeys(("ARGSORT", "TOP_K"), lambda t: is_contiguous(t) and first_contiguous(t)),
    "SET": lambda t: src(t, 0).type == src(t, 1).type == t.type and t.type in {"f32", "i32"},
    "CONCAT": _concat,
    "ARANGE": lambda t: t.type == "f32",
    "FILL": lambda t: t.type in HALVES,
    **dict.fromkeys(("SCALE", "DIAG_MASK_INF", "ARGMAX", "POOL_1D", "POOL_2D"), _f32),
    **dict.fromkeys(("PAD", "ROLL", "UPSCALE", "SSM_CONV", "TIMESTEP_EMBEDDING"), first_is("f32")),
    "SOFT_MAX": _soft_max,
    **dict.fromkeys(("SUM", "SUM_ROWS", "MEAN", "CUMSUM"), _rows_of_f32),
    **dict.fromkeys(("DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST"), _hyper_connection),
    "IM2COL": lambda t: src(t, 1).type == "f32" and is_contiguous(src(t, 1)) and t.type in HALVES,
    "GATED_LINEAR_ATTN": lambda t: typed({"f32"})(t) and src(t, 0).ne[0] == 64,
    "GATED_DELTA_NET": lambda t: src(t, 2).ne[0] in GATED_DELTA_NET_STATES and typed({"f32"}, n=6)(t),
    "SSM_SCAN": _ssm_scan,
}
"""By operation; what is not here it cannot compute."""
