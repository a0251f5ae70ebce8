"""The values of llama.cpp's arguments, read as llama.cpp reads them (common/arg.cpp)."""

import math
import re
from collections.abc import Callable
from typing import Any, get_args

import click

from fitplug.errors import FitplugError
from fitplug.settings import CACHE_TYPES, KvOverride, LazyMode, LoadMode, Pooling, ScaledAdapter, TensorOverride
from fitplug.units import parse_size

MAX_INT = 2**31 - 1
"""std::stoi throws beyond."""
_NUMBER = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
"""What std::stof reads, without infinities."""
_KINDS: dict[str, Callable[[str], int | float | bool | str]] = {
    "int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__, "str": str,
}  # fmt: skip
MOST_CHARS = 128
"""Of a key and of a text, one of them being their end (llama_model_kv_override, include/llama.h)."""
_MAX_ITEMS = 4096
"""More overrides or split shares than any command line holds."""


class Layers(click.ParamType[int | None]):
    """`-ngl`: a number, "all" (any negative) or "auto"; -1 is llama.cpp's own way to write "auto"."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """None: left to the program, as if it had not been given."""
        if not isinstance(value, str) or value in ("all", "auto"):
            return {"all": -2, "auto": None}.get(value, value)
        number = _integer(self, value, param, ctx)
        return None if number == -1 else number


class Choice(click.ParamType[str]):
    """One of a few words; some have other spellings."""

    name = "choice"

    def __init__(self, words: tuple[str, ...], spellings: dict[str, str] | None = None) -> None:
        self.words, self.spellings = words, spellings or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word itself, whichever way it was spelled."""
        word = self.spellings.get(value, value)
        if word not in self.words:
            self.fail(f"'{value}' is none of {', '.join(self.words)}", param, ctx)
        return str(word)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002 - click calls it so
        """Offer the words."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


FLASH_ATTN = Choice(
    ("on", "off", "auto"),
    dict.fromkeys(("enabled", "true", "1"), "on") | dict.fromkeys(("disabled", "false", "0"), "off") | {"-1": "auto"},
)
CACHE_TYPE = Choice(CACHE_TYPES)
SPLIT_MODE = Choice(("none", "layer", "row", "tensor"))
ROPE_SCALING = Choice(("none", "linear", "yarn"))
POOLING = Choice(get_args(Pooling))
LOAD_MODE, LAZY_MODE = Choice(get_args(LoadMode)), Choice(get_args(LazyMode))
GOAL = Choice(("balanced", "speed", "context", "quality"))


class Shares(click.ParamType[tuple[float, ...]]):
    """`-ts`: shares, split at commas and slashes."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Finite numbers, none negative."""
        if isinstance(value, tuple):
            return value
        words = [word for word in str(value).replace("/", ",").split(",") if word]
        try:
            shares = tuple(float(word) for word in words)
        except ValueError:
            self.fail(f"'{value}' is not a list of shares such as 3,1", param, ctx)
        if not shares or len(shares) > _MAX_ITEMS or not all(math.isfinite(share) and share >= 0 for share in shares):
            self.fail(f"'{value}' is not a list of shares such as 3,1", param, ctx)
        return shares


class Overrides(click.ParamType[tuple[TensorOverride, ...]]):
    """`-ot`: PATTERN=BUFFER, several with commas (llama.cpp, parse_tensor_buffer_overrides)."""

    name = "overrides"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[TensorOverride, ...]:
        """In the order given."""
        if isinstance(value, tuple):
            return value
        pairs = [item.partition("=") for item in str(value).split(",")]
        if len(pairs) > _MAX_ITEMS or not all(equals and buffer for _, equals, buffer in pairs):
            self.fail(f"'{value}' is not PATTERN=BUFFER, such as 'ffn_.*_exps=CPU'", param, ctx)
        return tuple(TensorOverride(pattern, buffer) for pattern, _, buffer in pairs)


class Number(click.ParamType[str]):
    """A number that decides no memory: kept as it is written."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Its text."""
        if not _NUMBER.fullmatch(str(value)):
            self.fail(f"'{value}' is not a number", param, ctx)
        return str(value)


class KvOverrides(click.ParamType[tuple[KvOverride, ...]]):
    """`--override-kv`: KEY=TYPE:VALUE, several with commas (string_parse_kv_override, common/common.cpp)."""

    name = "metadata"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[KvOverride, ...]:
        """In the order given."""
        if isinstance(value, tuple):
            return value
        found = []
        for item in str(value).split(",")[:_MAX_ITEMS]:
            key, _, said = item.partition("=")
            kind, _, text = said.partition(":")
            try:
                found.append(KvOverride(key, _KINDS[kind](text)))
            except (KeyError, ValueError):
                found.append(KvOverride("", 0))
        if not all(0 < len(each.key) < MOST_CHARS and len(str(each.value)) < MOST_CHARS for each in found):
            self.fail(f"'{value}' is not KEY=TYPE:VALUE, such as llama.context_length=int:8192", param, ctx)
        return tuple(found)


class ScaledAdapters(click.ParamType[tuple[ScaledAdapter, ...]]):
    """`--lora-scaled`: FNAME:SCALE, several with commas; a name has no colon, as in common/arg.cpp."""

    name = "adapters"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[ScaledAdapter, ...]:
        """In the order given."""
        if isinstance(value, tuple):
            return value
        pairs = [item.split(":") for item in str(value).split(",") if item]
        if (
            not pairs
            or len(pairs) > _MAX_ITEMS
            or not all(len(pair) == 2 and pair[0] and _NUMBER.fullmatch(pair[1]) for pair in pairs)
        ):
            self.fail(f"'{value}' is not FILE:SCALE, such as adapter.gguf:0.5", param, ctx)
        return tuple(ScaledAdapter(name, float(scale)) for name, scale in pairs)


class Words(click.ParamType[tuple[str, ...]]):
    """A list with commas; "none" is the empty one where `none` says so."""

    name = "words"

    def __init__(self, *, none: bool = False) -> None:
        self.none = none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The words, without empty ones."""
        if isinstance(value, tuple):
            return value
        if self.none and value == "none":
            return ()
        words = tuple(word for word in str(value).split(",") if word)
        if not words:
            self.fail(f"'{value}' names nothing", param, ctx)
        return words


class Size(click.ParamType[int]):
    """Bytes, written as 512MiB, 1.5GiB or a plain number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except FitplugError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType[int]):
    """A whole number that std::stoi would take, not below `low` nor above `high`."""

    name = "count"

    def __init__(self, low: int = 0, *, high: int = MAX_INT, also: frozenset[int] = frozenset()) -> None:
        self.low, self.high, self.also = low, high, also

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        number = value if isinstance(value, int) else _integer(self, str(value), param, ctx)
        if number < self.low and number not in self.also:
            self.fail(f"{number} is less than {self.low}", param, ctx)
        if number > self.high:
            self.fail(f"{number} is more than {self.high}", param, ctx)
        return number


def _integer(kind: click.ParamType[Any], value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 10 or int(digits) > MAX_INT:
        kind.fail(f"'{value}' is not a whole number", param, ctx)
    return int(value)
