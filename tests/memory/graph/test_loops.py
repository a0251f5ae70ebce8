"""Repetitions that are left out are run all the same."""

from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.layers import SHORT, Cut, Run, shortened
from fitplug.memory.graph.loops import find_loops
from fitplug.memory.graph.program import GraphAllocator
from fitplug.memory.graph.scheduler import MAX_COPIES, Scheduler
from graph_support import cuda, on, weight

WIDTH, TOKENS = 256, 64
sizes = st.integers(1, 6).map(lambda n: n * 128)
blocks = st.one_of(
    st.tuples(st.just("product"), sizes, st.integers(0, 1)),
    st.tuples(st.sampled_from(["own leaf", "shared input", "in place", "norm"]), sizes, st.just(0)),
)
layers = st.lists(blocks, min_size=1, max_size=6)


def _block(kind, width, backend, cur, shared):
    """A part of a layer, of the residual's shape."""
    if kind == "product":
        up = ggml.mul_mat(weight("f16", WIDTH, width, buffer=on(backend, host=backend > 0)), cur)
        return ggml.mul_mat(weight("f16", width, WIDTH, buffer=on(0)), ggml.silu(up))
    if kind == "own leaf":
        zeros = ggml.fill(ggml.new_tensor("f32", WIDTH, TOKENS, width // 128))
        return ggml.add(cur, ggml.view_2d(zeros, WIDTH, TOKENS, zeros.nb[1]))
    if kind == "shared input":
        return ggml.add(ggml.cont(cur), shared)
    return ggml.scale(cur) if kind == "in place" else ggml.rms_norm(cur)


def _graph(layer, classes, cut):
    """Layers with a residual; `cut` None: all of them."""
    gf = Graph()
    cur, shared = ggml.new_input("f32", WIDTH, TOKENS), ggml.new_input("f32", WIDTH, TOKENS)
    kept = [(il, None) for il in range(len(classes))] if cut is None else shortened(classes, cut)
    for _, run in kept:
        if run is not None:
            gf.marks.append((len(gf.nodes), run))
        residual = cur
        for kind, width, backend in layer:
            gf.expand(cur)  # of a layer's last part some is drawn with the next
            cur = _block(kind, width, backend, cur, shared)
        cur = ggml.add(cur, residual)
    cur.is_output = True
    gf.expand(cur)
    return gf


def _program(gf, n_copies):
    backends = cuda()
    allocator = GraphAllocator(backends)
    program = allocator.program(Scheduler(backends, n_copies=n_copies).schedule(gf))
    return program, allocator.sizes()


@given(layers, st.integers(6, 24), st.sampled_from([1, MAX_COPIES]))
def test_a_run_goes_on_as_its_middle_does(layer, n, n_copies):
    """Whatever the layers are: cut or whole, every buffer is as large; or the run is told to be unlike."""
    classes = ["layer"] * n
    whole, its_sizes = _program(_graph(layer, classes, None), n_copies)
    expected = whole.run(its_sizes)
    cut = SHORT
    while True:
        program, program_sizes = _program(_graph(layer, classes, cut), n_copies)
        unlike = find_loops(program, program_sizes)
        if not unlike:
            break
        cut = cut.longer(unlike)

    left_out = [run.left_out for run in dict.fromkeys(mark.run for mark in program.marks)]
    assert program.run(program_sizes, left_out) == expected


def test_leafs_of_each_layer_all_lie_there_from_the_start():
    """Nothing is cut from what they take."""
    layer = [("own leaf", 512, 0)]
    program, program_sizes = _program(_graph(layer, ["layer"] * 12, Cut(5)), 1)

    assert not find_loops(program, program_sizes)
    assert len(program.loops[0].leafs) == 1
    assert sum(program.run(program_sizes, [7])) > 12 * WIDTH * TOKENS * 4 * 4


def test_what_stays_is_not_cut():
    """A tensor that every layer leaves to the end."""
    gf, left = Graph(), []
    cur = ggml.new_input("f32", WIDTH, TOKENS)
    run = Run(0, ("layer",), 4)
    for _ in range(4):
        gf.marks.append((len(gf.nodes), run))
        cur = ggml.rms_norm(cur)
        left.append(ggml.cont(cur))
        gf.expand(left[-1])
    for t in left:
        cur = ggml.add(cur, t)
    cur.is_output = True
    gf.expand(cur)
    program, program_sizes = _program(gf, 1)

    assert find_loops(program, program_sizes) == [run]
