"""Reading the headers of many candidates of one repository: side by side, each only once, the second time from this disk."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fitplug.errors import FitplugError, NetworkError
from fitplug.extension import Entry, Listing
from fitplug.formats.header import Blob, Header, Skipped, Tensor, Value
from fitplug.formats.safetensors import MAX_HEADER as MAX_SAFETENSORS_HEADER
from fitplug.repository.grouping import Candidate
from fitplug.repository.headers import HEAD, Prefix, Sibling, read_like, read_whole
from fitplug.repository.reference import with_companions
from fitplug.sources.cache import cache_folder, write_kept
from fitplug.sources.progress import tell
from fitplug.sources.side_by_side import side_by_side

MAX_FAILURES = 2
"""One after the other, after which the network counts as gone: each may have taken half a minute."""
MAX_KEPT_BYTES = 32 << 20
ReadSafetensors = Callable[[Sequence[Blob]], Header]


class HeaderCache:
    """Headers by the content they were read from."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, entries: Sequence[Entry]) -> Header | None:
        """What was kept for exactly these contents."""
        path = self._path(entries)
        try:
            if path is None or path.stat().st_size > MAX_KEPT_BYTES:
                return None
            return header_from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, entries: Sequence[Entry], header: Header) -> None:
        """Keep one, whole or not at all."""
        path = self._path(entries)
        if path is not None:
            write_kept(path, json.dumps(header_to_json(header)).encode())

    def _path(self, entries: Sequence[Entry]) -> Path | None:
        if self.folder is None or not entries or not all(entry.content for entry in entries):
            return None
        name = hashlib.sha256("\n".join(f"{e.path} {e.n_bytes} {e.content}" for e in entries).encode()).hexdigest()
        return self.folder / f"{name}.json"


def default_cache() -> HeaderCache:
    """The user's own."""
    return HeaderCache(cache_folder("headers"))


def read_headers(
    listing: Listing,
    wanted: Sequence[Candidate],
    open_file: Callable[[Listing, Entry], Blob],
    read_safetensors: ReadSafetensors,
    cache: HeaderCache,
) -> Iterator[tuple[Candidate, Header | FitplugError]]:
    """The header of each candidate, or why it cannot be read, as they come in."""
    missing = []
    for candidate in wanted:
        kept = cache.get(_read_for(listing, candidate))
        if kept is None:
            missing.append(candidate)
        else:
            yield candidate, kept
    reader = _Reader(listing, open_file, read_safetensors, cache)
    while missing and reader.sibling is None:  # until one shows the vocabulary
        candidate = missing.pop(0)
        yield candidate, reader.read(candidate)
    yield from zip(missing, side_by_side(reader.read, missing), strict=True)


class _Reader:
    """Reads one candidate after the other, each like the first one where that is possible."""

    def __init__(
        self,
        listing: Listing,
        open_file: Callable[[Listing, Entry], Blob],
        read_safetensors: ReadSafetensors,
        cache: HeaderCache,
    ) -> None:
        self.listing, self.open_file, self.read_safetensors, self.cache = listing, open_file, read_safetensors, cache
        self.sibling: Sibling | None = None
        self.n_failures = 0

    def read(self, candidate: Candidate) -> Header | FitplugError:
        if self.n_failures >= MAX_FAILURES:
            return NetworkError("not asked for any more: the network fails")
        try:
            header = self._header(candidate)
        except NetworkError as error:
            self.n_failures += 1
            return error
        except FitplugError as error:
            return error
        self.n_failures = 0
        self.cache.put(_read_for(self.listing, candidate), header)
        return header

    def _header(self, candidate: Candidate) -> Header:
        if candidate.missing:
            raise FitplugError(f"{candidate.missing[0]} is not in the repository")
        if candidate.format != "gguf":
            return self.read_safetensors(prefetched(self._open(with_companions(self.listing, candidate))))
        blobs = self._open(candidate.entries)
        blobs[1:] = _begun(blobs[1:])
        sibling = self.sibling
        if sibling is not None:
            header = read_like(blobs, sibling)
            if header is not None:
                return header
        header, found = read_whole(blobs)
        self.sibling = self.sibling or found
        return header

    def _open(self, entries: Sequence[Entry]) -> list[Blob]:
        return [self.open_file(self.listing, entry) for entry in entries]


