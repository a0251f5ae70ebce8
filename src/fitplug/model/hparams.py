"""What load_hparams (src/llama-model.cpp) and the architecture's load_arch_hparams read from a header."""

from fitplug.model.architectures import GATING, MLA, Row
from fitplug.model.hparams_record import Hparams
from fitplug.model.layouts import indexer_layers, lent_cells, loop_blocks, ple_layers, recurrent_layers, windowed_layers
from fitplug.model.reading import MAX_LAYERS, MAX_U32, Keys

MAX_EXPERTS = 1024
"""LLAMA_MAX_EXPERTS (src/llama-hparams.h)."""
MAX_STREAMS = 256
"""Of hyper-connections, which the graph takes one by one; four are known."""
SQRT_SOFTPLUS = 4
"""LLAMA_EXPERT_GATING_FUNC_TYPE_SQRT_SOFTPLUS."""

EXTRA = {
    "n_lora_q": "attention.q_lora_rank", "n_lora_kv": "attention.kv_lora_rank",
    "n_lora_kv_swa": "attention.kv_lora_rank_swa", "n_embd_head_k_mla_swa": "attention.key_length_mla_swa",
    "n_embd_head_v_mla_swa": "attention.value_length_mla_swa",
    "n_ff_shexp": "expert_shared_feed_forward_length", "n_ff_chexp": "expert_chunk_feed_forward_length",
    "n_expert_shared": "expert_shared_count", "n_expert_groups": "expert_group_count",
    "n_group_used": "expert_group_used_count", "n_group_experts": "experts_per_group",
    "expert_gating_func": "expert_gating_func", "n_layer_dense_lead": "leading_dense_block_count",
    "n_moe_layer_step": "interleave_moe_layer_step", "moe_every_n_layers": "moe_every_n_layers",
    "moe_latent_size": "moe_latent_size", "n_expert_latent": "expert_latent_length",
    "ssm_d_conv": "ssm.conv_kernel", "ssm_d_inner": "ssm.inner_size", "ssm_d_state": "ssm.state_size",
    "ssm_dt_rank": "ssm.time_step_rank", "ssm_n_group": "ssm.group_count", "n_embd_head_kda": "kda.head_dim",
    "wkv_head_size": "wkv.head_size", "time_mix_extra_dim": "time_mix_extra_dim",
    "time_decay_extra_dim": "time_decay_extra_dim", "n_lora_decay": "attention.decay_lora_rank",
    "n_lora_iclr": "attention.iclr_lora_rank", "n_lora_value_res_mix": "attention.value_residual_mix_lora_rank",
    "n_lora_gate": "attention.gate_lora_rank", "n_shortconv_l_cache": "shortconv.l_cache",
    "indexer_n_head": "attention.indexer.head_count", "indexer_head_size": "attention.indexer.key_length",
    "indexer_top_k": "attention.indexer.top_k", "indexer_kpool": "attention.indexer.kpool",
    "indexer_block_size": "attention.indexer.block_size", "indexer_local_blocks": "attention.indexer.local_blocks",
    "dsv4_hc_mult": "hyper_connection.count", "hc_low_rank": "hyper_connection.low_rank",
    "dsv4_hc_sinkhorn_iters": "hyper_connection.sinkhorn_iterations",
    "dsv4_o_group_count": "attention.output_group_count", "dsv4_o_lora_rank": "attention.output_lora_rank",
    "dsv4_hash_layer_count": "hash_layer_count", "attn_res_block_size": "attn_res.block_size",
    "n_deepstack_layers": "n_deepstack_layers", "n_embd_per_layer": "embedding_length_per_layer_input",
    "n_rel_attn_bkts": "attention.relative_buckets_count", "n_hrm_layers_per_stack": "hrm.layers_per_stack",
    "n_hrm_h_cycles": "hrm.h_cycles", "n_hrm_l_cycles": "hrm.l_cycles",
    "n_ctx_orig_yarn": "rope.scaling.original_context_length",
    "ple_ngram_size": "ple.ngram_size", "ple_heads_per_ngram": "ple.heads_per_ngram",
    "ple_conv_kernel": "ple.conv_kernel", "n_norm_groups": "attention.group_norm_groups",
    "posnet_n_embd": "posnet.embedding_length", "posnet_n_layer": "posnet.block_count",
    "convnext_n_embd": "convnext.embedding_length", "convnext_n_layer": "convnext.block_count",
    "dflash_block_size": "block_size", "target_hidden_size": "target_hidden_size",
}  # fmt: skip
"""Member of llama_hparams → key, for those that are plain whole numbers."""


