"""What a row of the table of classes is made of: keys, steps, and tensors that are made up.

A class of transformers becomes an architecture of llama.cpp by three kinds of data: which of config.json's names are which keys
(`Key`, `Derive`), what is done to tensors before the tensor map sees them (`Step`), and what has no tensor in the checkpoint
(`Extra`). Only shapes matter: a permutation, a sign or an added one leaves no trace here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import NamedTuple

from fitplug.conversion.config import Config
from fitplug.conversion.dequantize import Method
from fitplug.conversion.quantize import Shape
from fitplug.errors import FitplugError
from fitplug.formats.header import Tensor, Value

Keys = Mapping[str, Value]
Derive = Callable[[Config], Keys]
Step = Callable[[Shape, Config], Iterable[Shape]]
Extra = Callable[[Config], Iterable[Shape]]
Stored = Callable[[Config, Mapping[str, Tensor]], Method | None]
Key = str | tuple[str, ...] | Callable[[Config], Value | None]
"""One of config.json's names, several of which the first counts, or what is made of them; left out where it is not there."""

MOVED = "moved"
"""Type of a tensor whose block's number only modify_tensors changes: prepare_tensors looks for the old number among its
names of what
stays F32, and does not find it."""


class Row(NamedTuple):
    """A class of transformers."""

    architecture: str
    """llama.cpp's."""
    keys: Mapping[str, Key] = {}
    """Keys besides the common ones, without the architecture's prefix."""
    derive: tuple[Derive, ...] = ()
    """Several keys at once; the later wins, and all win over `keys`."""
    steps: tuple[Step, ...] = ()
    """In this order, after experts that lie one by one are one tensor."""
    prefix: str = ""
    """What the names of the class's tensors begin with, where the checkpoint has others, too."""
    n_words: Callable[[Config], int] | None = None
    """Of the vocabulary, where that is not what config.json says."""
    without: tuple[str, ...] = ()
    """Common keys that the class takes back."""
    extra: tuple[Extra, ...] = ()
    labelled: bool = True
    """Whether the class writes general.file_type; where it forgets to, only llama-quantize does."""
    common: bool = True
    """Whether the class begins with TextModel.set_gguf_parameters."""
    nextn: tuple[str, ...] | int = ()
    """config.json's number of MTP layers, where they are converted as further blocks; then what their tensors' names begin
    with, which are counted where it is silent. Or how many there are always."""
    blocks: Callable[[Config], int] | None = None
    """How many blocks there are without those for MTP, where that is not what all classes' config.json say."""
    trunk_only: bool = False
    """Further blocks are left out."""
    notes: tuple[str, ...] = ()
    """What is supposed of it, for people."""
    forced: tuple[tuple[str, str], ...] = ()
    """Patterns of GGUF names whose type the class decides (tensor_force_quant)."""
    types: Mapping[str, str] = {}
    """The same by the type that a matrix has in the checkpoint."""
    stored: Stored | None = None
    """How the class reads weights that are stored in a way of their own (dequant_model, generate_extra_tensors); None where it
    leaves that to what all classes do."""


Class = Row | Callable[[Config], Row]
"""A row, or what chooses one by config.json."""


