"""Whatever a file claims: one line that says what is wrong, little memory, nothing read past the end."""

import random
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import UnreadableError
from fitplug.formats import budget, gguf
from fitplug.formats.header import Header
from formats_support import MemoryBlob, info, pair, shard, string
from formats_support import gguf as make

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4920734272\n"
GOOD = make([pair("general.architecture", "str", "llama")], [info("a", [8], 0, 0), info("b", [64], 8, 32)], 32 + 96)
FULL = (1 << 64) - 1


def counts(n_tensors: int, n_keys: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + rest


def array(item: int, count: int) -> bytes:
    return string(b"k") + struct.pack("<IIQ", 9, item, count)


def one(*infos: bytes, data: int = 32) -> bytes:
    return make([], infos, data)


HOSTILE = {
    "empty": (b"", "is empty"),
    "a web page": (b"\n<!DOCTYPE html><html><head><title>Sign in</title>", "is a web page"),
    "a pointer": (LFS, "is a Git LFS pointer for 4920734272 bytes.*git lfs pull"),
    "a zip": (b"PK\3\4" + bytes(100), "is a zip or PyTorch archive"),
    "a pickle": (b"\x80\2}q\0.", "is a Python pickle"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(40), "compressed with gzip"),
    "zeros": (bytes(5000), "begins with zeros"),
    "an error answer": (b'{"error":"Invalid username or password."}', "is JSON text"),
    "the old format": (b"tjgg" + bytes(40), "old ggjt format"),
    "other bytes": (b"MZ\x90\0 something", "is no GGUF file: it begins with b'MZ"),
    "only the magic": (b"GGUF", "ends inside its first fields"),
    "version 1": (b"GGUF" + struct.pack("<IIIQ", 1, 0, 0, 0), "GGUF version 1"),
    "version 0": (b"GGUF" + bytes(20), "GGUF version 0"),
    "version 4": (make(version=4), "GGUF version 4; fitplug and llama.cpp read 2 and 3"),
    "version 2**31": (b"GGUF" + struct.pack("<IQQ", (1 << 31) + 1, 0, 0), "GGUF version 2147483649"),
    "all keys": (counts(0, FULL), f"claims {FULL} metadata keys"),
    "many keys": (counts(0, 60_000, bytes(100)), "ends inside its 60000 metadata keys"),
    "all tensors": (counts(FULL, 0), f"ends inside its table of {FULL} tensors"),
    "many tensors": (counts(1000, 0, bytes(1000)), "ends inside its table of 1000 tensors"),
    "an endless key": (counts(0, 1, struct.pack("<Q", FULL) + bytes(50)), "ends inside metadata key 0"),
    "a long key": (counts(0, 1, string(b"k" * 5000) + bytes(20)), "metadata key 0 is 5000 bytes long, more than 4096"),
    "an empty key": (counts(0, 1, string(b"") + bytes(20)), "metadata key 0 is empty"),
    "a key twice": (make([pair("k", "u8", 1), pair("k", "u8", 2)]), "has the metadata key 'k' twice"),
    "a value of type 13": (counts(0, 1, string(b"k") + struct.pack("<II", 13, 0)), "has type 13, which GGUF does not have"),
    "an endless text": (counts(0, 1, string(b"k") + struct.pack("<IQ", 8, FULL)), "ends inside the value of 'k'"),
    "an endless vocabulary": (counts(0, 1, array(8, FULL)), "ends inside the value of 'k'"),
    "an endless array": (counts(0, 1, array(12, FULL)), "ends inside the value of 'k'"),
    "an array that overflows": (counts(0, 1, array(12, 1 << 61)), "ends inside the value of 'k'"),
    "an array of arrays": (counts(0, 1, array(9, 1) + bytes(20)), "is an array of arrays"),
    "an array of type 99": (counts(0, 1, array(99, 1) + bytes(20)), "is an array of type 99"),
    "a token that overflows": (
        counts(0, 1, array(8, 1000) + struct.pack("<Q", FULL - 7) + bytes(9000)),
        "ends inside the value of 'k'",
    ),
    "alignment 0": (make([pair("general.alignment", "u32", 0)]), "alignment is 0, not a power of two"),
    "alignment 24": (make([pair("general.alignment", "u32", 24)]), "alignment is 24, not a power of two"),
    "alignment as text": (make([pair("general.alignment", "str", "big")]), "alignment is big, not a power of two"),
    "alignment 2**31": (
        make([pair("general.alignment", "u32", 1 << 31)], [info("a", [8], 0, 0)], 32),
        "ends inside the padding before its tensors",
    ),
    "an endless name": (counts(1, 0, struct.pack("<Q", FULL) + bytes(50)), "ends inside tensor 0"),
    "a long name": (one(info("n" * 2000, [8], 0, 0)), "the name of tensor 0 of its table is 2000 bytes long"),
    "a name twice": (one(info("a", [8], 0, 0), info("a", [8], 0, 32), data=64), "has the tensor 'a' twice"),
    "5 dimensions": (one(info("a", [1] * 5, 0, 0)), "has 5 dimensions"),
    "all dimensions": (one(string(b"a") + struct.pack("<I", 0xFFFFFFFF) + bytes(40)), "has 4294967295 dimensions"),
    "a dimension of 2**63": (one(info("a", [1 << 63], 0, 0)), "more than any memory"),
    "a product of 2**64": (one(info("a", [1 << 32, 1 << 32], 0, 0)), "more than any memory"),
    "a product of 2**64 and 0": (one(info("a", [FULL, 0], 0, 0)), "more than any memory"),
    "half a block": (one(info("a", [48], 8, 0)), "rows of 48 elements, no multiple of q8_0's 32"),
    "a type of 2**31": (one(info("a", [8], 1 << 31, 0)), "has type 2147483648"),
    "an odd offset": (one(info("a", [8], 0, 4)), "has offset 4, expected 0"),
    "a far offset": (one(info("a", [8], 0, 1 << 62)), f"has offset {1 << 62}, expected 0"),
    "a gap": (one(info("a", [8], 0, 0), info("b", [8], 0, 64), data=96), "tensor 'b' has offset 64, expected 32"),
    "an overlap": (one(info("a", [16], 0, 0), info("b", [8], 0, 32), data=96), "tensor 'b' has offset 32, expected 64"),
    "unknown sizes backwards": (one(info("a", [8], 99, 64), info("b", [8], 0, 0), data=96), "tensor 'a' has offset 64"),
    "an unknown type behind the end": (one(info("a", [8], 99, 0), info("b", [8], 0, 640), data=96), "ends inside tensor 'a'"),
    "a file cut in its weights": (GOOD[:-60], "ends inside tensor 'b'"),
    "a file cut before its weights": (GOOD[:-128], "ends inside tensor 'a'"),
    "a file with a tail": (GOOD + bytes(64), "is 64 bytes longer than its header says"),
    "two files in one": (GOOD + GOOD, "bytes longer than its header says"),
    "a vocabulary with a tail": (make([pair("k", "u8", 1)]) + bytes(100), "bytes longer than its header says"),
}


def read(data: bytes) -> Header:
    return gguf.read([MemoryBlob(data)])


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_one_line(case):
    data, problem = HOSTILE[case]

    with pytest.raises(UnreadableError, match=problem) as caught:
        read(data)
    assert str(caught.value).startswith("model.gguf: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("case", [case for case in HOSTILE if HOSTILE[case][0][:4] != b"GGUF"])
def test_what_is_called_gguf_is_read_as_such(case):
    """So that the error says what the file is instead, rather than that nobody knows it."""
    assert gguf.recognises([MemoryBlob(HOSTILE[case][0])])
    assert not gguf.recognises([MemoryBlob(HOSTILE[case][0], "model.bin")])


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_no_truncation_goes_unnoticed(length):
    if length >= len(GOOD) - 28:  # the padding behind the last tensor
        assert len(read(GOOD[:length]).tensors) == 2
    else:
        with pytest.raises(UnreadableError):
            read(GOOD[:length])


def test_a_file_that_shrinks_is_noticed():
    class Shrinking(MemoryBlob):
        def read(self, offset, n_bytes):
            return super().read(offset, n_bytes)[: max(0, 30 - offset)]

    with pytest.raises(UnreadableError, match="became shorter while it was read"):
        gguf.read([Shrinking(GOOD)])


def test_control_characters_do_not_reach_the_terminal():
    with pytest.raises(UnreadableError) as caught:
        read(make([pair("\x1b[2J\nk", "u8", 1), pair("\x1b[2J\nk", "u8", 2)]))
    assert str(caught.value).isprintable()


def test_a_hole_of_petabytes_costs_nothing():
    """A sparse file: the claims are possible, and yet too large."""
    for claim in (array(8, 1 << 40), array(8, budget.MAX_STRINGS + 1), array(12, 1 << 40)):
        blob = MemoryBlob(counts(0, 2, claim), n_bytes=1 << 52)
        with pytest.raises(UnreadableError):
            gguf.read([blob])
        assert blob.n_read < 1 << 20


def test_the_budget_is_one_for_all_shards(monkeypatch):
    monkeypatch.setattr(budget, "MAX_MEMORY", 4 * (budget.TENSOR + 60) + 4 * (budget.PAIR + budget.NUMBER + 80))
    files = [MemoryBlob(shard(no, 2, [f"a{no}", f"b{no}"]), f"m-0000{no + 1}-of-00002.gguf") for no in (0, 1)]
    assert len(gguf.read(files).tensors) == 4

    monkeypatch.setattr(budget, "MAX_MEMORY", 1300)
    with pytest.raises(UnreadableError, match=r"m-00002-of-00002\.gguf: has more keys, text or tensors"):
        gguf.read(files)


def test_large_files_may_have_more_tensors(monkeypatch):
    monkeypatch.setattr(budget, "MAX_MEMORY", 0)
    assert len(read(one(info("a", [1 << 20], 24, 0), data=1 << 20)).tensors) == 1
    with pytest.raises(UnreadableError, match="than a model of its size can have"):
        read(one(info("a", [8], 0, 0)))


def many_keys(count: int, kind: str, what: object) -> bytes:
    body = pair("", kind, what)[8:]
    return make([string(b"%05d" % number) + body for number in range(count)])


def many_tensors(count: int, name: int, shape: list[int]) -> bytes:
    return make([], [info(b"%06d" % i + b"x" * name, [0, 1000 + i, *shape], 24, 0) for i in range(count)])


def peak_of(data: bytes, problem: str) -> int:
    """Most memory while it is refused."""
    blob = MemoryBlob(data)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match=problem):
            gguf.read([blob])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


TOO_MUCH = "more keys, text or tensors"
LARGE = {
    "strings with holes": (
        lambda: counts(0, 1, array(8, 5000) + (struct.pack("<Q", 60_000) + b"x" * 60_000) * 1200),
        "more than 64 MiB",
    ),
    "the longest texts": (lambda: many_keys(50, "str", "v" * (1 << 20)), TOO_MUCH),
    "the widest texts": (lambda: many_keys(50, "str", "\U0001f999" * (1 << 18)), TOO_MUCH),
    "the longest names": (lambda: many_tensors(35_000, 1000, []), TOO_MUCH),
}


@pytest.mark.parametrize("case", LARGE)
def test_memory_is_bounded(case):
    make_data, problem = LARGE[case]

    assert peak_of(make_data() + bytes(99), problem) < 56 << 20


MANY = {
    "keys": lambda: many_keys(30_000, "u64", 1 << 60),
    "arrays": lambda: many_keys(40, "[f64]", [0.5] * 4096),
    "lists of names": lambda: many_keys(200, "[str]", [f"{i:02x}" for i in range(256)]),
    "tensors": lambda: many_tensors(14_800, 0, [1000, 1000]),
    "more tensors": lambda: many_tensors(20_000, 0, [1, 1]),
}


@pytest.mark.parametrize("case", MANY)
def test_what_is_built_is_bounded_by_the_budget(case, monkeypatch):
    """With an eighth of the budget; the working space is the same."""
    monkeypatch.setattr(budget, "MAX_MEMORY", budget.MAX_MEMORY // 8)

    assert peak_of(MANY[case]() + bytes(99), f"{TOO_MUCH}|longer than its header") < 1.4 * budget.MAX_MEMORY + (1 << 20)


# Anything at all


def outcome(data: bytes) -> str:
    try:
        read(data)
    except UnreadableError as error:
        return "several lines" if "\n" in str(error) else "error"
    return "header"


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic(data):
    assert outcome(b"GGUF\3\0\0\0" + data) != "several lines"


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_changed(changes):
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    assert outcome(bytes(data)) != "several lines"


def seeds() -> list[bytes]:
    """Files that between them use everything the format has."""
    pairs = [
        pair("general.architecture", "str", "llama"),
        pair("general.alignment", "u32", 64),
        pair("tokenizer.ggml.tokens", "[str]", [f"t{number}" for number in range(150)]),
        pair("tokenizer.ggml.scores", "[f32]", [0.0] * 150),
        pair("l.heads", "[i32]", [1, 2, 3]),
        pair("l.names", "[str]", ["a", "b"]),
        pair("l.on", "bool", True),
    ]
    infos = [info("token_embd.weight", [256, 2], 12, 0), info("x", [7], 99, 320), info("blk.0.w", [4, 2, 2, 1], 0, 384)]
    little = make(pairs, infos, 448, alignment=64)
    big = make([pair("a", "[str]", ["abc"] * 100, ">"), pair("b", "f64", 1.5, ">")], [info("t", [8], 0, 0, ">")], 32, mark=">")
    return [little, big, shard(0, 1, ["a", "b"], 2), GOOD]


def mutate(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at, kind = rng.randrange(len(out)), rng.randrange(6)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, 255, 1 << 31, 1 << 32, 1 << 63, FULL]))
        elif kind == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice([0, 5, 8, 9, 13, 99, 0xFFFFFFFF]))
        elif kind == 3:
            del out[at : at + rng.randrange(1, 20)]
        elif kind == 4:
            out[at:at] = out[at : at + rng.randrange(1, 40)]
        else:
            del out[at:]
        if not out:
            return b""
    return bytes(out)


def test_mutated_files_are_read_or_refused():
    """Deterministic: the same ten thousand files each time; most are refused, some changes do not matter."""
    rng, found = random.Random(20_240_601), {"header": 0, "several lines": 0, "error": 0}
    files = seeds()
    for number in range(10_000):
        found[outcome(mutate(files[number % len(files)], rng))] += 1

    assert found["several lines"] == 0
    assert found["error"] > 5000
    assert found["header"] > 100


@pytest.mark.parametrize("data", seeds())
def test_the_seeds_themselves_are_read(data):
    assert outcome(data) == "header"
