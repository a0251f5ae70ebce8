"""What CUDA's kernels need besides their results: taken while prompts are read, and never counted by llama.cpp.

A kernel takes it from its device's pool and gives it back when it is queued (ggml_cuda_pool_vmm in
ggml/src/ggml-cuda/ggml-cuda.cu). The pool is a stack that grows in steps of the driver's and never shrinks, so it ends as
large as the hungriest operation needs: activations in 8 bits beside a quantised matrix, or halves of what cuBLAS multiplies.
Without flash attention that is half of what all scores take, for the whole context.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import TypeAlias

from fitplug.memory.graph.cuda import AMPERE, MATRIX_ROW_PADDING, TURING, VOLTA, CudaBackend
from fitplug.memory.graph.tensor import ACC_F32, BLOCKS, Tensor, is_quantized, nelements
from fitplug.units import MIB, pad

ALIGNMENT = 128
GRANULARITY = 2 * MIB
"""cuMemGetAllocationGranularity of NVIDIA's cards."""
Q8_1_BLOCK = 36
"""Bytes of 32 values (block_q8_1, ggml/src/ggml-common.h)."""
TILE = 128
"""The widest tile of a product, in both directions (mmq-config-ampere.cuh and its like)."""
MULTIPROCESSORS = 128
"""Of a card that does not say how many it has: so many parts of tiles are kept besides at most."""
MAX_BATCH_VEC, MAX_BATCH_MMF = 8, 16
"""MMVQ_MAX_BATCH_SIZE, and what ggml_cuda_should_use_mmf takes."""
SORT_CHUNK = 64 * MIB
"""argsort_f32_i32_cuda_cub_chunk_nrows (argsort.cu): rows that are sorted at once."""
MAX_BITONIC = 1024
BLOCKS_EACH, MAX_COLUMNS = 2, 64
"""Of flash attention by matrix cores: blocks on one multiprocessor, rows of a tile (fattn-mma-f16.cuh)."""
SSD_CHUNK = 256

Rule: TypeAlias = Callable[[Tensor, CudaBackend], Iterable[int]]
"""An operation → what it takes at once, in bytes."""


def pool_bytes(nodes: Iterable[Tensor], backend: CudaBackend) -> int:
    """How large a device's pool becomes by computing these operations once.

    Args:
        nodes: what is computed, with its sources.
        backend: where.
    """
    most = 0
    for t in nodes:
        rule = TAKES.get(t.op)
        if rule is not None:
            most = max(most, sum(pad(n, ALIGNMENT) for n in rule(t, backend)))
    return pad(most, GRANULARITY)


