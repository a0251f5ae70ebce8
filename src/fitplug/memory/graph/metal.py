"""Metal on Apple's own chips (ggml/src/ggml-metal/): what it can compute, what that takes, in which order.

Supposed is what every such chip has under a macOS of today: simdgroups that reduce and multiply matrices, and bfloat.
"""

from collections.abc import Callable, Mapping, Sequence

from fitplug.machine.backends import Backend as Traits
from fitplug.memory.graph.backends import OFFLOAD_MIN_BATCH, Backend, KeepAlive, Order, Uses, batch_size
from fitplug.memory.graph.metal_fusion import keep_alive
from fitplug.memory.graph.metal_order import ordered
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
)
from fitplug.memory.graph.tensor import Tensor, is_contiguous, nbytes, nelements, row_size
from fitplug.units import pad

QUANTS = frozenset(("q4_0", "q4_1", "q5_0", "q5_1", "q8_0"))
"""Caches of these types are turned into f16 for long prompts."""
UNARY = frozenset((
    "tanh", "relu", "sigmoid", "gelu", "gelu_erf", "gelu_quick", "silu", "elu", "neg", "abs", "sgn", "step", "hardswish",
    "hardsigmoid", "exp", "softplus", "expm1", "floor", "ceil", "round", "trunc", "xielu",
))  # fmt: skip
NOT_MULTIPLIED = frozenset(("nvfp4", "tq1_0"))
HEADS = frozenset((32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576))
FLASH_ATTN_TYPES = FLOATS | QUANTS
WRITTEN_TYPES = FLOATS | QUANTS | {"iq4_nl", "tq2_0"}
COPIES: Mapping[str, frozenset[str]] = {
    "f32": WRITTEN_TYPES | {"q1_0", "q2_0", "i32"},
    "f16": HALVES,
    "bf16": frozenset(("f32", "bf16")),
    "i32": frozenset(("f32", "i32")),
    **dict.fromkeys((*QUANTS, "q1_0", "q2_0", "tq2_0"), HALVES),
}
"""Type → what it can be copied to."""
JOINED_TYPES = FLOATS | QUANTS | {"i8", "i16", "i32", "i64"}
SMALL_BATCH, LONG_PROMPT = 20, 32
CHUNK, SMALL_CHUNK, QUERIES = 64, 32, 8
"""OP_FLASH_ATTN_EXT_NCPSG, OP_FLASH_ATTN_EXT_VEC_NCPSG, OP_FLASH_ATTN_EXT_NQPSG."""
WORKGROUPS = 32
SPARSE_HEADS = frozenset((
    (32, 32), (64, 64), (96, 96), (96, 64), (128, 128), (192, 128), (192, 192), (256, 256), (320, 256), (512, 512), (576, 512),
))  # fmt: skip
MOST_SPARSE = 4096
SCALES = 8 + 4 * 256
"""Of a product with experts: two factors and N_MM_NPART_AMAX partial ones."""
INDEXER = (128, 64)
"""Width and number of a lightning indexer's heads."""


class MetalBackend(Backend):
    """One Apple GPU."""

    optimizes_from = 2
    reorders = True

    def __init__(self, name: str, traits: Traits) -> None:
        self.name = name
        self.alignment = traits.alignment
        self.max_size = traits.max_buffer_bytes or self.max_size

    def alloc_size(self, t: Tensor) -> int:
        """ggml_backend_metal_buffer_type_get_alloc_size: with what a kernel needs besides its result."""
        size = nbytes(t)
        rule = EXTRA.get(t.op)
        return size if rule is None else rule(t, size)

    def supports_op(self, t: Tensor) -> bool:
        """ggml_metal_device_supports_op."""
        rule = SUPPORTS.get(t.op)
        return rule is not None and rule(t)

    def offloads_op(self, t: Tensor) -> bool:
        """ggml_backend_metal_device_offload_op: products only."""
        return t.op in {"MUL_MAT", "MUL_MAT_ID"} and batch_size(t) >= OFFLOAD_MIN_BATCH

    def graph_optimize(self, nodes: Sequence[Tensor], after: Tensor | None, uses: Uses, keep: KeepAlive) -> Order:  # noqa: ARG002 - it looks at nothing behind
        """ggml_backend_metal_graph_optimize."""
        keep_alive(nodes, keep)
        return ordered(nodes, uses)


