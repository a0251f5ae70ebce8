"""OWNER/NAME[@REVISION][:FILE-OR-QUANT], taken apart and checked before it becomes part of a URL."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fitplug.errors import FitplugError
from fitplug.extension import Entry, Listing
from fitplug.formats.header import Blob
from fitplug.formats.safetensors_names import CONFIG, CONFIGS, INDEX, is_beside, is_downloaded, shards_of
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
    if not is_repository(repository):
        raise FitplugError(
            f"'{text[:100]}' is not a repository: write it as OWNER/NAME, OWNER/NAME:QUANT or OWNER/NAME@REVISION"
        )
    if revision and not is_revision(revision):
        raise FitplugError(f"'{revision[:60]}' is not a revision: it is a branch, a tag or a commit")
    return Reference(repository, revision, wanted)


def is_repository(text: str) -> bool:
    """Whether it is OWNER/NAME, and does not lead elsewhere as part of a path."""
    return _REPOSITORY.fullmatch(text) is not None and ".." not in text


def is_revision(text: str) -> bool:
    """Whether it can be a branch, a tag or a commit, and does not lead elsewhere as part of a path."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def stays_inside(path: str) -> bool:
    """Whether a listed path names something below the repository, wherever it is written to."""
    return path.isprintable() and not path.startswith("/") and ".." not in re.split(r"[/\\]", path)


def choose(text: str, list_files: Callable[[str], Listing]) -> tuple[Listing, Candidate]:
    """The one model that a reference names, and the repository that it is in."""
    reference = parse_reference(text)
    listing = list_files(f"{reference.repository}@{reference.revision}" if reference.revision else reference.repository)
    return listing, select(listing, reference.wanted)


def open_reference(
    text: str, list_files: Callable[[str], Listing], open_file: Callable[[Listing, Entry], Blob]
) -> Sequence[Blob]:
    """The files of the one model that the reference names; for safetensors config.json and the index beside them."""
    listing, chosen = choose(text, list_files)
    return [open_file(listing, entry) for entry in with_companions(listing, chosen)]


def files_beside(listing: Listing, chosen: Candidate) -> Mapping[str, Entry]:
    """Tokenizer, card and config.json of safetensors, by their names below the folder that the weights lie in."""
    return {name: entry for name, entry in _below(listing, chosen).items() if name == CONFIG or is_beside(name)}


def to_download(listing: Listing, chosen: Candidate) -> list[Entry]:
    """All files of a model; of safetensors what llama.cpp's converter and other programs need besides the weights, too."""
    files = with_companions(listing, chosen)
    more = [entry for name, entry in _below(listing, chosen).items() if is_downloaded(name) and entry not in files]
    return [*files, *more]


def _below(listing: Listing, chosen: Candidate) -> Mapping[str, Entry]:
    """What lies in the folder of a checkpoint, by its name there."""
    if chosen.format != "safetensors":
        return {}
    start = chosen.entries[0].path.rpartition("/")[0]
    start = f"{start}/" if start else ""
    return {entry.path.removeprefix(start): entry for entry in listing.entries if entry.path.startswith(start)}


def with_companions(listing: Listing, chosen: Candidate) -> list[Entry]:
    """The candidate's files, and for safetensors the JSON files of the same folder that describe them.

    The index, which may have sixty megabytes, is one of them only where the files' names do not say which belong together.
    """
    if chosen.missing:
        raise FitplugError(f"{listing.repository} lacks {chosen.missing[0]}, a part of {chosen.name}")
    if chosen.format != "safetensors":
        return list(chosen.entries)
    folder = chosen.entries[0].path.rpartition("/")[0]
    own = [entry.path.rpartition("/")[2] for entry in chosen.entries]
    index = () if sorted(own) == sorted(shards_of(own[0])) else (f"model{INDEX}",)
    names = {f"{folder}/{name}".lstrip("/") for name in (*CONFIGS, *index)}
    return [*chosen.entries, *(entry for entry in listing.entries if entry.path in names)]
