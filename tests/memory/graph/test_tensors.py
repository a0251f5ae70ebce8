"""Shapes, strides and the order of computation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.tensor import BLOCKS, is_contiguous, nbytes, nelements

small = st.integers(1, 6)
shapes = st.tuples(small, small, small, small)


@given(shapes, st.permutations(range(4)))
def test_permuting_back_restores_shape_and_strides(ne, axes):
    """ggml_permute with the inverse axes."""
    a = ggml.new_tensor("f32", *ne)
    back = [axes.index(i) for i in range(4)]

    b = ggml.permute(ggml.permute(a, *axes), *back)

    assert (b.ne, b.nb) == (a.ne, a.nb)
    assert is_contiguous(b)


@given(shapes, st.permutations(range(4)))
def test_a_view_has_its_sources_bytes_if_it_covers_it(ne, axes):
    """From the first element to the last."""
    a = ggml.new_tensor("f16", *ne)

    assert nbytes(ggml.permute(a, *axes)) == nbytes(a)
    assert nelements(ggml.permute(a, *axes)) == nelements(a)


@given(st.sampled_from(sorted(BLOCKS)), small, shapes)
def test_reshaping_keeps_the_bytes(type_, n, ne):
    """Whatever the block."""
    a = ggml.new_tensor(type_, BLOCKS[type_][0] * n, *ne[1:])
    flat = ggml.reshape(a, nelements(a))

    assert nbytes(flat) == nbytes(a)
    assert flat.view_src is a


def test_views_of_views_know_whose_memory_it_is():
    """view_src is never a view, offsets add up."""
    a = ggml.new_tensor("f32", 64, 8)
    v = ggml.view_2d(ggml.view_2d(a, 32, 8, a.nb[1], 128), 16, 8, a.nb[1], 64)

    assert v.view_src is a
    assert v.view_offs == 192
    assert not is_contiguous(v)
    assert nbytes(v) == 7 * a.nb[1] + 16 * 4


def test_contiguous_above_a_dimension():
    """ggml_is_contiguous_n lets lower dimensions have gaps."""
    a = ggml.new_tensor("f32", 64, 8, 4)
    half = ggml.view_3d(a, 32, 8, 4, a.nb[1], a.nb[2])

    assert [is_contiguous(half, n) for n in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("t", "type_", "ne"),
    [
        (ggml.mul_mat, "f32", (8, 3, 2, 1)),
        (lambda a, b: ggml.get_rows(a, ggml.new_input("i32", 5)), "f32", (16, 5, 1, 1)),
        (lambda a, b: ggml.concat(b, b, 1), "f16", (16, 6, 2, 1)),
        (lambda a, b: ggml.pad(b, 1, 2, 3, 4), "f16", (17, 5, 5, 5)),
        (lambda a, b: ggml.glu(b), "f16", (8, 3, 2, 1)),
        (lambda a, b: ggml.sum_rows(b), "f16", (1, 3, 2, 1)),
        (lambda a, b: ggml.argsort_top_k(b, 4), "i32", (4, 3, 2, 1)),
        (lambda a, b: ggml.top_k(b, 4), "i32", (4, 3, 2, 1)),
        (lambda a, b: ggml.cast(b, "f32"), "f32", (16, 3, 2, 1)),
        (lambda a, b: ggml.ssm_conv(ggml.new_tensor("f32", 10, 8, 2), ggml.new_tensor("f32", 4, 8)), "f32", (8, 7, 2, 1)),
    ],
)  # fmt: skip
def test_shapes_of_results(t, type_, ne):
    """As ggml.c computes them."""
    result = t(ggml.new_tensor("q8_0", 16, 8), ggml.new_tensor("f16", 16, 3, 2))

    assert (result.type, result.ne) == (type_, ne)


def test_a_graph_is_in_depth_first_order():
    """Sources before their readers, the first source first, nothing twice, leaves apart."""
    x, y = ggml.new_input("f32", 4), ggml.new_input("f32", 4)
    a, b = ggml.sqr(x), ggml.sqrt(y)
    c = ggml.add(b, a)
    gf = Graph()
    gf.expand(ggml.mul(c, a))
    gf.expand(c)

    assert [node.op for node in gf.nodes] == ["SQRT", "SQR", "ADD", "MUL"]
    assert gf.leafs == [y, x]


@given(st.lists(st.integers(0, 1 << 16), min_size=1, max_size=40))
def test_sources_always_come_before_their_readers(numbers):
    """Whatever the graph."""
    made = [ggml.new_input("f32", 4)]
    for number in numbers:
        made.append(ggml.add(made[number % len(made)], made[number // 7 % len(made)]))
    gf = Graph()
    gf.expand(made[-1])

    place = {id(node): i for i, node in enumerate(gf.nodes)}
    assert len(place) == len(gf.nodes)
    for node in gf.nodes:
        assert all(src in gf.leafs or place[id(src)] < place[id(node)] for src in node.src)
