"""What Ollama's llama-server works out of older files beyond other names (llama/compat/llama-ollama-compat.cpp).

Each function names the handler that it follows; only what decides about memory is done.
"""

import re

from fitplug_ollama.draft import Draft

_MTP_LAYER = re.compile(r"mtp\.layers\.(\d{1,4})\.(.+)", re.ASCII)
_MTP_EXPERT = re.compile(r"mtp\.layers\.(\d{1,4})\.mlp\.experts\.(\d{1,4})\.(gate|up|down)_proj\.weight", re.ASCII)
_BLOCK = re.compile(r"blk\.(\d{1,4})\.", re.ASCII)
_SHARED_MTP = {
    "mtp.fc.weight": "nextn.eh_proj.weight",
    "mtp.pre_fc_norm_embedding.weight": "nextn.enorm.weight",
    "mtp.pre_fc_norm_hidden.weight": "nextn.hnorm.weight",
    "mtp.embed_tokens.weight": "nextn.embed_tokens.weight",
    "mtp.shared_head.head.weight": "nextn.shared_head_head.weight",
    "mtp.shared_head.norm.weight": "nextn.shared_head_norm.weight",
    "mtp.norm.weight": "nextn.shared_head_norm.weight",
}
_SHIFTED = ("_norm.weight", ".nextn.enorm.weight", ".nextn.hnorm.weight")
_SECTIONS = "rope.dimension_sections"
_KV = "attention.head_count_kv"
_RMS = "attention.layer_norm_rms_epsilon"
_EXPERT_WIDTH = "expert_feed_forward_length"


def rms_epsilon(draft: Draft) -> None:
    """handle_gemma3, handle_deepseekocr: a key that the loader needs."""
    draft.default(_RMS, 1e-6)


def four_sections(draft: Draft) -> None:
    """Three sections of a rope become four."""
    sections = draft.items(_SECTIONS)
    if sections:
        draft.keys[_SECTIONS] = (*sections, 0, 0, 0, 0)[:4]


def one_kv_count(draft: Draft) -> None:
    """collapse_u32_array_to_max: recurrent layers' heads are 0 in the list, and not asked for."""
    counts = draft.items(_KV)
    if counts:
        draft.keys[_KV] = max(counts) or 2


def ssm_bias(draft: Draft) -> None:
    """rename_qwen_ssm_dt_bias_tensors."""
    for name in [name for name in draft.tensors if name.endswith(".ssm_dt")]:
        draft.call(name, f"{name}.bias")


def qwen3next_bias(draft: Draft) -> None:
    """handle_qwen3next, which has a mark that other files have too."""
    if any(name.endswith(".ssm_dt") for name in draft.tensors):
        one_kv_count(draft)
        ssm_bias(draft)


def old_mtp(draft: Draft) -> None:
    """apply_qwen35_mtp_fixes: blocks for multi-token prediction that were stored apart."""
    old = [name for name in draft.tensors if name.startswith("mtp.")]
    numbers = [int(match[1]) for name in old if (match := _MTP_LAYER.fullmatch(name))]
    nextn = max(numbers) + 1 if numbers else int(bool(old))
    base = max((int(match[1]) + 1 for name in draft.tensors if (match := _BLOCK.match(name))), default=0)
    if not nextn or not base or any(".nextn." in name for name in draft.tensors):
        return
    draft.keys |= {"nextn_predict_layers": nextn, "block_count": base + nextn}
    _merge_mtp_experts(draft, base)
    for name in old:
        match = _MTP_LAYER.fullmatch(name)
        if match and name in draft.tensors and not _MTP_EXPERT.fullmatch(name):
            _call_mtp(draft, name, f"blk.{base + int(match[1])}.{match[2]}")
    if nextn == 1:
        for name, new in _SHARED_MTP.items():
            _call_mtp(draft, name, f"blk.{base}.{new}")


def _call_mtp(draft: Draft, old: str, new: str) -> None:
    """rename_qwen35_mtp_tensor: norms are shifted by one when they are loaded, and are f32 from then on."""
    if old in draft.tensors and new not in draft.tensors:
        draft.call(old, new)
        if new.endswith(_SHIFTED) and not new.endswith(".ssm_norm.weight"):
            draft.as_f32(new)


def _merge_mtp_experts(draft: Draft, base: int) -> None:
    """merge_qwen35moe_mtp_expert_tensors: one tensor for all experts."""
    experts: dict[str, list[str]] = {}
    for name in draft.tensors:
        if match := _MTP_EXPERT.fullmatch(name):
            experts.setdefault(f"blk.{base + int(match[1])}.ffn_{match[3]}_exps.weight", []).append(name)
    for new, names in experts.items():
        first = draft.tensors[names[0]]
        if all((t.type, t.shape) == (first.type, first.shape) for t in map(draft.tensors.__getitem__, names)):
            draft.call(names[0], new)
            draft.reshape(new, (*draft.shape(new)[:2], len(names)))


def qwen3vl_sections(draft: Draft) -> None:
    """handle_qwen3vl: the family's sections."""
    draft.default(_SECTIONS, (24, 20, 20, 0))


def deepstack(draft: Draft) -> None:
    """handle_qwen3vl: as many layers take the picture's features in as the projector gives any out."""
    draft.default("n_deepstack_layers", len(draft.items("vision.deepstack_visual_indexes")))


