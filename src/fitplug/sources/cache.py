"""fitplug's own cache folder. Losing it costs time, nothing else; a disk that cannot be written to is no error."""

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from fitplug.extension import Entry
from fitplug.units import MIB

MAX_FILES_BYTES = 512 * MIB
"""Of `FileCache` together: some thirty tokenizers."""
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def cache_folder(name: str) -> Path:
    """In the platform's own place for caches."""
    from platformdirs import user_cache_path

    return user_cache_path("fitplug") / name


def write_kept(path: Path, data: bytes) -> bool:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return False
    return True


class FileCache:
    """Whole files by the content that a hub's listing names; of many the ones that were used last."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, entry: Entry) -> bytes | None:
        """The file, if it is there and what it should be."""
        path = self._path(entry)
        try:
            if path is None or path.stat().st_size != entry.n_bytes:
                return None
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data if is_content(data, entry) else None

    def put(self, entry: Entry, data: bytes) -> None:
        """Keep one."""
        path = self._path(entry)
        if path is not None and write_kept(path, data):
            with suppress(OSError):
                _trim(path.parent)

    def _path(self, entry: Entry) -> Path | None:
        known = entry.content is not None and (_SHA256.fullmatch(entry.content) or _GIT.fullmatch(entry.content))
        return self.folder / str(entry.content) if self.folder is not None and known else None


def is_content(data: bytes, entry: Entry) -> bool:
    """Whether it is what the listing says: by sha256 or git's name where it has one, else by its length."""
    content = entry.content or ""
    if _SHA256.fullmatch(content):
        return hashlib.sha256(data).hexdigest() == content
    if _GIT.fullmatch(content):
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == content
    return len(data) == entry.n_bytes


def _trim(folder: Path) -> None:
    """Leave out what was not used for longest, until the rest is small enough."""
    found = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir()), reverse=True)
    total = 0
    for _, n_bytes, path in found:
        total += n_bytes
        if total > MAX_FILES_BYTES:
            path.unlink()
