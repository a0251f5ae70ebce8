"""Which layers are what: windowed, recurrent, with an index cache, MTP blocks; each kind of row has its rule here."""

from fitplug.model.architectures import Row, Window
from fitplug.model.hparams_record import Hparams
from fitplug.model.reading import MAX_LAYERS, Keys

GLM_INDEXER_BLOCKS = 78
"""Entries of GLM_5_2_DEFAULT_INDEXER_TYPES (src/models/glm-dsa.cpp): two full ones, then one full of every four."""
GLM_LONG_CONTEXT = 1048576
"""Trained length from which that table holds; before it every layer has an indexer of its own."""


def loop_blocks(keys: Keys, row: Row, h: Hparams) -> None:
    """What changes the number of blocks, or how many of them have a cache."""
    if row.nextn_probe and f"blk.{h.n_layer}.nextn.eh_proj.weight" not in keys.header.tensors:
        h.n_layer_nextn = 0
    if row.loops:
        _loops(keys, h)
    if row.router:
        _router(keys, h)
    if row.kv_from_start:
        shared = keys.u32(row.kv_from_start) if isinstance(row.kv_from_start, str) else None
        h.n_layer_kv_from_start = row.kv_from_start if isinstance(row.kv_from_start, int) else h.n_layer_all - (shared or 0)
        if h.n_layer_kv_from_start < 2:
            keys.refuse("fewer than two layers have a cache of their own")


def _loops(keys: Keys, h: Hparams) -> None:
    """src/models/nanbeige.cpp: the blocks run several times, each pass with a cache of its own."""
    n_loops, n_phys = keys.u32("num_loops", 1), h.n_layer
    h.extra["n_layer_phys"] = n_phys
    if not 1 <= n_loops <= MAX_LAYERS or n_loops * n_phys > MAX_LAYERS:
        keys.refuse(f"{n_loops} loops over {n_phys} blocks, at most {MAX_LAYERS} layers are possible")
        n_loops = 1
    h.extra["n_loops"] = n_loops
    if n_loops > 1:
        for name in ("n_head", "n_head_kv", "n_ff", "n_ff_exp", "n_expert_used"):
            setattr(h, name, getattr(h, name)[:n_phys] * n_loops)
        h.n_layer_all = n_phys * n_loops


def _router(keys: Keys, h: Hparams) -> None:
    """src/models/granite-switch.cpp: one more block with a single head, counted as an MTP block."""
    n = h.n_layer
    if n >= MAX_LAYERS:
        keys.refuse(f"{n} blocks leave no room for the router's")
        return
    h.router_layer, h.n_layer_all, h.n_layer_nextn = n, n + 1, 1
    h.n_head, h.n_head_kv, h.n_ff = (*h.n_head[:n], 1), (*h.n_head_kv[:n], 1), (*h.n_ff[:n], 0)
    h.n_ff_exp, h.n_expert_used = (*h.n_ff_exp[:n], 0), (*h.n_expert_used[:n], 0)


def recurrent_layers(keys: Keys, row: Row, h: Hparams) -> None:
    """llama_hparams::is_recr_impl."""
    n = h.n_layer_all
    if row.recurrent is None:
        h.is_recr = (False,) * n
    elif row.recurrent in ("all", "both"):
        h.is_recr = (True,) * n
    elif row.recurrent == "interval":
        h.is_recr = _all_but_every(keys, row, h)
    else:
        with_ff = row.recurrent == "no_kv_heads"
        h.is_recr = tuple(il < h.n_layer and not h.n_head_kv[il] and (with_ff or not h.n_ff[il]) for il in range(n))


def _all_but_every(keys: Keys, row: Row, h: Hparams) -> tuple[bool, ...]:
    if keys.value("attention.recurrent_layers") is not None:
        return tuple(bool(v) for v in keys.per_layer("attention.recurrent_layers", h.n_layer_all))
    interval = keys.u32("full_attention_interval", row.interval)
    if interval == 0:
        keys.refuse("full_attention_interval is 0")
        interval = row.interval
    return tuple(il < h.n_layer and (il + 1) % interval != 0 for il in range(h.n_layer_all))


