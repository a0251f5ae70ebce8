"""A GGUF header is read as it was written, in both byte orders and versions, alone and in shards."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import UnreadableError
from fitplug.formats import gguf
from fitplug.formats.ggml_types import TYPES
from fitplug.formats.gguf_metadata import MAX_NAMES, MAX_NUMBERS
from fitplug.formats.header import Skipped
from formats_support import CODES, MemoryBlob, info, pair, shard
from formats_support import gguf as make

NUMBERS = {
    kind: st.integers(-(1 << size - 1), (1 << size - 1) - 1)
    for kind, size in (("i8", 8), ("i16", 16), ("i32", 32), ("i64", 64))
}
NUMBERS |= {kind: st.integers(0, (1 << size) - 1) for kind, size in (("u8", 8), ("u16", 16), ("u32", 32), ("u64", 64))}
NUMBERS |= {"bool": st.booleans(), "f32": st.floats(width=32, allow_nan=False), "f64": st.floats(allow_nan=False)}
VALUES = NUMBERS | {"str": st.text(st.characters(exclude_categories=["Cs"]), max_size=30)}


def read(data: bytes, name: str = "model.gguf"):
    return gguf.read([MemoryBlob(data, name)])


@st.composite
def metadata(draw):
    kinds = st.sampled_from([*VALUES, *(f"[{kind}]" for kind in VALUES)])
    found = {}
    for key in draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), unique=True, max_size=6)):
        kind = draw(kinds)
        plain = VALUES[kind.strip("[]")]
        found[f"x.{key}"] = kind, tuple(draw(st.lists(plain, max_size=5))) if kind[0] == "[" else draw(plain)
    return found


@given(metadata(), st.sampled_from("<>"), st.sampled_from([2, 3]))
def test_metadata_is_read_as_written(pairs, mark, version):
    header = read(make([pair(key, kind, what, mark) for key, (kind, what) in pairs.items()], mark=mark, version=version))

    assert {key: what for key, (_, what) in pairs.items()} == header.metadata
    assert list(pairs) == list(header.metadata)
    assert (header.version, header.byte_order) == (version, "little" if mark == "<" else "big")


SIZED = [row for row in TYPES if row.block]
KINDS = st.tuples(st.sampled_from(SIZED), st.lists(st.integers(1, 3), min_size=1, max_size=4))


@given(st.lists(KINDS, max_size=8), st.sampled_from("<>"), st.sampled_from([16, 32, 4096]))
def test_tensors_are_read_as_written(kinds, mark, alignment):
    infos, sizes, offset = [], [], 0
    for number, (row, (blocks, *rest)) in enumerate(kinds):
        shape, n_bytes = (blocks * row.block, *rest), row.n_bytes * math.prod([blocks, *rest])
        infos.append(info(f"t{number}", shape, row.id, offset, mark))
        sizes.append((row.name, shape, n_bytes, offset))
        offset += -(-n_bytes // alignment) * alignment
    data = make([pair("general.alignment", "u32", alignment, mark)], infos, offset, mark=mark, alignment=alignment)
    header = read(data)

    assert sizes == [(t.type, t.shape, t.n_bytes, t.offset) for t in header.tensors.values()]
    assert header.header_bytes == len(data) - offset
    assert header.data_offsets == (header.header_bytes,)
    assert gguf.header_size(MemoryBlob(data)) == header.header_bytes


def test_the_last_tensor_need_not_be_padded():
    assert read(make([], [info("t", [3], 0, 0)], 12)).tensors["t"].n_bytes == 12


def test_what_the_package_writes_is_what_is_read(tmp_path):
    """Beside the reader of the `gguf` package, over its own writer."""
    np = pytest.importorskip("numpy")
    import gguf as package

    from fitplug.sources.local import open_path

    path = tmp_path / "model.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(1000)])
    writer.add_array("llama.attention.head_count_kv", [4, 8])
    writer.add_tensor("token_embd.weight", np.zeros((10, 64), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((4, 34), np.uint8), raw_dtype=package.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header, theirs = gguf.read(open_path(str(path))), package.GGUFReader(path)

    assert [(t.name, tuple(map(int, t.shape)), t.n_bytes, t.data_offset) for t in theirs.tensors] == [
        (t.name, t.shape, t.n_bytes, header.header_bytes + t.offset) for t in header.tensors.values()
    ]
    assert header.metadata["llama.attention.head_count_kv"] == (4, 8)
    assert header.length("tokenizer.ggml.tokens") == 1000
    assert header.metadata["general.architecture"] == "llama"


@pytest.mark.parametrize("mark", "<>")
def test_vocabularies_are_stepped_over(mark):
    tokens = [f"token {number}" for number in range(5000)] + ["x" * 70_000]
    pairs = [
        pair("tokenizer.ggml.tokens", "[str]", tokens, mark),
        pair("tokenizer.ggml.scores", "[f32]", [0.0] * 5001, mark),
        pair("tokenizer.ggml.token_type", "[i32]", [1], mark),
        pair("after", "u32", 7, mark),
    ]
    header = read(make(pairs, mark=mark))
    ends = [len(make(pairs[:count], mark=mark)) for count in (1, 2, 3)]

    assert header.metadata == {
        "tokenizer.ggml.tokens": Skipped("str", 5001, ends[0]),
        "tokenizer.ggml.scores": Skipped("f32", 5001, ends[1]),
        "tokenizer.ggml.token_type": Skipped("i32", 1, ends[2]),
        "after": 7,
    }


@pytest.mark.parametrize(("kind", "longest", "item"), [("[u32]", MAX_NUMBERS, 1), ("[str]", MAX_NAMES, "x")])
def test_arrays_are_built_up_to_their_bound(kind, longest, item):
    built = read(make([pair("a", kind, [item] * longest)])).metadata["a"]
    skipped = read(make([pair("a", kind, [item] * (longest + 1))])).metadata["a"]

    assert built == (item,) * longest
    assert isinstance(skipped, Skipped)
    assert skipped.length == longest + 1


def test_long_texts_are_stepped_over():
    template, tokenizer = "t" * 100_000, "j" * (2 << 20)
    header = read(
        make([pair("tokenizer.chat_template", "str", template), pair("tokenizer.huggingface.json", "str", tokenizer)])
    )

    assert header.metadata["tokenizer.chat_template"] == template
    assert header.metadata["tokenizer.huggingface.json"] == Skipped("char", len(tokenizer), header.header_bytes)


def test_a_list_of_names_with_a_long_one_is_stepped_over():
    header = read(make([pair("a", "[str]", ["x", "y" * 5000, "z"]), pair("b", "u8", 1)]))

    assert header.metadata == {"a": Skipped("str", 3, header.header_bytes - len(pair("b", "u8", 1))), "b": 1}


def test_bytes_that_are_no_text_are_escaped():
    header = read(make([pair("a", "str", b"\xff\xfe")], [info(b"t\xff", [8], 0, 0)], 32))

    assert header.metadata["a"] == "\\xff\\xfe"
    assert list(header.tensors) == ["t\\xff"]


@pytest.mark.parametrize("last", [False, True])
def test_unknown_types_are_sized_from_the_offsets(last):
    infos = [info("a", [64], 77, 0), info("b", [8], 0, 96)]
    if last:
        infos = [info("b", [8], 0, 0), info("a", [64], 77, 32)]
    header = read(make([], infos, 128))

    assert (header.tensors["a"].type, header.tensors["a"].n_bytes) == ("type_77", 96)
    assert header.tensors["b"].n_bytes == 32
    assert "type_77" in header.notes[0]


def test_removed_types_are_read_and_noted():
    header = read(make([], [info("a", [32], 31, 0)], 32))

    assert header.tensors["a"].type == "q4_0_4_4"
    assert "does not load" in header.notes[0]


@pytest.mark.parametrize("type_id", [39, 40, 41, 42])
def test_the_newest_types_are_known(type_id):
    row = TYPES[type_id]
    header = read(make([], [info("a", [row.block, 2], type_id, 0)], -(-row.n_bytes * 2 // 32) * 32))

    assert header.tensors["a"].n_bytes == row.n_bytes * 2
    assert not header.notes


def test_names_that_llama_cpp_refuses_are_noted():
    assert not read(make([], [info("n" * 63, [8], 0, 0)], 32)).notes
    assert "refuses tensor names" in read(make([], [info("n" * 64, [8], 0, 0)], 32)).notes[0]


# Splits


def blobs(*files: bytes) -> list[MemoryBlob]:
    return [MemoryBlob(data, f"m-{number:05d}-of-{len(files):05d}.gguf") for number, data in enumerate(files, start=1)]


def test_shards_are_joined():
    files = blobs(shard(0, 3, ["a", "b"], 3), shard(1, 3, []), shard(2, 3, ["c"]))
    header = gguf.read(files)

    assert [(t.name, t.shard, t.offset) for t in header.tensors.values()] == [("a", 0, 0), ("b", 0, 32), ("c", 2, 0)]
    assert header.shards == tuple(file.name for file in files)
    assert header.n_bytes == sum(file.n_bytes for file in files)
    assert header.header_bytes == header.n_bytes - 96 == sum(header.data_offsets)


def test_a_first_shard_may_have_no_tensors():
    assert list(gguf.read(blobs(shard(0, 2, [], 1), shard(1, 2, ["a"]))).tensors) == ["a"]


def test_a_missing_shard_is_named():
    files = blobs(shard(0, 3, ["a"]), shard(1, 3, ["b"]), shard(2, 3, ["c"]))

    with pytest.raises(UnreadableError, match=r"m-00002-of-00003\.gguf is missing"):
        gguf.read([files[0], files[2]])
    with pytest.raises(UnreadableError, match=r"m-00002-of-00003\.gguf and 1 more is missing"):
        gguf.read(files[:1])


def test_shards_under_other_names_are_asked_back():
    with pytest.raises(UnreadableError, match="split into 2 files, but here are 1"):
        read(shard(0, 2, ["a"]), "renamed.gguf")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([shard(1, 2, ["a"]), shard(0, 2, ["b"])], "later part of a split; give its first file, m-00001-of-00002"),
        ([shard(0, 2, ["a"]), shard(0, 2, ["b"])], "should be file 2 of 2"),
        ([shard(0, 2, ["a"]), shard(1, 3, ["b"])], "should be file 2 of 2"),
        ([shard(0, 2, ["a"]), make()], "should be file 2 of 2"),
        ([shard(0, 2, ["a"]), shard(1, 2, ["a"])], "tensor 'a' is in m-00001-of-00002.gguf too"),
        ([shard(0, 2, ["a"], 5), shard(1, 2, ["b"])], "should have 5 tensors, its files have 2"),
        ([make([pair("split.count", "str", "two")])], "split.count is 'two'"),
        ([make([pair("split.count", "i32", -1)])], "split.count is -1"),
        ([make([pair("split.count", "u64", 1 << 60)])], "split.count is"),
    ],
)
def test_shards_that_do_not_belong_together_are_refused(files, problem):
    with pytest.raises(UnreadableError, match=problem):
        gguf.read(blobs(*files))


def test_merged_files_may_keep_an_empty_split_count():
    assert "a" in gguf.read([MemoryBlob(make([pair("split.count", "u16", 0)], [info("a", [8], 0, 0)], 32))]).tensors


def test_every_type_code_is_written_by_the_support():
    """The other tests would pass by saying nothing where the support lacked a type."""
    assert {code for code, _ in CODES.values()} == set(range(13)) - {9}
    assert struct.calcsize("<Q") == 8
