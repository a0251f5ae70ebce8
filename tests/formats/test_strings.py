"""Stepping over strings by the matcher is the same as following each length, whatever the bytes are."""

import random
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import UnreadableError
from fitplug.formats import cursor as cursors
from fitplug.formats import strings
from fitplug.formats.budget import MAX_STRINGS, Budget
from fitplug.formats.cursor import Cursor
from formats_support import MemoryBlob, string

ORDERS = {"little": Struct("<Q"), "big": Struct(">Q")}


def follow(data: bytes, at: int, count: int, order: str) -> tuple[int, int]:
    """The law, written as plainly as can be."""
    done = 0
    while done < count and at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 8], order)
        if end > len(data):
            break
        at, done = end, done + 1
    return done, at


texts = st.one_of(
    st.binary(max_size=20),
    st.binary(max_size=300),
    st.integers(0, 70).map(bytes),
    st.sampled_from(
        [b"", b"\0", bytes(7), bytes(8), b"\5" + bytes(7), b"a" * 63, b"a" * 64, b"a" * 255, b"a" * 256, b"a" * 300]
    ),
)


@st.composite
def windows(draw):
    """Many strings, some odd ones between them, perhaps a few bytes changed."""
    order = draw(st.sampled_from(["little", "big"]))
    mark = "<" if order == "little" else ">"
    seed = random.Random(draw(st.integers(0, 1 << 32)))
    plain = [bytes(seed.randrange(256) for _ in range(seed.randrange(1, 24))) for _ in range(draw(st.integers(0, 300)))]
    for text in draw(st.lists(texts, max_size=8)):
        plain.insert(seed.randrange(len(plain) + 1), text)
    data = bytearray(b"".join(string(text, mark) for text in plain))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[seed.randrange(len(data))] = draw(st.sampled_from([0, 1, 5, 64, 255]))
    return bytes(data), draw(st.integers(0, len(plain) + 3)), order


@given(windows(), st.integers(0, 20))
def test_walk_is_the_same_as_following(window, cut):
    data, count, order = window
    data = data[: len(data) - cut]

    assert follow(data, 0, count, order) == strings.walk(data, 0, count, ORDERS[order])
    assert follow(data, 0, count, order) == strings.step(data, 0, count, ORDERS[order])


@given(st.binary(max_size=3000), st.integers(0, 500), st.sampled_from(["little", "big"]))
def test_walk_is_the_same_on_any_bytes(data, count, order):
    assert follow(data, 0, count, order) == strings.walk(data, 0, count, ORDERS[order])


@given(st.data())
def test_walk_begins_anywhere(data):
    window, count, order = data.draw(windows())
    at = data.draw(st.integers(0, len(window)))

    assert follow(window, at, count, order) == strings.walk(window, at, count, ORDERS[order])


@given(windows(), st.integers(8, 300))
def test_skipping_ends_where_the_last_string_does_whatever_the_window(window, size):
    data, count, order = window
    done, end = follow(data, 0, count, order)
    cursor = Cursor(MemoryBlob(data), Budget(len(data)))
    cursor.set_byte_order(order)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cursors, "WINDOW", size)
        patch.setattr(cursors, "MAX_WINDOW", size)
        cursor._ahead = size
        if done < count:
            with pytest.raises(UnreadableError, match="ends inside the strings"):
                strings.skip_strings(cursor, count, "the strings")
        else:
            strings.skip_strings(cursor, count, "the strings")
            assert cursor.position == end


def test_most_strings_are_matched_and_not_stepped(monkeypatch):
    data = b"".join(string(b"abcdefg"[: 1 + number % 7]) for number in range(10_000))
    stepped = []
    step = strings.step
    monkeypatch.setattr(strings, "step", lambda *args: stepped.append(args[2]) or step(*args))

    assert strings.walk(data, 0, 10_000, ORDERS["little"]) == (10_000, len(data))
    assert sum(stepped) < strings.STRIDE


def test_a_claimed_count_is_bounded_before_it_is_believed():
    cursor = Cursor(MemoryBlob(b"", n_bytes=1 << 50), Budget(0))

    with pytest.raises(UnreadableError, match=f"more than {MAX_STRINGS} strings"):
        strings.skip_strings(cursor, 1 << 40, "the strings")
    assert cursor.blob.n_read == 0
