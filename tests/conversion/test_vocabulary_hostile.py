"""Files beside the weights that are damaged, too large or made to hurt: an estimate and a line that says why, no crash."""

import json
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversion.test_vocabularies import RECORDED, File, checkpoint, file
from fitplug.conversion.convert import convert
from fitplug.conversion.layout import NOT_CONVERTED
from fitplug.conversion.sizes import size_of
from fitplug.conversion.vocabulary.beside import MAX_BYTES, UnreadError
from fitplug.conversion.vocabulary.patterns import pattern_for

GOOD = RECORDED["sets"]["llama3"]
TOKENIZER = json.loads(GOOD["tokenizer.json"])


def made(**changed):
    """A checkpoint of which some files are others."""
    return converted("LlamaForCausalLM", {**GOOD, **{name.replace("__", "."): text for name, text in changed.items()}})


def converted(name, files):
    return convert(checkpoint(name, [file(key, text) for key, text in files.items()]))


def why(header):
    """What the note says, if the vocabulary is not known."""
    assert header.metadata["tokenizer.ggml.model"] == NOT_CONVERTED
    (note,) = [note for note in header.notes if "vocabulary is remains unknown" in note]
    assert "\n" not in note
    return note


@pytest.mark.parametrize(("text", "words"), [
    ("", "is not JSON"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "is no JSON object"),
    ("{}", "not what they should be"), ('{"model": 3}', "not what they should be"),
    ('{"model": {"type": "BPE"}}', "not what they should be"), ('{"model": {"type": "Magic", "vocab": {}}}', "kind Magic"),
    ('{"model": {"type": "BPE", "vocab": {"a": "b"}}}', "not what they should be"),
    ('{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}}, "added_tokens": []}', "two words one number"),
    ('{"model": {"type": "BPE", "vocab": {"a": 70000000}}, "added_tokens": []}', "config.json but 512"),
    ('{"model": {"type": "BPE", "vocab": {"\\ud800": 0}, "merges": []}, "added_tokens": []}', "not what they should be"),
    ('{"x": [' + "[]," * (3 << 20) + "[]]}", "more entries than any"), (b"\xff\xfe", "is not JSON"),
])  # fmt: skip
def test_a_damaged_tokenizer_is_said_to_be_one(text, words):
    assert words in why(made(tokenizer__json=text))


@pytest.mark.parametrize(("name", "text"), [
    ("tokenizer_config.json", "[]"), ("tokenizer_config.json", '{"tokenizer_class": "OwnTokenizer"}'),
    ("tokenizer_config.json", '{"tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "x"}}'),
    ("tokenizer_config.json", '{"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": [1]}'),
    ("README.md", "---\nlicense: [\n---\n"), ("README.md", "---\ntags:\n- 3\n---\n"), ("README.md", b"\xff"),
    ("README.md", "---\nlicense: &a [*a]\n---\n"), ("generation_config.json", '{"temperature": "hot"}'),
])  # fmt: skip
def test_what_the_converter_does_not_take_leaves_an_estimate(name, text):
    assert why(converted("LlamaForCausalLM", {**GOOD, name: text}))


@pytest.mark.parametrize(
    "data", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x05ab", b"<html>" * 100]
)
def test_a_damaged_sentencepiece_model_is_said_to_be_one(data):
    assert "no SentencePiece model" in why(converted("LlamaForCausalLM", {"tokenizer.model": data}))


def test_a_file_that_is_too_long_is_not_read():
    class Long(File):
        def read(self, offset, n_bytes):
            raise AssertionError

    files = [file(name, text) for name, text in GOOD.items() if name != "tokenizer.json"]
    header = convert(checkpoint("LlamaForCausalLM", [*files, Long("tokenizer.json", b"", MAX_BYTES + 1)]))
    assert "more than any" in why(header)


@pytest.mark.parametrize(
    "source", [r"(a+)+$", r"(\s|\s)*x", r"\s*\s*\s*x", r"[\s\S]*.*.*y", "x" * 3000, "(", r"\p{Nonsense}", "[a&&b]"]
)
def test_a_pattern_that_takes_long_or_is_not_pythons_is_not_tried(source):
    with pytest.raises(UnreadError):
        pattern_for(source, "ab ")


def test_a_tokenizer_that_splits_in_an_unknown_way_is_known_but_for_one_name():
    tokenizer = {**TOKENIZER, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}}
    size = size_of(made(tokenizer__json=json.dumps(tokenizer)))
    assert 0 <= size.high - size.low <= 32


def test_a_card_with_half_a_megabyte_of_measurements_costs_nothing():
    text = "---\nlicense: mit\nmodel-index:\n" + "- name: x\n  results: [1, 2]\n" * 30_000 + "tags: [a]\n---\n"
    start = process_time()
    header = made(README__md=text)
    assert process_time() - start < 2
    assert header.metadata["general.license"] == "mit"
    assert header.metadata["general.tags"].length == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.sampled_from(["tokenizer.json", "tokenizer_config.json", "generation_config.json"]), data=st.data(), value=JSON)
def test_any_json_in_any_place_makes_a_header(place, data, value):
    """One entry of the good files, at any depth, is another."""
    content = json.loads(GOOD[place])
    at = content
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(min(len(at), 4))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = value
            break
        at = at[key]
    assert converted("LlamaForCausalLM", {**GOOD, place: json.dumps(content)}).n_bytes > 0
