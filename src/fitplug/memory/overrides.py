"""Tensors that -ot, -cmoe, -ncmoe and -ncffn put somewhere else (llama_model_loader::create_tensor, common/arg.cpp)."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.memory.records import HOST
from fitplug.settings import Settings, TensorOverride

EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""LLM_FFN_EXPS_REGEX (common/common.h)."""
DENSE = r"\.ffn_(up|down|gate)\."
"""LLM_FFN_DENSE_REGEX (common/common.h)."""
MAX_OVERRIDES = 4096
"""llama_max_tensor_buft_overrides (src/llama.cpp)."""
_MAX_PATTERN = 1000
_CLASSES = {"alpha": "a-zA-Z", "digit": "0-9", "d": "0-9", "alnum": "a-zA-Z0-9", "w": "a-zA-Z0-9_", "lower": "a-z",
            "upper": "A-Z", "space": r"\s", "s": r"\s", "punct": r"!-/:-@\[-`{-~", "xdigit": "0-9a-fA-F"}  # fmt: skip
"""[:name:] of ECMAScript's regular expressions in C++, which Python does not have."""
_ONE_BLOCK = re.compile(r"\^?blk\\\.(\d{1,3})\\\.(?![*+?{])[^|]*")
_NESTED = re.compile(r"\([^()]*[*+][^()]*\)[*+]")


class Rule(NamedTuple):
    """One override, compiled."""

    find: "re.Pattern[str]"
    target: str
    """A device's name, or HOST: whichever of the CPU's buffer types takes the tensor."""
    il: int | None
    """The only block whose tensors it can find, where that can be told from the pattern."""


def rules(settings: Settings, names: Iterable[str]) -> list[Rule]:
    """The overrides of these settings in the order in which llama.cpp tries them.

    Args:
        settings: whose n_cpu_moe, n_cpu_ffn and overrides count.
        names: of the machine's devices, which are the buffer types that can be named, besides CPU.

    Raises:
        RefusedError: no such buffer type, or a pattern that is none.
    """
    wanted = [*expert_overrides(settings.n_cpu_moe), *_of_blocks(settings.n_cpu_ffn, DENSE), *settings.overrides]
    if len(wanted) > MAX_OVERRIDES:
        raise RefusedError(f"{len(wanted)} tensor overrides, at most {MAX_OVERRIDES} are possible")
    buffers = {HOST, *names}
    for override in wanted:
        if override.buffer not in buffers:
            raise RefusedError(f"-ot: there is no buffer type '{override.buffer}'; there is: {', '.join(sorted(buffers))}")
    return [Rule(_compile(o.pattern), o.buffer, _only_block(o.pattern)) for o in wanted]


def expert_overrides(n_cpu_moe: int) -> list[TensorOverride]:
    """-cmoe (-1) and -ncmoe N as patterns (llm_ffn_exps_cpu_override, llm_add_n_cpu_ffn_overrides)."""
    if n_cpu_moe < 0:
        return [TensorOverride(EXPERTS, HOST)]
    return _of_blocks(n_cpu_moe, EXPERTS)


def _of_blocks(n: int, pattern: str) -> list[TensorOverride]:
    """What the pattern finds in the first `n` blocks stays on the CPU (llm_add_n_cpu_ffn_overrides)."""
    return [TensorOverride(rf"blk\.{il}{pattern}", HOST) for il in range(min(n, MAX_OVERRIDES + 1))]


def targets(found: Iterable[tuple[str, int]], wanted: list[Rule]) -> Mapping[str, str]:
    """Of the tensors (name, block) those that a rule finds, and where the first that does sends them."""
    by_block: dict[int, list[Rule]] = {}
    anywhere = [rule for rule in wanted if rule.il is None]
    if len(anywhere) < len(wanted):
        for il in {rule.il for rule in wanted if rule.il is not None}:
            by_block[il] = [rule for rule in wanted if rule.il in (None, il)]
    answer = {}
    for name, il in found:
        for rule in by_block.get(il, anywhere):
            if rule.find.search(name):
                answer[name] = rule.target
                break
    return answer


def _compile(pattern: str) -> "re.Pattern[str]":
    """An ECMAScript pattern in Python's spelling; the two agree on all that tensor patterns use."""
    if len(pattern) > _MAX_PATTERN or _NESTED.search(pattern):
        raise RefusedError(f"-ot: the pattern '{pattern[:40]}' could take forever to match")
    python = re.sub(r"\[:(\w+):\]", lambda m: _CLASSES.get(m[1], m[0]), pattern)
    try:
        return re.compile(python, re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise RefusedError(f"-ot: '{pattern[:80]}' is no regular expression: {error}") from None


def _only_block(pattern: str) -> int | None:
    r"""The block that a pattern like "blk\.12\.ffn_(up|down)" is about; None where it may be about several."""
    flat = re.sub(r"\([^()|]*(\|[^()|]*)*\)", "()", pattern)
    match = _ONE_BLOCK.fullmatch(flat)
    return int(match[1]) if match and str(int(match[1])) == match[1] else None
