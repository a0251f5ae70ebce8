"""What a loader's statements call by name: members of llama_hparams (src/llama-hparams.h) and LLAMA_LOAD_LOCALS."""

from collections.abc import Callable, Collection, Mapping

from fitplug.formats.header import Header, Value
from fitplug.model.hparams import EXTRA
from fitplug.model.hparams_record import Hparams


class NotKnownError(Exception):
    """A value that is not known here."""


class Values:
    """The numbers of one header; `reads` are the members that the architecture's loader reads keys into."""

    def __init__(self, header: Header, h: Hparams, reads: Collection[str]) -> None:
        self.header, self.h, self.reads = header, h, reads
        self.arch = header.metadata["general.architecture"]
        self.given: dict[str, int | None] = {}
        """Members that the loader works out itself; None: in a way that is not read."""

    def get(self, name: str, il: int = 0) -> int:
        """A member of llama_hparams, or what LLAMA_LOAD_LOCALS (src/llama-model.h) has under that name.

        Raises:
            NotKnownError: nothing here knows it.
        """
        h, name = self.h, LOCALS.get(name, name)
        if name in PER_LAYER:
            return self._of_layer(name, il)
        if name in PER_HEAD:
            return self._of_array(PER_HEAD[name], il)
        if name in OF_MODEL:
            return OF_MODEL[name](h)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in KEYS:
            return self._key(*KEYS[name])
        if name in self.given:
            return _known(name, self.given[name])
        if name in EXTRA:
            return h.extra.get(name, 0) if name in self.reads else 0
        if name in h.extra:
            return h.extra[name]
        return _known(name, getattr(h, name, None))

    def _of_layer(self, name: str, il: int) -> int:
        if not 0 <= il < self.h.n_layer_all:
            raise NotKnownError(name)
        found = PER_LAYER[name](self.h, il)
        if name == "n_ff_exp" and not found and self.header.metadata.get(f"{self.arch}.{FF_EXP}"):
            raise NotKnownError(name)  # some read the key for a part of their models only
        return found

    def _of_array(self, key: str, i: int) -> int:
        found = self.header.metadata.get(f"{self.arch}.{key}")
        return _known(key, found[i] if isinstance(found, tuple) and 0 <= i < len(found) else None)

    def _key(self, key: str, default: int | None) -> int:
        """What the header has under a key that nothing else here needs."""
        full = key if key.startswith("tokenizer.") else f"{self.arch}.{key}"
        found: Value | None = self.header.metadata.get(full)
        if key == ROPE_SCALING and found is not None:
            found = ROPE_SCALINGS.get(str(found), -1)
        if key == LABELS:
            found = self.header.length(full) or None
        if found is None:
            found = self.h.n_layer if default is None else default
        return _known(key, found)


def _known(name: str, found: object) -> int:
    if not isinstance(found, int):
        raise NotKnownError(name)
    return found


LOCALS = {"n_embd_gqa": "n_embd_v_gqa"}
CONSTANTS = {"n_altup": 4, "laurel_rank": 64, "n_embd_altup": 256}
"""src/llama-hparams.h; no key changes them."""
PER_HEAD = {"ple_head_offsets": "ple.head_offsets", "ple_head_vocab_sizes": "ple.head_vocab_sizes"}
SWA_TYPES: Mapping[str | None, int] = {None: 0, "standard": 1, "chunked": 2, "symmetric": 3}
"""llama_swa_type (src/llama-hparams.h)."""
OF_MODEL: Mapping[str, Callable[[Hparams], int]] = {
    "is_mla": lambda h: h.is_mla,
    "n_embd_r": lambda h: h.extra["token_shift_count"] * h.n_embd,
    "swa_type": lambda h: SWA_TYPES[h.swa_type],
    "n_embd_head_k_mla": lambda h: h.n_embd_head_k_mla if h.is_mla else _head_k(h, 0),
    "n_embd_head_v_mla": lambda h: h.n_embd_head_v_mla if h.is_mla else _head_v(h, 0),
    "ple_n_heads": lambda h: (
        (h.extra.get("ple_ngram_size", 0) - 1) * h.extra.get("ple_heads_per_ngram", 0) if h.ple_layers else 0
    ),
    "ple_head_dim": lambda h: h.extra.get("n_embd_per_layer", 0) if h.ple_layers else 0,
}
"""MLA lengths, the width of a state as RWKV's graphs ask for it, and per-layer embeddings of src/models/qwen4exp.cpp."""
ROPE_SCALINGS = {"none": 0, "linear": 1, "yarn": 2, "longrope": 3}
"""llama_rope_scaling_type (include/llama.h)."""
ROPE_SCALING, LABELS, FF_EXP = "rope.scaling.type", "classifier.output_labels", "expert_feed_forward_length"
KEYS: Mapping[str, tuple[str, int | None]] = {
    "rope_scaling_type_train": (ROPE_SCALING, 1), "n_cls_out": (LABELS, 1), "dec_n_layer": ("decoder_block_count", None),
    "n_token_types": ("tokenizer.ggml.token_type_count", 0), "dense_2_feat_out": ("dense_2_feat_out", 0),
    "dense_3_feat_in": ("dense_3_feat_in", 0), "norm_before_fc": ("norm_before_fc", 0),
    "dflash_block_size": ("block_size", 0), "dflash_conv_kernel_size": ("conv_kernel_size", 0),
    "dflash_conv_group_size": ("conv_group_size", 0), "dflash_selector_rank": ("selector_rank", 0),
    "dflash_selector_top_k": ("selector_top_k", 0), "n_adapters": ("adapters.count", 0),
    "max_lora_rank": ("adapters.lora_rank", 0),
}  # fmt: skip
"""Key and default of what only loaders need; without a default the number of blocks."""


def _head_k(h: Hparams, il: int) -> int:
    return h.n_embd_head_k_swa if h.is_swa[il] else h.n_embd_head_k


def _head_v(h: Hparams, il: int) -> int:
    return h.n_embd_head_v_swa if h.is_swa[il] else h.n_embd_head_v


PER_LAYER: Mapping[str, Callable[[Hparams, int], int]] = {
    "n_head": lambda h, il: h.n_head[il],
    "n_head_kv": lambda h, il: h.n_head_kv[il],
    "n_ff": lambda h, il: h.n_ff[il],
    "n_ff_exp": lambda h, il: h.n_ff_exp[il],
    "n_expert_used": lambda h, il: h.n_expert_used[il],
    "is_swa": lambda h, il: h.is_swa[il],
    "is_recr": lambda h, il: h.is_recr[il],
    "is_indexer_full": lambda h, il: h.is_indexer_full[il],
    "is_ple": lambda h, il: il in h.ple_layers,
    "n_rot": lambda h, il: h.n_rot_swa if h.is_swa[il] else h.n_rot,
    "n_embd_head_k": _head_k,
    "n_embd_head_v": _head_v,
    "n_embd_k_gqa": lambda h, il: _head_k(h, il) * h.n_head_kv[il],
    "n_embd_v_gqa": lambda h, il: _head_v(h, il) * h.n_head_kv[il],
    "has_kv": lambda h, il: h.n_layer_kv_from_start < 0 or il < h.n_layer_kv_from_start,
    "dsv4_compress_ratios": lambda h, il: h.compress_ratios[il],
}
