"""The type that llama-quantize gives each tensor of a file type.

Source: src/llama-quant.cpp: tensor_allows_quantization, llama_tensor_get_type_impl, tensor_type_fallback,
llama_ftype_get_default_type, init_quantize_state_counters; the order of tensors is llama-model-loader.h's weight_name_comparer.
Proven on llama.cpp's own tests/snapshots and on `llama-quantize --dry-run`.

llama.cpp decides by a chain of conditions over the tensor's category and the file type. Here that chain is a table: the first
rule of a category whose file types and condition hold gives the type, and no rule leaves the file type's default.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from fitplug.errors import FitplugError


class Category(StrEnum):
    """llama.cpp's broad categories of tensors (tensor_category)."""

    OUTPUT = "output"
    TOKEN_EMBD = "token_embd"  # noqa: S105 - a tensor, no password
    ATTN_V = "attn_v"
    ATTN_K = "attn_k"
    ATTN_Q = "attn_q"
    ATTN_OUTPUT = "attn_output"
    FFN_UP = "ffn_up"
    FFN_GATE = "ffn_gate"
    FFN_DOWN = "ffn_down"
    OTHER = "other"


class Shape(NamedTuple):
    """A tensor before it is quantised."""

    name: str
    type: str
    shape: tuple[int, ...]


class Facts(NamedTuple):
    """What of a model decides its tensors' types."""

    architecture: str
    n_layer_all: int
    n_expert: int
    n_head: int
    n_head_kv: int
    """Of layer 0, as n_gqa() asks by default."""

    @property
    def n_gqa(self) -> int:
        """Query heads a KV head; 0 for a first layer without KV heads."""
        return self.n_head // self.n_head_kv if self.n_head_kv else 0

    @property
    def is_70b(self) -> bool:
        """LLM_TYPE_70B: load_arch_hparams of llama, deci, olmo, qwen2 and jais2."""
        if self.architecture == "llama":
            return self.n_layer_all == 80 and self.n_head != self.n_head_kv and self.n_expert != 8
        return self.n_layer_all == {"qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}.get(self.architecture)


class Place(NamedTuple):
    """One tensor's place among those of its category."""

    facts: Facts
    i: int
    n: int
    imatrix: bool


class Rule(NamedTuple):
    """For these file types, where this holds, that type; an empty `ftypes` is all of them."""

    type: str
    ftypes: frozenset[str]
    holds: Callable[[Place], bool] = lambda _: True


DEFAULT_TYPES: Mapping[str, str] = {
    "F32": "f32", "F16": "f16", "BF16": "bf16", "Q4_0": "q4_0", "Q4_1": "q4_1", "Q5_0": "q5_0", "Q5_1": "q5_1", "Q8_0": "q8_0",
    "Q1_0": "q1_0", "Q2_0": "q2_0", "MXFP4_MOE": "mxfp4", "Q2_K": "q2_K", "Q2_K_S": "q2_K", "Q3_K_S": "q3_K", "Q3_K_M": "q3_K",
    "Q3_K_L": "q3_K", "Q4_K_S": "q4_K", "Q4_K_M": "q4_K", "Q5_K_S": "q5_K", "Q5_K_M": "q5_K", "Q6_K": "q6_K", "TQ1_0": "tq1_0",
    "TQ2_0": "tq2_0", "IQ1_S": "iq1_s", "IQ1_M": "iq1_m", "IQ2_XXS": "iq2_xxs", "IQ2_XS": "iq2_xs", "IQ2_S": "iq2_xs",
    "IQ2_M": "iq2_s", "IQ3_XXS": "iq3_xxs", "IQ3_XS": "iq3_s", "IQ3_S": "iq3_s", "IQ3_M": "iq3_s", "IQ4_NL": "iq4_nl",
    "IQ4_XS": "iq4_xs",
}  # fmt: skip
"""llama_ftype_get_default_type."""

BLOCKS: Mapping[str, int] = {
    "f32": 1, "f16": 1, "bf16": 1, "q1_0": 128, "q2_0": 64, "q4_0": 32, "q4_1": 32, "q5_0": 32, "q5_1": 32, "q8_0": 32,
    "iq4_nl": 32, "mxfp4": 32,
}  # fmt: skip
"""Elements of a block; 256 where a type is not listed."""

FALLBACKS: Mapping[str, str] = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_0", "q2_K", "q3_K", "tq1_0", "tq2_0"), "q4_0"),
    "q4_K": "q5_0", "q5_K": "q5_1", "q6_K": "q8_0",
}  # fmt: skip
"""tensor_type_fallback: for rows that are no multiple of the type's block; then f16."""