def embedding_gemma(draft: Draft) -> None:
    """handle_embeddinggemma: what has dense layers at its end is another architecture."""
    first, second = draft.shape("dense.0.weight"), draft.shape("dense.1.weight")
    if not first[0]:
        return
    draft.name = "gemma-embedding"
    for key in ("attention.causal", "attention.sliding_window_pattern"):
        draft.keys.pop(key, None)
    if second[0]:
        names = ("dense_2_feat_in", "dense_2_feat_out", "dense_3_feat_in", "dense_3_feat_out")
        draft.keys |= dict(zip(names, (*first[:2], *second[:2]), strict=True))
    for old, new in (("dense.0", "dense_2"), ("dense.1", "dense_3"), ("norm", "output_norm")):
        draft.call(f"{old}.weight", f"{new}.weight")


def tokens_as_embedded(draft: Draft) -> None:
    """handle_gemma3: tokens for pictures have no embedding."""
    rows = draft.shape("token_embd.weight")[1]
    if rows:
        draft.cut_tokens(rows)


def tokens_of_per_layer(draft: Draft) -> None:
    """handle_gemma3n: as many tokens as have embeddings in every layer."""
    n_embd, n_vocab = draft.shape("token_embd.weight")[:2]
    per_layer = draft.shape("per_layer_token_embd.weight")[1]
    if n_embd and per_layer and n_vocab != per_layer:
        draft.reshape("token_embd.weight", (n_embd, per_layer))
        draft.cut_tokens(per_layer)


def fused_experts(draft: Draft) -> None:
    """register_gemma4_moe_gate_up_load: gate and up become one tensor, where neither has scales of its own."""
    for name in [name for name in draft.tensors if name.endswith(".ffn_gate_exps.weight")]:
        block = name.removesuffix("ffn_gate_exps.weight")
        gate, up = draft.tensors[name], draft.find(f"{block}ffn_up_exps.weight")
        new = f"{block}ffn_gate_up_exps.weight"
        scales = (f"{block}ffn_{part}_exps.{kind}" for part in ("gate", "up") for kind in ("scale", "input_scale"))
        alike = up is not None and (up.type, up.shape) == (gate.type, gate.shape)
        if not alike or new in draft.tensors or any(scale in draft.tensors for scale in scales):
            continue
        n_embd, n_ff, n_expert = draft.shape(name)[:3]
        draft.call(name, new)
        draft.reshape(new, (n_embd, 2 * n_ff, n_expert))
        draft.drop((f"{block}ffn_up_exps.weight",))


def fused_gate(draft: Draft) -> None:
    """register_glm4_ffn_concat: the gate comes before the rows of ffn_up."""
    for name in [name for name in draft.tensors if name.startswith("blk.") and name.endswith(".ffn_gate.weight")]:
        block = name.removesuffix("ffn_gate.weight")
        n_embd, n_ff = draft.shape(f"{block}ffn_up.weight")[:2]
        if n_embd:
            draft.reshape(f"{block}ffn_up.weight", (n_embd, 2 * n_ff))
            draft.drop((name,))


def rope_width(draft: Draft) -> None:
    """handle_glmocr: all of a head is rotated."""
    if width := draft.number("attention.key_length"):
        draft.default("rope.dimension_count", width)


def absorbed_mla(draft: Draft) -> None:
    """handle_glm4moelite: lengths of one head become those of the latent cache."""
    head, rank, rope = (draft.number(key) for key in ("attention.key_length", "attention.kv_lora_rank", "rope.dimension_count"))
    draft.keys[_KV] = 1
    if rank and rope:
        draft.keys |= {"attention.key_length": rank + rope, "attention.value_length": rank}
    if head:
        draft.keys |= {"attention.key_length_mla": head, "attention.value_length_mla": head}
    draft.default("expert_group_count", 1)
    draft.default("expert_group_used_count", 1)


def expert_width_of_gate(draft: Draft) -> None:
    """handle_gptoss."""
    if width := draft.shape("blk.0.ffn_gate_exps.weight")[1]:
        draft.default(_EXPERT_WIDTH, width)


def expert_widths(draft: Draft) -> None:
    """handle_deepseekocr: the first block is dense."""
    if width := draft.shape("blk.1.ffn_down_exps.weight")[0]:
        draft.default(_EXPERT_WIDTH, width)
    shared, width = draft.shape("blk.1.ffn_down_shexp.weight")[0], draft.number(_EXPERT_WIDTH)
    if shared and width:
        draft.default("expert_shared_count", shared // width)


def lfm2_norm(draft: Draft) -> None:
    """handle_lfm2, which has a mark that other files have too."""
    if "token_embd_norm.weight" in draft.tensors:
        return
    draft.call("output_norm.weight", "token_embd_norm.weight")
    if width := draft.shape("blk.0.ffn_gate.weight")[1]:
        draft.keys["feed_forward_length"] = width


def latent_experts(draft: Draft) -> None:
    """handle_nemotron_h_moe."""
    widths = [draft.shape(name)[1] for name in draft.tensors if name.endswith(".ffn_latent_in.weight")]
    if widths:
        draft.default("moe_latent_size", widths[0])
    draft.rename(((".ffn_latent_in", ".ffn_latent_down"), (".ffn_latent_out", ".ffn_latent_up")))


def nemotron_of_experts(draft: Draft) -> None:
    """nemotron_h_omni_text_arch."""
    if draft.number("expert_count") or draft.number("expert_used_count"):
        draft.name = "nemotron_h_moe"
