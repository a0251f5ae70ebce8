"""Which of a folder's files make one safetensors model."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fitplug.errors import UnreadableError
from fitplug.formats.header import Blob
from fitplug.formats.json_stream import JsonStream
from fitplug.formats.safetensors_names import CONFIG, INDEX, MAX_SHARDS, QUANT_CONFIG, is_beside, shards_of


class Files(NamedTuple):
    """The files of one model by what they are for."""

    shards: Sequence[Blob]
    index_file: Blob | None
    config: Blob | None
    quant_config: Blob | None
    notes: Sequence[str]
    beside: Sequence[Blob] = ()


def sort_files(blobs: Sequence[Blob]) -> Files:
    """The model's shards in order, by the index, by their numbers, or the only one there is.

    Raises:
        UnreadableError: a shard is missing, or several models lie together.
    """
    beside = [blob for blob in blobs if is_beside(blob.name)]
    by_name = {_base(blob): blob for blob in blobs if blob not in beside}
    weights = {name: blob for name, blob in by_name.items() if not name.endswith(".json")}
    indices = sorted(name for name in by_name if name.endswith(INDEX))
    index = by_name["model" + INDEX if "model" + INDEX in indices else indices[0]] if indices else None
    wanted = _indexed(index) if index is not None else _numbered(list(weights))
    missing = [name for name in wanted if name not in weights]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnreadableError(f"{missing[0][:80]}{more} of {len(wanted)} files is missing: fetch it into the same folder")
    others = [name for name in weights if name not in wanted]
    notes = [f"left out, as not of this model: {', '.join(others[:5])}"] if others else []
    config = by_name.get(CONFIG)
    beside = [*beside, config] if beside and config else []
    return Files([weights[name] for name in wanted], index, config, by_name.get(QUANT_CONFIG), notes, beside)


def weight_map(index: Blob) -> Iterator[tuple[str, str]]:
    """Tensor → file, pair by pair as the index lists them."""
    stream = JsonStream(index, 0, index.n_bytes, "the index")
    for key in stream.members():
        if key != "weight_map":
            stream.value()
            continue
        for name in stream.members():
            yield name, stream.string()
    stream.finish()


def _base(blob: Blob) -> str:
    return blob.name.rpartition("/")[2]


def _indexed(index: Blob) -> list[str]:
    found: set[str] = set()
    for _, file in weight_map(index):
        found.add(file)
        if len(found) > MAX_SHARDS or len(file) > 255:
            raise UnreadableError(f"{index.name}: names more than {MAX_SHARDS} files, or none that can be: it is damaged")
    if not found:
        raise UnreadableError(f"{index.name}: names no files: it is damaged; fetch it again, or leave it out")
    return sorted(found)


def _numbered(names: Sequence[str]) -> list[str]:
    """All shards of the only numbered model, or else the only file, or the one that is called "model"."""
    models = {tuple(shards) for name in names if len(shards := shards_of(name)) > 1}
    if len(models) == 1:
        return list(models.pop())
    if len(names) == 1:
        return list(names)
    if "model.safetensors" in names:
        return ["model.safetensors"]
    raise UnreadableError(f"several models lie together, {', '.join(sorted(names)[:3])}: name one file")
