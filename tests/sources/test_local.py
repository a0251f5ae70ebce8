"""Files of this disk: which of them make a model, and what is said where they do not."""

import os
import sys
from pathlib import Path

import pytest

from fitplug.bundled import fitplug_formats, fitplug_sources
from fitplug.errors import FitplugError, NotFoundError, UnreadableError
from fitplug.formats.header import Header
from fitplug.opening import open_model, split_reference
from fitplug.registry import Registered, Registry
from fitplug.sources.local import LocalFile, open_path
from formats_support import gguf, info, pair, safetensors, shard

REGISTRY = Registry(
    formats=tuple(Registered("core", each) for each in fitplug_formats()),
    sources=tuple(Registered("core", each) for each in fitplug_sources()),
)
MODEL = gguf([pair("general.architecture", "str", "llama")], [info("a", [8], 0, 0)], 32)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(name: str, data: bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)
    return name


def open_(reference: str) -> Header:
    return open_model(reference, REGISTRY)


def names(path: str) -> list[str]:
    return [blob.name for blob in open_path(path)]


def test_a_file_is_read_at_any_place():
    blob = LocalFile(put("f", bytes(range(100))))

    assert (blob.name, blob.n_bytes) == ("f", 100)
    assert blob.read(10, 5) == bytes(range(10, 15))
    assert blob.read(98, 5) == bytes([98, 99])
    assert blob.read(100, 5) == blob.read(500, 5) == blob.read(0, 0) == b""


def test_a_file_that_grows_is_read_as_it_was():
    blob = LocalFile(put("f", b"abc"))
    put("f", b"abcdef")

    assert blob.n_bytes == 3
    assert blob.read(0, 10) == b"abc"


def test_a_file_that_goes_away_is_an_error():
    blob = LocalFile(put("f", b"abc"))
    Path("f").unlink()

    with pytest.raises(UnreadableError, match="f: cannot be read"):
        blob.read(0, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no list of open files to look at")
def test_no_file_stays_open():
    put("m-00001-of-00002.gguf", shard(0, 2, ["a"]))
    put("m-00002-of-00002.gguf", shard(1, 2, ["b"]))
    fds = Path("/dev/fd")
    before = len(list(fds.iterdir()))
    blobs = open_path("m-00001-of-00002.gguf")
    blobs[0].read(0, 10)

    assert len(list(fds.iterdir())) == before


def test_a_path_is_opened():
    assert open_(put("folder/model.gguf", MODEL)).metadata["general.architecture"] == "llama"
    assert open_(str(Path("folder/model.gguf").absolute())).n_bytes == len(MODEL)
    assert open_("file:folder/model.gguf").n_bytes == len(MODEL)


def test_the_home_folder_is_known(monkeypatch, tmp_path):
    put("model.gguf", MODEL)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    assert names("~/model.gguf") == ["model.gguf"]


def test_shards_beside_the_first_are_found():
    for number in range(3):
        put(f"m-{number + 1:05d}-of-00003.gguf", shard(number, 3, [f"t{number}"]))

    assert list(open_("m-00001-of-00003.gguf").tensors) == ["t0", "t1", "t2"]


def test_a_missing_shard_is_named():
    put("m-00001-of-00003.gguf", shard(0, 3, ["a"]))
    put("m-00003-of-00003.gguf", shard(2, 3, ["c"]))

    with pytest.raises(UnreadableError, match=r"m-00002-of-00003\.gguf is missing"):
        open_("m-00001-of-00003.gguf")


@pytest.mark.parametrize("with_first", [False, True])
def test_a_later_shard_is_no_model(with_first):
    put("m-00002-of-00002.gguf", shard(1, 2, ["b"]))
    if with_first:
        put("m-00001-of-00002.gguf", shard(0, 2, ["a"]))

    with pytest.raises(UnreadableError, match=r"later part of a split; give its first file, m-00001-of-00002\.gguf"):
        open_("m-00002-of-00002.gguf")


def test_a_folder_of_safetensors_is_a_model():
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        put(f"folder/{name}", safetensors({name: ("U8", [1], 1)}))
    put("folder/config.json", b'{"model_type": "llama"}')
    put("folder/hf_quant_config.json", b'{"quantization": {"quant_algo": "NVFP4"}}')
    put("folder/tokenizer.json", b"{}")
    put("folder/README.md", b"#")
    header = open_("folder")

    assert len(header.tensors) == 2
    assert header.metadata["config.model_type"] == "llama"
    assert header.metadata["hf_quant_config.quantization.quant_algo"] == "NVFP4"
    assert open_("folder/model-00002-of-00002.safetensors").tensors == header.tensors
    assert open_("folder/") == header


def test_one_file_of_safetensors_does_not_take_its_neighbours():
    put("a.safetensors", safetensors({"a": ("U8", [1], 1)}))
    put("b.safetensors", safetensors({"b": ("U8", [1], 1)}))

    assert names("a.safetensors") == ["a.safetensors"]


def test_a_folder_with_one_gguf_model_is_that_model():
    put("folder/m-00001-of-00002.gguf", shard(0, 2, ["a"]))
    put("folder/m-00002-of-00002.gguf", shard(1, 2, ["b"]))
    put("folder/mmproj-F16.gguf", MODEL)

    assert list(open_("folder").tensors) == ["a", "b"]


def test_folders_that_are_no_model():
    put("two/a.gguf", MODEL)
    put("two/b.gguf", MODEL)
    Path("none").mkdir()

    with pytest.raises(UnreadableError, match="two: is a folder with 2 GGUF models: name one"):
        open_("two")
    with pytest.raises(UnreadableError, match=r"none: is a folder with neither a \.gguf file nor safetensors"):
        open_("none")


def test_what_is_not_there():
    with pytest.raises(NotFoundError, match=r"nowhere\.gguf: no such file"):
        open_("nowhere.gguf")
    with pytest.raises(NotFoundError, match=r"nowhere: no such folder"):
        open_("nowhere/a.safetensors")
    with pytest.raises(FitplugError, match="cannot be opened"):
        open_("nul\0.gguf")


def test_a_folder_called_gguf_is_a_folder():
    Path("model.gguf").mkdir()

    with pytest.raises(UnreadableError, match="is a folder with neither"):
        open_("model.gguf")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for():
    os.mkfifo("pipe.gguf")

    with pytest.raises(UnreadableError, match=r"pipe\.gguf: is no plain file"):
        open_("pipe.gguf")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="whoever may read everything sees no refusal")
