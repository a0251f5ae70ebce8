"""ModelScope: repositories, files by ranges, its cache, its search."""

from collections.abc import Iterable

from fitplug.extension import Later, Source
from fitplug.hookspecs import hookimpl


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """`modelscope:OWNER/NAME`."""
    yield Source(
        scheme="modelscope",
        help="a ModelScope repository, OWNER/NAME[@REVISION][:FILE-OR-QUANT]",
        open=Later("fitplug_modelscope.hub:open_reference_files"),
        list=Later("fitplug_modelscope.hub:list_files"),
        open_file=Later("fitplug_modelscope.hub:open_file"),
        search=Later("fitplug_modelscope.hub:search"),
        download=Later("fitplug_modelscope.hub:download"),
        download_folder=Later("fitplug_modelscope.hub:download_folder"),
        pages=tuple(f"https://{www}modelscope.{site}/models/" for www in ("", "www.") for site in ("cn", "ai")),
    )
