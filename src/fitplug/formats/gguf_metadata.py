"""GGUF's metadata: keys and values, the big ones stepped over (ggml/src/gguf.cpp, gguf_read_emplace_helper)."""

from struct import Struct, unpack_from

from fitplug.formats.budget import NUMBER, PAIR
from fitplug.formats.cursor import Cursor
from fitplug.formats.header import Scalar, Skipped, Value
from fitplug.formats.strings import skip_strings

_NUMBERS = {
    0: ("u8", "B"), 1: ("i8", "b"), 2: ("u16", "H"), 3: ("i16", "h"), 4: ("u32", "I"), 5: ("i32", "i"), 6: ("f32", "f"),
    7: ("bool", "?"), 10: ("u64", "Q"), 11: ("i64", "q"), 12: ("f64", "d"),
}  # fmt: skip
"""GGUF's value type → its name there (GGUF_TYPE_NAME) and how struct reads one."""
_STRING, _ARRAY = 8, 9
_SIZES = {code: Struct("<" + form).size for code, (_, form) in _NUMBERS.items()}
_SMALLEST_PAIR = 8 + 1 + 4 + 1

MAX_NUMBERS, MAX_NAMES = 4096, 256
"""Longer arrays are stepped over: per-layer values and lists of languages are short, vocabularies are not."""
MAX_KEY, MAX_VALUE = 1 << 12, 1 << 20
_NEVER_BUILT = frozenset(f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type", "merges"))


def read_metadata(cursor: Cursor, n_keys: int) -> dict[str, Value]:
    """All pairs, in the file's order."""
    if n_keys * _SMALLEST_PAIR > cursor.remaining:
        raise cursor.truncated(f"its {n_keys} metadata keys")
    cursor.budget.spend(n_keys * PAIR, cursor.blob.name)
    metadata: dict[str, Value] = {}
    for number in range(n_keys):
        key = cursor.text(f"metadata key {number}", MAX_KEY)
        if not key:
            raise cursor.fail(f"metadata key {number} is empty: the file is damaged")
        if key in metadata:
            raise cursor.fail(f"has the metadata key {key[:80]!r} twice: the file is damaged")
        metadata[key] = _value(cursor, key)
    return metadata


def _value(cursor: Cursor, key: str) -> Value:
    where = f"the value of {key[:80]!r}"
    code = cursor.u32(where)
    if code in _NUMBERS:
        return _numbers(cursor, code, 1, where)[0]
    if code == _STRING:
        return _string(cursor, where)
    if code != _ARRAY:
        raise cursor.fail(f"{where} has type {code}, which GGUF does not have: the file is damaged")
    item, count = cursor.u32(where), cursor.u64(where)
    return _array(cursor, item, count, where, may_build=key not in _NEVER_BUILT)


def _array(cursor: Cursor, item: int, count: int, where: str, *, may_build: bool) -> Value:
    if item in _NUMBERS:
        if may_build and count <= MAX_NUMBERS:
            return _numbers(cursor, item, count, where)
        cursor.skip(count * _SIZES[item], where)
        return Skipped(_NUMBERS[item][0], count, cursor.position)
    if item == _STRING:
        if may_build and count <= MAX_NAMES:
            return _names(cursor, count, where)
        skip_strings(cursor, count, where)
        return Skipped("str", count, cursor.position)
    what = "an array of arrays" if item == _ARRAY else f"an array of type {item}"
    raise cursor.fail(f"{where} is {what}, which llama.cpp does not read: the file is damaged")


def _numbers(cursor: Cursor, code: int, count: int, where: str) -> tuple[Scalar, ...]:
    cursor.budget.spend(count * NUMBER, cursor.blob.name)
    raw = cursor.take(count * _SIZES[code], where)
    form = _NUMBERS[code][1]
    if form == "?":  # any byte but zero is true, which struct would say too, but only of native bools
        return tuple(byte != 0 for byte in raw)
    return unpack_from(f"{'<' if cursor.byte_order == 'little' else '>'}{count}{form}", raw)


def _string(cursor: Cursor, where: str) -> Value:
    """A text; one of more than a MiB (a whole tokenizer.json) is stepped over."""
    length = cursor.u64(where)
    if length <= MAX_VALUE:
        return cursor.text_of(length, where)
    cursor.skip(length, where)
    return Skipped("char", length, cursor.position)


def _names(cursor: Cursor, count: int, where: str) -> Value:
    """A short list of texts; it is stepped over from the first one that is no name."""
    cursor.budget.spend(count * PAIR, cursor.blob.name)
    names = []
    for done in range(count):
        length = cursor.u64(where)
        if length > MAX_KEY:
            cursor.skip(length, where)
            skip_strings(cursor, count - done - 1, where)
            return Skipped("str", count, cursor.position)
        names.append(cursor.text_of(length, where))
    return tuple(names)
