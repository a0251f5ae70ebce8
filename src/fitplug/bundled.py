"""fitplug's own registrations, through the same hooks as anybody's."""

from collections.abc import Iterable, Sequence

from fitplug.extension import HeaderFormat, Source
from fitplug.formats.header import Blob, Header
from fitplug.hookspecs import hookimpl


def _recognises_gguf(blobs: Sequence[Blob]) -> bool:
    from fitplug.formats import gguf

    return gguf.recognises(blobs)


def _read_gguf(blobs: Sequence[Blob]) -> Header:
    from fitplug.formats import gguf

    return gguf.read(blobs)


def _recognises_safetensors(blobs: Sequence[Blob]) -> bool:
    from fitplug.formats import safetensors

    return safetensors.recognises(blobs)


def _read_safetensors(blobs: Sequence[Blob]) -> Header:
    from fitplug.formats import safetensors

    return safetensors.read(blobs)


def _open_path(path: str) -> Sequence[Blob]:
    from fitplug.sources.local import open_path

    return open_path(path)


def _open_url(url: str) -> Sequence[Blob]:
    from fitplug.sources.url import open_url

    return open_url(url)


@hookimpl
def fitplug_formats() -> Iterable[HeaderFormat]:
    """GGUF and safetensors."""
    yield HeaderFormat(name="gguf", recognises=_recognises_gguf, read=_read_gguf)
    yield HeaderFormat(name="safetensors", recognises=_recognises_safetensors, read=_read_safetensors)


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """This disk, and whatever has a URL."""
    yield Source(scheme="file", help="a file, the first file of a split, or a folder of safetensors", open=_open_path)
    yield Source(scheme="https", help="the URL of a file, read by ranges", open=_open_url)
