"""What may be given up so that nothing of the model stays on the CPU, where the user has not fixed it."""

from collections.abc import Iterator, Sequence
from typing import Any

from fitplug.planner.climb import Grid
from fitplug.planner.records import Request
from fitplug.planner.search import Search

SMALL_UBATCH = 128
"""With fewer tokens at a time long prompts would be read much more slowly, and little more is saved."""
SMALL_CACHE = "q8_0"
_CACHE = ("type_k", "type_v")
Changes = dict[str, Any]


def concessions(search: Search, grid: Grid, request: Request, use: Sequence[int]) -> Iterator[Changes]:
    """Changes of settings, the cheapest first, of which the ledger thinks that everything could fit on the GPUs.

    A layer that stays on the CPU slows down every token. A smaller micro-batch slows down long prompts alone, a projector
    on the CPU pictures alone; neither changes what the model answers. For speed a cache of 8 bits comes before both.
    """
    if not use:
        return
    missing, around = search.shortage(grid.low, use), search.beyond_layers(grid.low, use)
    cache = small_cache(search, request) if request.goal == "speed" else {}
    if cache and search.variant(**cache).shortage(grid.low, use) <= 0:
        yield cache
    if missing > around:
        return
    for n in (2 * SMALL_UBATCH, SMALL_UBATCH) if _may_shrink(search) else ():
        if missing <= around * (1 - n / search.settings.n_ubatch):  # buffers grow no faster than the micro-batch
            yield {"n_ubatch": n} | ({"n_batch": n} if _is_tied(search) else {})
    if search.settings.mmproj is not None and search.settings.mmproj_offload and "mmproj_offload" not in search.given:
        yield {"mmproj_offload": False}


def _may_shrink(search: Search) -> bool:
    """Without causal attention a micro-batch must hold all of a picture (src/llama-context.cpp, llama_context::decode)."""
    return "n_ubatch" not in search.given and search.settings.mmproj is None and search.model.causal


def _is_tied(search: Search) -> bool:
    """Ollama has one number for the batch and the micro-batch."""
    return search.settings.n_batch == search.settings.n_ubatch and "n_batch" not in search.given


def small_cache(search: Search, request: Request) -> Changes:
    """K and V in 8 bits; nothing where the user has fixed them, or asks for quality above all."""
    without = search.settings.flash_attn == "off" or search.model.memory in ("none", "recurrent")
    if request.goal == "quality" or search.given & set(_CACHE) or without:
        return {}
    return dict.fromkeys(_CACHE, SMALL_CACHE)