def read_hparams(keys: Keys, row: Row) -> Hparams:
    """llama_model_base::load_hparams and the row's own load_arch_hparams.

    Raises:
        UnreadableError: a count without which nothing can be said is missing or impossible.
    """
    if not row.loadable:
        return Hparams(n_layer_all=0, n_layer_nextn=0, n_embd=0, n_ctx_train=0)
    h = _counts(keys)
    _vocabulary(keys, h)
    _experts(keys, row, h)
    _heads(keys, row, h)
    for key in row.needs:
        keys.need(key)
    _check(keys, row, h)
    h.extra.update({member: value for member, key in EXTRA.items() if (value := keys.u32(key))})
    _mla(keys, row, h)
    loop_blocks(keys, row, h)
    recurrent_layers(keys, row, h)
    windowed_layers(keys, row, h)
    lent_cells(keys, h)
    indexer_layers(keys, row, h)
    ple_layers(keys, row, h)
    _embeddings(keys, row, h)
    _compression(keys, row, h)
    return h


def _counts(keys: Keys) -> Hparams:
    h = Hparams(
        n_ctx_train=keys.bounded("context_length", 0, MAX_U32),
        n_embd=keys.bounded("embedding_length", 0, MAX_U32),
        n_layer_all=keys.bounded("block_count", 1, MAX_LAYERS),
        n_layer_nextn=keys.u32("nextn_predict_layers"),
        causal=keys.flag("attention.causal", default=True),
    )
    if h.n_layer_nextn > h.n_layer_all:
        keys.refuse("there are more MTP blocks (nextn_predict_layers) than blocks")
        h.n_layer_nextn = 0
    return h


def _vocabulary(keys: Keys, h: Hparams) -> None:
    """llama_vocab::impl::load (src/llama-vocab.cpp)."""
    model = keys.header.metadata.get("tokenizer.ggml.model")
    if model in ("no_vocab", "none"):
        h.n_vocab = keys.u32("vocab_size")
        return
    if not isinstance(model, str) and keys.header.format == "gguf":
        keys.refuse("the key tokenizer.ggml.model is missing")
    embeddings = keys.header.tensors.get("token_embd.weight")
    rows = embeddings.shape[1] if embeddings is not None and len(embeddings.shape) > 1 else 0
    h.n_vocab = keys.header.length("tokenizer.ggml.tokens") or keys.u32("vocab_size") or rows


def _experts(keys: Keys, row: Row, h: Hparams) -> None:
    h.n_expert = keys.u32("expert_count")
    h.n_expert_used = keys.per_layer("expert_used_count", h.n_layer_all)
    if row.lone_expert_is_dense and h.n_expert <= 1:
        h.n_expert, h.n_expert_used = 0, (0,) * h.n_layer_all
    used, groups = max(h.n_expert_used), keys.u32("expert_group_count")
    if h.n_expert > MAX_EXPERTS:
        keys.refuse(f"{h.n_expert} experts, at most {MAX_EXPERTS} are possible")
    if used > h.n_expert or (h.n_expert > 0 and used == 0) or (groups and groups >= h.n_expert):
        keys.refuse("the numbers of experts, of experts used and of groups do not fit together")
    if row.ff_exp == "required":
        keys.need("expert_feed_forward_length")
    h.n_ff_exp = keys.per_layer("expert_feed_forward_length" if row.ff_exp else "", h.n_layer_all)


def _heads(keys: Keys, row: Row, h: Hparams) -> None:
    n = h.n_layer_all
    h.n_ff = keys.per_layer("feed_forward_length", n)
    h.n_head = keys.per_layer("attention.head_count", n)
    h.n_head_kv = h.n_head if keys.value("attention.head_count_kv") is None else keys.per_layer("attention.head_count_kv", n)
    if h.n_head[0] > 0 or row.always_lengths:
        usual = h.n_embd // h.n_head[0] if h.n_head[0] else 0
        h.n_embd_head_k = keys.u32("attention.key_length", usual)
        h.n_embd_head_v = keys.u32("attention.value_length", usual)
    if h.n_head[0] > 0:
        h.n_rot = keys.u32("rope.dimension_count", h.n_embd_head_k)
        if row.rot_is_head and h.n_rot != h.n_embd_head_k:
            keys.refuse(f"rope.dimension_count is {h.n_rot}, {h.n_embd_head_k} is expected")
    h.n_embd_head_k_swa = keys.u32("attention.key_length_swa", h.n_embd_head_k)
    h.n_embd_head_v_swa = keys.u32("attention.value_length_swa", h.n_embd_head_v)
    h.n_rot_swa = keys.u32("rope.dimension_count_swa", h.n_rot)
    if row.half_rot:
        h.n_rot //= 2


