"""How many tensors a graph may make: llama_context::graph_max_nodes (src/llama-context.cpp).

The context's memory for tensors has so many places, and making one more than that ends the program
(ggml_new_object: GGML_ASSERT(obj_new)). Only graphs that grow with sequences or passes come near.
"""

from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.memory.graph.params import GraphParams
from fitplug.model.records import Model

LEAST = 1024


class Places(NamedTuple):
    """The larger of these."""

    a_token: int
    a_tensor: int
    """Of the file."""


MOST = Places(0, 8)
_DEEP, _DEEPER = Places(40, 32), Places(160, 64)
PLACES = {
    **dict.fromkeys(("kimi-k3", "glm5-next"), _DEEPER),
    "hrm_text": Places(80, 64),
    **dict.fromkeys(
        ("qwen3next", "kimi-linear", "bailingmoe3", "qwen35", "qwen35moe", "qwen4exp", "deepseek4", "nanbeige", "minimax-01",
         "minimax-m3", "hy_v4"), _DEEP),
}  # fmt: skip
"""By general.architecture."""


def places(model: Model, n_tokens: int) -> int:
    """llama_context::graph_max_nodes, without adapters and samplers."""
    row = PLACES.get(model.drawn_as, MOST)
    if model.drawn_as == "dflash":
        row = _DEEP if model.hparam("dsv4_hc_mult") else Places(0, 12)
    return max(LEAST if row.a_token == 0 else row.a_token * n_tokens, row.a_tensor * len(model.header.tensors))


def check(params: GraphParams, n_made: int) -> None:
    """Of a graph that makes so many tensors.

    Raises:
        RefusedError: llama.cpp would abort.
    """
    model = params.model
    if not model.known or params.adapters or params.taps.sampled:
        return
    n_places = places(model, min(params.n_ctx, params.n_ubatch))
    if n_made > n_places:
        raise RefusedError(
            f"its graph makes {n_made} tensors for {params.n_seqs} sequences, and llama.cpp has place for {n_places}:"
            " it stops there; take fewer sequences or a longer micro-batch"
        )