def test_a_file_that_may_not_be_read():
    Path(put("model.gguf", MODEL)).chmod(0)

    with pytest.raises(UnreadableError, match="cannot be opened: Permission denied"):
        open_("model.gguf")


def test_what_is_no_model_is_named_for_what_it_is():
    with pytest.raises(UnreadableError, match=r"notes\.txt: is no model that fitplug reads \(gguf or safetensors\)"):
        open_(put("notes.txt", b"hello"))
    with pytest.raises(UnreadableError, match=r"weights\.bin: is a zip or PyTorch archive"):
        open_(put("weights.bin", b"PK\3\4" + bytes(40)))
    with pytest.raises(UnreadableError, match=r"model\.gguf: is a Git LFS pointer"):
        open_(put("model.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"))


def test_formats_are_known_by_their_bytes():
    assert open_(put("blobs/sha256-00", MODEL)).format == "gguf"
    assert open_(put("blobs/sha256-01", safetensors({"a": ("U8", [1], 1)}))).format == "safetensors"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("model.gguf", ("file", "model.gguf")),
        ("/a/b.gguf", ("file", "/a/b.gguf")),
        (r"C:\models\a.gguf", ("file", r"C:\models\a.gguf")),
        ("c:/models/a.gguf", ("file", "c:/models/a.gguf")),
        ("./hf:a", ("file", "./hf:a")),
        ("hf:o/n:Q4_K_M", ("hf", "o/n:Q4_K_M")),
        ("https://host/a.gguf?x=1", ("https", "https://host/a.gguf?x=1")),
        ("", ("file", "")),
        ("a:", ("file", "a:")),
    ],
)
def test_references(reference, parts):
    assert split_reference(reference) == parts


def test_an_unknown_scheme_may_be_a_file_with_a_colon():
    with pytest.raises(NotFoundError, match="no source 'nope'; there is: file, https"):
        open_("nope:model")
    if sys.platform != "win32":
        assert open_(put("nope:model", MODEL)).n_bytes == len(MODEL)


def test_plain_http_is_refused():
    with pytest.raises(NotFoundError, match="no source 'http'"):
        open_("http://127.0.0.1/model.gguf")
