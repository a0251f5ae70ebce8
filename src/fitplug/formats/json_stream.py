"""JSON read piece by piece out of a blob: an object of 60 MB costs no more memory than its largest member."""

import codecs
import re
from collections.abc import Iterator
from json import JSONDecoder
from typing import Any

from fitplug.errors import UnreadableError
from fitplug.formats.header import Blob

_CHUNK = 256 << 10
MAX_VALUE = 64 << 10
"""Characters of a member that is built: what can stand in so few is never large."""
MAX_STRING = 1 << 20
"""Characters of a text that is built; trainers write longer tag lists into one."""
_UNQUOTED = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODE = JSONDecoder().raw_decode


def without_surrogates(text: str) -> str:
    """The text with lone surrogates escaped, which JSON can say and neither a file nor a terminal can hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class JsonStream:
    """Reads an object's members one after the other, without ever holding it whole."""

    __slots__ = ("_at", "_blob", "_decoder", "_end", "_next", "_text", "_where")

    def __init__(self, blob: Blob, start: int, end: int, where: str) -> None:
        self._blob, self._next, self._end, self._where = blob, start, end, where
        self._text, self._at = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def fail(self, problem: str) -> UnreadableError:
        """The error that says `problem` of this text."""
        return UnreadableError(f"{self._blob.name}: {self._where} {problem}: the file is damaged, fetch it again")

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here. The caller takes each value before it asks for the next key."""
        self._expect("{")
        if self._skip_if("}"):
            return
        while True:
            key = self.string()
            self._expect(":")
            yield key
            if self._skip_if("}"):
                return
            self._expect(",")

    def string(self) -> str:
        """The string that begins here, which must not be long."""
        text = self.string_or_length()
        if isinstance(text, int):
            raise self.fail(f"has a name of {text} characters")
        return text

    def string_or_length(self) -> str | int:
        """The string that begins here; of a very long one only how long it is, as written."""
        self._expect('"')
        self._at -= 1
        while True:
            try:
                text, self._at = _DECODE(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > MAX_STRING:
                    return self._skip_string()
                if not self._more():
                    raise self.fail("has a broken string") from None
            else:
                return without_surrogates(text)

    def _skip_string(self) -> int:
        length, self._at = 0, self._at + 1
        while True:
            match = _UNQUOTED.match(self._text, self._at)
            end = match.end() if match else self._at
            length, self._at = length + end - self._at, end
            if self._text.startswith('"', end):
                self._at += 1
                return length
            if not self._more():
                raise self.fail("has a broken string")

    def value(self) -> Any:
        """Any small value that begins here, in an object that goes on after it."""
        self._space()
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except RecursionError:
                raise self.fail("is nested too deeply") from None
            except ValueError:  # not whole yet, or not JSON
                end = len(self._text)
            if end - self._at > MAX_VALUE:
                raise self.fail("has an entry that is broken, or longer than any entry is")
            if end < len(self._text):
                self._at = end
                return value
            if not self._more():
                raise self.fail("ends in the middle, or is not JSON")

    def finish(self) -> None:
        """Refuse anything but white space up to the end."""
        self._space()
        if self._at < len(self._text):
            raise self.fail("goes on after its end")

    def _expect(self, character: str) -> None:
        if not self._skip_if(character):
            found = self._text[self._at : self._at + 1]
            raise self.fail(f"has {found!r} where {character!r} belongs" if found else "ends too early")

    def _skip_if(self, character: str) -> bool:
        self._space()
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def _space(self) -> None:
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._more():
                return

    def _more(self) -> bool:
        """Read on, unless the end is reached."""
        if self._next >= self._end:
            return False
        waiting = len(self._text) - self._at
        data = self._blob.read(self._next, min(max(_CHUNK, waiting), self._end - self._next))
        self._next += len(data)
        if not data:
            raise self.fail("became shorter while it was read")
        try:
            self._text = self._text[self._at :] + self._decoder.decode(data, final=self._next >= self._end)
        except UnicodeDecodeError:
            raise self.fail("is not UTF-8") from None
        self._at = 0
        return True
