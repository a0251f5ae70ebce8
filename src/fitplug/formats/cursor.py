"""A place in a blob that moves forward: small reads out of one window, large things stepped over unread.

Everything is checked against the blob's length before it is believed, and against a budget that a whole reading shares, so
that no file can make its reader large or slow.
"""

from struct import Struct

from fitplug.errors import UnreadableError
from fitplug.formats.budget import MAX_HEADER, Budget
from fitplug.formats.header import Blob
from fitplug.units import MIB

WINDOW, MAX_WINDOW = 64 << 10, 512 << 10
"""Bytes asked for at a time: few at first, then twice as many each time, since over a network every request costs."""
_U32 = {"little": Struct("<I"), "big": Struct(">I")}
_U64 = {"little": Struct("<Q"), "big": Struct(">Q")}


class Cursor:
    """Reads forward through one blob."""

    __slots__ = ("_ahead", "_at", "_start", "_window", "blob", "budget", "byte_order", "u32_struct", "u64_struct")

    def __init__(self, blob: Blob, budget: Budget) -> None:
        self.blob, self.budget = blob, budget
        self._start, self._at, self._window = 0, 0, b""
        self._ahead = WINDOW
        self.set_byte_order("little")

    def set_byte_order(self, order: str) -> None:
        """Take all that follows as "little" or "big" endian."""
        self.byte_order, self.u32_struct, self.u64_struct = order, _U32[order], _U64[order]

    @property
    def position(self) -> int:
        """Offset in the blob."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """Bytes of the blob that are still ahead."""
        return self.blob.n_bytes - self.position

    def fail(self, problem: str) -> UnreadableError:
        """The error that says `problem` of this blob."""
        return UnreadableError(f"{self.blob.name}: {problem}")

    def truncated(self, where: str) -> UnreadableError:
        """The error of a blob that ends too early."""
        return self.fail(f"ends inside {where}, after {self.blob.n_bytes} bytes: the download is not complete; fetch it again")

    def peek(self, n_bytes: int) -> tuple[bytes, int]:
        """A window and the place in it from which at least `n_bytes` follow, fewer only at the blob's end."""
        if len(self._window) - self._at < n_bytes and self._start + len(self._window) < self.blob.n_bytes:
            self._start, self._at = self.position, 0
            if self._start > MAX_HEADER:
                raise self.fail(f"has a header of more than {MAX_HEADER // MIB} MiB, which no model has: the file is damaged")
            self._window = b""  # the old one goes before the new one comes
            wanted = min(max(self._ahead, n_bytes), self.blob.n_bytes - self._start)
            self._ahead = min(self._ahead * 2, MAX_WINDOW)
            self._window = self.blob.read(self._start, wanted) if wanted > 0 else b""
            if len(self._window) < wanted:
                raise self.fail("became shorter while it was read: is it still being written?")
        return self._window, self._at

    def advance(self, n_bytes: int) -> None:
        """Step over bytes that a `peek` has shown."""
        self._at += n_bytes

    def skip(self, n_bytes: int, where: str) -> None:
        """Step over any number of bytes without reading them."""
        if n_bytes > self.remaining:
            raise self.truncated(where)
        self._at += n_bytes
        if self._at > len(self._window):
            self._start, self._at, self._window = self.position, 0, b""

    def take(self, n_bytes: int, where: str) -> bytes:
        """The next bytes; the caller has bounded `n_bytes`."""
        if n_bytes > self.remaining:
            raise self.truncated(where)
        window, at = self.peek(n_bytes)
        self._at = at + n_bytes
        return window[at : at + n_bytes]

    def u32(self, where: str) -> int:
        """The next 32-bit number."""
        number: int = self.u32_struct.unpack(self.take(4, where))[0]
        return number

    def u64(self, where: str) -> int:
        """The next 64-bit number."""
        number: int = self.u64_struct.unpack(self.take(8, where))[0]
        return number

    def text(self, where: str, longest: int) -> str:
        """The next string, which must not be longer than that."""
        length = self.u64(where)
        if length > longest and length <= self.remaining:
            raise self.fail(f"{where} is {length} bytes long, more than {longest}: the file is damaged")
        return self.text_of(length, where)

    def text_of(self, length: int, where: str) -> str:
        """The next `length` bytes as text; those that are no UTF-8 are escaped."""
        if length > self.remaining:
            raise self.truncated(where)
        text = self.take(length, where).decode("utf-8", "backslashreplace")
        self.budget.spend(text.__sizeof__(), self.blob.name)
        return text
