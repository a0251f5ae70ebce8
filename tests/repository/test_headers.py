"""A file of which only the two ends were read has the header that reading all of it gives."""

import json
import struct

import pytest

from cli_support import make_models
from fitplug.formats import gguf
from fitplug.repository.headers import read_like, read_whole


class Bytes:
    """A file in memory: its header, and a hole; counts what is read."""

    def __init__(self, head, n_bytes):
        self.name, self.head, self.n_bytes, self.n_read = "model.gguf", head, n_bytes, 0

    def read(self, offset, n_bytes):
        end = min(offset + n_bytes, self.n_bytes)
        self.n_read += max(end - offset, 0)
        return self.head[offset:end].ljust(end - offset, b"\0")


MAKE = make_models()
MODEL = json.loads(MAKE.MODELS.read_text())["llama-3.1-8b"]
TEMPLATE = "tokenizer.chat_template"
MOVED = (TEMPLATE, "general.quantization_version", "general.file_type", "general.name")


def tokens(n, word="word{}"):
    return MAKE.strings("tokenizer.ggml.tokens", [word.format(i) for i in range(n)])


def text(key, value):
    return MAKE.string(key) + struct.pack("<I", MAKE.STRING) + MAKE.string(value)


def number(key, value):
    return MAKE.string(key) + struct.pack("<II", MAKE.U32, value)


def model(*, before=(), vocabulary=None, behind=(), n_merges=20_000, kind=None):
    """A file as tools write it: keys, the vocabulary, and what they append to it."""
    n = MODEL["n_vocab"]
    pairs = [MAKE.string(key) + MAKE.value(value) for key, value in MODEL["metadata"].items() if key not in MOVED]
    pairs += [*before, vocabulary or tokens(n)]
    pairs.append(MAKE.strings("tokenizer.ggml.merges", [f"word{i} wo{i % 97}" for i in range(n_merges)]))
    pairs += behind
    rows = list(MAKE.expand(MODEL["tensors"]))
    out, offset = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(rows), len(pairs)) + b"".join(pairs)), 0
    for name, own, shape in rows:
        id_, block, n_bytes = MAKE.BLOCKS[kind if kind and own != "f32" else own]
        out += MAKE.string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, id_, offset)
        size = n_bytes
        for i, length in enumerate(shape):
            size *= length if i else length // block
        offset += -(-size // 32) * 32
    out += bytes(-len(out) % 32)
    return Bytes(bytes(out), len(out) + offset)


CUSTOM = [number("general.quantization_version", 2), number("general.file_type", 15)]
IMATRIX = [
    text("quantize.imatrix.file", "m.dat"),
    text("quantize.imatrix.dataset", "d"),
    number("quantize.imatrix.chunks_count", 9),
]
ALIKE = {
    "the same again": {"behind": CUSTOM},
    "other types": {"behind": CUSTOM, "kind": "q6_K"},
    "straight from the converter": {"before": [number("general.file_type", 7), number("general.quantization_version", 2)]},
    "with an importance matrix": {"behind": CUSTOM + IMATRIX},
    "an edited template": {"behind": [*CUSTOM, text(TEMPLATE, "{% if x %}" * 900)]},
    "a longer name": {"before": [text("general.name", "x" * 700)], "behind": CUSTOM},
    "a word that changed where nobody looks": {"vocabulary": tokens(MODEL["n_vocab"]).replace(b"word77777", b"wORD77777")},
}
UNLIKE = {
    "another vocabulary": {"vocabulary": tokens(MODEL["n_vocab"], "w0rd{}")},
    "a longer vocabulary": {"vocabulary": tokens(MODEL["n_vocab"] + 64)},
    "a word of another length where nobody looks": {
        "vocabulary": tokens(MODEL["n_vocab"]).replace(
            struct.pack("<Q", 9) + b"word77777", struct.pack("<Q", 10) + b"word777777"
        )
    },
    "fewer merges": {"n_merges": 19_999},
    "hardly any vocabulary": {"vocabulary": tokens(8), "n_merges": 1},
}


@pytest.fixture(scope="module")
def sibling():
    return read_whole([model(behind=[*CUSTOM, text(TEMPLATE, "{{ x }}")])])[1]


@pytest.mark.parametrize("options", ALIKE.values(), ids=ALIKE)
def test_two_ends_are_enough_for_a_file_of_the_same_vocabulary(sibling, options):
    """And cost less than a tenth of the header."""
    file = model(**options)
    header = read_like([file], sibling)
    cost = file.n_read
    assert header == gguf.read([file])
    assert cost < 128 << 10


@pytest.mark.parametrize("options", UNLIKE.values(), ids=UNLIKE)
def test_a_file_of_another_vocabulary_is_never_taken_for_a_like_one(sibling, options):
    """It is read whole, or comes out right."""
    file = model(**options)
    header = read_like([file], sibling)
    assert header is None or header == gguf.read([file])


def test_a_file_that_was_cut_is_not_made_whole(sibling):
    """Wherever it ends."""
    file = model(behind=CUSTOM)
    for n_bytes in (10, 70_000, len(file.head) - 9000, len(file.head) - 10, file.n_bytes // 2):
        file.n_bytes = n_bytes
        assert read_like([file], sibling) is None
