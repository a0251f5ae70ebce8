"""What a tensor of transformers is called in GGUF: gguf-py's TensorNameMap, by the table in tensor_names.txt.

The table is llama.cpp's own (`fixtures/quantize/make_names.py` makes it),
so that the names are those of the version that fitplug
follows, whatever gguf package is installed.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from fitplug.errors import FitplugError

_SUFFIXES = ("", ".weight", ".bias")


class TensorNames:
    """The names of one architecture's tensors."""

    def __init__(self, architecture: str) -> None:
        table, own, has = _table()
        if architecture not in has:
            raise FitplugError(f"llama.cpp's converter does not know the architecture {architecture[:60]!r}")
        self._names: dict[str, str] = {}
        for number in has[architecture]:
            name, keys = table[number]
            for key in (name, *own.get((architecture, name), keys)):
                self._names[key] = name

    def find(self, name: str) -> str | None:
        """The name in GGUF, with the suffix that it came with; None where the architecture has no such tensor."""
        for suffix in _SUFFIXES:
            if name.endswith(suffix):
                found = self._base(name.removesuffix(suffix))
                if found is not None:
                    return found + suffix
        return None

    def _base(self, name: str) -> str | None:
        if name in self._names:
            return self._names[name]
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdecimal():
                found = self._names.get(".".join((*parts[:i], "{bid}", *parts[i + 1 :])))
                if found is not None:
                    return found.replace("{bid}", part)
        return None


_Names = Sequence[tuple[str, Sequence[str]]]


@cache
def _table() -> tuple[_Names, Mapping[tuple[str, str], Sequence[str]], Mapping[str, Sequence[int]]]:
    """All tensors with what they are called elsewhere, what only one architecture calls them, and which tensors each has."""
    table: list[tuple[str, Sequence[str]]] = []
    own: dict[tuple[str, str], Sequence[str]] = {}
    has: dict[str, Sequence[int]] = {}
    for line in (files(__package__) / "tensor_names.txt").read_text("utf-8").splitlines()[1:]:
        first, *rest = line.split(" ")
        architecture, bar, name = first.partition("|")
        if first.endswith(":"):
            has[first[:-1]] = [int(number) for number in rest if number]
        elif bar:
            own[architecture, name] = rest
        else:
            table.append((first, rest))
    return table, own, has
