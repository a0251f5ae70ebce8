"""ggml's scheduler: who computes what, and what is copied."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.program import GraphAllocator
from fitplug.memory.graph.scheduler import MAX_COPIES, Scheduler
from fitplug.memory.graph.tensor import nbytes
from graph_support import cuda, graph, on, weight

HOST = on(1, name="CUDA_Host", host=True)


def _backends_of(gf, backends, **options):
    Scheduler(backends, **options).assign(gf)
    return [node.backend for node in gf.nodes]


def test_operations_follow_their_weights():
    """A layer on the CPU between two on the device."""
    x = ggml.new_input("f32", 256, 4)
    for buffer in (on(0), HOST, on(0)):
        x = ggml.mul_mat(weight("f32", 256, 256, buffer=buffer), x)

    assert _backends_of(graph(x), cuda()) == [0, 1, 0]


def test_long_batches_are_computed_on_the_device_with_a_copied_weight():
    """From 32 rows on, unless --no-op-offload; each copy starts a split, so that the room is reused."""

    def chain(n_tokens):
        x = ggml.new_input("f32", 256, n_tokens)
        for _ in range(3):
            x = ggml.mul_mat(weight("q8_0", 256, 256, buffer=HOST), x)
        return graph(x)

    assert _backends_of(chain(31), cuda()) == [1, 1, 1]
    assert _backends_of(chain(32), cuda()) == [0, 0, 0]
    assert _backends_of(chain(32), cuda(), op_offload=False) == [1, 1, 1]
    splits = Scheduler(cuda()).schedule(chain(32)).splits
    assert [[src.op for src in split.inputs] for split in splits] == [["NONE", "NONE"], ["NONE"], ["NONE"]]
    device, _ = GraphAllocator(cuda()).reserve(Scheduler(cuda()).schedule(chain(32)))
    row, matrix = 4 * 256 * 32, 256 * 8 * 34 + 256 // 32 * 34  # padded to rows of 512
    assert device == -(-matrix // 128) * 128 + 2 * row


def test_operations_without_weights_go_where_their_neighbours_are():
    """The device first; the CPU only between its own."""
    x = ggml.new_input("f32", 256, 4)
    x = ggml.silu(ggml.mul_mat(weight("f32", 256, 256, buffer=HOST), ggml.sqr(x)))
    x = ggml.sqr(ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), ggml.sqr(x)))

    assert _backends_of(graph(x), cuda()) == [1, 1, 0, 0, 0, 0]


def test_what_a_device_cannot_do_is_done_by_the_cpu():
    """And its result is copied back."""
    x = ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), ggml.new_input("f32", 256, 4))
    x = ggml.unary(x, "unknown")
    x = ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), x)
    gf = graph(x)

    assert _backends_of(gf, cuda()) == [0, 1, 0]
    assert [split.backend for split in Scheduler(cuda()).schedule(gf).splits] == [0, 1, 0]


def test_a_tensor_is_copied_once_to_each_device():
    """However many nodes read it there."""
    x = ggml.new_input("f32", 256, 4)
    y = ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), x)
    z = ggml.add(ggml.mul(y, ggml.mul_mat(weight("f32", 256, 256, buffer=on(1)), x)), y)
    schedule = Scheduler(cuda(2)).schedule(graph(z))

    assert [(split.backend, len(split.inputs)) for split in schedule.splits] == [(0, 1), (1, 2)]


def test_pipelines_keep_four_of_everything_that_crosses():
    """And four of each input on the host."""

    def chain():
        x = ggml.new_input("f32", 256, 64)
        for device in (0, 1):
            x = ggml.mul_mat(weight("f32", 256, 256, buffer=on(device)), x)
        return graph(x)

    size = 4 * 256 * 64
    sizes = [GraphAllocator(cuda(2)).reserve(Scheduler(cuda(2), n_copies=n).schedule(chain())) for n in (1, MAX_COPIES)]
    assert sizes == [[2 * size, 2 * size, size], [5 * size, 5 * size, 4 * size]]


def test_pinned_nodes_stay_where_they_were_put():
    """ggml_backend_sched_set_tensor_backend wins over weights and neighbours."""
    x = ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), ggml.new_input("f32", 256, 4))
    x.backend = 1

    assert _backends_of(graph(ggml.sqr(x)), cuda()) == [1, 1]


def test_a_kept_tensor_lives_until_the_node_that_asks_for_it():
    """CUDA's fused sum of experts reads them after they were weighed."""

    def experts(n_used):
        x = ggml.mul_mat(weight("f32", 256, 256, buffer=on(0)), ggml.new_input("f32", 256, n_used * 16))
        e = ggml.reshape(x, 256, n_used, 16)
        weighed = ggml.mul(ggml.cont(e), ggml.new_input("f32", 1, n_used, 16))
        gf = graph(weighed)
        weighed.is_output = False
        views = [ggml.view_2d(weighed, 256, 16, weighed.nb[2], i * weighed.nb[1]) for i in range(n_used)]
        for view in views:
            gf.expand(view)
        out = views[0]
        for view in views[1:]:
            out = ggml.add(out, view)
            gf.expand(out)
        out.is_output = True
        return gf

    few, many = (Scheduler(cuda()).schedule(experts(n)) for n in (15, 16))
    assert sum(node.op == "NONE" and len(node.src) > 1 for node in few.nodes) == 1
    assert not any(node.op == "NONE" and len(node.src) > 1 for node in many.nodes)
    assert nbytes(few.nodes[-1].src[0]) > 0
