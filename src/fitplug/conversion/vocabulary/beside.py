"""The small files beside a checkpoint's weights: the tokenizer, its settings, the model card. Read when they are asked for."""

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from fitplug.errors import FitplugError
from fitplug.formats.header import Blob

MAX_BYTES = 64 << 20
"""The largest tokenizer.json that is known has 33 MB."""
MAX_LISTS, MAX_QUOTES = 2 << 20, 8 << 20
"""Brackets and quotes of one JSON text, several times the most that is known: each may take a hundred bytes when read."""


class UnreadError(Exception):
    """Why the vocabulary, or the card, cannot be known from the files alone. It never leaves the conversion."""


class Beside:
    """The files by their names below the checkpoint's folder."""

    def __init__(self, blobs: Iterable[Blob], folder: str) -> None:
        self._blobs = {blob.name: blob for blob in blobs}
        self._read: dict[str, Any] = {}
        self.folder = folder
        """What the folder itself is called."""

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return name in self._blobs

    def names(self, start: str, end: str) -> list[str]:
        """Files that are called so, in order."""
        return sorted(name for name in self._blobs if name.startswith(start) and name.endswith(end))

    def raw(self, name: str) -> bytes:
        """All of a file.

        Raises:
            UnreadError: it is not there, too long, or cannot be read.
        """
        blob = self._blobs.get(name)
        if blob is None:
            raise UnreadError(f"there is no {name}")
        if blob.n_bytes > MAX_BYTES:
            raise UnreadError(f"{name} has {blob.n_bytes} bytes, more than any")
        try:
            return blob.read(0, blob.n_bytes)
        except FitplugError as error:
            raise UnreadError(f"{name} cannot be read ({error})") from None

    def text(self, name: str) -> str:
        """A text file as Python reads it, every line's end one character."""
        try:
            return self.raw(name).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            raise UnreadError(f"{name} is not UTF-8") from None

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object; each file is taken apart once."""
        if name not in self._read:
            self._read[name] = _parsed(name, self.raw(name))
        found: dict[str, Any] = self._read[name]
        return found

    def json_or_empty(self, name: str) -> dict[str, Any]:
        """The same, or an empty one where there is no such file."""
        return self.json(name) if self.has(name) else {}

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json."""
        return self.json_or_empty("tokenizer_config.json")


def _parsed(name: str, data: bytes) -> dict[str, Any]:
    if data.count(b"[") + data.count(b"{") > MAX_LISTS or data.count(b'"') > MAX_QUOTES:
        raise UnreadError(f"{name} has more entries than any")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise UnreadError(f"{name} is not JSON") from None
    if not isinstance(found, dict):
        raise UnreadError(f"{name} is no JSON object")
    return found
