"""CUDA, and HIP and MUSA which are the same source (ggml/src/ggml-cuda/ggml-cuda.cu, fattn.cu)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from fitplug.memory.graph import cuda_fusion
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.backends import OFFLOAD_MIN_BATCH, Backend, KeepAlive, Uses, batch_size
from fitplug.memory.graph.supports import FLOATS, HALVES, Rule, first_contiguous, first_is, first_rows_contiguous, src
from fitplug.memory.graph.tensor import BLOCKS, PREC_F32, Tensor, is_contiguous, is_quantized, nbytes, nelements, row_size
from fitplug.units import pad

MATRIX_ROW_PADDING = 512
FATTN_KQ_STRIDE = 256
PASCAL, DP4A, VOLTA, TURING, AMPERE, ADA = 60, 61, 70, 75, 80, 89
MAX_BATCH_DP4A, MAX_BATCH_MFMA, MOST_EXPERTS_BY_BLAS = 64, 128, 64
"""Columns and experts up to which products of quantised matrices are made without cuBLAS or hipBLAS (mmq.cu)."""
MOST_GROUPED = 8
"""Queries of one key that are taken together, for heads that a vector kernel takes too."""
AmdCores: TypeAlias = Literal["none", "mfma", "wmma"]
"""Matrix cores of an AMD card: none, CDNA's, or those of RDNA 3 and later."""

