"""A header that is being translated."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

from fitplug.formats.header import Header, Skipped, Tensor, Value


class Draft:
    """The keys of the architecture without its name before them, and the tensors; both may be changed."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self.name = str(header.metadata["general.architecture"])
        start = f"{self.name}."
        self.keys = {key[len(start) :]: value for key, value in header.metadata.items() if key.startswith(start)}
        self._others = {key: value for key, value in header.metadata.items() if not key.startswith(start)}
        self.tensors = dict(header.tensors)

    @property
    def header(self) -> Header:
        """As it is now."""
        own = {f"{self.name}.{key}": value for key, value in self.keys.items()}
        return replace(
            self._header, metadata=self._others | own | {"general.architecture": self.name}, tensors=dict(self.tensors)
        )

    @property
    def changed(self) -> bool:
        """Whether anything is not as it was."""
        now = self.header
        return now.metadata != self._header.metadata or now.tensors != self._header.tensors

    def number(self, key: str) -> int:
        """A whole number; 0 where there is none."""
        value = self.keys.get(key)
        return value if isinstance(value, int) else 0

    def items(self, key: str) -> tuple[int, ...]:
        """The numbers of a list; empty where there is none."""
        value = self.keys.get(key)
        if isinstance(value, Skipped) or not isinstance(value, tuple):
            return ()
        return tuple(item for item in value if isinstance(item, int))

    def move(self, old: str, new: str) -> None:
        """Call a key something else."""
        if old in self.keys:
            self.keys[new] = self.keys.pop(old)

    def default(self, key: str, value: Value) -> None:
        """A key's value where it is missing."""
        self.keys.setdefault(key, value)

    def drop(self, beginnings: Sequence[str]) -> None:
        """Leave tensors out."""
        self.tensors = {name: t for name, t in self.tensors.items() if not name.startswith(tuple(beginnings))}

    def rename(self, parts: Iterable[tuple[str, str]]) -> None:
        """Put something else in the place of a part of all names that have it (rename_tensors_containing)."""
        for old, new in parts:
            for name in [name for name in self.tensors if old in name and new not in name]:
                self.call(name, name.replace(old, new, 1))

    def call(self, old: str, new: str) -> None:
        """Call one tensor something else, where it is there."""
        if old in self.tensors and new not in self.tensors:
            self.tensors[new] = self.tensors.pop(old)._replace(name=new)

    def shape(self, name: str) -> tuple[int, ...]:
        """Four numbers, as `ne`; zeros where there is no such tensor."""
        found = self.tensors.get(name)
        return (0, 0, 0, 0) if found is None else (*found.shape, 1, 1, 1, 1)[:4]

    def reshape(self, name: str, shape: tuple[int, ...]) -> None:
        """Another number of rows of the same length (set_tensor_shape)."""
        old = self.tensors[name]
        self.tensors[name] = old._replace(shape=shape, n_bytes=old.n_bytes * prod(shape) // max(1, prod(old.shape)))

    def as_f32(self, name: str) -> None:
        """set_tensor_type(…, GGML_TYPE_F32)."""
        self.tensors[name] = self.tensors[name]._replace(type="f32", n_bytes=4 * self.tensors[name].n_elements)

    def find(self, name: str) -> Tensor | None:
        """A tensor, where it is there."""
        return self.tensors.get(name)

    def cut_tokens(self, n_vocab: int) -> None:
        """Tokens beyond the embeddings are left out (truncate_str_arr)."""
        tokens = self._others.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Skipped):
            self._others["tokenizer.ggml.tokens"] = tokens._replace(length=min(tokens.length, n_vocab))
        elif isinstance(tokens, tuple):
            self._others["tokenizer.ggml.tokens"] = tokens[:n_vocab]
