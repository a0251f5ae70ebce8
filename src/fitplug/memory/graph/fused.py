"""Which fused operations stay on: those that run on the device of the layer they belong to (llama_context::resolve_fused_ops).

llama.cpp draws a graph of one token per sequence and looks where the scheduler puts the fused nodes. What is off is drawn out
in single operations, or for flash attention as a product, a softmax and a product.
"""

from collections.abc import Callable
from dataclasses import replace

from fitplug.memory.graph.context import FusedNode, GraphContext
from fitplug.memory.graph.layers import SHORT
from fitplug.memory.graph.params import GraphParams
from fitplug.memory.graph.scheduler import Scheduler

HYPER_CONNECTIONS = ("dsv4_hc_pre", "dsv4_hc_comb", "dsv4_hc_post")
"""In the order in which they are resolved. Gated delta nets and the lightning indexer are on without a trial."""

Draw = Callable[[GraphParams], GraphContext]


def runs_where_its_layer_lies(draw: Draw, params: GraphParams, op: str, *, op_offload: bool) -> bool:
    """The trial for one operation; `params` are for one token per sequence."""
    return _is_at_home(_scheduled(draw, params, {op}, op_offload=op_offload), params, op)


def resolve(draw: Draw, params: GraphParams, *, op_offload: bool) -> dict[str, bool]:
    """What becomes of the hyper-connections' operations, one after another.

    The graph is the same for the next one unless this one is now drawn out.
    """
    found: dict[str, bool] = {}
    if params.model.hparam("dsv4_hc_mult") > 0:
        nodes: list[FusedNode] | None = None
        for op in HYPER_CONNECTIONS:
            if nodes is None:
                trial = replace(params, fused=dict(found))
                nodes = _scheduled(draw, trial, set(HYPER_CONNECTIONS), op_offload=op_offload)
            found[op] = _is_at_home(nodes, params, op)
            if not found[op]:
                nodes = None
    return found


def _scheduled(draw: Draw, params: GraphParams, ops: set[str], *, op_offload: bool) -> list[FusedNode]:
    """The fused nodes of these kinds, with the backends that the scheduler gives them.

    Repetitions of layers are left out: a node's backend depends on its own layer's tensors and on the layers beside it.
    """
    g = draw(replace(params.keeping(SHORT), pin=True))
    nodes = [node for node in g.fused_nodes if node.op in ops]
    if nodes:
        Scheduler(params.backends, op_offload=op_offload).assign(g.gf)
    return nodes


def _is_at_home(nodes: list[FusedNode], params: GraphParams, op: str) -> bool:
    return all(node.tensor.backend == params.layer_backends[node.il] for node in nodes if node.op == op)
