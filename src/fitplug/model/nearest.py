"""Which known architecture an unknown one is most like: by the tensors it has.

A new architecture is mostly a known one with another name and a few details. Its caches, states and graph are supposed to be
those of the first family here whose tensors are all in the file, and whose keys are, too. Windows are supposed only where
the file says which layers have one: without, a cache is as long as the context, which is never too short.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fitplug.formats.header import Header
from fitplug.model.architectures import TABLE, Row, Window

SUFFIXES = (".weight", ".bias")
WINDOW = ("attention.sliding_window", "attention.sliding_window_pattern")


class Family(NamedTuple):
    """A known architecture, and the tensors that tell it from others."""

    name: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


ROUTED = "ffn_gate_inp"
GATE_IN_UP = "ffn_up, twice as wide as ffn_down"
FAMILIES = (
    Family("rwkv7", ("time_mix_a1",)),
    Family("rwkv6", ("time_mix_w1",)),
    Family("kimi-linear", ("ssm_f_a", "attn_kv_a_mqa")),
    Family("lfm2moe", ("shortconv.conv", ROUTED)),
    Family("lfm2", ("shortconv.conv",)),
    Family("qwen35moe", ("ssm_alpha", ROUTED)),
    Family("qwen35", ("ssm_alpha",)),
    Family("qwen3next", ("ssm_ba",)),
    Family("plamo2", ("ssm_x", "post_attention_norm")),
    Family("jamba", ("ssm_x", "attn_output")),
    Family("mamba", ("ssm_x",)),
    Family("nemotron_h_moe", ("ssm_d", "attn_q", ROUTED), ("ffn_norm",)),
    Family("nemotron_h", ("ssm_d", "attn_q", "ffn_up"), ("ffn_norm",)),
    Family("falcon-h1", ("ssm_d", "attn_q", "ffn_norm")),
    Family("mamba2", ("ssm_d",), ("attn_q", "attn_qkv")),
    Family("deepseek32", ("attn_kv_a_mqa", "attn_k_b", "indexer.proj")),
    Family("deepseek2", ("attn_kv_a_mqa", "attn_k_b")),
    Family("bert", ("token_types", "layer_output_norm")),
    Family("gpt-oss", ("attn_sinks", ROUTED)),
    Family("olmo2", ("post_attention_norm", "post_ffw_norm"), ("attn_norm",)),
    Family("glm4", ("post_attention_norm", "post_ffw_norm", GATE_IN_UP), ("ffn_gate", ROUTED)),
    Family("gemma3", ("post_attention_norm", "post_ffw_norm", "attn_q_norm", "ffn_gate")),
    Family("gemma2", ("post_attention_norm", "post_ffw_norm", "ffn_gate")),
    Family("glm4moe", ("post_attention_norm", "attn_q_norm", ROUTED)),
    Family("dots1", ("attn_q_norm", "ffn_gate_shexp", ROUTED)),
    Family("qwen3moe", ("attn_q_norm", ROUTED)),
    Family("seed_oss", ("post_attention_norm",), (ROUTED,)),
    Family("qwen3", ("attn_q_norm",)),
    Family("qwen2moe", ("ffn_gate_inp_shexp", ROUTED)),
    Family("deepseek", ("ffn_gate_shexp", ROUTED)),
    Family("falcon", ("attn_qkv", "ffn_up"), ("ffn_norm", "ffn_gate", ROUTED)),
    Family("command-r", (), ("ffn_norm", ROUTED)),
    Family("phi3", (GATE_IN_UP,), ("ffn_gate", ROUTED)),
    Family("starcoder2", ("ffn_up",), ("ffn_gate", ROUTED)),
    Family("llama"),
)
"""What is most special comes first."""


def candidates(header: Header) -> Iterator[tuple[str, Row]]:
    """The families that the file's tensors fit, the nearest first, with the rows to read its keys by."""
    name = header.metadata["general.architecture"]
    found = _bases(header)
    windowed = all(f"{name}.{key}" in header.metadata for key in WINDOW)
    for family in FAMILIES:
        if not found.issuperset(family.has) or not found.isdisjoint(family.lacks):
            continue
        row = TABLE[family.name]
        if row.memory == "kv":
            row = row._replace(window=Window() if windowed else None)
        yield family.name, row._replace(name=str(name), output="optional" if row.output != "none" else "none")


def _bases(header: Header) -> set[str]:
    """What the file has, without the blocks' numbers."""
    shapes = {_base(name): tensor.shape for name, tensor in header.tensors.items() if name.endswith(".weight")}
    up, down = shapes.get("ffn_up", ()), shapes.get("ffn_down", ())
    gated = {GATE_IN_UP} if len(up) > 1 and down and up[1] == 2 * down[0] else set()
    return {_base(name) for name in header.tensors} | gated


def _base(tensor: str) -> str:
    """blk.7.attn_q.weight → attn_q."""
    block = tensor.split(".", 2)
    rest = block[2] if len(block) > 2 and block[0] == "blk" else tensor
    for suffix in SUFFIXES:
        rest = rest.removesuffix(suffix)
    return rest