def _read_for(listing: Listing, candidate: Candidate) -> Sequence[Entry]:
    """The files that a header is read from."""
    return candidate.entries if candidate.missing else with_companions(listing, candidate)


def _begun(blobs: Sequence[Blob]) -> list[Blob]:
    """A split's further files with their beginnings fetched side by side: that is all of their headers."""
    if not blobs:
        return []
    return list(side_by_side(_with_beginning, blobs))


def _with_beginning(blob: Blob) -> Blob:
    prefix = Prefix(blob)
    prefix.read(0, 4)
    return prefix


def fetched_ahead(blobs: Sequence[Blob]) -> Sequence[Blob]:
    """One model's files as a hub opened them: headers behind a network come in few pieces, side by side."""
    if not blobs or hasattr(blobs[0], "path"):
        return blobs
    if any(blob.name.endswith(".safetensors") for blob in blobs):
        return prefetched(blobs)
    return [Prefix(blobs[0]), *_begun(blobs[1:])]


def prefetched(blobs: Sequence[Blob]) -> list[Blob]:
    """Safetensors files with their headers, and the JSON beside them, fetched side by side: two ranges for each at most."""
    found: list[Blob] = []
    for blob in side_by_side(_with_header, blobs):
        found.append(blob)
        tell(f"reading headers: {len(found)} of {len(blobs)} files")
    return found


def _with_header(blob: Blob) -> Blob:
    prefix = Prefix(blob)
    if not blob.name.endswith(".safetensors"):
        if blob.n_bytes <= MAX_KEPT_BYTES:  # config.json and the index, which is gone through twice
            prefix.read(0, blob.n_bytes)
        return prefix
    start = prefix.read(0, min(HEAD, blob.n_bytes))
    size = 8 + int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and size <= MAX_SAFETENSORS_HEADER:
        prefix.read(0, min(size, blob.n_bytes))
    return prefix


@cache
def _version() -> str:
    """Of what is kept: what another fitplug read is not believed, since this one may read more."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fitplug")
    except PackageNotFoundError:
        return ""


def header_to_json(header: Header) -> dict[str, Any]:
    """All of a header, as JSON can hold it."""
    return {
        "version": _version(),
        "format": header.format,
        "metadata": {key: _value_to_json(value) for key, value in header.metadata.items()},
        "tensors": [list(tensor) for tensor in header.tensors.values()],
        "rest": [
            header.n_bytes,
            list(header.shards),
            header.header_bytes,
            header.version,
            header.byte_order,
            list(header.notes),
        ],
        "data_offsets": list(header.data_offsets),
    }


def header_from_json(data: Mapping[str, Any]) -> Header:
    """The header again.

    Raises:
        ValueError, TypeError, KeyError: it is of another version, or damaged.
    """
    if data["version"] != _version():
        raise ValueError(data["version"])
    tensors = [Tensor(name, type_, tuple(shape), *rest) for name, type_, shape, *rest in data["tensors"]]
    n_bytes, shards, header_bytes, version, byte_order, notes = data["rest"]
    return Header(
        format=data["format"],
        metadata={key: _value_from_json(value) for key, value in data["metadata"].items()},
        tensors={tensor.name: tensor for tensor in tensors},
        n_bytes=n_bytes,
        shards=tuple(shards),
        header_bytes=header_bytes,
        version=version,
        byte_order=byte_order,
        notes=tuple(notes),
        data_offsets=tuple(data["data_offsets"]),
    )


def _value_to_json(value: Value) -> Any:
    if isinstance(value, Skipped):
        return {"skipped": list(value)}
    return {"array": list(value)} if isinstance(value, tuple) else value


def _value_from_json(value: Any) -> Value:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]  # scalars are themselves
    return Skipped(*value["skipped"]) if "skipped" in value else tuple(value["array"])
