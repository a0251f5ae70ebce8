"""Reading JSON piece by piece is the same as reading it whole, wherever the pieces end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.formats import json_stream
from fitplug.formats.json_stream import JsonStream
from formats_support import MemoryBlob

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.none() | st.booleans() | st.integers() | TEXTS
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(st.dictionaries(TEXTS, VALUES), st.integers(1, 30), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_pieces_make_no_difference(content, chunk, ascii_only, indent):
    data = json.dumps(content, ensure_ascii=ascii_only, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        stream = JsonStream(MemoryBlob(b"head" + data + b"tail"), 4, 4 + len(data), "the text")
        found = {key: stream.value() for key in stream.members()}
        stream.finish()

    assert found == content


@given(TEXTS, st.integers(1, 10), st.booleans())
def test_strings_too_long_to_build_have_their_length_as_written(text, chunk, ascii_only):
    written = json.dumps(text, ensure_ascii=ascii_only)
    data = f"{written} ".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        patch.setattr(json_stream, "MAX_STRING", 3)
        stream = JsonStream(MemoryBlob(data), 0, len(data), "the text")
        found = stream.string_or_length()
        stream.finish()

    assert found in {text, len(written) - 2}
    assert found == text or len(written) > 3


def test_lone_surrogates_are_escaped():
    data = b'"\\ud800" '

    assert JsonStream(MemoryBlob(data), 0, len(data), "the text").string() == "\\ud800"