def keys_of(keys: Mapping[str, Key], config: Config) -> dict[str, Value]:
    """Those that are there."""
    found = {
        name: key(config) if callable(key) else config.get(*((key,) if isinstance(key, str) else key))
        for name, key in keys.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def constant(value: Value) -> Key:
    """The same for every model of the class."""
    return lambda _: value


def or_else(default: Value, *names: str) -> Key:
    """A name's value, or this."""
    return lambda config: value if (value := config.given(*names)) is not None else default


def quotient(name: str, other: str) -> Key:
    """One of config.json's numbers divided by another."""
    return lambda config: config.number(name) // max(1, config.number(other))


def rope_width(factor: float = 1.0, *, of: Callable[[Config], int] | None = None) -> Key:
    """rope.dimension_count: the head's width, or the part of it that rotates."""

    def width(config: Config) -> Value:
        part = config.rope("partial_rotary_factor", "rope_pct", "rope_percent")
        return int((of(config) if of else config.head_dim) * (part if isinstance(part, (int, float)) else factor))

    return width


def each(name: str) -> Key:
    """A number for all blocks alike; left out where there is none."""

    def key(config: Config) -> Value | None:
        value = config.get(name)
        return (value,) * config.n_blocks if isinstance(value, (int, float)) else None

    return key


def even_head(config: Config) -> int:
    """The embedding divided among the heads, whatever head_dim says."""
    return config.number("hidden_size", "n_embd") // max(1, config.number("num_attention_heads", "n_head"))


def where_layer(kind: str, name: str = "layer_types") -> Key:
    """Which layers are of that kind, as an array; left out where config.json does not list them."""
    return lambda config: tuple(item == kind for item in config.items(name)) or None


def renamed(pattern: str, replacement: str) -> Step:
    """A name that is another one for the tensor map."""

    def step(shape: Shape, _: Config) -> Iterable[Shape]:
        yield shape._replace(name=re.sub(pattern, replacement, shape.name))

    return step


def placed(block: str, names: Mapping[str, str], *, moved_by: Callable[[Config], int] = lambda _: 0) -> Step:
    """Tensors of a block that no map knows: what stands behind the block's number → what stands there in GGUF."""
    whole = re.compile(rf"{block}\.(\d+)\.(.+)")

    def step(shape: Shape, config: Config) -> Iterable[Shape]:
        match = whole.fullmatch(shape.name)
        name = names.get(match[2]) if match else None
        yield shape if match is None or name is None else shape._replace(name=f"blk.{int(match[1]) + moved_by(config)}.{name}")

    return step


def dropped(pattern: str, when: Callable[[Config], bool] | None = None) -> Step:
    """What is not converted."""

    def step(shape: Shape, config: Config) -> Iterable[Shape]:
        if not re.search(pattern, shape.name) or (when is not None and not when(config)):
            yield shape

    return step


def reshaped(pattern: str, new: Callable[[Sequence[int], Config], Sequence[int]]) -> Step:
    """Tensors of another shape, of the same size (ggml's order)."""

    def step(shape: Shape, config: Config) -> Iterable[Shape]:
        if not re.search(pattern, shape.name):
            yield shape
            return
        made = tuple(new(shape.shape, config))
        if prod(made) != prod(shape.shape) or not all(made):
            raise FitplugError(f"{shape.name[:80]} is not as wide as config.json says")
        yield shape._replace(shape=made)

    return step


def squeezed(pattern: str) -> Step:
    """Without dimensions of one."""
    return reshaped(pattern, lambda n, _: tuple(size for size in n if size != 1) or (1,))


def column(pattern: str) -> Step:
    """A vector as a matrix of one column: ne[0] is 1."""
    return reshaped(pattern, lambda n, _: (1, prod(n)))


def turned(pattern: str) -> Step:
    """The first two dimensions transposed."""
    return reshaped(pattern, lambda n, _: (n[1], n[0], *n[2:]) if len(n) > 1 else n)


def split(pattern: str, *parts: tuple[str, Callable[[Config], int]], axis: int = 1) -> Step:
    """One tensor's rows are several tensors: what stands for the pattern in each name, and how many rows it has."""

    def step(shape: Shape, config: Config) -> Iterable[Shape]:
        if not re.search(pattern, shape.name):
            yield shape
            return
        at = min(axis, len(shape.shape) - 1)
        sizes = [size(config) for _, size in parts]
        if sum(sizes) != shape.shape[at]:
            raise FitplugError(f"{shape.name[:80]} is not as wide as config.json says")
        for (name, _), size in zip(parts, sizes, strict=True):
            yield shape._replace(name=re.sub(pattern, name, shape.name), shape=_cut(shape.shape, at, size))

    return step


def halved(pattern: str, first: str, second: str) -> Step:
    """One tensor's rows are two tensors of the same size."""

    def step(shape: Shape, _: Config) -> Iterable[Shape]:
        if not re.search(pattern, shape.name):
            yield shape
            return
        at = min(1, len(shape.shape) - 1)
        for name in (first, second):
            yield shape._replace(name=re.sub(pattern, name, shape.name), shape=_cut(shape.shape, at, shape.shape[at] // 2))

    return step


def _cut(shape: tuple[int, ...], at: int, size: int) -> tuple[int, ...]:
    return (*shape[:at], size, *shape[at + 1 :])


def rows_of(name: str) -> Callable[[Config], int]:
    """Heads of that kind times their width: "num_attention_heads"."""
    return lambda config: config.number(name, "num_attention_heads", "n_head") * config.head_dim


def fused_qkv(pattern: str, *, q: str, k: str, v: str) -> Step:
    """Query, key and value rows that lie in one tensor, apart."""
    heads, kv = rows_of("num_attention_heads"), rows_of("num_key_value_heads")
    return split(pattern, (q, heads), (k, kv), (v, kv))
