"""Every class of transformers that fitplug knows as GGUF: one row each, in one file for each family of conversion/*.py.

A row says what its own class in llama.cpp's converter adds to TextModel. `fixtures/conversion` holds what the converter
itself made
of a small checkpoint of every class, and tests/conversion/test_classes.py holds the rows to it.
"""

from collections.abc import Mapping

from fitplug.conversion.classes import (
    classic,
    deepseek,
    deepseek4,
    delta,
    drafts,
    encoders,
    gemma,
    hybrid,
    layered,
    llama,
    moe,
    plain,
    qwen,
    rwkv,
)
from fitplug.conversion.row import Class

ROWS: Mapping[str, Class] = {
    **llama.ROWS, **qwen.ROWS, **gemma.ROWS, **deepseek.ROWS, **deepseek4.ROWS, **delta.ROWS, **moe.ROWS, **hybrid.ROWS,
    **layered.ROWS, **plain.ROWS, **classic.ROWS, **rwkv.ROWS, **encoders.ROWS, **drafts.ROWS,
}  # fmt: skip
"""By `architectures` of config.json."""
_NOT_READ = "llama.cpp's converter does not get to the end of it; look for a repository with GGUF files"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("BaichuanForCausalLM", "BaiChuanForCausalLM"), _NOT_READ),
    "CogVLMForCausalLM": "llama.cpp's converter leaves out the experts for pictures, without which llama.cpp does not load it; "
    "look for a repository with GGUF files",
    "UltravoxModel": "it has no text model of its own; take the one that its config.json names",
}
"""Classes that the converter registers and makes nothing of that runs (conversion/baichuan.py calls itself without end)."""
