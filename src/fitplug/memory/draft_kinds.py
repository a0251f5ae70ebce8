"""What architectures of drafts do differently, as data (common/speculative.cpp, src/llama-context.cpp)."""

from typing import NamedTuple

from fitplug.settings import DRAFT_MTP

MARKOV_HEAD = "markov_w1.weight"


class DraftKind(NamedTuple):
    """One architecture of drafts; the defaults are a model's that can run alone."""

    reads: frozenset[str] = frozenset()
    """The --spec-type values that make it read states of its target's layers."""
    detected: tuple[tuple[str, str], ...] = ()
    """(tensor, --spec-type): what llama.cpp knows the file for if it has the tensor; "" is any file."""
    spec_type: str = "draft-simple"
    """The --spec-type that uses it where llama.cpp does not find out."""
    encodes: bool = False
    """Its target's states go through an encoder of its own, whose tokens all have an output."""
    last_by_nextn: bool = False
    """The last of its target's layers is read as the state before the output (embeddings_nextn)."""
    borrows: bool = False
    """Uses its target's embeddings and output matrix where it has none."""
    ties_output: bool = False
    """Its own embeddings are its output matrix where it has none."""


BLOCKS = frozenset(("draft-dflash", "draft-dspark"))
KINDS = {
    "eagle3": DraftKind(
        reads=frozenset(("draft-eagle3",)), spec_type="draft-eagle3", encodes=True, last_by_nextn=True, borrows=True,
    ),
    "dflash": DraftKind(
        reads=BLOCKS, detected=((MARKOV_HEAD, "draft-dspark"), ("", "draft-dflash")), borrows=True, ties_output=True,
    ),
    "gemma4-assistant": DraftKind(spec_type=DRAFT_MTP),
}  # fmt: skip
"""By general.architecture."""
ORDINARY = DraftKind()


def kind_of(architecture: str) -> DraftKind:
    """The architecture's row."""
    return KINDS.get(architecture, ORDINARY)
