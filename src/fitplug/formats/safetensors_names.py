"""Names of safetensors files: which belong to which."""

import re
from collections.abc import Collection, Sequence

MAX_SHARDS = 4096
INDEX, CONFIG, QUANT_CONFIG = ".safetensors.index.json", "config.json", "hf_quant_config.json"
CONFIGS = (CONFIG, QUANT_CONFIG)
"""What says what the model is, and, for some of ModelOpt's, how its weights are stored."""
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer.model.v3", "sentencepiece.bpe.model", "spiece.model", "tekken.json",
    "tokenizer.jsonl", "rwkv_vocab_v20230424.txt",
)  # fmt: skip
"""Each holds a whole vocabulary; which of them llama.cpp's converter reads, the model's class decides."""
BESIDE = frozenset({
    *TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json",
    "chat_template.jinja", "chat_template.json", "merges.txt", "modules.json", "README.md",
})  # fmt: skip
"""What it looks at besides."""
BESIDE_BELOW = (("additional_chat_templates", ".jinja"), ("1_Pooling", "config.json"))
"""The same in folders below, by their names' ends."""
_DOWNLOADED = (".json", ".jsonl", ".txt", ".md", ".model", ".jinja", ".py")
"""Ends of further files that come with a checkpoint: words and code of tokenizers that are not read here, a licence."""
_SHARD = re.compile(r"(?P<prefix>.*)[-_](?P<no>\d{5,6})-of-(?P<count>\d{5,6})\.safetensors", re.DOTALL)


def is_beside(name: str) -> bool:
    """Whether a file, by its name below the checkpoint's folder, is one that the converter looks at besides."""
    return name in BESIDE or any(name.startswith(f"{folder}/") and name.endswith(end) for folder, end in BESIDE_BELOW)


def is_downloaded(name: str) -> bool:
    """Whether a file is fetched with the weights, since other programs may want it."""
    return is_beside(name) or ("/" not in name and name.endswith(_DOWNLOADED))


def shards_of(name: str) -> list[str]:
    """All shards of the model of which `name` is one ("model-00001-of-00003.safetensors"); else the name alone."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return [name]
    start, end = match.span("no")
    count = min(int(match["count"]), MAX_SHARDS)
    return [f"{name[:start]}{number:0{end - start}d}{name[end:]}" for number in range(1, count + 1)]


def companions(name: str, there: Collection[str]) -> Sequence[str]:
    """Of the files that are there those that are read with `name`: its shards, their index, and `CONFIGS`."""
    match = _SHARD.fullmatch(name)
    shards = [other for other in shards_of(name) if other == name or other in there]
    beside = [f"{match['prefix']}{INDEX}"] if match else []
    return [*shards, *(other for other in (*beside, *CONFIGS) if other in there)]
