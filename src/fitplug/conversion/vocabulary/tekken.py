"""Mistral's own tokenizer file: _set_vocab_mistral (conversion/base.py), MistralVocab (gguf-py/gguf/vocab.py), Tekkenizer."""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from fitplug.conversion.vocabulary.beside import UnreadError
from fitplug.conversion.vocabulary.maker import MAX_TOKENS, Maker

FILE = "tekken.json"
_TEMPLATES = {"v3": "mistral-v3-tekken", "v7": "mistral-v7-tekken"}
"""Version → the community's template, by a name that llama.cpp knows."""
_TEMPLATE_FILES = {"v11": "Mistral-Small-3.2-24B-Instruct-2506.jinja", "v13": "unsloth-mistral-Devstral-Small-2507.jinja"}
_OLD = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""Special tokens of the versions whose files do not list them (Tekkenizer.DEPRECATED_SPECIAL_TOKENS)."""
_MAX_BYTES = 8 << 20
"""Of all tokens together, six times what is known."""


def tekken(m: Maker) -> None:
    """The vocabulary, its merges made anew, and the template that fits the version."""
    content = m.beside.json(FILE)
    config = content["config"]
    version, n, n_special = str(config["version"]), config["default_vocab_size"], config["default_num_special_tokens"]
    if not 0 <= n_special < n <= MAX_TOKENS or version not in (*_TEMPLATES, *_TEMPLATE_FILES):
        raise UnreadError(f"{FILE} is of the version {version[:20]}, which the converter has no template for")
    special = _special(content, version, n_special)
    tokens = [b64decode(one["token_bytes"]) for one in content["vocab"][: n - n_special]]
    if len(tokens) != n - n_special or len(set(tokens)) != len(tokens):
        raise UnreadError(f"{FILE} has not as many words as it says")
    sizes = [_size(token) for token in tokens]
    m.pairs.text("tokenizer.ggml.model", "gpt2")
    m.pairs.text("tokenizer.ggml.pre", "tekken")
    m.pairs.lengths("tokenizer.ggml.merges", *_merges(tokens, sizes))
    m.pairs.lengths("tokenizer.ggml.tokens", n, len("".join(special).encode()) + sum(sizes))
    m.pairs.numbers("tokenizer.ggml.scores", n)
    m.pairs.numbers("tokenizer.ggml.token_type", n)
    m.pairs.number(f"{m.architecture}.vocab_size", n)
    for key, word in (("bos", "<s>"), ("eos", "</s>"), ("unknown", "<unk>"), ("padding", "<pad>")):
        m.pairs.number(f"tokenizer.ggml.{key}_token_id", special.index(word))
    m.pairs.flag("tokenizer.ggml.add_bos_token", True)
    m.pairs.flag("tokenizer.ggml.add_eos_token", False)
    if version in _TEMPLATES:
        m.pairs.text("tokenizer.chat_template", _TEMPLATES[version])
    else:
        m.own_template(_TEMPLATE_FILES[version])


def _special(content: dict[str, Any], version: str, n: int) -> list[str]:
    given = content.get("special_tokens")
    if given is None and version not in _TEMPLATES:
        raise UnreadError(f"{FILE} lists no special tokens")
    found = list(_OLD) if given is None else [one["token_str"] for one in given]
    return [*found, *(f"<SPECIAL_{i}>" for i in range(len(found), n))]


def _size(token: bytes) -> int:
    """Bytes of a token in the byte-level alphabet, which has all but printable ASCII in two."""
    return sum(1 if 0x21 <= byte <= 0x7E else 2 for byte in token)


def _merges(tokens: Sequence[bytes], sizes: Sequence[int]) -> tuple[int, int]:
    """How many pairs of words there are that are a word together, and their bytes (extract_vocab_merges_from_model)."""
    if sum(map(len, tokens)) > _MAX_BYTES or max(map(len, tokens)) > 1 << 10:
        raise UnreadError(f"{FILE} has longer words than any")
    known = set(tokens)
    n = n_bytes = 0
    for token, size in zip(tokens[256:], sizes[256:], strict=True):
        pairs = sum(token[:i] in known and token[i:] in known for i in range(1, len(token)))
        if not pairs:
            raise UnreadError(f"{FILE} has a word that no two others make, which the converter refuses")
        n, n_bytes = n + pairs, n_bytes + pairs * (size + 1)
    return n, n_bytes
