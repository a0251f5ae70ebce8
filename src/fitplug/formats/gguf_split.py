"""Models cut into several GGUF files (src/llama-model-loader.cpp, llama_model_loader::llama_model_loader)."""

import re
from collections.abc import Mapping, Sequence

from fitplug.errors import UnreadableError
from fitplug.formats.header import Blob, Value

SPLIT = re.compile(r"(?P<prefix>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
"""llama_split_path's "%s-%05d-of-%05d.gguf"."""
MAX_SHARDS = 1024


def shard_names(name: str, count: int | None = None) -> tuple[str, ...]:
    """The names of all shards of which `name` is one; only itself where it is not called like a shard."""
    match = SPLIT.fullmatch(name)
    if match is None:
        return (name,)
    count = min(int(match["count"]) if count is None else count, MAX_SHARDS)
    return tuple(f"{match['prefix']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))


def check_split(blobs: Sequence[Blob], metadata: Mapping[str, Value]) -> None:
    """Refuse a split of which files are missing, or which does not begin with its first file."""
    name, count, number = blobs[0].name, metadata.get("split.count", 0), metadata.get("split.no", 0)
    if not isinstance(count, int) or not 0 <= count <= MAX_SHARDS:
        raise UnreadableError(f"{name}: split.count is {count!r}: the file is damaged")
    if count > 1 and number != 0:
        first = shard_names(name, count)[0]
        raise UnreadableError(f"{name}: is a later part of a split; give its first file, {first}")
    if len(blobs) == max(count, 1):
        return
    there = {blob.name for blob in blobs}
    missing = [expected for expected in shard_names(name, count) if expected not in there]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnreadableError(f"{name}: is one of {count} files; {missing[0]}{more} is missing: fetch it into the same folder")
    raise UnreadableError(f"{name}: says it is split into {count} files, but here are {len(blobs)}: keep the shards' names")


def check_shard(name: str, metadata: Mapping[str, Value], index: int, count: int) -> None:
    """Refuse a shard that belongs elsewhere."""
    number, stated = metadata.get("split.no"), metadata.get("split.count")
    if number != index or stated not in {None, count}:
        raise UnreadableError(f"{name}: should be file {index + 1} of {count}, but says split.no {number!r} of {stated!r}")
