"""Models on this disk: a file, the first file of a split, a folder of safetensors."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from stat import S_ISDIR, S_ISREG

from fitplug.errors import NotFoundError, UnreadableError
from fitplug.formats.gguf_split import shard_names
from fitplug.formats.header import Blob
from fitplug.formats.safetensors_names import BESIDE, BESIDE_BELOW, CONFIGS, companions

# The start path: os.path where the style would have pathlib, whose import costs 5 ms.
# ruff: noqa: PTH100, PTH111, PTH112, PTH113, PTH116, PTH118, PTH119, PTH120, PTH208 - see above


class LocalFile:
    """A file, read where it is asked to be and nowhere else.

    Plain reads, not a memory map: a file that is cut while it is mapped kills the process. Its length is taken once, so a file
    that grows is read as it was. It is open only while it is read: a model may have more files than a process may open.
    """

    __slots__ = ("n_bytes", "name", "path")

    def __init__(self, path: str, name: str = "") -> None:
        self.path, self.name = path, name or os.path.basename(path)
        try:
            status = os.stat(path)
            if not S_ISREG(status.st_mode):
                raise UnreadableError(
                    f"{path}: is {'a folder' if S_ISDIR(status.st_mode) else 'no plain file'}; name a model file"
                )
            FileIO(path).close()
        except FileNotFoundError:
            raise NotFoundError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        self.n_bytes = status.st_size

    def __repr__(self) -> str:
        return f"LocalFile({self.path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalFile) and (self.path, self.n_bytes) == (other.path, other.n_bytes)

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def folder(self) -> str:
        """What the folder is called that it lies in."""
        return os.path.basename(os.path.dirname(os.path.abspath(self.path)))

    def read(self, offset: int, n_bytes: int) -> bytes:
        """`n_bytes` from `offset`, fewer only at the end of the file."""
        wanted = min(n_bytes, self.n_bytes - offset)
        if wanted <= 0 or offset < 0:
            return b""
        try:
            with FileIO(self.path) as file:
                file.seek(offset)
                data = file.read(wanted)
                while len(data) < wanted and (more := file.read(wanted - len(data))):
                    data += more
        except OSError as error:
            raise UnreadableError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        return data


def open_path(path: str) -> Sequence[Blob]:
    """The files of the model at `path`: itself, its shards that are there, or a folder's safetensors and config.json."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return _open_folder(path)
    folder, name = os.path.split(path)
    if name.endswith(".safetensors"):
        there = _names(folder)
        return [*(LocalFile(os.path.join(folder, each)) for each in companions(name, there)), *_beside(folder, there)]
    names = [other for other in shard_names(name) if other == name or os.path.isfile(os.path.join(folder, other))]
    if name != names[0] and names[0] == shard_names(name)[0]:
        raise UnreadableError(f"{path}: is a later part of a split; give its first file, {names[0]}")
    return [LocalFile(os.path.join(folder, each)) for each in names]


def _names(folder: str) -> Collection[str]:
    try:
        return os.listdir(folder or ".")
    except FileNotFoundError:
        raise NotFoundError(f"{folder}: no such folder") from None
    except OSError as error:
        raise UnreadableError(f"{folder}: cannot be listed: {error.strerror or error}") from None


def _beside(folder: str, there: Collection[str]) -> Iterator[LocalFile]:
    """Tokenizer and model card, those that can be opened: no model is refused for their sake."""
    names = [name for name in there if name in BESIDE]
    for below, end in BESIDE_BELOW:
        if below in there and os.path.isdir(os.path.join(folder, below)):
            names += [f"{below}/{name}" for name in _names(os.path.join(folder, below)) if name.endswith(end)]
    for name in names:
        with suppress(NotFoundError, UnreadableError):
            yield LocalFile(os.path.join(folder, *name.split("/")), name)


def _open_folder(path: str) -> Sequence[Blob]:
    """All safetensors of a folder, by name, and its JSON files; or its only GGUF model."""
    names = sorted(_names(path))
    if any(name.endswith(".safetensors") for name in names):
        wanted = [name for name in names if name.endswith((".safetensors", ".safetensors.index.json")) or name in CONFIGS]
        return [*(LocalFile(os.path.join(path, name)) for name in wanted), *_beside(path, names)]
    models = sorted({shard_names(name)[0] for name in names if name.endswith(".gguf") and "mmproj" not in name.lower()})
    if len(models) == 1:
        return open_path(os.path.join(path, models[0]))
    what = f"{len(models)} GGUF models: name one" if models else "neither a .gguf file nor safetensors"
    raise UnreadableError(f"{path}: is a folder with {what}")