MUL_MAT_TYPES = frozenset((
    "f32", "f16", "bf16", "q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4", "nvfp4", "q2_K", "q3_K", "q4_K",
    "q5_K", "q6_K", "q8_K", "iq1_m", "iq1_s", "iq2_s", "iq2_xs", "iq2_xxs", "iq3_s", "iq3_xxs", "iq4_nl", "iq4_xs",
))  # fmt: skip
GET_ROWS_TYPES = frozenset((
    "f16", "f32", "bf16", "i32", "q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K",
    "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m", "iq4_xs",
))  # fmt: skip
SET_ROWS_TYPES = frozenset(("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"))
FLASH_ATTN_TYPES = frozenset(("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"))
VEC_KERNELS = frozenset((
    ("q4_0", "q4_0"), ("q8_0", "q8_0"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f32"), ("f32", "f16"), ("f16", "f32"),
))  # fmt: skip
"""GGML_CUDA_FA_QUANTS as built by default; f32 is read as f16."""
UNARY = frozenset((
    "abs", "sgn", "neg", "step", "gelu", "silu", "relu", "sigmoid", "hardsigmoid", "hardswish", "gelu_erf", "gelu_quick",
    "tanh", "exp", "expm1", "softplus", "elu", "xielu", "floor", "ceil", "round", "trunc",
))  # fmt: skip
SAME_HEADS = frozenset((40, 64, 72, 80, 96, 112, 128, 256))
"""Flash attention's head sizes with K and V equal."""
GROUPED_HEADS = {192: (128, 8), 320: (256, 32), 512: (512, 1), 576: (512, 1)}
"""Head size of K → that of V, and what the ratio of heads must be a multiple of; only with grouped queries."""


class CudaBackend(Backend):
    """One CUDA device."""

    alignment = 128
    optimizes_from = 4

    def __init__(
        self,
        name: str,
        index: int,
        *,
        cc: int = 80,
        amd: AmdCores | None = None,
        integrated: bool = False,
        alone: bool = True,
        multiprocessors: int = 0,
    ) -> None:
        """`cc` is ten times the compute capability, of AMD's cards nothing; `alone` is false beside another CUDA device.

        `multiprocessors`: 0 where nobody says.
        """
        self.name = name
        self.index = index
        self.cc = cc
        self.amd = amd
        self.uses_host_memory = integrated
        self.alone = alone
        self.multiprocessors = multiprocessors

    def alloc_size(self, t: Tensor) -> int:
        """ggml_backend_cuda_buffer_type_get_alloc_size."""
        size = nbytes(t) if t.op != "FLASH_ATTN_EXT" else self._flash_attn_bytes(t)
        block, block_bytes = BLOCKS[t.type]
        if block > 1 and t.ne[0] % MATRIX_ROW_PADDING:
            ggml.require("tensor->nb[0] == ggml_element_size(tensor)", t.nb[0] == block_bytes)
            size += row_size(t.type, MATRIX_ROW_PADDING - t.ne[0] % MATRIX_ROW_PADDING)
        return size

    def supports_op(self, t: Tensor) -> bool:
        """ggml_backend_cuda_device_supports_op."""
        if not self.alone:
            for src in t.src:
                buffer = src.buffer if src is not None else None
                if buffer is not None and not buffer.is_host and self.index not in buffer.backends:
                    return False
        return self.takes(t)

    def takes(self, t: Tensor) -> bool:
        """The same, wherever the sources lie."""
        if t.op == "FLASH_ATTN_EXT":
            return self.flash_attn_kernel(t) is not None
        rule = SUPPORTS.get(t.op)
        return rule is None or rule(t)

    def offloads_op(self, t: Tensor) -> bool:
        """ggml_backend_cuda_device_offload_op: large batches are worth copying the weight for."""
        return batch_size(t) >= OFFLOAD_MIN_BATCH

    def graph_optimize(self, nodes: Sequence[Tensor], after: Tensor | None, uses: Uses, keep: KeepAlive) -> None:
        """ggml_backend_cuda_graph_optimize."""
        cuda_fusion.keep_alive(nodes, after, uses, keep)

    def fused_at(self, nodes: Sequence[Tensor], at: int, uses: Uses) -> int:
        """What its fused kernels for experts compute at once."""
        return cuda_fusion.length(nodes, at, uses)

    def scratch(self, nodes: Iterable[Tensor]) -> int:
        """What its kernels take from the pool."""
        from fitplug.memory.graph.scratch import pool_bytes

        return pool_bytes(nodes, self)

    # How it multiplies

    @property
    def fast_f16(self) -> bool:
        """fast_fp16_hardware_available (common.cuh): cuBLAS may take halves."""
        return self.amd is not None or (self.cc >= PASCAL and self.cc != DP4A)

    def multiplies_quantized(self, n: int, experts: int) -> bool:
        """ggml_cuda_should_use_mmq (mmq.cu): a quantised matrix is multiplied as it is, by `n` columns."""
        if self.amd is not None:
            return self.amd != "mfma" or experts > MOST_EXPERTS_BY_BLAS or n <= MAX_BATCH_MFMA
        if self.cc >= TURING:
            return True
        if self.cc < DP4A:
            return self.cc >= PASCAL and experts > 0
        return self.cc < VOLTA or n < MAX_BATCH_DP4A

    def multiplies_by_hand(self, kind: str) -> bool:
        """ggml_cuda_should_use_mmf (mmf.cu): few columns by matrix cores, of a matrix of this type."""
        return self.amd in ("mfma", "wmma") if self.amd is not None else self.cc >= (VOLTA if kind == "f16" else AMPERE)

    # Flash attention

    def flash_attn_kernel(self, t: Tensor) -> str | None:
        """ggml_cuda_get_best_fattn_kernel: "vec", "f16" (tensor cores or tiles, which want K and V in f16) or None."""
        q, k, v, mask = t.src[0], t.src[1], t.src[2], t.src[3]
        if q is None or k is None or v is None or not self._takes_heads(q, k, v, mask, t.param[0]):
            return None
        if k.type not in FLASH_ATTN_TYPES or v.type not in FLASH_ATTN_TYPES or (mask is not None and mask.ne[2] != 1):
            return None
        width, n = q.ne[0], q.ne[1]
        if n > 2 or width > 256 or width % 64 or width == 192 or k.ne[1] % FATTN_KQ_STRIDE:
            return "f16"
        return "vec" if self._prefers_vec(q, k, v, grouped=_grouped(q, k, v, mask, t.param[0])) else "f16"

    @staticmethod
    def _takes_heads(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, max_bias: float) -> bool:
        head_k, head_v = k.ne[0], v.ne[0]
        if head_k in SAME_HEADS:
            return head_v == head_k
        wanted = GROUPED_HEADS.get(head_k)
        if wanted is None or head_v != wanted[0] or not _grouped(q, k, v, mask, max_bias):
            return False
        return q.ne[2] // k.ne[2] % wanted[1] == 0

    def _prefers_vec(self, q: Tensor, k: Tensor, v: Tensor, *, grouped: bool) -> bool:
        """The vector kernel, for one or two tokens."""
        n, ratio = q.ne[1], q.ne[2] // k.ne[2]
        quantized = is_quantized(k.type) or is_quantized(v.type)
        effective = 1
        while ratio % (2 * effective) == 0 and effective < MOST_GROUPED:
            effective *= 2
        if self.amd is not None:
            if _amd_multiplies(self.amd, q.ne[0], n * effective, grouped=grouped):
                return False
        elif self.cc >= TURING:
            if quantized:
                if n <= (2 if self.cc >= ADA else 1):
                    return True
            elif self.cc >= ADA and n == 1 and q.ne[3] == 1 and not (ratio > 4 and (q.ne[0] >= 256 or k.ne[1] >= 8192)):
                return True
            return n == 1 and not grouped
        elif self.cc >= VOLTA:
            return n * effective <= 2
        return n <= 2 if quantized else n == 1 and not grouped

    def _flash_attn_bytes(self, t: Tensor) -> int:
        """ggml_cuda_flash_attn_ext_get_alloc_size: with copies of K and V in f16 where the kernel reads nothing else."""
        size = nbytes(t)
        k, v = t.src[1], t.src[2]
        if k is None or v is None:
            return size
        kernel = self.flash_attn_kernel(t)
        if kernel is None or (k.type == "f16" and v.type == "f16"):
            return size
        k_copied = v_copied = True
        if kernel == "vec" and (k.type, v.type) in VEC_KERNELS:
            k_copied, v_copied = k.type == "f32", v.type == "f32"
        k_copied, v_copied = k_copied and k.type != "f16", v_copied and v.type != "f16"
        if k_copied:
            size = pad(size, 128) + nelements(k) * 2
        shared = v.view_src is not None and (v.view_src is k or (v.view_src is k.view_src and v.view_offs == k.view_offs))
        if v_copied and not shared:
            size = pad(size, 128) + nelements(v) * 2
        return size


def _amd_multiplies(cores: AmdCores, width: int, n_rows: int, *, grouped: bool) -> bool:
    """Whether a prompt of so many rows is wide enough for the matrix cores (ggml_cuda_get_best_fattn_kernel)."""
    if cores == "mfma":
        return n_rows > (8 if width <= 64 else 16 if width <= 128 else 64)
    return cores == "wmma" and grouped and n_rows > (8 if width <= 128 else 16)


def _grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, max_bias: float) -> bool:
    """gqa_opt_applies: several queries share a key, and all of it is padded."""
    if q.ne[2] // k.ne[2] < 2 or mask is None or max_bias != 0 or k.ne[1] % FATTN_KQ_STRIDE:
        return False
    return all(is_quantized(t.type) or not any(nb % 16 for nb in t.nb[1:]) for t in (q, k, v, mask))