def _check(keys: Keys, row: Row, h: Hparams) -> None:
    """What single loaders insist on besides keys (src/models/)."""
    if row.experts and h.n_expert == 0 and keys.u32("leading_dense_block_count") < h.n_layer:
        keys.refuse("it has no experts, and the architecture needs some")
    if row.needs_mla and (keys.value(MLA[0]) is None or keys.value(MLA[1]) is None):
        keys.refuse("it has no MLA lengths (attention.key_length_mla, .value_length_mla), which the architecture needs")
    if row.memory == "dsv4" and keys.u32(GATING) != SQRT_SOFTPLUS:
        keys.refuse("its expert_gating_func is not the one that llama.cpp knows for this architecture")
    if h.extra.get("dsv4_hc_mult", 0) > MAX_STREAMS:
        keys.refuse("the residual streams of its hyper_connection.count are more than its tensors can have")
    if "output.weight" not in keys.header.tensors and row.output == "required" and keys.header.tensors:
        keys.refuse("the tensor output.weight is missing")
    if "token_embd.weight" not in keys.header.tensors and row.input == "required" and keys.header.tensors:
        keys.refuse("the tensor token_embd.weight is missing")


def _mla(keys: Keys, row: Row, h: Hparams) -> None:
    if row.mla:
        h.n_embd_head_k_mla = keys.u32("attention.key_length_mla")
        h.n_embd_head_v_mla = keys.u32("attention.value_length_mla")
        if not h.is_mla:  # one without the other is none (llama_hparams::is_mla)
            h.n_embd_head_k_mla = h.n_embd_head_v_mla = 0
    if row.value_from_lora:
        h.n_embd_head_v = h.extra.get("n_lora_kv", 0)


def _embeddings(keys: Keys, row: Row, h: Hparams) -> None:
    """llama_hparams::n_embd_inp, n_embd_out; and the encoder's input of drafts, in `extra`."""
    h.n_embd_out = keys.u32("embedding_length_out") or h.n_embd
    deepstack = keys.u32("n_deepstack_layers") if row.deepstack == "count" else 0
    if row.deepstack == "mapping":
        deepstack = len({i for i in keys.array("deepstack_mapping") or () if 0 <= i < MAX_LAYERS})
    h.extra["n_deepstack_layers"] = deepstack
    h.n_embd_inp = h.n_embd * (1 + deepstack)
    if row.wide_output:
        h.n_embd_out = h.n_embd * h.extra.get("dsv4_hc_mult", 0)
    if row.features:
        h.n_embd, h.n_embd_out = keys.u32("features_length"), h.n_embd
        h.n_embd_inp = h.n_embd
    if row.target_context:
        h.n_embd_inp = h.n_embd_out
    target_layers = len(keys.array("target_layers") or ()) if row.encoder else 0
    h.extra["n_embd_inp_enc"] = target_layers * h.extra.get("target_hidden_size", h.n_embd) or h.n_embd_inp
    h.sections = keys.per_layer("rope.dimension_sections", 4, signed=True)
    h.extra["token_shift_count"] = keys.u32("token_shift_count", 2)


def _compression(keys: Keys, row: Row, h: Hparams) -> None:
    """attention.compress_ratios: of DeepSeek 4 (src/models/deepseek4.cpp), and of the sparse attention of qwen4exp.cpp."""
    if row.memory == "hybrid_idx":
        h.compress_ratios = keys.per_layer("attention.compress_ratios", h.n_layer_all)
    if row.memory != "dsv4":
        return
    ratios = keys.array("attention.compress_ratios") or ()
    if len(ratios) < h.n_layer_all:
        keys.refuse("attention.compress_ratios is shorter than block_count")
    h.compress_ratios = (ratios + (0,) * h.n_layer_all)[: h.n_layer_all]