def windowed_layers(keys: Keys, row: Row, h: Hparams) -> None:
    """llama_hparams::n_swa, swa_type and is_swa_impl."""
    window = row.window
    h.is_swa = (False,) * h.n_layer_all
    if window is None:
        return
    if window.key == "required":
        keys.need("attention.sliding_window")
    stated = keys.value("attention.sliding_window") is not None
    h.n_swa = keys.u32("attention.sliding_window", window.default)
    hyper = window.layers == "draft" and h.extra.get("dsv4_hc_mult", 0) > 0
    windowed = {
        "always": True, "never": False, "window": h.n_swa > 0 or hyper, "not_zero": not stated or h.n_swa > 0,
        "n_layer_64": h.n_layer == 64,
    }[window.when]  # fmt: skip
    if window.when == "never":
        h.n_swa = 0
    if not windowed:
        return
    h.n_swa, h.swa_type = window.forced or h.n_swa, window.kind
    h.is_swa = (True,) * h.n_layer_all if hyper else _windowed(keys, window, h)
    if row.memory == "kv" and not any(h.is_swa[: h.n_layer_all]):
        keys.refuse("it has a sliding window and no layer that uses it")


def lent_cells(keys: Keys, h: Hparams) -> None:
    """Layers without cells of their own read those of one of the last two that have some (llama_model::create_memory).

    These must be of their kind: llama_kv_cache asserts that the cache of windowed layers, or the other, has it.
    """
    start = h.n_layer_kv_from_start
    if start >= 2 and any(h.is_swa[start - (2 if swa else 1)] != swa for swa in h.is_swa[start:]):
        keys.refuse(f"layers from {start} on read the cells of the two before, and these are not of their kinds")


def _windowed(keys: Keys, window: Window, h: Hparams) -> tuple[bool, ...]:
    n = h.n_layer_all
    if window.layers == "all":
        return (True,) * n
    if window.layers == "attention":
        return tuple(il < h.n_layer and not h.is_recr[il] for il in range(n))
    key = "attention.sliding_window_pattern"
    pattern = keys.array(key)
    if pattern is not None:
        return tuple(bool(v) for v in (pattern + (0,) * n)[:n])
    if window.layers != "pattern":
        keys.refuse(f"the array {keys.full(key)} is missing")
        return (False,) * n
    return _periodic(keys.u32(key, window.period), window.dense_first, h)


def _periodic(period: int, dense_first: bool, h: Hparams) -> tuple[bool, ...]:
    """llama_hparams::set_swa_pattern."""

    def is_swa(il: int) -> bool:
        return period == 0 or (il % period != 0 if dense_first else il % period < period - 1)

    return tuple(il < h.n_layer and is_swa(il) for il in range(h.n_layer_all))


def indexer_layers(keys: Keys, row: Row, h: Hparams) -> None:
    """llama_hparams::is_indexer_full_impl, and which of these layers an index cache is made for."""
    n, rule = h.n_layer, row.indexer
    key = "attention.indexer.types"
    full: tuple[int, ...] = (0,) * n
    if rule in ("all", "full"):
        full = (1,) * n
    elif rule == "dense_lead":
        full = tuple(int(il >= h.extra.get("n_layer_dense_lead", 0)) for il in range(h.n_layer_all))
    elif rule == "glm":
        old = h.n_ctx_train < GLM_LONG_CONTEXT
        full = tuple(int(old or il < 2 or (il < GLM_INDEXER_BLOCKS and (il - 2) % 4 == 0)) for il in range(n))
    if rule == "array":
        full = ((keys.array(key) or ()) + (0,) * n)[:n]
    elif rule in ("glm", "full", "shared") and keys.value(key) is not None:
        full = keys.per_layer(key, n)
    if rule == "shared" and h.extra.get("indexer_top_k", 0) > 0 and not full[0]:
        keys.refuse("the first layer has no indexer of its own")
    h.is_indexer_full = tuple(bool(v) for v in full) + (False,) * (h.n_layer_all - len(full))


def ple_layers(keys: Keys, row: Row, h: Hparams) -> None:
    """src/models/qwen4exp.cpp: layers with per-layer embeddings, which keep a convolution history."""
    if row.memory != "hybrid_idx":
        return
    h.ple_layers = keys.array("ple.layers") or ()
    if len(h.ple_layers) > 1 or any(not 0 <= il < h.n_layer_all or not h.is_recr[il] for il in h.ple_layers):
        keys.refuse("ple.layers is not one linear attention layer")