# Which operations it computes, where that depends on types or shapes; whatever is not here it always does.


def _mul_mat(t: Tensor) -> bool:
    a, b = src(t, 0), src(t, 1)
    if a.nb[0] != BLOCKS[a.type][1] or b.nb[0] != BLOCKS[b.type][1]:
        return False
    if b.type == "f16" and a.type != "f16":
        return False
    return a.type in MUL_MAT_TYPES and t.param != PREC_F32


def _get_rows(t: Tensor) -> bool:
    a = src(t, 0)
    return a.type in GET_ROWS_TYPES or (a.type in {"iq4_nl", "mxfp4"} and a.ne[0] % 256 == 0)


def _set_rows(t: Tensor) -> bool:
    b = src(t, 0)
    return (t.type in SET_ROWS_TYPES and b.type == "f32") or (t.type == "f16" and b.type == "f16")


QUANTS_FROM_F32 = frozenset(("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "i32"))
QUANTS_TO_F32 = frozenset(("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "i32"))


def _cpy(t: Tensor) -> bool:
    a, b = src(t, 0), src(t, 1)
    if a.type in FLOATS and b.type in FLOATS:
        return True
    if (a.type == "f32" and b.type in QUANTS_FROM_F32) or (b.type == "f32" and a.type in QUANTS_TO_F32):
        return True
    if a.type == b.type:
        return a.type == "i32" or (is_contiguous(a) and is_contiguous(b))
    return False


def _arithmetic(t: Tensor) -> bool:
    a, b = src(t, 0).type, src(t, 1).type
    if "bf16" in {a, b, t.type}:
        return a == "bf16" and t.type == "bf16" and b in {"bf16", "f32"}
    return {a, b, t.type} <= HALVES


def _ssm_scan(t: Tensor) -> bool:
    s, a, b = src(t, 0), src(t, 3), src(t, 4)
    if a.ne[0] == 1:
        return s.ne[0] in {96, 128, 256} and s.ne[1] % 16 == 0
    return s.ne[0] == 16 and s.ne[1] == 1 and s.ne[2] % 128 == 0 and b.ne[1] == 1


def _rope(t: Tensor) -> bool:
    a = src(t, 0)
    return a.nb[0] == BLOCKS[a.type][1] and is_contiguous(a, 2)


def _lightning_indexer(t: Tensor) -> bool:
    q, k = src(t, 0), src(t, 1)
    if q.ne[0] != 128 or q.ne[1] not in {32, 64} or k.type not in FLASH_ATTN_TYPES:
        return False
    return all(is_quantized(x.type) or not any(nb % 16 for nb in x.nb[1:]) for x in (q, k))


SUPPORTS: Mapping[str, Rule] = {
    "UNARY": lambda t: t.param in UNARY and is_contiguous(src(t, 0)),
    "GLU": lambda t: is_contiguous(src(t, 0), 1),
    "MUL_MAT": _mul_mat,
    "MUL_MAT_ID": _mul_mat,
    "GET_ROWS": _get_rows,
    "SET_ROWS": _set_rows,
    "CPY": _cpy,
    "REPEAT": first_is(*HALVES),
    "NORM": first_rows_contiguous,
    "RMS_NORM": first_rows_contiguous,
    "L2_NORM": first_rows_contiguous,
    "SUM_ROWS": first_rows_contiguous,
    "MEAN": first_rows_contiguous,
    "GROUP_NORM": first_contiguous,
    "SCALE": first_is("f32", "bf16"),
    "ADD": _arithmetic,
    "SUB": _arithmetic,
    "MUL": _arithmetic,
    "DIV": _arithmetic,
    "SSM_SCAN": _ssm_scan,
    "SSM_CONV": lambda t: src(t, 0).ne[1] % 128 == 0,
    "ROPE": _rope,
    "ROLL": first_contiguous,
    "IM2COL": lambda t: is_contiguous(src(t, 0)) and is_contiguous(src(t, 1)),
    "CONV_2D": lambda t: is_contiguous(src(t, 0)) and is_contiguous(src(t, 1)),
    "CONV_2D_DW": lambda t: src(t, 0).type in HALVES and src(t, 1).type == "f32",
    "LIGHTNING_INDEXER": _lightning_indexer,
}
