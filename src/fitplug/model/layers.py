"""The layers of a model, with the widths of whatever memory each one has (llama_model::create_memory)."""

from fitplug.model.architectures import Row
from fitplug.model.hparams_record import Hparams
from fitplug.model.records import Layer, MemoryKind

CSA_RATIO, HCA_RATIO = 4, 128
"""DSV4_CSA_RATIO, DSV4_HCA_RATIO (src/llama-kv-cache-dsv4.h): how many tokens one compressed cell stands for."""


def memory_kind(h: Hparams, row: Row) -> MemoryKind:
    """Which memory class llama_model::create_memory makes."""
    if row.memory == "dsa" and row.indexer == "shared" and not h.extra.get("indexer_top_k", 0):
        return "kv"
    if h.swa_type is not None and row.memory == "kv":
        return "iswa"
    if h.swa_type is not None and row.memory == "hybrid":
        return "hybrid_iswa"
    return row.memory


def build_layers(h: Hparams, row: Row) -> tuple[Layer, ...]:
    """All blocks, MTP blocks included."""
    n_embd_r, n_embd_s, n_embd_ple = _state_r(h, row), _state_s(h, row), _ple_width(h)
    layers = []
    for il in range(h.n_layer_all):
        swa = h.is_swa[il]
        recurrent = _has_state(h, row, il)
        has_kv = _has_kv(h, row, il)
        layers.append(
            Layer(
                il=il, n_head=h.n_head[il], n_head_kv=h.n_head_kv[il], n_ff=h.n_ff[il], is_swa=swa,
                n_embd_head_k=h.n_embd_head_k_swa if swa else h.n_embd_head_k,
                n_embd_head_v=h.n_embd_head_v_swa if swa else h.n_embd_head_v,
                n_expert_used=h.n_expert_used[il], n_ff_exp=h.n_ff_exp[il], is_recurrent=recurrent, has_kv=has_kv,
                is_nextn=il >= h.n_layer and il != h.router_layer, n_embd_r=n_embd_r if recurrent else 0,
                n_embd_s=n_embd_s if recurrent else 0, n_embd_indexer=_indexer_width(h, row, il, has_kv),
                compress_ratio=h.compress_ratios[il] if h.compress_ratios else 0, n_rot=h.n_rot_swa if swa else h.n_rot,
                n_embd_ple=n_embd_ple if recurrent and il in h.ple_layers else 0,
            )
        )  # fmt: skip
    return tuple(layers)


def _has_state(h: Hparams, row: Row, il: int) -> bool:
    """The recurrent memory's filter; llama_memory_recurrent stops at n_layer()."""
    return row.recurrent is not None and il < h.n_layer and h.is_recr[il]


def _has_kv(h: Hparams, row: Row, il: int) -> bool:
    """The attention cache's filter and llama_hparams::has_kv, for a plain (not MTP) context."""
    if row.memory in ("none", "recurrent") or row.target_context:
        return False
    if h.n_layer_kv_from_start >= 0 and il >= h.n_layer_kv_from_start:
        return False
    if row.memory in ("hybrid", "hybrid_idx"):
        return _hybrid_has_kv(h, row, il)
    if row.memory in ("dsv4", "msa") or row.cache_of_nextn or h.router_layer >= 0 or h.n_layer == 0:
        return True
    return il < h.n_layer


def _hybrid_has_kv(h: Hparams, row: Row, il: int) -> bool:
    if row.attention == "both":
        return True
    if h.is_recr[il] or (row.attention == "trunk" and il >= h.n_layer):
        return False
    return row.attention != "no_ff" or h.n_ff[il] == 0


def _indexer_width(h: Hparams, row: Row, il: int, has_kv: bool) -> int:
    """Width of the index cache's K: one head (llama-kv-cache-dsa, -dsa-iswa, -msa, -dsv4, llama-memory-hybrid-idx)."""
    if not has_kv or not h.is_indexer_full[il] or memory_kind(h, row) == "kv":
        return 0
    if row.memory == "dsv4":
        return h.extra.get("indexer_head_size", 0) if h.compress_ratios[il] == CSA_RATIO else 0
    if h.is_swa[il]:
        return h.n_embd_head_k_swa
    pooled = 3 if row.memory == "hybrid_idx" and h.extra.get("indexer_kpool", 0) > 0 else 1
    return h.extra.get("indexer_head_size", 0) * pooled


def _state_r(h: Hparams, row: Row) -> int:
    """llama_hparams::n_embd_r: the rolling state (convolution, token shift)."""
    extra = h.extra
    if row.state == "wkv" and extra.get("wkv_head_size", 0):
        return extra["token_shift_count"] * h.n_embd
    if row.state == "shortconv" and extra.get("n_shortconv_l_cache", 0):
        return h.n_embd * (extra["n_shortconv_l_cache"] - 1)
    d_conv = extra.get("ssm_d_conv", 0)
    if row.state == "kda" and extra.get("n_embd_head_kda", 0):
        return 3 * (d_conv - 1 if d_conv > 0 else 3) * h.n_head[0] * extra["n_embd_head_kda"]
    if row.state != "ssm" or d_conv == 0:
        return 0
    groups = extra.get("ssm_n_group", 0) if "ssm.group_count" in row.needs else 0
    return (d_conv - 1) * (extra.get("ssm_d_inner", 0) + 2 * groups * extra.get("ssm_d_state", 0))


def _state_s(h: Hparams, row: Row) -> int:
    """llama_hparams::n_embd_s: the recurrent state."""
    extra = h.extra
    if row.state == "wkv":
        return h.n_embd * extra.get("wkv_head_size", 0)
    if row.state == "kda":
        return extra.get("n_embd_head_kda", 0) ** 2 * h.n_head[0]
    if row.state == "linear":
        return h.n_embd_head_k**2 * h.n_head[0]
    return extra.get("ssm_d_state", 0) * extra.get("ssm_d_inner", 0) if row.state == "ssm" else 0


def _ple_width(h: Hparams) -> int:
    """llama_hparams::ple_conv_state."""
    extra = h.extra
    kernel, ngram = extra.get("ple_conv_kernel", 0), extra.get("ple_ngram_size", 0)
    if not h.ple_layers or not kernel or ngram < 2 or not extra.get("ple_heads_per_ngram", 0):
        return 0
    return (kernel - 1) * ngram * extra.get("dsv4_hc_mult", 0) * h.n_embd
