"""Headers of sibling files for the price of one.

The quants of a repository come from one model, so most of their headers is the same vocabulary again, megabytes of it. Of the
first file the whole header is read. Of each further one the first 64 KiB (every hyper-parameter, and the beginning of the
vocabulary, which shows how far this file's lies from the first one's) and one window from its end on (small keys, tensors).
What lies between is taken from the first file, on trust, and the whole then goes through the ordinary reader, which checks
keys, names, offsets and the file's length. Anything odd, and the file is read in full.
"""

from collections.abc import Sequence

from fitplug.errors import UnreadableError
from fitplug.formats import gguf
from fitplug.formats.header import Blob, Header, Skipped

HEAD = 64 << 10
FIRST = HEAD + 256
"""What is read of a file that is read whole: a reader that looks 64 KiB ahead has seen its first bytes already."""
BEFORE, BEHIND = 512, 16 << 10
"""What the window holds besides what the first file has there: room for an anchor that moved, for longer keys."""
MIN_SAVING = 128 << 10
BYTES_PER_TOKEN = 40
"""Of a vocabulary's arrays together: 23 to 28 without merges, 36 to 44 with, 61 for the largest."""
MAX_TOKENS = 1 << 20
_VOCABULARY = b"tokenizer.ggml.tokens"


class Sibling:
    """The file that was read in full, as the others are compared with it."""

    def __init__(self, header: Header, raw: bytes) -> None:
        self.names = list(header.tensors)
        self.raw = raw
        """Its header's bytes."""
        self.start = raw.find(_VOCABULARY)
        self.end = max((v.end for v in header.metadata.values() if isinstance(v, Skipped)), default=0)
        """The end of its last big array."""

    @property
    def useful(self) -> bool:
        """Whether there is a vocabulary worth skipping."""
        return 0 < self.start < self.end - MIN_SAVING and len(self.raw) >= self.end


class Spliced:
    """A file of which only the two ends were fetched; the middle is its sibling's."""

    def __init__(self, blob: Blob, sibling: Sibling, head: bytes, tail_at: int, tail: bytes, shift: int) -> None:
        self._blob, self._raw, self._shift = blob, sibling.raw, shift
        self._head, self._tail_at, self._tail = head, tail_at, tail

    @property
    def name(self) -> str:
        """The file's own."""
        return self._blob.name

    @property
    def n_bytes(self) -> int:
        """The file's own."""
        return self._blob.n_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """From the piece that `offset` lies in, and on through the next ones."""
        out = b""
        while n_bytes > 0:
            piece = self._piece(offset, n_bytes)
            if not piece:
                break
            out, offset, n_bytes = out + piece, offset + len(piece), n_bytes - len(piece)
        return out

    def _piece(self, offset: int, n_bytes: int) -> bytes:
        if offset < len(self._head):
            return self._head[offset : offset + n_bytes]
        if offset < self._tail_at:
            return self._raw[offset - self._shift : min(offset + n_bytes, self._tail_at) - self._shift]
        if offset < self._tail_at + len(self._tail):
            return self._tail[offset - self._tail_at : offset - self._tail_at + n_bytes]
        return bytes(min(n_bytes, HEAD))  # the reader looks ahead; a table that went on here would have nameless tensors


class Prefix:
    """A file's beginning, fetched in a few large pieces rather than window by window, and kept."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self.raw = b""

    @property
    def name(self) -> str:
        """The file's own."""
        return self._blob.name

    @property
    def n_bytes(self) -> int:
        """The file's own."""
        return self._blob.n_bytes

    @property
    def url(self) -> str:
        """The file's own, or what it is called where it has none."""
        return str(getattr(self._blob, "url", self.name))

    def read(self, offset: int, n_bytes: int) -> bytes:
        """From what is there; more is fetched when it is not enough."""
        end = min(offset + n_bytes, self.n_bytes)
        if end > len(self.raw):
            wanted = min(max(end, self._guess()), self.n_bytes)
            self.raw += self._blob.read(len(self.raw), wanted - len(self.raw))
        return self.raw[offset:end]

    def _guess(self) -> int:
        """How long the header may be: 64 KiB, then what its number of tokens makes likely, then a quarter more."""
        at = self.raw.find(_VOCABULARY)
        if not self.raw:
            return FIRST
        if at < 0 or len(self.raw) > FIRST:
            return len(self.raw) + max(HEAD, len(self.raw) // 4)
        count = int.from_bytes(self.raw[at + len(_VOCABULARY) + 8 : at + len(_VOCABULARY) + 16], "little")
        return FIRST + BYTES_PER_TOKEN * min(count, MAX_TOKENS)


def read_whole(blobs: Sequence[Blob]) -> tuple[Header, Sibling | None]:
    """A model's header in full; and, of a file with a vocabulary, what its siblings can be compared with."""
    first = Prefix(blobs[0])
    header = gguf.read([first, *blobs[1:]])
    size = header.data_offsets[0] if header.data_offsets else header.header_bytes
    sibling = Sibling(header, first.raw[:size])
    return header, sibling if sibling.useful else None


def read_like(blobs: Sequence[Blob], sibling: Sibling) -> Header | None:
    """The header of a model beside one that is known; None where its two ends do not tell, and it must be read in full."""
    first = blobs[0]
    spliced = _splice(first, sibling)
    if spliced is None:
        return None
    try:
        header = gguf.read([spliced, *blobs[1:]])
    except UnreadableError:
        return None
    return header if set(header.tensors) == set(sibling.names) else None


def _splice(blob: Blob, sibling: Sibling) -> Spliced | None:
    head = blob.read(0, min(HEAD, blob.n_bytes))
    start = head.find(_VOCABULARY)
    if start < 0 or sibling.end <= len(head):
        return None
    shift = start - sibling.start
    if head[start:] != sibling.raw[sibling.start : len(head) - shift]:
        return None  # another vocabulary
    at = sibling.end + shift - BEFORE
    if at < len(head):
        return None
    tail = blob.read(at, min(len(sibling.raw) - sibling.end + BEFORE + BEHIND, blob.n_bytes - at))
    if tail[:BEFORE] != sibling.raw[sibling.end - BEFORE : sibling.end]:
        return None  # the vocabulary's end is not where the first file has it
    return Spliced(blob, sibling, head, at, tail, shift)
