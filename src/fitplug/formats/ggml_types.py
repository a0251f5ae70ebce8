"""Every tensor type that ggml has, and llama.cpp's names of whole files' types.

Sizes are written as the sums of ggml/src/ggml-common.h's blocks, names as in ggml/src/ggml.c, `type_traits`.
"""

from typing import NamedTuple

from fitplug.errors import UnreadableError

_HALF, _FLOAT, _QK_K = 2, 4, 256


class GgmlType(NamedTuple):
    """One row of ggml's table. A type that ggml has removed has no block: its size cannot be computed."""

    id: int
    name: str
    block: int = 0
    """Elements in one block (`blck_size`)."""
    n_bytes: int = 0
    """Bytes of one block (`type_size`)."""

    @property
    def removed(self) -> bool:
        """Whether ggml no longer loads it."""
        return self.block == 0


TYPES = (
    GgmlType(0, "f32", 1, 4),
    GgmlType(1, "f16", 1, 2),
    GgmlType(2, "q4_0", 32, _HALF + 32 // 2),
    GgmlType(3, "q4_1", 32, 2 * _HALF + 32 // 2),
    GgmlType(4, "q4_2"),
    GgmlType(5, "q4_3"),
    GgmlType(6, "q5_0", 32, _HALF + 4 + 32 // 2),
    GgmlType(7, "q5_1", 32, 2 * _HALF + 4 + 32 // 2),
    GgmlType(8, "q8_0", 32, _HALF + 32),
    GgmlType(9, "q8_1", 32, 2 * _HALF + 32),
    GgmlType(10, "q2_K", _QK_K, 2 * _HALF + _QK_K // 16 + _QK_K // 4),
    GgmlType(11, "q3_K", _QK_K, _HALF + _QK_K // 4 + _QK_K // 8 + 12),
    GgmlType(12, "q4_K", _QK_K, 2 * _HALF + 12 + _QK_K // 2),
    GgmlType(13, "q5_K", _QK_K, 2 * _HALF + 12 + _QK_K // 2 + _QK_K // 8),
    GgmlType(14, "q6_K", _QK_K, _HALF + _QK_K // 16 + 3 * _QK_K // 4),
    GgmlType(15, "q8_K", _QK_K, _FLOAT + _QK_K + _QK_K // 16 * 2),
    GgmlType(16, "iq2_xxs", _QK_K, _HALF + _QK_K // 8 * 2),
    GgmlType(17, "iq2_xs", _QK_K, _HALF + _QK_K // 8 * 2 + _QK_K // 32),
    GgmlType(18, "iq3_xxs", _QK_K, _HALF + 3 * (_QK_K // 8)),
    GgmlType(19, "iq1_s", _QK_K, _HALF + _QK_K // 8 + _QK_K // 16),
    GgmlType(20, "iq4_nl", 32, _HALF + 32 // 2),
    GgmlType(21, "iq3_s", _QK_K, _HALF + 13 * (_QK_K // 32) + _QK_K // 64),
    GgmlType(22, "iq2_s", _QK_K, _HALF + _QK_K // 4 + _QK_K // 16),
    GgmlType(23, "iq4_xs", _QK_K, _HALF + 2 + _QK_K // 64 + _QK_K // 2),
    GgmlType(24, "i8", 1, 1),
    GgmlType(25, "i16", 1, 2),
    GgmlType(26, "i32", 1, 4),
    GgmlType(27, "i64", 1, 8),
    GgmlType(28, "f64", 1, 8),
    GgmlType(29, "iq1_m", _QK_K, _QK_K // 8 + _QK_K // 16 + _QK_K // 32),
    GgmlType(30, "bf16", 1, 2),
    GgmlType(31, "q4_0_4_4"),
    GgmlType(32, "q4_0_4_8"),
    GgmlType(33, "q4_0_8_8"),
    GgmlType(34, "tq1_0", _QK_K, _HALF + _QK_K // 64 + (_QK_K - 4 * _QK_K // 64) // 5),
    GgmlType(35, "tq2_0", _QK_K, _HALF + _QK_K // 4),
    GgmlType(36, "iq4_nl_4_4"),
    GgmlType(37, "iq4_nl_4_8"),
    GgmlType(38, "iq4_nl_8_8"),
    GgmlType(39, "mxfp4", 32, 1 + 32 // 2),
    GgmlType(40, "nvfp4", 64, 64 // 16 + 64 // 2),
    GgmlType(41, "q1_0", 128, _HALF + 128 // 8),
    GgmlType(42, "q2_0", 64, _HALF + 64 // 4),
)
"""By id: `TYPES[12].name` is "q4_K". Ids 4, 5, 31 to 33 and 36 to 38 are removed ones (ggml/include/ggml.h, `ggml_type`)."""

BY_NAME = {row.name: row for row in TYPES}

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1_SOME_F16", 5: "Q4_2", 6: "Q4_3", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1",
    10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 33: "Q4_0_4_4", 34: "Q4_0_4_8", 35: "Q4_0_8_8",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""general.file_type → the quant's name, as llama-quantize takes it (include/llama.h, `llama_ftype`)."""
_GUESSED = 1024


def row_size(type_: str, n: int) -> int:
    """Bytes of one row of `n` elements, as ggml_row_size.

    Raises:
        UnreadableError: ggml has no such type, or `n` is no multiple of its block.
    """
    row = BY_NAME.get(type_)
    if row is None or row.removed:
        raise UnreadableError(f"ggml has no type {type_[:40]!r}")
    if n % row.block:
        raise UnreadableError(f"a row of {n} elements is no multiple of {type_}'s block of {row.block}")
    return n // row.block * row.n_bytes


def type_name(type_id: int) -> str:
    """Ggml's name of a type id; "type_77" where today's ggml has none."""
    return TYPES[type_id].name if 0 <= type_id < len(TYPES) else f"type_{type_id}"


def file_type_name(file_type: int) -> str:
    """The name of a general.file_type, without llama.cpp's "guessed" bit (LLAMA_FTYPE_GUESSED)."""
    number = file_type & ~_GUESSED
    return FILE_TYPES.get(number, f"file type {number}")
