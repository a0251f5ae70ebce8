"""config.json, folded flat into metadata: {"text_config": {"hidden_size": 8}} is "config.text_config.hidden_size"."""

import json
from typing import Any

from fitplug.errors import UnreadableError
from fitplug.formats.budget import Budget
from fitplug.formats.header import Blob, Skipped, Value
from fitplug.formats.json_stream import without_surrogates

MAX_BYTES = 1 << 20
"""The largest that are known have some 100 kB (lists of quantised modules)."""
_MAX_ITEMS = 4096
_MAX_DEPTH = 16


def read_config(blob: Blob, budget: Budget) -> dict[str, Value]:
    """Scalars as they are, lists of scalars as tuples, all else by its length. What is null is left out, as if not there."""
    if blob.n_bytes > MAX_BYTES:
        raise UnreadableError(f"{blob.name}: has {blob.n_bytes} bytes, more than any config.json: it is damaged")
    try:
        content = json.loads(blob.read(0, blob.n_bytes))
    except (ValueError, RecursionError):
        raise UnreadableError(f"{blob.name}: is not JSON: it is damaged; fetch it again") from None
    if not isinstance(content, dict):
        raise UnreadableError(f"{blob.name}: is no JSON object: it is damaged; fetch it again")
    budget.spend_text(blob.n_bytes, blob.name)
    found: dict[str, Value] = {}
    _fold(content, "config", found, 0)
    return found


def _fold(content: dict[str, Any], prefix: str, found: dict[str, Value], depth: int) -> None:
    for key, value in content.items():
        path = f"{prefix}.{without_surrogates(key)}"
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            _fold(value, path, found, depth + 1)
        elif isinstance(value, dict | list):
            found[path] = _list(value)
        elif value is not None:
            found[path] = without_surrogates(value) if isinstance(value, str) else value


def _list(value: dict[str, Any] | list[Any]) -> Value:
    if len(value) <= _MAX_ITEMS and isinstance(value, list) and all(isinstance(item, int | float | str) for item in value):
        return tuple(without_surrogates(item) if isinstance(item, str) else item for item in value)
    return Skipped("json", len(value))
