"""What a tensor of transformers is called in GGUF: gguf-py's TensorNameMap.

First by the table in tensor_names.txt, which is that of the llama.cpp that fitplug follows (`fixtures/quantize/make_names.py`
makes it): published gguf packages lag behind it. A name that it does not have is looked up in the installed package, which may
be newer.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from fitplug.errors import FitplugError

_BLOCK = re.compile(r"\.(\d+)\.")
_SUFFIXES = ("", ".weight", ".bias")


class TensorNames:
    """The names of one architecture's tensors."""

    def __init__(self, architecture: str) -> None:
        table, own, has = _table()
        self.architecture = architecture
        if architecture not in has and self._installed is None:
            raise FitplugError(f"llama.cpp's converter does not know the architecture {architecture[:60]!r}")
        self._names: dict[str, str] = {}
        for number in has.get(architecture, ()):
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
        return self._newer(name) if self._installed is not None else None

    def _newer(self, name: str) -> str | None:
        """By the installed package, as a tensor of its first block."""
        block = _BLOCK.search(name)
        first = name if block is None else f"{name[: block.start()]}.0.{name[block.end() :]}"
        found: str | None = self._installed.get_name(first, _SUFFIXES[1:])
        return found if found is None or block is None else found.replace("blk.0.", f"blk.{block[1]}.", 1)

    @cached_property
    def _installed(self) -> Any:
        """The installed package's map of the architecture; None where it has none."""
        import gguf

        kind = next((kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture), None)
        return None if kind is None else gguf.get_tensor_name_map(kind, 1)

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
