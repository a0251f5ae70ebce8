"""Which fused operations stay on: those that run on the device of the layer they belong to (llama_context::resolve_fused_ops).

llama.cpp draws a graph of one token per sequence and looks where the scheduler puts the fused nodes. What is off is drawn out
in single operations, or for flash attention as a product, a softmax and a product.
"""

from collections.abc import Callable
from dataclasses import replace

from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.params import GraphParams
from fitplug.memory.graph.scheduler import Scheduler

HYPER_CONNECTIONS = ("dsv4_hc_pre", "dsv4_hc_comb", "dsv4_hc_post")
"""In the order in which they are resolved. Gated delta nets and the lightning indexer are on without a trial."""

Draw = Callable[[GraphParams], GraphContext]


def runs_where_its_layer_lies(draw: Draw, params: GraphParams, op: str, *, op_offload: bool) -> bool:
    """The trial for one operation; `params` are for one token per sequence."""
    g = draw(replace(params, pin=True))
    nodes = [node for node in g.fused_nodes if node.op == op]
    if nodes:
        Scheduler(params.backends, op_offload=op_offload).assign(g.gf)
    return all(node.tensor.backend == params.layer_backends[node.il] for node in nodes)


def resolve(draw: Draw, params: GraphParams, *, op_offload: bool) -> dict[str, bool]:
    """What becomes of the hyper-connections' operations, one after another."""
    found: dict[str, bool] = {}
    if params.model.hparam("dsv4_hc_mult") > 0:
        for op in HYPER_CONNECTIONS:
            trial = replace(params, fused=dict(found))
            found[op] = runs_where_its_layer_lies(draw, trial, op, op_offload=op_offload)
    return found
