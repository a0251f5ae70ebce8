"""OWNER/NAME[@REVISION][:FILE-OR-QUANT], taken apart and checked before it becomes part of a URL."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fitplug.errors import FitplugError
from fitplug.extension import Entry, Listing
from fitplug.formats.header import Blob
from fitplug.formats.safetensors_names import BESIDE, CONFIGS
from fitplug.repository.grouping import Candidate, select

_REPOSITORY = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.][A-Za-z0-9_.-]{0,127}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}")


class Reference(NamedTuple):
    """A repository, a revision (empty: the hub's default), and a file or quant in it (empty: the only one)."""

    repository: str
    revision: str
    wanted: str


def parse_reference(text: str) -> Reference:
    """Take a reference apart.

    Raises:
        FitplugError: it is not one; the message shows the form.
    """
    head, _, wanted = text.partition(":")
    repository, _, revision = head.partition("@")
    repository = repository.strip("/")
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise FitplugError(
            f"'{text[:100]}' is not a repository: write it as OWNER/NAME, OWNER/NAME:QUANT or OWNER/NAME@REVISION"
        )
    if revision and not is_revision(revision):
        raise FitplugError(f"'{revision[:60]}' is not a revision: it is a branch, a tag or a commit")
    return Reference(repository, revision, wanted)


def is_revision(text: str) -> bool:
    """Whether it can be a branch, a tag or a commit, and does not lead elsewhere as part of a path."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def stays_inside(path: str) -> bool:
    """Whether a listed path names something below the repository, wherever it is written to."""
    return path.isprintable() and not path.startswith("/") and ".." not in re.split(r"[/\\]", path)


def open_reference(
    text: str, list_files: Callable[[str], Listing], open_file: Callable[[Listing, Entry], Blob]
) -> Sequence[Blob]:
    """The files of the one model that the reference names; for safetensors config.json and the index beside them."""
    reference = parse_reference(text)
    listing = list_files(f"{reference.repository}@{reference.revision}" if reference.revision else reference.repository)
    chosen = select(listing, reference.wanted)
    blobs = [open_file(listing, entry) for entry in with_companions(listing, chosen)]
    return [*blobs, *kept_beside(listing, chosen, open_file)]


def kept_beside(listing: Listing, chosen: Candidate, open_file: Callable[[Listing, Entry], Blob]) -> Sequence[Blob]:
    """Tokenizer and card of safetensors, where they and the weights are on this disk: nothing is fetched for their sake."""
    folder = chosen.entries[0].path.rpartition("/")[0]
    below = {entry.path.rpartition("/")[2]: entry for entry in listing.entries if entry.path.rpartition("/")[0] == folder}
    if chosen.format != "safetensors" or not hasattr(open_file(listing, chosen.entries[0]), "path"):
        return ()
    found = [open_file(listing, entry) for name, entry in below.items() if name in BESIDE]
    return [blob for blob in found if hasattr(blob, "path")]


def with_companions(listing: Listing, chosen: Candidate) -> list[Entry]:
    """The candidate's files, and for safetensors the JSON files of the same folder that describe them."""
    if chosen.missing:
        raise FitplugError(f"{listing.repository} lacks {chosen.missing[0]}, a part of {chosen.name}")
    if chosen.format != "safetensors":
        return list(chosen.entries)
    folder = chosen.entries[0].path.rpartition("/")[0]
    names = {f"{folder}/{name}".lstrip("/") for name in (*CONFIGS, "model.safetensors.index.json")}
    return [*chosen.entries, *(entry for entry in listing.entries if entry.path in names)]
