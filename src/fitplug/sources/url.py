"""Models behind a plain URL: one file, or its shards and companions beside it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from fitplug.errors import AccessError, FitplugError, NotFoundError
from fitplug.formats.gguf_split import shard_names
from fitplug.formats.header import Blob
from fitplug.formats.safetensors_names import CONFIGS, shards_of
from fitplug.repository.headers import Prefix
from fitplug.sources.http import Http
from fitplug.sources.http_blob import HttpBlob

MAX_SHARDS = 256
"""Each costs a request or more."""


def open_url(url: str) -> Sequence[Blob]:
    """The file at `url` and what is named like its shards; for safetensors config.json and the like, where there is such."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    http = Http()
    safetensors = name.endswith(".safetensors")
    names = shards_of(name) if safetensors else list(shard_names(name))
    if len(names) > MAX_SHARDS:
        raise FitplugError(f"{name[:80]}: is one of more than {MAX_SHARDS} files; over a network fitplug reads no more")
    if not safetensors and name != names[0]:
        raise FitplugError(f"{name[:80]}: is a later part of a split; give the URL of its first file, {names[0][:80]}")
    blobs = [HttpBlob(http, url if each == name else _beside(url, each), each) for each in names]
    return [*blobs, *_configs(http, url)] if safetensors else [Prefix(blob) for blob in blobs]


def _beside(url: str, name: str) -> str:
    """The URL of another file of the same folder."""
    parts = urlsplit(url)
    folder = parts.path.rpartition("/")[0]
    return urlunsplit(parts._replace(path=f"{folder}/{quote(name)}"))


def _configs(http: Http, url: str) -> Iterator[Blob]:
    for name in CONFIGS:
        blob = HttpBlob(http, _beside(url, name), name)
        with suppress(NotFoundError, AccessError):
            blob.read(0, 1)
            yield blob
