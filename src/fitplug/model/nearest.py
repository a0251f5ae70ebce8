"""Which known architecture an unknown one is most like: by the tensors it has.

A new architecture is mostly a known one with another name and a few details. Its caches, states and graph are supposed to be
those of the known one whose tensors it has (`signatures.json`, which llama.cpp's own loader said): all of those that must be
there, and as few others as possible. Windows are supposed only where the file says which layers have one; where there may be
some, all caches are as long as the context, which is never too short, and the graph has the inputs of both.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

from fitplug.formats.header import Header
from fitplug.model.architectures import TABLE, Row, Window

BLOCK = re.compile(r"\bblk\.\d+\.", re.ASCII)
PART = re.compile(r"\.(weight|bias|scale|input_scale)$", re.ASCII)
TELLS_NOTHING = (".scale", ".input_scale")
MERGED = {
    "attn_qkv": frozenset(("attn_q", "attn_k", "attn_v")),
    "ffn_gate_up_exps": frozenset(("ffn_gate_exps", "ffn_up_exps")),
}
"""One matrix for several: files have one or the others."""
EITHER = frozenset(("ffn_down", "ffn_down_exps"))
FEED_FORWARD = frozenset(f"ffn_{part}{kind}" for part in ("gate", "up", "down") for kind in ("", "_exps", "_shexp")) | {
    "ffn_gate_inp"
}
"""Where some blocks may have experts and others not, no file needs both."""
GATE_IN_UP = "ffn_up, twice as wide as ffn_down"
WINDOW = "attention.sliding_window"
ENDLESS = 1 << 30
SIDE_BY_SIDE = "attention and a state in one block"
ORDINARY = ("starcoder2", "qwen3moe")
"""Of several with the same tensors these are the likeliest, then those that come first in the table."""
POOLINGS = frozenset((1, 2, 3, 4))
"""Values of pooling_type (llama.h) that only models for embeddings have: others have a cache, whatever they look like."""
ENDS = frozenset(("token_embd", "output"))
SPECIAL = {"mistral4": "attention.temperature_scale"}
"""Keys that tell one architecture from another with the same tensors."""


def candidates(header: Header) -> Iterator[tuple[str, Row]]:
    """Those whose tensors the file has, the nearest first."""
    name = str(header.metadata["general.architecture"])
    found = bases({t.name: t.shape for t in header.tensors.values()})
    order = {family: -i for i, family in enumerate(reversed((*ORDINARY, *TABLE)))}
    causal, pooled = (header.metadata.get(f"{name}.{key}") for key in ("attention.causal", "pooling_type"))
    may_lack_cache = causal is False or pooled in POOLINGS
    fitting = []
    for family, signature in signatures().items():
        needs, known = frozenset(signature["needs"]), frozenset((*signature["needs"], *signature["may"]))
        if known >= EITHER:
            needs -= FEED_FORWARD
        special = f"{name}.{SPECIAL[family]}" in header.metadata if family in SPECIAL else None
        shared = len(needs & found - ENDS - FEED_FORWARD)
        unlike = len(needs - found) + len(found - known)
        if unlike <= len(found) // 2 and (may_lack_cache or TABLE[family].memory != "none"):
            fitting.append(
                (unlike, special is not True, special is False, -shared, len(TABLE[family].needs), order[family], family)
            )
    for *_, family in sorted(fitting):
        yield family, _row(TABLE[family], name, header)


def signatures() -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Architecture → "needs" and "may" → names without the blocks' numbers."""
    found: Mapping[str, Mapping[str, Sequence[str]]] = json.loads((files(__package__) / "signatures.json").read_text("utf-8"))
    return found


def _row(row: Row, name: str, header: Header) -> Row:
    """The known one's, but for its windows and its output matrix."""
    if row.memory == "kv":
        row = row._replace(window=_window(row, name, header))
    return row._replace(name=name, output=row.output if row.output in ("none", "untied") else "optional")


def _window(row: Row, name: str, header: Header) -> Window | None:
    """What the file says; where it does not say enough, a window as long as any context in every other layer."""
    pattern, length = header.metadata.get(f"{name}.{WINDOW}_pattern"), header.metadata.get(f"{name}.{WINDOW}")
    if length is not None and pattern is not None:
        return Window()
    if length or (row.window is not None and row.window.when in ("always", "not_zero")):
        return Window(2, when="always", forced=ENDLESS)
    return None


def bases(shapes: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """What a file with these tensors has, without the blocks' numbers."""
    named = {_base(name): shape for name, shape in shapes.items() if name.endswith(".weight")}
    up, down = named.get("ffn_up", ()), named.get("ffn_down", ())
    gated = {GATE_IN_UP} if len(up) > 1 and down and up[1] == 2 * down[0] else set()
    attending, remembering = ({name.split(part)[0] for name in shapes if part in name} for part in ("attn_q.", "ssm_in."))
    beside = {SIDE_BY_SIDE} if attending & remembering else set()
    return frozenset(_apart(_base(name) for name in shapes if not name.endswith(TELLS_NOTHING))) | gated | beside


def _apart(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from MERGED.get(name, (name,))


def _base(tensor: str) -> str:
    """blk.7.attn_q.weight → attn_q."""
    return PART.sub("", BLOCK.sub("", tensor))
