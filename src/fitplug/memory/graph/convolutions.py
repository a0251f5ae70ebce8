"""Convolutions, pools and what pictures and sound need besides, under ggml's names without the prefix (ggml/src/ggml.c)."""

from fitplug.memory.graph.ops import cont, mul_mat, permute, reshape
from fitplug.memory.graph.tensor import Tensor


def strided(n: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """ggml_calc_conv_output_size."""
    return (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def im2col_2d(a: Tensor, b: Tensor, stride: int, type: str, pad: int = 0) -> Tensor:  # noqa: A002 - ggml's own name for it
    """ggml_im2col in two dimensions."""
    width, height = (strided(n, k, stride, pad) for n, k in zip(b.ne[:2], a.ne[:2], strict=True))
    return Tensor("IM2COL", type, (a.ne[2] * a.ne[1] * a.ne[0], width, height, b.ne[3]), [a, b])


def conv_2d(a: Tensor, b: Tensor, stride: int, pad: int = 0, type: str = "") -> Tensor:  # noqa: A002 - as above
    """ggml_conv_2d; `type` is that of the columns, where it is not ggml's choice."""
    columns = im2col_2d(a, b, stride, type or ("f32" if a.type == "bf16" else "f16"), pad)
    n = columns.ne
    result = mul_mat(reshape(columns, n[0], n[3] * n[2] * n[1]), reshape(a, a.ne[0] * a.ne[1] * a.ne[2], a.ne[3]))
    return cont(permute(reshape(result, n[1], n[2], n[3], a.ne[3]), 0, 1, 3, 2))


def conv_2d_dw(a: Tensor, b: Tensor, stride: int, pad: int) -> Tensor:
    """ggml_conv_2d_dw."""
    kernel = reshape(a, a.ne[0], a.ne[1], 1, a.ne[2] * a.ne[3])
    pixels = reshape(b, b.ne[0], b.ne[1], 1, b.ne[2] * b.ne[3])
    columns = im2col_2d(kernel, pixels, stride, "f32" if a.type == "bf16" else "f16", pad)
    n = columns.ne
    kernel = reshape(kernel, kernel.ne[0] * kernel.ne[1], kernel.ne[2], kernel.ne[3])
    result = mul_mat(kernel, reshape(columns, n[0], n[2] * n[1], b.ne[2], b.ne[3]))
    return reshape(result, n[1], n[2], b.ne[2], b.ne[3])


def conv_2d_direct(a: Tensor, b: Tensor, stride: int = 1, pad: int = 0) -> Tensor:
    """ggml_conv_2d_direct."""
    width, height = (strided(n, k, stride, pad) for n, k in zip(b.ne[:2], a.ne[:2], strict=True))
    return Tensor("CONV_2D", b.type, (width, height, a.ne[3], b.ne[3]), [a, b])


def conv_2d_dw_direct(a: Tensor, b: Tensor, stride: int, pad: int) -> Tensor:
    """ggml_conv_2d_dw_direct of what lies as ggml lays it."""
    width, height = (strided(n, k, stride, pad) for n, k in zip(b.ne[:2], a.ne[:2], strict=True))
    return Tensor("CONV_2D_DW", b.type, (width, height, b.ne[2], b.ne[3]), [a, b])


def pool_1d(a: Tensor, k0: int, s0: int) -> Tensor:
    """ggml_pool_1d without padding."""
    return Tensor("POOL_1D", "f32", ((a.ne[0] - k0) // s0 + 1, a.ne[1], a.ne[2], a.ne[3]), [a])


def pad_reflect_1d(a: Tensor, p0: int, p1: int) -> Tensor:
    """ggml_pad_reflect_1d."""
    return Tensor("PAD_REFLECT_1D", a.type, (a.ne[0] + p0 + p1, a.ne[1], a.ne[2], a.ne[3]), [a])


def roll(a: Tensor) -> Tensor:
    """ggml_roll."""
    return Tensor("ROLL", a.type, a.ne, [a])


def interpolate(a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int = 1) -> Tensor:
    """ggml_interpolate."""
    return Tensor("UPSCALE", a.type, (ne0, ne1, ne2, ne3), [a])
