"""The files beside a checkpoint's weights on a hub: fetched when a conversion reads them, whole, and kept by their content.

How large a checkpoint would be as GGUF is known to the byte only with its tokenizer, which has some megabytes. So whoever asks
for one model pays for it, once; whoever looks through many gets what costs nothing. Where it cannot be had, the conversion says
so and tells a range.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from fitplug.errors import FitplugError, NetworkError
from fitplug.extension import Entry, Listing
from fitplug.formats.header import Blob, Header
from fitplug.formats.safetensors_names import TOKENIZERS
from fitplug.repository.grouping import Candidate
from fitplug.repository.reference import files_beside
from fitplug.sources.cache import FileCache, cache_folder, is_content
from fitplug.sources.progress import tell
from fitplug.sources.side_by_side import side_by_side
from fitplug.units import KIB, MIB, format_bytes

MOST_BYTES = 40 * MIB
"""Of one file that is fetched: the largest tokenizer.json that is known has 33 MB."""
LITTLE_BYTES = 256 * KIB
"""Files so small are fetched side by side as soon as one is wanted: it is the way that takes long, not what comes along it."""


def with_beside(
    header: Header, listing: Listing, chosen: Candidate, open_file: Callable[[Listing, Entry], Blob], most_bytes: int
) -> Header:
    """The header of safetensors with what lies beside the weights, if a vocabulary is here or may be fetched.

    Args:
        header: of the weights.
        listing: the repository.
        chosen: the weights in it.
        open_file: of the hub.
        most_bytes: that may be fetched of one file; 0: nothing is fetched.
    """
    entries = files_beside(listing, chosen)
    if header.format != "safetensors" or not entries:
        return header
    folder = str(getattr(open_file(listing, chosen.entries[0]), "folder", "")) or _folder(listing, chosen)
    together = _Together(FileCache(cache_folder("files")), most_bytes)
    together.files = [Fetched(name, folder, entry, listing, open_file, together) for name, entry in entries.items()]
    if not any(file.name in TOKENIZERS and file.within_reach for file in together.files):
        return header
    return replace(header, beside=together.files, folder=folder)


def _folder(listing: Listing, chosen: Candidate) -> str:
    """What people who download it call the folder: as the repository does."""
    return chosen.entries[0].path.rpartition("/")[0].rpartition("/")[2] or listing.repository.rpartition("/")[2]


class _Together:
    """What the files of one checkpoint share."""

    def __init__(self, cache: FileCache, most_bytes: int) -> None:
        self.cache, self.most_bytes = cache, most_bytes
        self.files: Sequence[Fetched] = ()
        self.failed: NetworkError | None = None
        """Why the network is not asked again: each file would wait as long."""
        self._begun = False

    def begin(self) -> None:
        """Fetch the little ones."""
        if self._begun:
            return
        self._begun = True
        little = [file for file in self.files if file.n_bytes <= min(LITTLE_BYTES, self.most_bytes)]
        list(side_by_side(Fetched.try_fetching, little))


class Fetched:
    """One file: on this disk, or behind the network until it is read."""

    def __init__(
        self, name: str, folder: str, entry: Entry, listing: Listing, open_file: Callable[[Listing, Entry], Blob],
        together: _Together,
    ) -> None:  # fmt: skip
        self.name, self.folder, self.n_bytes = name, folder, entry.n_bytes
        self._entry, self._listing, self._open, self._together = entry, listing, open_file, together
        self._data: bytes | None = None

    def read(self, offset: int, n_bytes: int) -> bytes:
        """From what is there; all of it is fetched first where nothing is.

        Raises:
            FitplugError: it is not to be had.
        """
        if self._kept() is None:
            self._together.begin()
        return self._all()[offset : offset + n_bytes]

    @property
    def within_reach(self) -> bool:
        """Whether it may be read: it is here, or small enough."""
        return self.n_bytes <= self._together.most_bytes or (self.n_bytes <= MOST_BYTES and self._kept() is not None)

    def try_fetching(self) -> None:
        """Have it, if it is to be had."""
        with suppress(FitplugError):
            self._all()

    def _kept(self) -> bytes | None:
        """From the hub's own folder, or from ours."""
        if self._data is None:
            blob = self._open(self._listing, self._entry)
            here = blob.read(0, self.n_bytes) if hasattr(blob, "path") else None
            self._data = here if here is not None else self._together.cache.get(self._entry)
        return self._data

    def _all(self) -> bytes:
        data = self._kept()
        if data is None:
            data = self._data = self._fetch()
            self._together.cache.put(self._entry, data)
        return data

    def _fetch(self) -> bytes:
        together = self._together
        if self.n_bytes > together.most_bytes:
            raise FitplugError(f"its {format_bytes(self.n_bytes)} are not fetched for this")
        if together.failed is not None:
            raise together.failed
        blob = self._open(self._listing, self._entry)
        tell(self._progress(blob))
        try:
            data = blob.read(0, self.n_bytes)
        except NetworkError as error:
            together.failed = error
            raise
        if not is_content(data, self._entry):
            raise NetworkError("it is not what the hub lists: it may be changing")
        return data

    def _progress(self, blob: Blob) -> Callable[[], str]:
        traffic = getattr(blob, "traffic", None)
        before = getattr(traffic, "n_bytes", 0)

        def words() -> str:
            done = min(getattr(traffic, "n_bytes", 0) - before, self.n_bytes)
            return f"fetching {self.name}: {format_bytes(done)} of {format_bytes(self.n_bytes)}"

        return words
