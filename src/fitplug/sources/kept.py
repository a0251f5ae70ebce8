"""What a hub's own package keeps on this disk, as a listing: for when the hub cannot be asked."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fitplug.errors import NetworkError
from fitplug.extension import Entry, Listing

MAX_FILES = 10_000
_SHA256_DIGITS = 64
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


def kept_listing(repository: str, revision: str, folders: Sequence[Path], why: NetworkError) -> Listing:
    """What of a repository is there, with a note that it may not be all.

    Raises:
        NetworkError: nothing is; the reason why the hub cannot be asked.
    """
    for folder in folders:
        entries = kept_entries(folder)
        if entries:
            note = f"this is only what of {repository} has been downloaded: {why}"
            return Listing(repository=repository, revision=revision, entries=entries, notes=(note,))
    raise why


def kept_entries(folder: Path) -> tuple[Entry, ...]:
    """Every finished file below a folder; hidden ones are the package's own."""
    found: list[Entry] = []
    for path in _files(folder):
        if len(found) >= MAX_FILES:
            break
        try:
            n_bytes = path.stat().st_size
        except OSError:
            continue  # a link to a blob that is gone
        name = blob_name(path) or ""
        sha256, git_oid = (name, None) if len(name) == _SHA256_DIGITS else (None, name or None)
        found.append(Entry(path=path.relative_to(folder).as_posix(), n_bytes=n_bytes, sha256=sha256, git_oid=git_oid))
    return tuple(found)


def blob_name(path: Path) -> str | None:
    """Where the file is a link to a blob that is named by its content, as Hugging Face keeps them: by sha256 or git's name."""
    name = path.resolve().name
    return name if path.is_symlink() and _DIGEST.fullmatch(name) else None


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(here) / name for name in sorted(names) if not name.startswith(".") and not name.endswith(".incomplete")
        )
