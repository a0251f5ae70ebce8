"""ggml's allocator: where tensors lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.allocator import ENDLESS, MAX_CHUNKS, DynAllocator
from fitplug.memory.graph.one_chunk import is_one_chunk, move_in_one_chunk, moves_of
from fitplug.memory.graph.program import FREE, SHRINK, TAKE, GraphAllocator, take_steps
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.memory.graph.tensor import nbytes
from graph_support import CPU, cuda, graph, on, weight

ALIGN = 128
sizes = st.integers(1, 64).map(lambda n: n * ALIGN)
steps = st.lists(st.tuples(sizes, st.integers(0, 1 << 16)), max_size=60)


def _run(allocator, todo):
    """Allocate; free one of the living where the number is odd."""
    living = []
    for size, number in todo:
        if number % 2 and living:
            allocator.free(*living.pop(number % len(living)))
        living.append((allocator.alloc(size), size))
    return living


@given(steps)
def test_living_blocks_never_overlap(todo):
    """And all of them lie below the high-water mark."""
    allocator = DynAllocator(ALIGN)
    living = sorted(_run(allocator, todo))

    ends = [addr + size for addr, size in living]
    assert all(end <= addr for end, (addr, _) in zip(ends, living[1:], strict=False))
    assert max(ends, default=0) <= allocator.max_size


@given(steps)
def test_freeing_everything_leaves_one_block(todo):
    """Neighbours are merged, so the next allocation starts at the front."""
    allocator = DynAllocator(ALIGN)
    for addr, size in _run(allocator, todo):
        allocator.free(addr, size)

    assert all(len(chunk.free) == 1 for chunk in allocator.chunks)
    assert allocator.alloc(ALIGN) == 0


@given(steps)
def test_never_less_than_what_lives(todo):
    """The sum of what lives fits below the mark, and nothing more is taken than was ever asked for."""
    allocator = DynAllocator(ALIGN)
    living = _run(allocator, todo)

    assert sum(size for _, size in living) <= allocator.max_size <= sum(size for size, _ in todo)


def test_the_smallest_hole_that_is_large_enough_is_taken():
    """Best fit; of equals the last."""
    allocator = DynAllocator(ALIGN)
    blocks = [(allocator.alloc(n * ALIGN), n * ALIGN) for n in (4, 1, 2, 1, 2, 1)]
    for i in (0, 2, 4):
        allocator.free(*blocks[i])

    assert allocator.alloc(2 * ALIGN) == blocks[4][0]
    assert allocator.alloc(3 * ALIGN) == blocks[0][0]


def test_buffers_with_a_limit_are_cut_into_chunks():
    """What does not fit gets a chunk of its own size; the last chunk takes everything."""
    allocator = DynAllocator(ALIGN, 4 * ALIGN)
    for n in (3, 3, 9):
        allocator.alloc(n * ALIGN)
    assert [chunk.max_size // ALIGN for chunk in allocator.chunks] == [3, 3, 9]

    for _ in range(3 * MAX_CHUNKS):
        allocator.alloc(4 * ALIGN)
    assert len(allocator.chunks) == MAX_CHUNKS
    assert allocator.max_size == (15 + 4 * 3 * MAX_CHUNKS) * ALIGN


def _some_steps(todo, sizes):
    """Take, free and shrink blocks in any order, and how many blocks there are; `sizes` gets one for each that needs it."""
    made, living, n = [], [], 0
    for size, number in todo:
        kind = number % 4
        if kind > 1 and living:
            at = number // 4 % len(living)
            made.append((SHRINK, living[at], len(sizes)) if kind == 2 else (FREE, living.pop(at), 0))
        else:
            made.append((TAKE, n, len(sizes)))
            living.append(n)
            n += 1
        sizes.append(size)
    return made, n


@given(st.lists(st.tuples(st.integers(0, 12).map(lambda n: n * ALIGN), st.integers(0, 1 << 16)), min_size=1, max_size=150))
def test_steps_in_one_chunk_do_what_those_of_any_buffer_do(todo):
    """It goes on from the other's state, and says so where it cannot, as with blocks of nothing and blocks that grow."""
    allocator, sizes = DynAllocator(ALIGN), []
    made, n = _some_steps(todo, sizes)
    before, after = made[: len(made) // 3], made[len(made) // 3 :]
    places, lengths = [0] * n, [0] * n
    take_steps(before, sizes, [allocator] * n, places, lengths)
    if not (allocator.chunks and is_one_chunk(allocator.state())):
        return
    state, others = allocator.state(), ([*places], [*lengths])
    take_steps(after, sizes, [allocator] * n, places, lengths)

    found = _in_one_chunk(after, sizes, state, *others)
    if found is not None:
        assert found == allocator.state()
        assert others == (places, lengths)


def _in_one_chunk(todo, sizes, state, places, lengths):
    moves = moves_of(todo, sizes, lengths)
    return None if moves is None else move_in_one_chunk(moves, state, places)


@given(st.lists(st.tuples(sizes, st.integers(0, 1 << 16)), min_size=1, max_size=150))
def test_one_chunk_suffices_where_no_block_is_empty_or_grows(todo):
    """As in nearly all graphs: what is shrunk becomes half as large."""
    sizes = []
    made, n = _some_steps(todo, sizes)
    lengths = {}
    for kind, block, i in made:
        if kind == SHRINK:
            sizes[i] = lengths[block] // 2 // ALIGN * ALIGN or ALIGN
        if kind != FREE:
            lengths[block] = sizes[i]

    assert _in_one_chunk(made, sizes, ((0, 0, ENDLESS),), [0] * n, [0] * n) is not None


@pytest.mark.parametrize(
    ("step", "size", "at"),
    [((TAKE, 0, 0), 1 << 56, 0), ((FREE, 0, 0), 0, ALIGN), ((FREE, 0, 0), 4 * ALIGN, 0), ((SHRINK, 0, 0), ALIGN, 0)],
    ids=["too large", "empty", "free in part", "larger"],
)
def test_what_one_chunk_cannot_say_is_left_to_other_buffers(step, size, at):
    """Of a buffer whose first three blocks are taken; the last step makes a block of nothing larger."""
    allocator = DynAllocator(ALIGN)
    allocator.alloc(3 * ALIGN)
    lengths = [0 if step[0] == SHRINK else size]

    assert _in_one_chunk([step], [size], allocator.state(), [at], lengths) is None


@pytest.mark.parametrize("chunk", [(256, 0, 0, 256, ENDLESS - 256), (256, 0, 128, 128, ENDLESS - 128), (256, 0, 256)])
def test_nor_is_a_state_taken_for_one_chunk_that_is_not(chunk):
    """With an empty block, with two that touch each other, and with an end."""
    assert not is_one_chunk((chunk,))
    assert not is_one_chunk(())


def _kept_input(type_, *ne):
    """An input that stays: an output is never freed."""
    t = ggml.new_input(type_, *ne)
    t.is_output = True
    return t


def _reserve(backends, *outputs, **options):
    allocator = GraphAllocator(backends)
    return allocator.reserve(Scheduler(backends, **options).schedule(graph(*outputs)))


def test_a_result_takes_the_memory_of_a_source_that_nobody_else_reads():
    """Ten operations in place need one tensor; with a second reader they need two."""
    x = ggml.new_input("f32", 1024)
    y = ggml.cont(x)
    for _ in range(10):
        y = ggml.scale(y)
    size = nbytes(x)

    assert _reserve([CPU], y) == [2 * size]


def test_a_source_with_a_second_reader_is_kept():
    """The residual of every layer."""
    x = _kept_input("f32", 1024)
    y = ggml.cont(x)
    z = ggml.add(ggml.rms_norm(y), y)

    assert _reserve([CPU], z) == [3 * nbytes(x)]


def test_a_views_memory_is_not_taken():
    """rope(reshape(x)) is not in place, rope(rope(x)) is."""
    x = _kept_input("f32", 64, 16)
    pos = _kept_input("i32", 16)
    once = ggml.rope_ext(ggml.reshape(ggml.cont(x), 64, 1, 16), pos)

    size, of_pos = nbytes(x), nbytes(pos)
    assert _reserve([CPU], ggml.rope_ext(once, pos)) == [3 * size + of_pos]


def test_outputs_are_never_reused():
    """A graph's output stays while later tensors come and go; an input is free after its last reader."""
    x = ggml.new_input("f32", 1024)
    first = ggml.cont(x)
    second = ggml.cont(ggml.cont(first))

    assert _reserve([CPU], first, second) == [3 * nbytes(x)]


def test_a_smaller_result_in_place_gives_the_rest_back():
    """Attention's f16 copies of K and V are free once its result is taken over."""
    k, v = (weight("q8_0", 128 * 8, 4096, buffer=on(0, weights=False)) for _ in "kv")
    q = ggml.new_input("f32", 128, 32, 64)
    mask = ggml.new_input("f16", 4096, 64)
    k, v = (ggml.permute(ggml.view_3d(t, 128, 8, 4096, 136, 136 * 8), 0, 2, 1, 3) for t in (k, v))
    attn = ggml.flash_attn_ext(ggml.permute(q, 0, 2, 1, 3), k, v, mask)
    backends = cuda()
    f16_copies = 2 * 2 * 128 * 8 * 4096

    assert backends[0].alloc_size(attn) == nbytes(attn) + f16_copies
    device, _ = _reserve(backends, ggml.cont(ggml.scale(attn)))
    assert device == nbytes(q) + nbytes(mask) + nbytes(attn) + f16_copies


def test_what_is_in_a_buffer_already_is_not_allocated():
    """Weights and caches cost nothing here."""
    w = weight("q4_K", 4096, 4096, buffer=on(0))
    x = ggml.new_input("f32", 4096, 8)

    device, host = _reserve(cuda(), ggml.mul_mat(w, x))
    assert (device, host) == (2 * nbytes(x), nbytes(x))
