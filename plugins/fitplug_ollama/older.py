"""Headers that Ollama's own converters wrote, in llama.cpp's words.

Models that were published before Ollama ran everything in llama-server have other names for some things; its llama-server is
patched to read them (llama/compat). Each row says the same facts; what has no row is read as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from fitplug.formats.header import Header, Tensor, Value
from fitplug.model.describe import describe
from fitplug.model.records import Model


class Translation(NamedTuple):
    """One architecture of Ollama's."""

    becomes: str
    tensors: tuple[tuple[str, str], ...] = ()
    """Patterns of names, and what they are called in llama.cpp."""
    dropped: tuple[str, ...] = ()
    """Prefixes of tensors that its text model never loads: the projector's, which is loaded from the same file."""
    keys: tuple[tuple[str, str], ...] = ()


TRANSLATIONS = {
    "gptoss": Translation(
        "gpt-oss",
        tensors=(
            (r"(blk\.\d+\.attn_sinks)", r"\1.weight"),
            (r"(blk\.\d+)\.ffn_norm\.weight", r"\1.post_attention_norm.weight"),
        ),
    ),
    "qwen25vl": Translation("qwen2vl", dropped=("v.", "mm."), keys=(("rope.mrope_section", "rope.dimension_sections"),)),
}
N_SECTIONS = 4
"""qwen2vl's rope.dimension_sections; Ollama's list has three (llama-ollama-compat.cpp, handle_qwen25vl)."""


def understand(header: Header) -> Model:
    """The model of such a header."""
    return describe(translate(header))


def translate(header: Header) -> Header:
    """The header as llama.cpp's own converter would have written it."""
    old = header.metadata.get("general.architecture")
    row = TRANSLATIONS.get(old) if isinstance(old, str) else None
    if row is None:
        return header
    tensors = {}
    for name, tensor in header.tensors.items():
        if not name.startswith(row.dropped):
            new = _renamed(name, row)
            tensors[new] = tensor._replace(name=new)
    return replace(header, metadata=_metadata(header.metadata, f"{old}.", row, tensors), tensors=tensors)


def _renamed(name: str, row: Translation) -> str:
    for pattern, new in row.tensors:
        if re.fullmatch(pattern, name, re.ASCII):
            return re.sub(pattern, new, name, flags=re.ASCII)
    return name


def _metadata(metadata: Mapping[str, Value], old: str, row: Translation, tensors: Mapping[str, Tensor]) -> dict[str, Value]:
    prefix, names = f"{row.becomes}.", dict(row.keys)
    found: dict[str, Value] = {}
    for key, value in metadata.items():
        own = key.removeprefix(old)
        found[f"{prefix}{names.get(own, own)}" if key.startswith(old) else key] = value
    found["general.architecture"] = row.becomes
    sections = found.get(f"{prefix}rope.dimension_sections")
    if isinstance(sections, tuple) and not hasattr(sections, "length"):
        found[f"{prefix}rope.dimension_sections"] = (*sections, 0, 0, 0, 0)[:N_SECTIONS]
    gate = tensors.get("blk.0.ffn_gate_exps.weight")
    if gate is not None and len(gate.shape) > 1:
        found.setdefault(f"{prefix}expert_feed_forward_length", gate.shape[1])
    return found