_NEVER = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d",
    "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight",
    "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
    "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight",
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd",
    "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_NEVER_IN: Mapping[str, tuple[str, ...]] = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape",
        "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight",
        "attn_k_b.weight", "attn_v_b.weight",
    ),
}  # fmt: skip
_AT_LEAST_Q8_0: Mapping[str, tuple[str, ...]] = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}
_WHOLE_NAMES = {"position_embd.weight", "token_types.weight"}
_CATEGORIES = (
    ("attn_qkv.weight", Category.ATTN_V), ("attn_kv_b.weight", Category.ATTN_V), ("attn_v.weight", Category.ATTN_V),
    ("attn_k.weight", Category.ATTN_K), ("attn_q.weight", Category.ATTN_Q), ("attn_output.weight", Category.ATTN_OUTPUT),
    ("ffn_up", Category.FFN_UP), ("ffn_gate", Category.FFN_GATE), ("ffn_down", Category.FFN_DOWN),
)  # fmt: skip


def _of(*ftypes: str) -> frozenset[str]:
    return frozenset(ftypes)


def _gqa4(p: Place) -> bool:
    return p.facts.n_gqa >= 4


def _eight_experts(p: Place) -> bool:
    return p.facts.n_expert == 8


def _falcon(p: Place) -> bool:
    return p.facts.architecture == "falcon"


def _more_bits(p: Place) -> bool:
    """The first and last eighth, and every third layer between (use_more_bits)."""
    return p.i < p.n // 8 or p.i >= 7 * p.n // 8 or (p.i - p.n // 8) % 3 == 2


def _first_eighth(p: Place) -> bool:
    return p.i < p.n // 8


def _first_sixteenth(p: Place) -> bool:
    return p.i < p.n // 16


def _middle(p: Place) -> bool:
    return p.n // 8 <= p.i < 7 * p.n // 8