# What tensors take besides their result (ggml_metal_op_*_extra_*, ggml/src/ggml-metal/ggml-metal-ops.cpp)


def _experts_bytes(t: Tensor, size: int) -> int:
    n_expert, n_tokens = src(t, 0).ne[2], src(t, 2).ne[1]
    return size + 4 * n_expert + 4 * n_expert * n_tokens + SCALES


def _flash_attn_bytes(t: Tensor, size: int) -> int:
    q, k, v, mask = src(t, 0), src(t, 1), src(t, 2), t.src[3]
    _, rows, masks, more = mask.ne if mask is not None else (0, 0, 0, 0)
    small = q.ne[1] < SMALL_BATCH and q.ne[0] % 32 == 0
    size += CHUNK * (_padded_row(t, k) * k.ne[2] * k.ne[3] + _padded_row(t, v) * v.ne[2] * v.ne[3] + 2 * rows * masks * more)
    if mask is not None:
        n_queries, chunk = (1, SMALL_CHUNK) if small else (QUERIES, CHUNK)
        size += pad(-(-mask.ne[0] // chunk) * -(-q.ne[1] // n_queries) * masks * more, 32)
    size += 4 * min(q.ne[1], WORKGROUPS) * q.ne[2] * q.ne[3] * WORKGROUPS * (v.ne[0] + 2)
    size += pad(2 * nelements(k), 16) + (0 if _is_part(v, k) else pad(2 * nelements(v), 16))
    n_kv_max = _sparse(t)
    return size + (pad(4 * pad(n_kv_max, SMALL_CHUNK) * rows * masks * more, 16) if n_kv_max else 0)


def _padded_row(t: Tensor, cache: Tensor) -> int:
    """A row of K or V as the kernel reads it: dequantised for a long prompt, and V then a part of K if it is a view of it."""
    k = src(t, 1)
    if src(t, 0).ne[1] < LONG_PROMPT or k.type not in QUANTS:
        return cache.nb[1]
    return row_size("f16", k.ne[0] if _is_part(src(t, 2), k) else cache.ne[0])


def _is_part(v: Tensor, k: Tensor) -> bool:
    return v.view_src is not None and (v.view_src is k or (v.view_src is k.view_src and v.view_offs == k.view_offs))


def _sparse(t: Tensor) -> int:
    """How many cells a sparse kernel lists at most; 0 where there is none (ggml_metal_op_flash_attn_ext_n_kv_max_sparse)."""
    k, v, n = src(t, 1), src(t, 2), t.param[2]
    sparse = 0 < n <= MOST_SPARSE and t.src[3] is not None and (k.ne[0], v.ne[0]) in SPARSE_HEADS and k.type in FLASH_ATTN_TYPES
    return n if sparse else 0


EXTRA: Mapping[str, Callable[[Tensor, int], int]] = {
    "MUL_MAT_ID": _experts_bytes,
    "FLASH_ATTN_EXT": _flash_attn_bytes,
    "CUMSUM": lambda _, size: 2 * size,
    "ARGSORT": lambda _, size: 2 * size,
    "TOP_K": lambda t, _: 2 * 4 * nelements(src(t, 0)),
}


# Which operations it computes


def _product(t: Tensor) -> bool:
    """ggml_metal_supports_mul_mat_op; a product with a Hadamard matrix reads f16 where the generic one cannot."""
    a, b = src(t, 0), src(t, 1)
    if a.type in NOT_MULTIPLIED:
        return False
    if b.type != "f16":
        return True
    if a.type == "bf16":
        return False
    if t.op == "MUL_MAT_ID":
        return a.ne[0] >= 64 and src(t, 2).ne[1] >= 32
    return a.type == "f16" or (a.nb[0] <= a.nb[1] and b.nb[0] <= b.nb[1] and a.ne[0] >= 64 and b.ne[1] > 8)


def _arithmetic(t: Tensor) -> bool:
    a, b = src(t, 0), src(t, 1)
    return contiguous_rows(a) and contiguous_rows(b) and a.type in HALVES and a.type == b.type


def _flash_attn(t: Tensor) -> bool:
    q, k, v = src(t, 0), src(t, 1), src(t, 2)
    if q.ne[0] not in HEADS or k.ne[0] < v.ne[0] or (k.ne[0] == 72 and v.ne[0] != 72):
        return False
    return k.type == v.type and k.type in FLASH_ATTN_TYPES


def _lightning_indexer(t: Tensor) -> bool:
    q, k, weights, mask = (src(t, i) for i in range(4))
    if q.ne[:2] != INDEXER or (q.type, weights.type, mask.type) != ("f32", "f32", "f16") or k.type not in FLASH_ATTN_TYPES:
        return False
    return all(contiguous_rows(x) for x in (q, k, weights, mask))


def _hyper_connection(t: Tensor) -> bool:
    sources = [x for x in t.src if x is not None]
    if any(x.type != "f32" or not contiguous_rows(x) for x in sources):
        return False
    if t.op == "DSV4_HC_COMB":
        return sources[0].ne[0] == sources[2].ne[0] == 24 and sources[1].ne[0] >= 3
    comb = sources[3:4]
    return t.op == "DSV4_HC_PRE" or (sources[1].ne[1] == sources[2].ne[0] == 4 and all(x.ne[:2] == (4, 4) for x in comb))


def _set_rows(t: Tensor) -> bool:
    a = src(t, 0)
    return t.type == "f16" if a.type == "f16" else a.type == "f32" and t.type in WRITTEN_TYPES


_rows_of_halves = every(first_is(*HALVES), first_rows_contiguous)

SUPPORTS: Mapping[str, Rule] = {
    **dict.fromkeys(("SCALE", "FILL", "CLAMP", "SQR", "SQRT", "SIN", "COS", "LOG"), _rows_of_halves),
    "UNARY": lambda t: t.param in UNARY and _rows_of_halves(t),
    "GLU": lambda t: is_contiguous(src(t, 0), 1) and src(t, 0).type in HALVES,
    **dict.fromkeys(("NONE", "RESHAPE", "VIEW", "TRANSPOSE", "PERMUTE", "REPEAT", "ROPE", "ROPE_BACK", "ARGMAX"), always),
    **dict.fromkeys(("ARGSORT", "TOP_K", "ARANGE", "SSM_SCAN", "SSM_CONV", "RWKV_WKV6", "RWKV_WKV7"), always),
    "CONCAT": lambda t: src(t, 0).type == src(t, 1).type == t.type and t.type in JOINED_TYPES,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "ADD_ID"), _arithmetic),
    **dict.fromkeys(
        ("SUM_ROWS", "CUMSUM", "MEAN", "SOFT_MAX", "GROUP_NORM", "L2_NORM", "NORM", "RMS_NORM"), first_rows_contiguous
    ),
    **dict.fromkeys(("ROLL", "SUM"), first_contiguous),
    "IM2COL": lambda t: src(t, 1).type == "f32" and is_contiguous(src(t, 1)) and t.type in HALVES,
    **dict.fromkeys(("UPSCALE", "POOL_2D", "PAD", "TIMESTEP_EMBEDDING"), first_is("f32")),
    "FLASH_ATTN_EXT": _flash_attn,
    "LIGHTNING_INDEXER": _lightning_indexer,
    **dict.fromkeys(("DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST"), _hyper_connection),
    "GATED_DELTA_NET": lambda t: src(t, 2).ne[0] % 32 == 0,
    **dict.fromkeys(("MUL_MAT", "MUL_MAT_ID"), _product),
    **dict.fromkeys(("SET", "CPY", "CONT"), lambda t: t.type in COPIES.get(src(t, 0).type, ())),
    "GET_ROWS": lambda t: src(t, 0).type not in NOT_MULTIPLIED,
    "SET_ROWS": _set_rows,
}
"""By operation; what is not here it cannot compute."""
