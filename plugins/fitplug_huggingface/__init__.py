"""Hugging Face: repositories, files by ranges, its cache, its search."""

from collections.abc import Iterable, Sequence

from fitplug.extension import Entry, Listing, Source
from fitplug.formats.header import Blob
from fitplug.hookspecs import hookimpl


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """`hf:OWNER/NAME`."""
    yield Source(
        scheme="hf",
        help="a Hugging Face repository, OWNER/NAME[@REVISION][:FILE-OR-QUANT]",
        open=_open,
        list=_list,
        open_file=_open_file,
        search=_search,
        download=_download,
        download_folder=_download_folder,
    )


def _list(reference: str) -> Listing:
    from fitplug_huggingface.hub import list_files

    return list_files(reference)


def _open(reference: str) -> Sequence[Blob]:
    from fitplug_huggingface.hub import open_reference_files

    return open_reference_files(reference)


def _open_file(listing: Listing, entry: Entry) -> Blob:
    from fitplug_huggingface.hub import open_file

    return open_file(listing, entry)


def _search(words: str, limit: int) -> Sequence[str]:
    from fitplug_huggingface.hub import search

    return search(words, limit)


def _download(listing: Listing, entries: Sequence[Entry], folder: str | None) -> str:
    from fitplug_huggingface.hub import download

    return download(listing, entries, folder)


def _download_folder() -> str:
    from fitplug_huggingface.hub import download_folder

    return download_folder()