VERY_LOW = _of("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
_IQ2_SM = _of("IQ2_S", "IQ2_M")

OUTPUT_RULES = (
    Rule("q8_0", _of("MXFP4_MOE")),
    Rule("q8_0", _of(), _falcon),
    Rule("q5_K", VERY_LOW | _of("IQ3_XXS")),
    Rule("q8_0", _of("Q8_0")),
    Rule("q6_K", _of()),
)
"""output.weight, or token_embd.weight where it is both."""

VERY_LOW_RULES: Mapping[Category, tuple[Rule, ...]] = {
    Category.ATTN_V: (
        Rule("q4_K", _of(), lambda p: p.facts.n_gqa >= 4 or p.facts.n_expert >= 4),
        Rule("iq3_s", _IQ2_SM),
        Rule("q2_K", _of()),
    ),
    Category.ATTN_K: (Rule("q4_K", _of(), _eight_experts),),
    Category.FFN_DOWN: (Rule("iq3_s", _IQ2_SM, _first_eighth), Rule("q2_K", VERY_LOW - _IQ2_SM, _first_eighth)),
    Category.ATTN_OUTPUT: (
        Rule("q5_K", _of(), _eight_experts),
        Rule("iq2_xxs", _of("IQ1_S", "IQ1_M")),
        Rule("iq3_s", _IQ2_SM),
    ),
}
"""IQ1 and IQ2 files."""

RULES: Mapping[Category, tuple[Rule, ...]] = {
    Category.TOKEN_EMBD: (
        Rule("q2_K", _of("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M")),
        Rule("iq3_s", _of("IQ2_S", "IQ2_M", "IQ3_XXS")),
        Rule("q4_K", _of("TQ1_0", "TQ2_0", "Q2_0")),
    ),
    Category.ATTN_V: (
        Rule("q8_0", _of(), _eight_experts),
        Rule("q5_K", _of("Q3_K_L")),
        Rule("q5_K", _of("Q3_K_M"), lambda p: p.i < 2),
        Rule("q6_K", _of("Q4_K_M", "Q5_K_M"), _more_bits),
        Rule("q5_K", _of("Q4_K_S"), lambda p: p.i < 4),
        Rule("q5_K", _of("IQ4_NL", "IQ4_XS"), _gqa4),
        # a 70B has eight heads on one attn_v: what would be q3_K or q4_K gets more bits for little size
        Rule("q5_K", _of("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_M"), lambda p: p.facts.is_70b),
        Rule("q5_K", _of("Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"), lambda p: p.facts.is_70b and _gqa4(p)),
        Rule("q4_K", _of("Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"), _gqa4),
        Rule("q3_K", _of("Q2_K")),
        Rule("iq3_s", _of("IQ3_XXS"), lambda p: not p.imatrix),
        Rule("q4_K", _of("IQ3_M", "Q3_K_M")),
    ),
    Category.ATTN_K: (
        Rule("q8_0", _of(), _eight_experts),
        Rule("iq3_xxs", _of("IQ3_XS")),
        Rule("iq2_s", _of("IQ3_XXS")),
    ),
    Category.ATTN_Q: (Rule("iq3_xxs", _of("IQ3_XS")), Rule("iq2_s", _of("IQ3_XXS"))),
    Category.FFN_DOWN: (
        Rule("q3_K", _of("Q2_K")),
        Rule("q4_K", _of("Q2_K_S"), _first_eighth),
        Rule("q4_K", _of("IQ3_XXS"), lambda p: not p.imatrix and _first_eighth(p)),
        Rule("q3_K", _of("IQ3_XXS"), lambda p: not p.imatrix),
        Rule("q5_K", _of("Q3_K_M"), _first_sixteenth),
        Rule("q4_K", _of("Q3_K_M"), lambda p: not _falcon(p) or _more_bits(p)),
        Rule("q4_K", _of("IQ3_M"), lambda p: _first_eighth(p) or (_eight_experts(p) and _more_bits(p))),
        Rule("q4_K", _of("Q3_K_L"), _falcon),
        Rule("q5_K", _of("Q3_K_L")),
        Rule("q6_K", _of("Q4_K_M"), lambda p: _falcon(p) and _first_sixteenth(p)),
        Rule("q5_K", _of("Q4_K_M"), lambda p: _falcon(p) and _more_bits(p)),
        Rule("q6_K", _of("Q4_K_M"), lambda p: not _falcon(p) and _more_bits(p)),
        Rule("q5_K", _of("IQ4_NL", "IQ4_XS"), lambda p: _first_eighth(p) and not p.imatrix),
        Rule("q6_K", _of("Q5_K_M"), _more_bits),
        Rule("q5_K", _of("Q4_K_S"), lambda p: not _falcon(p) and _first_eighth(p)),
        Rule("q4_1", _of("Q4_0"), lambda p: p.imatrix and _first_eighth(p)),
        Rule("q5_1", _of("Q5_0"), lambda p: p.imatrix and _first_eighth(p)),
    ),
    Category.ATTN_OUTPUT: (
        Rule("q4_K", _of("Q3_K_L"), _falcon),
        Rule(
            "q5_K",
            _of(
                "Q2_K",
                "IQ3_XS",
                "IQ3_XXS",
                "Q3_K_S",
                "Q3_K_M",
                "IQ4_NL",
                "Q4_K_S",
                "Q4_K_M",
                "IQ3_S",
                "IQ3_M",
                "IQ4_XS",
            ),
            lambda p: not _falcon(p) and _eight_experts(p),
        ),
        Rule("q3_K", _of("Q2_K"), lambda p: not _falcon(p)),
        Rule("iq3_s", _of("IQ3_XXS"), lambda p: not _falcon(p)),
        Rule("q4_K", _of("Q3_K_M", "IQ3_M"), lambda p: not _falcon(p)),
        Rule("q5_K", _of("Q3_K_L"), lambda p: not _falcon(p) and not _eight_experts(p)),
    ),
    Category.FFN_GATE: (Rule("iq3_xxs", _of("IQ3_XS"), _middle),),
    Category.FFN_UP: (Rule("iq3_xxs", _of("IQ3_XS"), _middle),),
}
"""All other files. MXFP4_MOE knows only experts and the rest; see `_mxfp4_moe`."""


def tensor_types(tensors: Iterable[Shape], facts: Facts, ftype: str, *, imatrix: bool = False) -> dict[str, str]:
    """The type of each tensor in a file of that type, as `llama-quantize` without further options would choose.

    Args:
        tensors: of the source file: F32, F16 or BF16.
        facts: of its metadata.
        ftype: "Q4_K_M", "IQ4_XS", …: a key of `DEFAULT_TYPES`.
        imatrix: whether an importance matrix is given.

    Raises:
        FitplugError: no such file type.
    """
    default = DEFAULT_TYPES.get(ftype)
    if default is None:
        raise FitplugError(f"no file type '{ftype}'; there is: {', '.join(DEFAULT_TYPES)}")
    ordered = sorted(tensors, key=_loader_order)
    chosen = {t.name: t.type for t in ordered}
    allowed = [t for t in ordered if allows_quantization(t, facts.architecture)]
    if BLOCKS.get(default, 256) == 1:
        return chosen | {t.name: default for t in allowed}
    tied = not any(t.name == "output.weight" for t in ordered)
    for tensor, category, place in _placed(ordered, allowed, facts, imatrix=imatrix, very_low=ftype in VERY_LOW):
        kind = Category.OUTPUT if tied and category == Category.TOKEN_EMBD else category
        chosen[tensor.name] = fitting(_choose(tensor, kind, place, ftype, default), tensor.shape[0])
    return chosen


def _loader_order(tensor: Shape) -> tuple[int, str]:
    layer = re.match(r"blk\.(\d+)\.", tensor.name)
    return (int(layer[1]) if layer else -1, tensor.name)


def allows_quantization(tensor: Shape, architecture: str) -> bool:
    """Whether llama-quantize touches it at all (tensor_allows_quantization)."""
    name = tensor.name
    n_dims = max((i + 1 for i, n in enumerate(tensor.shape) if n > 1), default=1)
    return (
        n_dims >= 2
        and name.endswith("weight")
        and name not in _WHOLE_NAMES
        and not any(part in name for part in (*_NEVER, *_NEVER_IN.get(architecture, ())))
    )


def category_of(name: str) -> Category:
    """tensor_get_category; attn_qkv and attn_kv_b count as attn_v, as category_is_attn_v has it."""
    if name == "output.weight":
        return Category.OUTPUT
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return Category.TOKEN_EMBD
    return next((category for part, category in _CATEGORIES if part in name), Category.OTHER)


def _placed(
    ordered: Sequence[Shape], allowed: Sequence[Shape], facts: Facts, *, imatrix: bool, very_low: bool
) -> Iterator[tuple[Shape, Category, Place]]:
    """Each tensor with its number among its kind. With experts the layer in the name counts, except in IQ1 and IQ2 files."""
    n_attn_v = sum(category_of(t.name) == Category.ATTN_V for t in ordered)
    seen: dict[Category, int] = {}
    for tensor in allowed:
        category = category_of(tensor.name)
        i, n = seen.get(category, 0), n_attn_v if category == Category.ATTN_V else facts.n_layer_all
        seen[category] = i + 1
        if facts.n_expert > 1 and category in {Category.FFN_UP, Category.FFN_GATE, Category.FFN_DOWN} and not very_low:
            i = max(_loader_order(tensor)[0], 0)
        yield tensor, category, Place(facts, i, n, imatrix)


def _choose(tensor: Shape, category: Category, place: Place, ftype: str, default: str) -> str:
    architecture = place.facts.architecture
    if any(part in tensor.name for part in _AT_LEAST_Q8_0.get(architecture, ())):
        return "q8_0"
    if category == Category.OUTPUT:
        odd = tensor.shape[0] % BLOCKS.get(default, 256)
        return "q8_0" if odd else _first(OUTPUT_RULES, place, ftype, default)
    if ftype == "MXFP4_MOE":
        return _mxfp4_moe(tensor, category, architecture)
    low = ftype in VERY_LOW and category != Category.TOKEN_EMBD
    return _first((VERY_LOW_RULES if low else RULES).get(category, ()), place, ftype, default)


def _first(rules: Sequence[Rule], place: Place, ftype: str, default: str) -> str:
    return next((r.type for r in rules if (not r.ftypes or ftype in r.ftypes) and r.holds(place)), default)


def _mxfp4_moe(tensor: Shape, category: Category, architecture: str) -> str:
    """Expert tensors are MXFP4, all else Q8_0; bailingmoe3's MLA projections are 3-D and no experts."""
    experts = len(tensor.shape) > 2 and tensor.shape[2] > 1
    if architecture == "bailingmoe3":
        experts = experts and category in {Category.FFN_UP, Category.FFN_GATE, Category.FFN_DOWN}
    return "mxfp4" if experts else "q8_0"


def fitting(type_: str, n_cols: int) -> str:
    """The type itself, or what stands in for it where a row is no multiple of its block (tensor_type_fallback).

    Raises:
        FitplugError: nothing does.
    """
    block = BLOCKS.get(type_, 256)
    if n_cols % block == 0:
        return type_
    if block > 32 and type_ not in FALLBACKS:
        raise FitplugError(f"llama-quantize has nothing that stands in for {type_}, which rows of {n_cols} do not fit")
    other = FALLBACKS.get(type_, type_)
    return other if n_cols % BLOCKS.get(other, 256) == 0 else "f16"
