"""Stepping over arrays of strings: GGUF's vocabularies, several hundred thousand at a time."""

from struct import Struct, error

from fitplug.formats.cursor import MAX_STRINGS, Cursor


def skip_strings(cursor: Cursor, count: int, where: str) -> None:
    """Step over `count` strings, each a 64-bit length and so many bytes.

    Raises:
        UnreadableError: they do not fit in the blob, or are more than any vocabulary has.
    """
    if count * 8 > cursor.remaining:
        raise cursor.truncated(where)
    cursor.budget.strings -= count
    if cursor.budget.strings < 0:
        raise cursor.fail(f"{where} brings the strings to more than {MAX_STRINGS}, which no model has: the file is damaged")
    while count:
        window, at = cursor.peek(8)
        done, end = step(window, at, count, cursor.u64_struct)
        cursor.advance(end - at)
        count -= done
        if count and not done:  # it is longer than what is left of the window
            cursor.skip(cursor.u64(where), where)
            count -= 1


def step(window: bytes, at: int, count: int, u64: Struct) -> tuple[int, int]:
    """How many of `count` strings end inside the window, and where the last of them does."""
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
