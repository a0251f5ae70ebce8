"""What the backends' supports_op functions ask of an operation, in the words that their tables share."""

from collections.abc import Callable, Collection

from fitplug.memory.graph.tensor import BLOCKS, Tensor, is_contiguous

Rule = Callable[[Tensor], bool]

FLOATS = frozenset(("f32", "f16", "bf16"))
HALVES = frozenset(("f32", "f16"))


def src(t: Tensor, i: int) -> Tensor:
    """Source `i`, which the operation cannot be without."""
    found = t.src[i]
    if found is None:
        raise ValueError(t.op)
    return found


def always(t: Tensor) -> bool:  # noqa: ARG001 - a rule like the others
    """On all types and shapes."""
    return True


def contiguous_rows(t: Tensor) -> bool:
    """ggml_is_contiguous_rows."""
    block, size = BLOCKS[t.type]
    return t.ne[0] == block or t.nb[0] == size


def first_contiguous(t: Tensor) -> bool:
    """The first source lies without gaps."""
    return is_contiguous(src(t, 0))


def first_rows_contiguous(t: Tensor) -> bool:
    """The rows of the first source lie without gaps."""
    return contiguous_rows(src(t, 0))


def first_is(*types: str) -> Rule:
    """The first source is of one of these types."""
    found = frozenset(types)
    return lambda t: src(t, 0).type in found


def typed(types: Collection[str], *, n: int = 1) -> Rule:
    """The first `n` sources and the result are of these types."""
    return lambda t: t.type in types and all(src(t, i).type in types for i in range(n))


def every(*rules: Rule) -> Rule:
    """All of these."""
    return lambda t: all(rule(t) for rule in rules)
