"""How a model makes one embedding of many tokens' (enum llama_pooling_type, include/llama.h)."""

from fitplug.model.records import Model
from fitplug.settings import Pooling

POOLINGS: dict[int, Pooling] = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}


def pooling_of(model: Model) -> Pooling:
    """As the file says (hparams.pooling_type); -1, like none at all, is "none" (llama_context's constructor)."""
    found = model.get("pooling_type")
    return POOLINGS.get(found, "none") if isinstance(found, int) else "none"
