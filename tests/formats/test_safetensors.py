"""Safetensors are read as they were written: one file, shards by number or by index, config.json beside them."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import UnreadableError
from fitplug.formats import budget, safetensors
from fitplug.formats.header import Skipped
from formats_support import MemoryBlob, raw_safetensors
from formats_support import safetensors as make

CONFIG = {"model_type": "llama", "hidden_size": 64, "sliding_window": None, "rope_scaling": {"type": "yarn", "factor": 4.0}}
A, B = {"a.weight": ("BF16", [2, 16], 64)}, {"b.weight": ("F32", [3], 12)}


def read(*files: tuple[str, bytes]):
    return safetensors.read([MemoryBlob(data, name) for name, data in files])


def read_one(data: bytes):
    return read(("model.safetensors", data))


def index(**weight_map: str) -> tuple[str, bytes]:
    content = {"metadata": {"total_size": 76}, "weight_map": weight_map}
    return "model.safetensors.index.json", json.dumps(content, indent=2).encode()


def config(content: object) -> tuple[str, bytes]:
    return "config.json", json.dumps(content).encode()


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name != "__metadata__")


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(safetensors.BITS)), st.lists(st.integers(0, 4), max_size=4))),
       st.none() | st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]))))  # fmt: skip
def test_what_was_written_is_read(kinds, metadata):
    entries = {}
    for name, (dtype, shape) in kinds.items():
        whole = [*shape, 8]  # a multiple of eight elements has whole bytes
        n_elements = 8
        for size in shape:
            n_elements *= size
        entries[name] = dtype.upper(), whole, n_elements * safetensors.BITS[dtype] // 8
    header = read_one(make(entries, metadata))

    assert {name: (t.type.upper(), list(reversed(t.shape)), t.n_bytes) for name, t in header.tensors.items()} == entries
    assert header.metadata == {f"safetensors.{key}": text for key, text in (metadata or {}).items()}
    assert header.n_bytes - header.header_bytes == sum(n_bytes for _, _, n_bytes in entries.values())


def test_tensors_come_in_the_order_of_the_data():
    header = b'{"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}   '

    assert list(read_one(raw_safetensors(header, 12)).tensors) == ["a", "b"]


def test_dtypes_of_tomorrow_are_sized_from_the_offsets():
    tensor = read_one(make({"a": ("UE8", [3], 3)})).tensors["a"]

    assert (tensor.type, tensor.n_bytes) == ("ue8", 3)


def test_config_is_folded_into_the_metadata():
    content = CONFIG | {
        "architectures": ["LlamaForCausalLM"],
        "layers": [{"a": 1}],
        "long": [0] * 5000,
        "empty": {},
        "on": True,
    }
    header = read(("model.safetensors", make(A, {"format": "pt"})), config(content))

    assert header.metadata == {
        "safetensors.format": "pt",
        "config.model_type": "llama",
        "config.hidden_size": 64,
        "config.sliding_window": Skipped("null", 0),
        "config.rope_scaling.type": "yarn",
        "config.rope_scaling.factor": 4.0,
        "config.architectures": ("LlamaForCausalLM",),
        "config.layers": Skipped("json", 1),
        "config.layers.0.a": 1,
        "config.long": Skipped("json", 5000),
        "config.on": True,
    }
    assert not header.notes


def test_without_config_a_note_says_so():
    assert "no config.json" in read_one(make(A)).notes[0]


@pytest.mark.parametrize("with_index", [False, True])
def test_shards_are_joined(with_index):
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    files = [(names[1], make(B)), (names[0], make(A))]
    listed = [index(**{"a.weight": names[0], "b.weight": names[1]})] if with_index else []
    header = read(*files, *listed, config(CONFIG))

    assert [(t.name, t.shard) for t in header.tensors.values()] == [("a.weight", 0), ("b.weight", 1)]
    assert header.shards == tuple(names)
    assert header.n_bytes == sum(len(data) for _, data in files)


def test_the_index_decides_which_files_count():
    header = read(("x.safetensors", make(A)), ("consolidated.safetensors", make(A)), index(**{"a.weight": "x.safetensors"}))

    assert header.shards == ("x.safetensors",)
    assert "consolidated.safetensors" in header.notes[0]


def test_of_several_files_the_one_called_model_counts():
    assert read(("adapter.safetensors", make(B)), ("model.safetensors", make(A))).shards == ("model.safetensors",)
    with pytest.raises(UnreadableError, match=r"several models lie together, one.safetensors, two.safetensors: name one"):
        read(("one.safetensors", make(A)), ("two.safetensors", make(B)))


ONE, TWO = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([(ONE, make(A))], rf"{TWO} of 2 files is missing"),
        ([(TWO, make(A))], rf"{ONE} of 2 files is missing"),
        ([(ONE, make(A)), index(a=ONE, b=TWO)], rf"{TWO} of 2 files is missing"),
        ([(ONE, make(A)), (TWO, make(A))], "has the tensor 'a.weight' once more"),
        ([(ONE, make(A)), (TWO, make(B)), index(**{"a.weight": TWO, "b.weight": ONE})], "lacks the tensor 'a.weight'"),
        ([(ONE, make(A)), index(**{"a.weight": ONE, "c.weight": ONE})], "lacks the tensor 'c.weight'"),
        ([(ONE, make(A)), index(a="../../etc/passwd")], "etc/passwd of 1 files is missing"),
        ([(ONE, make(A)), index()], "names no files"),
        ([(ONE, make(A)), ("model.safetensors.index.json", b"[]")], "the index has '\\[' where '{' belongs"),
        ([(ONE, make(A)), ("model.safetensors.index.json", b'{"weight_map": {"a": "b"')], "the index ends too early"),
        ([(ONE, make(A)), ("model.safetensors.index.json", b'{"weight_map": {"a": 5}}')], "has '5' where"),
        ([("a.safetensors", make(A)), ("config.json", b"<html>")], "config.json: is not JSON"),
        ([("a.safetensors", make(A)), ("config.json", b"[" * 100_000)], "config.json: is not JSON"),
        ([("a.safetensors", make(A)), ("config.json", b"[]")], "config.json: is no JSON object"),
        ([("a.safetensors", make(A)), ("config.json", b" " * 600_000)], "more than any config.json"),
    ],
)
def test_what_does_not_belong_together_is_refused(files, problem):
    with pytest.raises(UnreadableError, match=problem) as caught:
        read(*files)
    assert "\n" not in str(caught.value)


GOOD = make({"a": ("BF16", [2, 3], 12), "b": ("U8", [4], 4)}, {"format": "pt"})


def entry(text: str, data: int = 4) -> bytes:
    return raw_safetensors(b'{"a":' + text.encode() + b"}", data)


HOSTILE = {
    "empty": (b"", "is empty"),
    "a web page": (b"<!doctype html><title>404</title>", "is a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer for 12 bytes"),
    "a pickle": (b"\x80\x04\x95" + bytes(20), "Python pickle"),
    "JSON": (b'{"error": "not found"}', "is JSON text"),
    "other bytes": (b"GGUF" + bytes(20), "is no safetensors file"),
    "eight bytes": (b"\2" + bytes(7), "is no safetensors file"),
    "a header of 2**63": (b"\0" * 7 + b"\x80{" + bytes(9), "is no safetensors file"),
    "a header behind the end": (raw_safetensors(b"{" + b" " * 50)[:-1], "ends inside its header"),
    "a header of spaces": (raw_safetensors(b"{" + b" " * 50), "its header ends too early"),
    "two objects": (raw_safetensors(b"{}{}"), "goes on after its end"),
    "text that is no UTF-8": (raw_safetensors(b'{"\xff":{}}'), "is not UTF-8"),
    "text cut in a character": (raw_safetensors(b'{"\xc3'), "is not UTF-8"),
    "no comma": (raw_safetensors(b'{"a":{}"b":{}}'), "its header does not give 'a' a dtype"),
    "a broken string": (raw_safetensors(b'{"a'), "has a broken string"),
    "a broken escape": (raw_safetensors(b'{"\\x": 1}'), "has a broken string"),
    "a key of no text": (raw_safetensors(b"{5: 1}"), "has '5' where"),
    "no entry": (raw_safetensors(b'{"a":}'), "ends in the middle, or is not JSON"),
    "nested entries": (raw_safetensors(b'{"a":' + b"[" * 50_000 + b"}"), "is nested too deeply"),
    "an endless entry": (raw_safetensors(b'{"a":"' + b"x" * 100_000 + b'"}'), "longer than any entry is"),
    "an endless number": (entry('{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,4]}'), "is not JSON"),
    "no dtype": (entry('{"shape":[4],"data_offsets":[0,4]}'), "does not give 'a' a dtype, a shape and two offsets"),
    "a dtype of control characters": (entry('{"dtype":"\\u001b[2J","shape":[4],"data_offsets":[0,4]}'), "does not give 'a'"),
    "a shape of floats": (entry('{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}'), "does not give 'a'"),
    "a shape of bools": (entry('{"dtype":"U8","shape":[true],"data_offsets":[0,1]}'), "does not give 'a'"),
    "a negative shape": (entry('{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}'), "does not give 'a'"),
    "65 dimensions": (entry('{"dtype":"U8","shape":%s,"data_offsets":[0,4]}' % ([1] * 65)), "does not give 'a'"),
    "three offsets": (entry('{"dtype":"U8","shape":[4],"data_offsets":[0,4,8]}'), "does not give 'a'"),
    "offsets backwards": (entry('{"dtype":"U8","shape":[4],"data_offsets":[4,0]}'), "does not give 'a'"),
    "a huge offset": (entry('{"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551616]}'), "does not give 'a'"),
    "too many elements": (
        entry('{"dtype":"U8","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}'),
        "more than any memory",
    ),
    "the wrong size": (entry('{"dtype":"U8","shape":[5],"data_offsets":[0,4]}'), "4 bytes, which are not 5 elements of u8"),
    "a gap": (entry('{"dtype":"U8","shape":[4],"data_offsets":[4,8]}', 8), "tensor 'a' has offset 4, expected 0"),
    "an overlap": (
        entry('{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}', 6),
        "tensor 'b' has offset 2, expected 4",
    ),
    "a name twice": (
        entry('{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}', 8),
        "has the tensor 'a' once more",
    ),
    "metadata twice": (raw_safetensors(b'{"__metadata__":{"k":"1","k":"2"}}'), "has 'k' twice"),
    "metadata of numbers": (raw_safetensors(b'{"__metadata__":{"k":1}}'), "has '1' where"),
    "metadata as a list": (raw_safetensors(b'{"__metadata__":[]}'), "has '\\[' where '{' belongs"),
    "a file cut in its weights": (GOOD[:-1], "ends 1 bytes too early"),
    "a file with a tail": (GOOD + bytes(5), "is 5 bytes longer than its header says"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_one_line(case):
    data, problem = HOSTILE[case]

    with pytest.raises(UnreadableError, match=problem) as caught:
        read_one(data)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.safetensors: ")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_no_truncation_goes_unnoticed(length):
    with pytest.raises(UnreadableError):
        read_one(GOOD[:length])


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_changed(changes):
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    try:
        header = read_one(bytes(data))
    except UnreadableError as error:
        problem = str(error)
    else:
        problem = "" if header.n_bytes == len(GOOD) else "not all"
    assert "\n" not in problem
    assert problem != "not all"


@given(st.binary(max_size=300))
def test_any_bytes_as_header(data):
    try:
        read_one(raw_safetensors(b"{" + data))
    except UnreadableError as error:
        problem = str(error)
    else:
        problem = ""
    assert problem.isprintable()


LARGE = {
    "100 MB of spaces": (lambda: raw_safetensors(b"{" + b" " * 99_999_999), "ends too early"),
    "one long string": (lambda: raw_safetensors(b'{"a":"' + b"x" * 50_000_000), "longer than any entry"),
    "a long name": (lambda: raw_safetensors(b'{"' + b"x" * 20_000_000 + b'":1}'), "has a name of 20000000 characters"),
    "long wide metadata": (
        lambda: raw_safetensors(b'{"__metadata__":{"a":"' + "\U0001f999".encode() * 5_000_000), "has a broken string"),
    "lists in lists": (lambda: raw_safetensors(b'{"a":[' + b"[]," * 5_000_000 + b"0]}"), "longer than any entry"),
}  # fmt: skip


@pytest.mark.parametrize("case", LARGE)
def test_memory_is_bounded(case):
    make_data, problem = LARGE[case]
    blob = MemoryBlob(make_data(), "model.safetensors")
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match=problem):
            safetensors.read([blob])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 56 << 20


MANY = {
    "tensors": lambda: make({f"{n:08d}": ("U8", [n % 7], n % 7) for n in range(20_000)}),
    "metadata": lambda: make({}, {f"{n:08d}": "x" * 300 for n in range(20_000)}),
}


@pytest.mark.parametrize("case", MANY)
def test_what_is_built_is_bounded_by_the_budget(case, monkeypatch):
    """With an eighth of the budget; the working space is the same."""
    monkeypatch.setattr(budget, "MAX_MEMORY", budget.MAX_MEMORY // 8)
    blob = MemoryBlob(MANY[case](), "model.safetensors")
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match="more keys, text or tensors"):
            safetensors.read([blob])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * budget.MAX_MEMORY + (4 << 20)


def test_long_paths_of_config_are_bounded():
    key = "k" * 300_000
    wide = {key: {str(number): 1 for number in range(10_000)}}

    with pytest.raises(UnreadableError, match="more keys, text or tensors"):
        read(("model.safetensors", make(A)), config(wide))


def test_long_metadata_is_stepped_over():
    header = read_one(make(A, {"tags": "x" * (3 << 20), "more": 'a"b\\' * 400_000, "format": "pt"}))

    assert header.metadata["safetensors.format"] == "pt"
    assert header.metadata["safetensors.tags"] == Skipped("char", 3 << 20)
    assert header.metadata["safetensors.more"] == Skipped("char", 6 * 400_000)  # as written: a\"b\\
    assert "a.weight" in header.tensors


def test_recognised_by_name_or_by_beginning():
    assert safetensors.recognises([MemoryBlob(GOOD, "blob-1")])
    assert safetensors.recognises([MemoryBlob(b"<html>", "a.safetensors")])
    assert not safetensors.recognises([MemoryBlob(b"GGUF\3\0\0\0{", "a.gguf")])
    assert not safetensors.recognises([MemoryBlob(b"", "a")])
