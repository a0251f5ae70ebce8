"""The whole file to the byte, vocabulary and card too: as llama.cpp's own converter wrote it."""

import base64
import gzip
import json
from functools import cache
from pathlib import Path

import pytest

from conversion import checkpoints
from conversion.conftest import Sparse
from fitplug.conversion import CONVERTED
from fitplug.conversion.convert import NO_MTP, convert
from fitplug.conversion.layout import NOT_CONVERTED
from fitplug.conversion.sizes import size_of
from fitplug.conversion.vocabulary import fingerprint
from fitplug.conversion.vocabulary.autotokenizer import Tokenizer
from fitplug.conversion.vocabulary.beside import Beside
from fitplug.formats import safetensors
from fitplug.formats.header import Skipped

UNNAMED = ("unigram_json",)
"""Tokenizers of a kind whose way to split a text is not followed, so that their name is not known."""
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/conversion"


def recorded(name):
    return json.loads(gzip.decompress((FIXTURES / name).read_bytes()))


RECORDED, CLASSES = recorded("vocabularies.json.gz"), recorded("classes.json.gz")
PAIRS = [(name, tokenizer) for name, lengths in RECORDED["lengths"].items() for tokenizer in lengths]


class File(Sparse):
    """One of a folder."""

    folder = RECORDED["folder"]


def file(name, content):
    data = content if isinstance(content, bytes) else content.encode()
    return File(name, data, len(data))


@cache
def files(tokenizer):
    """A tokenizer's."""
    return [
        file(name, base64.b64decode(text) if name.endswith(".model") else text)
        for name, text in RECORDED["sets"][tokenizer].items()
    ]


def checkpoint(name, beside):
    """What is read of a class's checkpoint with these files."""
    kind, changes = RECORDED["variants"].get(name, (name, {}))
    tensors = {key: (dtype, tuple(shape)) for key, dtype, shape in CLASSES[kind]["source"]}
    head, length = checkpoints.header_bytes(tensors, "BF16")
    merged = {**CLASSES[kind]["config"], **changes}
    config = json.dumps({key: value for key, value in merged.items() if value is not None or key not in changes})
    quant = [file("hf_quant_config.json", json.dumps(CLASSES[kind]["quant_config"]))] if "quant_config" in CLASSES[kind] else []
    return safetensors.read([File("model.safetensors", head, length), file("config.json", config), *quant, *beside])


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The converter was told to know these tokenizers by that name."""
    names = dict.fromkeys((digest for some in RECORDED["fingerprints"].values() for digest in some), "known")
    monkeypatch.setattr(fingerprint, "pre_tokenizers", lambda: names)


@pytest.mark.parametrize(("name", "tokenizer"), PAIRS)
def test_a_conversion_is_as_long_to_the_byte(name, tokenizer):
    """Where all is read. Else it says what is not, or that one name is not known, and is within its bounds."""
    made = convert(checkpoint(name, files(tokenizer)))
    size, length = size_of(made), RECORDED["lengths"][name][tokenizer]
    if made.metadata["tokenizer.ggml.model"] == NOT_CONVERTED:
        (note,) = [note for note in made.notes if note.startswith("how long its vocabulary is remains unknown: ")]
        if not note.endswith("takes one of llama.cpp's own"):
            assert "tokenizer.json" not in RECORDED["sets"][tokenizer]  # it would have to be made of the other files
        return
    assert size.low <= length <= size.high
    if tokenizer in UNNAMED and isinstance(made.metadata.get("tokenizer.ggml.pre"), Skipped):
        assert size.high - size.low <= 32
        assert any("does not recognise" in note for note in made.notes)
    else:
        assert size.exact
        assert made.n_bytes == length
        assert [note for note in made.notes if note != NO_MTP] == [CONVERTED]


def test_nearly_all_are_known():
    """So that the law above is not one about estimates."""
    exact = sum(size_of(convert(checkpoint(name, files(tokenizer)))).exact for name, tokenizer in PAIRS[::7])
    assert exact > 0.75 * len(PAIRS[::7])


@pytest.mark.parametrize("tokenizer", [name for name in RECORDED["fingerprints"] if "tokenizer.json" in RECORDED["sets"][name]
                                       and name not in UNNAMED])  # fmt: skip
def test_a_tokenizer_is_recognised_by_how_it_splits_the_known_text(tokenizer):
    """The numbers that the tokenizers package gave it have this hash."""
    read = Tokenizer(Beside(files(tokenizer), ""), "llama")
    assert fingerprint.fingerprint(read) in RECORDED["fingerprints"][tokenizer]
