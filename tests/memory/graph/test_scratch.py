"""What kernels take from CUDA's pool, by the rules of cards that nobody lent; fixtures/cards has what a card showed."""

import pytest

from fitplug.memory.graph.cuda import CudaBackend
from fitplug.memory.graph.scratch import ALIGNMENT, GRANULARITY, pool_bytes
from fitplug.memory.graph.tensor import ACC_F32, Tensor, new_tensor
from fitplug.units import MIB, pad

N, ROWS, COLUMNS = 4096, 14336, 512
MATRIX = N * ROWS


def _card(cc, **more):
    return CudaBackend("CUDA0", 0, cc=cc, **more)


def _product(kind, columns=COLUMNS, *, of="f32", param=None):
    t = Tensor("MUL_MAT", "f32", (ROWS, columns, 1, 1), [new_tensor(kind, N, ROWS), new_tensor(of, N, columns)])
    t.param = param
    return t


def _up(*sizes):
    return pad(sum(pad(n, ALIGNMENT) for n in sizes), GRANULARITY)


@pytest.mark.parametrize(
    ("card", "product", "taken"),
    [
        pytest.param(_card(70), _product("q4_K"), (MATRIX * 2, N * COLUMNS * 2), id="Volta unpacks quants for cuBLAS"),
        pytest.param(
            _card(70), _product("q4_K", 32), (N * 36 // 32 * 32 + 32 * 144, 128 * 32 * 128 * 4), id="but not for few columns"
        ),
        pytest.param(_card(61), _product("f16"), (MATRIX * 4,), id="without fast halves all is f32"),
        pytest.param(
            _card(61), _product("q4_K"), (N * 36 // 32 * COLUMNS + 128 * 144,), id="DP4A multiplies quants as they are"
        ),
        pytest.param(
            _card(60), _product("q4_K"), (MATRIX * 2, N * COLUMNS * 2, ROWS * COLUMNS * 2), id="before DP4A it unpacks"
        ),
        pytest.param(_card(75), _product("bf16"), (MATRIX * 4,), id="without bf16 many columns take f32"),
        pytest.param(
            _card(89), _product("f16"), (N * COLUMNS * 2, ROWS * COLUMNS * 2), id="halves of activations and of the result"
        ),
        pytest.param(_card(89), _product("f16", param=ACC_F32), (MATRIX * 4,), id="sums in f32 take the matrix in f32"),
        pytest.param(_card(89), _product("f16", 8), (), id="few columns are multiplied by hand"),
        pytest.param(_card(89), _product("f16", of="f16"), (ROWS * COLUMNS * 2,), id="activations that are halves stay"),
    ],
)
def test_products_take_what_their_kernel_takes(card, product, taken):
    """ggml_cuda_mul_mat and what it calls."""
    assert pool_bytes([product], card) == _up(*taken)


def test_experts_that_cublas_multiplies_are_sorted_first():
    """ggml_cuda_mul_mat_id: numbers, activations, results, and the hungriest expert's product."""
    experts, ids = new_tensor("bf16", 768, 2048, 128), new_tensor("i32", 8, COLUMNS)
    t = Tensor("MUL_MAT_ID", "f32", (2048, 8, COLUMNS, 1), [experts, new_tensor("f32", 768, 8, COLUMNS), ids])
    rows = 8 * COLUMNS

    assert pool_bytes([t], _card(90)) == _up(rows * 8, rows * 768 * 2, rows * 2048 * 4)


def test_the_hungriest_decides():
    small, large = _product("f16", 64), _product("f16", 2048)
    card = _card(89)

    assert pool_bytes([small, large, small], card) == pool_bytes([large], card) > pool_bytes([small], card)
    assert pool_bytes([], card) == 0


def test_long_rows_are_sorted_in_chunks():
    """A few rows of 128k scores, or many: never more than three times 64 MiB."""
    few, many = (
        Tensor("ARGSORT", "i32", (n, rows, 1, 1), [new_tensor("f32", n, rows)]) for n, rows in ((1 << 17, 8), (1 << 17, 512))
    )
    bitonic = Tensor("ARGSORT", "i32", (512, 512, 1, 1), [new_tensor("f32", 512, 512)])

    assert pool_bytes([few], _card(89)) == 3 * 4 * MIB
    assert pool_bytes([many], _card(89)) == 3 * 64 * MIB
    assert pool_bytes([bitonic], _card(89)) == 0
