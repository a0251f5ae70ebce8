"""Which fused operations stay on: those that run on the device of the layer they belong to (llama_context::resolve_fused_ops).

llama.cpp draws a graph of one token per sequence and looks where the scheduler puts the fused nodes. What is off is drawn out
in single operations, or for flash attention as a product, a softmax and a product.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.layers import TRIED
from fitplug.memory.graph.params import GraphParams
from fitplug.memory.graph.scheduler import Scheduler

HYPER_CONNECTIONS = ("dsv4_hc_pre", "dsv4_hc_comb", "dsv4_hc_post")
"""In the order in which they are resolved. Gated delta nets and the lightning indexer are on without a trial."""


def resolve(trial: Callable[[GraphParams], Mapping[str, bool]], params: GraphParams) -> dict[str, bool]:
    """Which of the hyper-connections' operations are turned off, one after another; `params` are for one token per sequence.

    The graph is the same for the next one unless this one is now drawn out.
    """
    found: dict[str, bool] = {}
    if params.model.hparam("dsv4_hc_mult") > 0:
        at_home: Mapping[str, bool] | None = None
        for op in HYPER_CONNECTIONS:
            if at_home is None:
                at_home = trial(replace(params, fused=dict(found)))
            if not at_home.get(op, True):
                found[op] = False
                at_home = None
    return found


def run_where_their_layers_lie(
    draw: Callable[[GraphParams], GraphContext], params: GraphParams, *, op_offload: bool
) -> dict[str, bool]:
    """The trial: whether all nodes of each fused operation do.

    Repetitions of layers are left out: a node's backend depends on its own layer's tensors and on the layers beside it.
    """
    g = draw(replace(params.keeping(TRIED), pin=True))
    if g.fused_nodes:
        Scheduler(params.backends, op_offload=op_offload).assign(g.gf)
    found: dict[str, bool] = {}
    for node in g.fused_nodes:
        found[node.op] = found.get(node.op, True) and node.tensor.backend == params.layer_backends[node.il]
    return found
