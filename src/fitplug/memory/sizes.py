"""Bytes of tensors in buffers (ggml_nbytes, the buffer types' get_alloc_size)."""

from fitplug.errors import RefusedError
from fitplug.formats.ggml_types import BY_NAME


def is_quantised(type_: str) -> bool:
    """ggml_is_quantized (ggml/src/ggml.c)."""
    return block(type_)[0] > 1


def block(type_: str) -> tuple[int, int]:
    """Elements and bytes of one block.

    Raises:
        RefusedError: ggml has no such type (any more).
    """
    row = BY_NAME.get(type_)
    if row is None or row.removed:
        raise RefusedError(f"llama.cpp has no tensor type '{type_[:40]}'")
    return row.block, row.n_bytes


def row_size(type_: str, n: int) -> int:
    """ggml_row_size; like it, cuts off where `n` is no multiple of the block."""
    elements, n_bytes = block(type_)
    return n_bytes * n // elements


def alloc_size(type_: str, shape: tuple[int, ...], row_padding: int = 0) -> int:
    """Bytes of a tensor in a buffer, before alignment (ggml_backend_buft_get_alloc_size)."""
    n_rows = 1
    for n in shape[1:]:
        n_rows *= n
    return row_size(type_, shape[0]) * n_rows + row_padding_bytes(type_, shape[0], row_padding)


def row_padding_bytes(type_: str, n: int, row_padding: int) -> int:
    """What a quantised tensor with rows of `n` takes once more on a backend with row padding.

    Its kernels read beyond the last row (ggml_backend_cuda_buffer_type_get_alloc_size, ggml/src/ggml-cuda/ggml-cuda.cu).
    """
    if not row_padding or n % row_padding == 0 or not is_quantised(type_):
        return 0
    return row_size(type_, row_padding - n % row_padding)
