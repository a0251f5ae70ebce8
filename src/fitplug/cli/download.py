"""`fitplug download REPO[:FILE-OR-QUANT]`: hand over to the hub's own package, and say what to do next."""

import contextlib
import sys

import click

from fitplug.cli.check import hub_of
from fitplug.cli.command import Command, Option
from fitplug.cli.options import from_page, json_option
from fitplug.cli.progress import progressing
from fitplug.cli.steps import load_registry
from fitplug.errors import FitplugError, NotFoundError


@click.command(
    cls=Command,
    examples=(
        ("one quant", "download modelscope:Qwen/Qwen3-8B-GGUF:Q4_K_M"),
        ("to a folder of your own", "download hf:Qwen/Qwen3-8B-GGUF:Q4_K_M --to models"),
    ),
)
@click.argument("reference", metavar="REPO[:FILE-OR-QUANT]", callback=from_page)
@click.option("--to", "folder", metavar="FOLDER", cls=Option, section="Options", help="where to (the hub's own cache)")
@json_option
def command(*, reference: str, folder: str | None, as_json: bool) -> int:
    """Fetch a model, all files of it, with the hub's own package: it resumes, verifies and shows how far it is."""
    from fitplug.repository.reference import choose, to_download
    from fitplug.units import format_bytes

    source, name = hub_of(reference, load_registry())
    if source.list is None or source.download is None:
        raise NotFoundError(f"{source.scheme} cannot download")
    with progressing(f"looking into {reference}"):
        listing, chosen = choose(name, source.list)
    entries = to_download(listing, chosen)
    _check_disk(folder or (source.download_folder() if source.download_folder else ""), sum(e.n_bytes for e in entries))
    with contextlib.redirect_stdout(sys.stderr):  # the packages talk while they work
        path = source.download(listing, entries, folder)
    model = path.rpartition("/")[0] if chosen.format == "safetensors" and len(chosen.entries) > 1 else path
    if as_json:
        from fitplug.render.json import dump

        print(dump({"path": model, "n_bytes": chosen.n_bytes, "files": [e.path for e in entries]}))
        return 0
    from fitplug.render.page import Line, Shell, write
    from fitplug.render.text import one_line

    write([Line(f"{format_bytes(chosen.n_bytes)} in {one_line(model)}", "good"), Shell("next", [("fitplug", "auto", model)])])
    return 0


def _check_disk(folder: str, n_bytes: int) -> None:
    """Refuse before the disk is full, not after. What is there already of the same files is not looked for."""
    import shutil
    from pathlib import Path

    from fitplug.units import format_bytes

    if not folder:
        return
    path = Path(folder).expanduser().absolute()
    there = next((place for place in (path, *path.parents) if place.exists()), path)
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return
    if n_bytes > free:
        raise FitplugError(
            f"{format_bytes(n_bytes)} do not fit on the disk of {path}, where {format_bytes(free)} are free: use --to"
        )
