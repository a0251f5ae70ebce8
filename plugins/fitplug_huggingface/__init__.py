"""Hugging Face: repositories, files by ranges, its cache, its search."""

from collections.abc import Iterable

from fitplug.extension import Later, Source
from fitplug.hookspecs import hookimpl


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """`hf:OWNER/NAME`."""
    yield Source(
        scheme="hf",
        help="a Hugging Face repository, OWNER/NAME[@REVISION][:FILE-OR-QUANT]",
        open=Later("fitplug_huggingface.hub:open_reference_files"),
        list=Later("fitplug_huggingface.hub:list_files"),
        open_file=Later("fitplug_huggingface.hub:open_file"),
        search=Later("fitplug_huggingface.hub:search"),
        download=Later("fitplug_huggingface.hub:download"),
        download_folder=Later("fitplug_huggingface.hub:download_folder"),
        pages=("https://huggingface.co/", "https://hf.co/", "https://hf-mirror.com/"),
    )
