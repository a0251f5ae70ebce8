"""Stepping over arrays of strings: GGUF's vocabularies, several hundred thousand at a time.

A string is a 64-bit length and so many bytes. Following the lengths one by one costs 0.1 µs a string; a quarter of it if the
matcher of regular expressions follows them: "a 5, seven zeros and any five bytes, or a 6, seven zeros and …" is a regular
language. The alternatives differ in their first byte (in big endian: the eighth), so a match is the only way to read the bytes
and exactly `STRIDE` strings long. Where it does not match (a long or an empty string, the end of the window), the lengths are
followed as they stand.
"""

import re
from functools import cache
from struct import Struct, error

from fitplug.formats.cursor import Cursor

STRIDE = 64
"""Strings in one match: many, so that the call costs little; few, so that little is lost where it fails."""
_COMMON = (7, 6, 8, 9, 5, 10, 12, 4, 11, 13, 3, 14, 15, 16, 17, 18, 2, 1)
"""Lengths by how often the vocabularies of llama.cpp's models/ have them: the matcher tries alternatives in turn."""
_MATCHED = (*_COMMON, *range(19, 64))


def skip_strings(cursor: Cursor, count: int, where: str) -> None:
    """Step over `count` strings.

    Raises:
        UnreadableError: they do not fit in the blob, or are more than any vocabulary has.
    """
    if count * 8 > cursor.remaining:
        raise cursor.truncated(where)
    cursor.budget.spend_strings(count, cursor.blob.name)
    while count:
        window, at = cursor.peek(8)
        done, end = walk(window, at, count, cursor.u64_struct)
        cursor.advance(end - at)
        count -= done
        if count and not done:  # it is longer than what is left of the window
            cursor.skip(cursor.u64(where), where)
            count -= 1


def walk(window: bytes, at: int, count: int, u64: Struct) -> tuple[int, int]:
    """How many of `count` strings end inside the window, and where the last of them does."""
    done = 0
    if count >= STRIDE:
        match = _strides(u64.format).match
        while count - done >= STRIDE:
            if stride := match(window, at):
                at, stepped = stride.end(), STRIDE
            else:
                stepped, at = step(window, at, STRIDE, u64)
            done += stepped
            if stepped < STRIDE:
                return done, at
    stepped, at = step(window, at, count - done, u64)
    return done + stepped, at


def step(window: bytes, at: int, count: int, u64: Struct) -> tuple[int, int]:
    """The same, one length after the other."""
    unpack_from, size, done = u64.unpack_from, len(window), 0
    try:
        while done < count:
            end = at + 8 + unpack_from(window, at)[0]
            if end > size:
                break
            at = end
            done += 1
    except error:  # the next length itself is cut
        pass
    return done, at


@cache
def _strides(u64_format: str) -> re.Pattern[bytes]:
    """`STRIDE` short strings. Possessive throughout: there is nothing to try again, and nothing to remember for it."""
    length = r"\x{:02x}\0\0\0\0\0\0\0" if u64_format[0] == "<" else r"\0\0\0\0\0\0\0\x{:02x}"
    alternatives = "|".join(length.format(n) + f".{{{n}}}+" for n in _MATCHED)
    return re.compile(f"(?s:(?:{alternatives}){{{STRIDE}}}+)".encode())