def _mul_mat(t: Tensor, backend: CudaBackend) -> Sequence[int]:
    """ggml_cuda_mul_mat: by hand for few columns, in 8 bits where the matrix is quantised, else cuBLAS."""
    a, b = t.src[0], t.src[1]
    if a is None or b is None:
        return ()
    n = b.ne[1]
    if b.type == "f32" and t.type == "f32":
        if is_quantized(a.type):
            if n <= MAX_BATCH_VEC:
                return (_in_8_bits(nelements(b) // b.ne[0], b.ne[0]),)
            if backend.multiplies_quantized(n, experts=0):
                in_8_bits = _in_8_bits(nelements(b) // b.ne[0], b.ne[0]) + min(n, TILE) * 4 * Q8_1_BLOCK
                return in_8_bits, _parts_of_tiles(n, a.ne[1], t.ne[2] * t.ne[3], backend)
        elif n == 1 or (n <= MAX_BATCH_MMF and backend.multiplies_by_hand(a.type)):
            return ()
    return _cublas(t, a, b, backend)


def _mul_mat_id(t: Tensor, backend: CudaBackend) -> Sequence[int]:
    """ggml_cuda_mul_mat_id: a column for each expert that a token uses."""
    a, b, ids = t.src[0], t.src[1], t.src[2]
    if a is None or b is None or ids is None:
        return ()
    n, n_used, n_experts = b.ne[2], ids.ne[0], a.ne[2]
    rows = n * n_used
    numbers = [rows * 4, rows * 4, (n_experts + 1) * 4]
    if is_quantized(a.type):
        if n <= MAX_BATCH_VEC:
            return (_in_8_bits(nelements(b) // b.ne[0], b.ne[0]),)
        if backend.multiplies_quantized(n, experts=n_experts):
            spare = min(b.ne[1], TILE) // 8 * 8 * 4 * Q8_1_BLOCK
            return *numbers, _in_8_bits(rows, b.ne[0]) + spare, _parts_of_tiles(n, a.ne[1], n_experts, backend)
    elif backend.multiplies_by_hand(a.type) and n <= (512 if a.ne[1] <= 1024 else 128):
        return numbers
    sorted_as = "f32" if is_quantized(a.type) or (a.type == "f16" and not backend.fast_f16) else a.type
    one = Tensor("MUL_MAT", "f32", (a.ne[1], n, 1, 1), [_matrix(a.type, a.ne[0], a.ne[1]), _matrix(sorted_as, b.ne[0], n)])
    return rows * 8, rows * b.ne[0] * BLOCKS[sorted_as][1], rows * a.ne[1] * 4, *_mul_mat(one, backend)


def _matrix(kind: str, n: int, rows: int) -> Tensor:
    return Tensor("NONE", kind, (n, rows, 1, 1), [])


def _in_8_bits(rows: int, n: int) -> int:
    return rows * pad(n, MATRIX_ROW_PADDING) // 32 * Q8_1_BLOCK


def _parts_of_tiles(n: int, rows: int, batches: int, backend: CudaBackend) -> int:
    """What blocks of threads hand over that share a tile (launch_mul_mat_q, mmq.cuh)."""
    width, blocks = min(pad(n, 8), TILE), backend.multiprocessors or MULTIPROCESSORS
    tiles = ceil(n / width) * ceil(rows / TILE) * batches
    waves = ceil(tiles / blocks)
    if backend.cc < VOLTA or tiles % blocks == 0 or 100 * tiles // (blocks * waves) >= 90:
        return 0
    return blocks * width * TILE * 4


def _cublas(t: Tensor, a: Tensor, b: Tensor, backend: CudaBackend) -> Sequence[int]:
    """ggml_cuda_mul_mat_cublas: both sources in one type, and the result where it is not made in f32."""
    kind = _computed_in(t, a, b, backend)
    size = BLOCKS[kind][1]
    taken = [nelements(s) * size for s in (a, b) if s.type != kind]
    in_f32 = kind in ("f32", "bf16") or backend.cc == VOLTA
    if not in_f32:
        taken.append(nelements(t) * size)
    if b.ne[2] * b.ne[3] > 1 and (b.ne[2] != a.ne[2] or b.ne[3] != a.ne[3]):
        taken += [b.ne[2] * b.ne[3] * 16, b.ne[2] * b.ne[3] * 8]
    return taken


def _computed_in(t: Tensor, a: Tensor, b: Tensor, backend: CudaBackend) -> str:
    if t.param == ACC_F32 or (not backend.fast_f16 and a.type != "bf16"):
        return "f32"
    if a.type == "bf16":
        few = MAX_BATCH_VEC if backend.cc >= VOLTA else TILE
        return "bf16" if backend.cc >= AMPERE or b.ne[1] <= few else "f32"
    return "f16" if is_quantized(a.type) else a.type


def _flash_attn(t: Tensor, backend: CudaBackend) -> Sequence[int]:
    """launch_fattn (fattn-common.cuh): what blocks hand over that share a tile of a prompt; two on a multiprocessor at most."""
    q, v = t.src[0], t.src[2]
    if q is None or v is None or q.ne[1] <= MAX_BATCH_VEC or backend.amd is not None or backend.cc < TURING:
        return ()
    blocks = BLOCKS_EACH * (backend.multiprocessors or MULTIPROCESSORS)
    return (blocks * MAX_COLUMNS * (2 + v.ne[0] // 2) * 8,)


def _argsort(t: Tensor, _: CudaBackend) -> Sequence[int]:
    """argsort_f32_i32_cuda_cub, a chunk of rows at once: numbers, keys, sorted keys; what CUB needs besides is a few MiB."""
    a = t.src[0]
    if a is None or a.ne[0] <= MAX_BITONIC:
        return ()
    chunk = max(SORT_CHUNK // a.nb[1], 1)
    return (min(chunk, nelements(a) // a.ne[0]) * a.ne[0] * 4,) * 3


def _ssm_scan(t: Tensor, backend: CudaBackend) -> Sequence[int]:
    """ssm_scan_ssd_f32_cuda: Mamba 2's prompts as products of chunks."""
    s, x, a, b = t.src[0], t.src[1], t.src[3], t.src[4]
    if s is None or x is None or a is None or b is None:
        return ()
    n_head, n_tokens, n_seqs = x.ne[1:]
    if a.ne[0] != 1 or not TILE < n_tokens <= 32 * SSD_CHUNK or backend.cc < TURING or backend.amd or s.ne[1] % 8:
        return ()
    heads = n_head * n_seqs
    return (
        n_tokens * heads * 4, n_tokens * heads * 4, SSD_CHUNK**2 * b.ne[1] * n_seqs * 4, SSD_CHUNK * s.ne[1] * heads * 2,
        s.ne[0] * SSD_CHUNK * heads * 2, s.ne[0] * SSD_CHUNK * heads * 4, SSD_CHUNK**2 * heads * 2,
    )  # fmt: skip


TAKES: Mapping[str, Rule] = {
    "MUL_MAT": _mul_mat,
    "MUL_MAT_ID": _mul_mat_id,
    "FLASH_ATTN_EXT": _flash_attn,
    "ARGSORT": _argsort,
    "SSM_SCAN": _ssm_scan,
}
