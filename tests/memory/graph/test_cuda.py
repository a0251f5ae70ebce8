"""What CUDA can do, and what it takes."""

import pytest

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.cuda import CudaBackend
from fitplug.memory.graph.devices import amd_cores
from fitplug.memory.graph.tensor import nbytes
from graph_support import on, weight

AMPERE, ADA, PASCAL = (CudaBackend("CUDA0", 0, cc=cc) for cc in (86, 89, 61))


def _attention(head_k, head_v, *, n_tokens=64, type_="f16", n_head=32, n_head_kv=8, n_kv=4096):
    q = ggml.permute(ggml.new_tensor("f32", head_k, n_head, n_tokens), 0, 2, 1, 3)
    k = ggml.permute(ggml.new_tensor(type_, head_k, n_head_kv, n_kv), 0, 2, 1, 3)
    v = ggml.permute(ggml.new_tensor(type_, head_v, n_head_kv, n_kv), 0, 2, 1, 3)
    return ggml.flash_attn_ext(q, k, v, ggml.new_input("f16", n_kv, n_tokens))


@pytest.mark.parametrize(
    ("head_k", "head_v", "heads", "can"),
    [(128, 128, (32, 8), True), (64, 64, (8, 8), True), (128, 64, (32, 8), False), (100, 100, (32, 8), False),
     (192, 128, (32, 4), True), (192, 128, (16, 4), False), (576, 512, (128, 1), True), (576, 512, (1, 1), False),
     (512, 512, (8, 4), True), (320, 256, (32, 1), True), (320, 256, (16, 1), False)],
)  # fmt: skip
def test_head_sizes_of_flash_attention(head_k, head_v, heads, can):
    """ggml_cuda_get_best_fattn_kernel."""
    n_head, n_head_kv = heads
    assert AMPERE.supports_op(_attention(head_k, head_v, n_head=n_head, n_head_kv=n_head_kv)) == can


def test_types_that_no_kernel_reads():
    """iq4_nl caches are computed by the CPU."""
    assert not AMPERE.supports_op(_attention(128, 128, type_="iq4_nl"))
    assert AMPERE.supports_op(_attention(128, 128, type_="q5_1"))


@pytest.mark.parametrize("type_", ["bf16", "q8_0", "q4_0", "q5_1", "f32"])
def test_caches_that_are_not_f16_are_copied_for_prompts(type_):
    """K and V each, the whole cache."""
    attn = _attention(128, 128, type_=type_)

    assert AMPERE.alloc_size(attn) == nbytes(attn) + 2 * 2 * 128 * 8 * 4096
    assert AMPERE.alloc_size(_attention(128, 128)) == nbytes(attn)


@pytest.mark.parametrize(("type_", "copied"), [("q8_0", False), ("q4_0", False), ("q5_1", True), ("bf16", False)])
@pytest.mark.parametrize("device", [ADA, PASCAL], ids=["ada", "pascal"])
def test_one_token_is_computed_without_a_copy_if_there_is_a_kernel(device, type_, copied):
    """The vector kernel of this pair of types, where it was built."""
    attn = _attention(128, 128, type_=type_, n_tokens=1, n_head=8)

    assert (device.alloc_size(attn) > nbytes(attn)) == copied


def test_v_that_is_a_part_of_k_is_not_copied_twice():
    """MLA."""
    k = ggml.permute(ggml.new_tensor("q8_0", 576, 1, 4096), 0, 2, 1, 3)
    v = ggml.view_4d(k, 512, *k.ne[1:], *k.nb[1:])
    q = ggml.permute(ggml.new_tensor("f32", 576, 128, 64), 0, 2, 1, 3)
    attn = ggml.flash_attn_ext(q, k, v, ggml.new_input("f16", 4096, 64))

    assert AMPERE.alloc_size(attn) == nbytes(attn) + 2 * 576 * 4096


def test_quantised_rows_are_padded_once():
    """MATRIX_ROW_PADDING: only rows that are no multiple of 512 elements."""
    assert AMPERE.alloc_size(ggml.new_tensor("q8_0", 512, 10)) == 10 * 544
    assert AMPERE.alloc_size(ggml.new_tensor("q8_0", 256, 10)) == 10 * 272 + 272
    assert AMPERE.alloc_size(ggml.new_tensor("f16", 256, 10)) == 10 * 512


def test_weights_of_another_device_cannot_be_read():
    """Only beside other CUDA devices is there anything to look for."""
    here = CudaBackend("CUDA0", 0, alone=False)
    x = ggml.new_input("f32", 256, 4)

    assert here.supports_op(ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), x))
    assert not here.supports_op(ggml.mul_mat(weight("f32", 256, 256, buffer=on(1)), x))
    assert here.supports_op(ggml.mul_mat(weight("f32", 256, 256, buffer=on(2, host=True)), x))


@pytest.mark.parametrize(("type_", "can"), [("q4_K", True), ("tq1_0", False), ("tq2_0", False), ("mxfp4", True)])
def test_types_that_it_multiplies_with(type_, can):
    """ggml_backend_cuda_device_supports_op."""
    assert AMPERE.supports_op(ggml.mul_mat(ggml.new_tensor(type_, 256, 8), ggml.new_tensor("f32", 256, 4))) == can


def test_batches_that_are_worth_a_copied_weight():
    """Rows of a product, tokens of an experts' product, never a look-up."""
    w, x = ggml.new_tensor("f32", 64, 64), ggml.new_tensor("f32", 64, 32)
    ids = ggml.new_input("i32", 4, 31)
    experts = ggml.mul_mat_id(ggml.new_tensor("f32", 64, 64, 8), ggml.new_tensor("f32", 64, 1, 31), ids)

    assert AMPERE.offloads_op(ggml.mul_mat(w, x))
    assert not AMPERE.offloads_op(ggml.mul_mat(w, ggml.new_tensor("f32", 64, 31)))
    assert not AMPERE.offloads_op(experts)
    assert not AMPERE.offloads_op(ggml.get_rows(w, ggml.new_input("i32", 64)))


@pytest.mark.parametrize(
    ("target", "cores"),
    [("gfx906", "none"), ("gfx908", "mfma"), ("gfx90a", "mfma"), ("gfx90c", "none"), ("gfx942:sramecc+", "mfma"),
     ("gfx1030", "none"), ("gfx1100", "wmma"), ("gfx1151", "wmma"), ("gfx1201", "wmma"), (None, "wmma")],
)  # fmt: skip
def test_amd_cards_by_their_matrix_cores(target, cores):
    """GGML_CUDA_CC_IS_CDNA, _RDNA3 and _RDNA4 (ggml/src/ggml-cuda/common.cuh)."""
    assert amd_cores(target) == cores


@pytest.mark.parametrize(
    ("cores", "head", "n_head", "copied"),
    [("none", 128, 32, False), ("wmma", 128, 32, False), ("wmma", 128, 64, True), ("wmma", 256, 64, False),
     ("mfma", 64, 64, True), ("mfma", 128, 64, False)],
)  # fmt: skip
def test_two_tokens_are_computed_by_vectors_on_amd_unless_many_heads_share_a_key(cores, head, n_head, copied):
    """The vector kernel reads a quantised cache as it is; the one for matrix cores wants it in f16."""
    attn = _attention(head, head, type_="q8_0", n_tokens=2, n_head=n_head)

    assert (CudaBackend("ROCm0", 0, amd=cores).alloc_size(attn) > nbytes(attn)) == copied
