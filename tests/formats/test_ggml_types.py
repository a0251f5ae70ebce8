"""The table of types agrees with gguf, the package, wherever that knows a type."""

import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from fitplug.errors import UnreadableError
from fitplug.formats.ggml_types import BY_NAME, FILE_TYPES, TYPES, file_type_name, row_size, type_name


def test_ids_are_places():
    assert [row.id for row in TYPES] == list(range(43))
    assert len(BY_NAME) == len(TYPES)


@pytest.mark.parametrize("kind", list(GGMLQuantizationType), ids=lambda kind: kind.name)
def test_sizes_are_those_of_the_package(kind):
    row = TYPES[kind]
    theirs = GGML_QUANT_SIZES[kind]
    if kind == GGMLQuantizationType.Q8_1:  # ggml-common.h has two halves before the quants; the package still has two floats
        theirs = (32, 2 * 2 + 32)

    assert (row.block, row.n_bytes) == theirs
    assert row.name.upper() == kind.name


def test_removed_types_have_no_size():
    assert [row.id for row in TYPES if row.removed] == [4, 5, 31, 32, 33, 36, 37, 38]
    with pytest.raises(UnreadableError, match="no type 'q4_0_4_4'"):
        row_size("q4_0_4_4", 256)


@pytest.mark.parametrize(
    ("name", "n", "n_bytes"),
    [
        ("f32", 3, 12),
        ("q4_K", 4096, 4096 // 256 * 144),
        ("q8_0", 64, 68),
        ("q2_0", 64, 18),
        ("mxfp4", 64, 34),
        ("nvfp4", 64, 36),
    ],
)
def test_row_size(name, n, n_bytes):
    assert row_size(name, n) == n_bytes


@pytest.mark.parametrize(("name", "n"), [("q4_K", 128), ("q8_0", 31), ("type_77", 256), ("Q4_K", 256)])
def test_what_has_no_size_is_refused(name, n):
    with pytest.raises(UnreadableError):
        row_size(name, n)


def test_unknown_ids_have_a_name():
    assert type_name(77) == "type_77"
    assert type_name(12) == "q4_K"
    assert type_name(43) == "type_43"


def test_file_types_are_those_of_the_package():
    theirs = {
        int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType if kind.name != "GUESSED"
    }

    assert {number: name for number, name in FILE_TYPES.items() if number in theirs} == theirs


def test_a_guessed_file_type_is_the_same_type():
    assert file_type_name(1024 | 15) == "Q4_K_M"
    assert file_type_name(99) == "file type 99"
