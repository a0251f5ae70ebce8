"""config.json, folded flat into metadata: {"text_config": {"hidden_size": 8}} is "config.text_config.hidden_size"."""

import json
from collections.abc import Iterator
from typing import Any

from fitplug.errors import UnreadableError
from fitplug.formats.budget import NUMBER, PAIR, Budget
from fitplug.formats.header import Blob, Skipped, Value
from fitplug.formats.json_stream import without_surrogates

MAX_BYTES = 512 << 10
"""The largest that are known have some 100 kB (lists of quantised modules); parsing takes up to thirty times as much."""
NULL = Skipped("null", 0)
"""Not the same as nothing: a null stands against the default that its place would have."""
_MAX_ITEMS = 4096
_MAX_DEPTH = 16


def read_config(blob: Blob, budget: Budget, prefix: str = "config") -> dict[str, Value]:
    """Scalars as they are, lists of scalars as tuples, all else by its length; a null is `NULL`.

    What lies in a list of objects, or of some nulls, is there, too, under its number: "config.block_configs.0.block_type".
    """
    if blob.n_bytes > MAX_BYTES:
        raise UnreadableError(f"{blob.name}: has {blob.n_bytes} bytes, more than any config.json: it is damaged")
    try:
        content = json.loads(blob.read(0, blob.n_bytes))
    except (ValueError, RecursionError):
        raise UnreadableError(f"{blob.name}: is not JSON: it is damaged; fetch it again") from None
    if not isinstance(content, dict):
        raise UnreadableError(f"{blob.name}: is no JSON object: it is damaged; fetch it again")
    found: dict[str, Value] = {}
    for path, value in _fold(content, prefix, 0):
        items = NUMBER * len(value) if isinstance(value, tuple) else 0  # the texts among them are there already
        budget.spend(PAIR + path.__sizeof__() + items, blob.name)
        found[path] = value
    return found


def _fold(content: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Value]]:
    for key, value in content.items():
        path = f"{prefix}.{without_surrogates(key)}"
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            yield from _fold(value, path, depth + 1)
        elif isinstance(value, dict | list):
            yield path, _items(value)
            if isinstance(value, list) and depth < _MAX_DEPTH and any(isinstance(item, dict | None) for item in value):
                yield from _fold({str(i): item for i, item in enumerate(value[:_MAX_ITEMS])}, path, depth + 1)
        elif value is None:
            yield path, NULL
        else:
            yield path, without_surrogates(value) if isinstance(value, str) else value


def _items(value: dict[str, Any] | list[Any]) -> Value:
    if isinstance(value, list) and len(value) <= _MAX_ITEMS and all(isinstance(item, int | float | str) for item in value):
        return tuple(without_surrogates(item) if isinstance(item, str) else item for item in value)
    return Skipped("json", len(value))
