"""What Vulkan can do, and in which order it does it."""

import pytest

from fitplug.machine.backends import BACKENDS
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.backends import Uses
from fitplug.memory.graph.vulkan import VulkanBackend
from fitplug.memory.graph.vulkan_order import LOOKAHEAD, NUM_TO_CHECK
from graph_support import graph, on, weight

CARD = VulkanBackend("Vulkan0", BACKENDS["vulkan"]._replace(max_tensor_bytes=1 << 20))


def _ordered(*outputs):
    """The operations in the order in which Vulkan computes them, and what is kept until when."""
    nodes = graph(*outputs).nodes
    kept = []
    order = CARD.graph_optimize(nodes, None, Uses(nodes, {}), lambda t, until: kept.append((t, until)))
    return [nodes[i] for step in order for i in step.nodes], kept


def _weight(*ne):
    return weight("f32", *ne, buffer=on(0, name="Vulkan"))


def test_products_that_do_not_wait_for_each_other_stand_side_by_side():
    """Of two chains the beginnings come first."""
    x = ggml.new_input("f32", 32, 4)
    left, right = (ggml.silu(ggml.mul_mat(_weight(32, 32), x)) for _ in range(2))

    ops, _ = _ordered(ggml.add(left, right))

    assert [t.op for t in ops] == ["MUL_MAT", "MUL_MAT", "UNARY", "UNARY", "ADD"]


def test_a_norm_and_its_weight_stay_together():
    """One kernel computes both."""
    x = ggml.new_input("f32", 32, 4)
    normed = ggml.mul(ggml.rms_norm(x), _weight(32))
    other = ggml.mul_mat(_weight(32, 32), x)

    ops, _ = _ordered(ggml.add(normed, other))

    assert [t.op for t in ops] == ["RMS_NORM", "MUL", "MUL_MAT", "ADD"]


def test_every_node_is_computed_once_and_after_what_it_reads():
    """Whatever changes places."""
    x = ggml.new_input("f32", 32, 4)
    for _ in range(NUM_TO_CHECK):
        y = ggml.mul(ggml.rms_norm(x), _weight(32))
        a, b = (ggml.reshape(ggml.mul_mat(_weight(32, 32), y), 8, 4, 4) for _ in range(2))
        x = ggml.add(x, ggml.reshape(ggml.mul(ggml.silu(a), ggml.sqr(b)), 32, 4))

    ops, _ = _ordered(x)
    place = {id(t): i for i, t in enumerate(ops)}

    assert len(place) == len(ops) == 11 * NUM_TO_CHECK
    for t in ops:
        assert all(place[id(s)] < place[id(t)] for s in t.src if s is not None and id(s) in place)


def test_a_step_looks_no_further_than_it_says():
    """What lies behind may be anything."""
    x = ggml.new_input("f32", 32, 4)
    for _ in range(3 * LOOKAHEAD):
        x = ggml.sqr(x)
    nodes = graph(x).nodes

    order = CARD.graph_optimize(nodes, None, Uses(nodes, {}), lambda *_: None)

    assert all(max(step.nodes) < step.sees <= len(nodes) for step in order)
    assert order[0].sees == LOOKAHEAD


def test_what_routing_reads_lives_until_it_ends():
    """The logits are not overwritten by the weights of the experts, nor before a scale behind them."""
    logits = ggml.mul_mat(_weight(32, 8), ggml.new_input("f32", 32, 4))
    probs = ggml.soft_max(logits)
    ids = ggml.argsort_top_k(probs, 2)
    weights = ggml.get_rows(ggml.reshape(probs, 1, 8, 4), ids)
    out = ggml.scale(weights)

    _, kept = _ordered(out)

    assert any(t is logits and until is out for t, until in kept)


@pytest.mark.parametrize(("type_", "can"), [("q4_K", True), ("tq1_0", True), ("q8_K", False)])
def test_types_that_it_multiplies_with(type_, can):
    """ggml_backend_vk_device_supports_op."""
    assert CARD.supports_op(ggml.mul_mat(ggml.new_tensor(type_, 256, 8), ggml.new_tensor("f32", 256, 4))) == can


def test_a_tensor_that_is_longer_than_the_driver_allows_is_not_computed_with():
    """Neither as a source nor as a result."""
    x = ggml.new_input("f32", 1024, 1)

    assert CARD.supports_op(ggml.mul_mat(_weight(1024, 256), x))
    assert not CARD.supports_op(ggml.mul_mat(_weight(1024, 257), x))


@pytest.mark.parametrize(
    ("head_k", "head_v", "types", "can"),
    [(128, 128, ("f16", "f16"), True), (100, 100, ("f16", "f16"), False), (192, 128, ("q8_0", "q4_0"), True),
     (128, 128, ("bf16", "bf16"), True), (128, 128, ("bf16", "f16"), False), (128, 128, ("iq4_nl", "iq4_nl"), True)],
)  # fmt: skip
def test_flash_attention_takes_heads_of_whole_eights_and_mixed_types(head_k, head_v, types, can):
    """But bf16 only with bf16."""
    q = ggml.new_tensor("f32", head_k, 64, 8)
    k, v = ggml.new_tensor(types[0], head_k, 512, 8), ggml.new_tensor(types[1], head_v, 512, 8)

    assert CARD.supports_op(ggml.flash_attn_ext(q, k, v, ggml.new_input("f16", 512, 64))) == can
