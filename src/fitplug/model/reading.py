"""Reading metadata as llama.cpp's loader does, without trusting it.

A key that is absent, of the wrong type or of the wrong length is one llama.cpp stops at: it is noted as a refusal and a
harmless value stands in, so that what can be shown of the file still can.
"""

from collections.abc import Callable
from typing import TypeVar

from fitplug.errors import UnreadableError
from fitplug.formats.header import Header, Skipped, Value

T = TypeVar("T")

MAX_U32 = (1 << 32) - 1
UNPREFIXED = ("xielu.",)
"""Keys of architectures that do not begin with its name (LLM_KV_NAMES, src/llama-arch.cpp)."""
MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS (src/llama-hparams.h)."""


class Keys:
    """One architecture's keys in a header; what llama.cpp would refuse is collected in `refusals`."""

    def __init__(self, header: Header, architecture: str) -> None:
        self.header = header
        self.prefix = architecture + "."
        self.refusals: list[str] = []

    def value(self, key: str) -> Value | None:
        """The raw value of `{architecture}.{key}`."""
        return self.header.metadata.get(self.full(key))

    def full(self, key: str) -> str:
        """The key as it stands in the file."""
        return key if key.startswith(UNPREFIXED) else self.prefix + key

    def refuse(self, reason: str) -> None:
        """Note why llama.cpp does not load this file, once."""
        if reason not in self.refusals:
            self.refusals.append(reason)

    def need(self, key: str) -> None:
        """llama.cpp: "key not found in model"."""
        if self.value(key) is None:
            self.refuse(f"the key {self.full(key)} is missing")

    def u32(self, key: str, default: int = 0) -> int:
        """A whole number (llama_model_loader::get_key<uint32_t>)."""
        return self._scalar(key, default, _is_u32)

    def real(self, key: str, default: float = 0.0) -> float:
        """A float (llama_model_loader::get_key<float>)."""
        return self._scalar(key, default, _is_real)

    def flag(self, key: str, default: bool) -> bool:
        """A bool (llama_model_loader::get_key<bool>)."""
        return self._scalar(key, default, _is_bool)

    def _scalar(self, key: str, default: T, fits: Callable[[Value], bool]) -> T:
        value = self.value(key)
        if value is None:
            return default
        if not fits(value):
            self.refuse(f"the key {self.full(key)} has the wrong type or an impossible value")
            return default
        return value  # type: ignore[return-value] # `fits` has just looked at it

    def per_layer(self, key: str, n: int, default: int = 0, *, signed: bool = False) -> tuple[int, ...]:
        """A number for each of `n` layers: one for all, or an array of exactly `n` (get_key_or_arr<uint32_t>).

        An array's negative numbers are very large ones to llama.cpp, but for those that it reads as `signed`.
        """
        value = self.value(key)
        if not isinstance(value, (tuple, Skipped)):
            return (self.u32(key, default),) * n
        found = self.array(key)
        if found is None or len(found) != n:
            length = value.length if isinstance(value, Skipped) else len(value)
            self.refuse(f"the key {self.full(key)} has {length} entries where {n} are expected")
            found = ((found or (default,)) + (default,) * n)[:n]
        return found if signed else tuple(v & MAX_U32 for v in found)

    def array(self, key: str, most: int = MAX_LAYERS) -> tuple[int, ...] | None:
        """An array of at most `most` whole numbers or bools (get_arr); None where there is none."""
        value = self.value(key)
        if isinstance(value, Skipped):
            self.refuse(f"the array {self.full(key)} has {value.length} entries, at most {most} are expected")
            return None
        if not isinstance(value, tuple):
            return None
        if len(value) > most or not all(isinstance(v, int) and abs(v) <= MAX_U32 for v in value):
            self.refuse(f"the array {self.full(key)} is too long or holds something else than small whole numbers")
            return None
        return tuple(int(v) for v in value if isinstance(v, int))

    def bounded(self, key: str, low: int, high: int) -> int:
        """A required count without which nothing can be said.

        Raises:
            UnreadableError: it is absent, or not between `low` and `high`.
        """
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            said = "missing" if value is None else f"{str(value)[:40]}, not a number from {low} to {high}"
            raise UnreadableError(f"{self.header.format} header: {self.full(key)} is {said}")
        return value


def _is_u32(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_U32


def _is_real(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_bool(value: Value) -> bool:
    return isinstance(value, bool)
