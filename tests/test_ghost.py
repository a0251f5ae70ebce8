"""Ghost files: what a reader of headers sees is the same, and the disk holds next to nothing."""

import pathlib
import sys

import gguf
import numpy as np
import pytest

from fitplug.errors import RefusedError
from fitplug.formats.gguf import read
from fitplug.formats.header import Header
from fitplug.ghost import ghosts
from fitplug.sources.ghost_files import write_ghosts


class Bytes:
    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data = name, data

    @property
    def n_bytes(self) -> int:
        return len(self.data)

    def read(self, offset: int, n_bytes: int) -> bytes:
        return self.data[offset : offset + n_bytes]


def small_model(path: pathlib.Path) -> bytes:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.ones((512, 4096), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="files have no holes there")
def test_a_ghost_has_the_header_and_the_length_of_its_model(tmp_path: pathlib.Path):
    data = small_model(tmp_path / "m.gguf")
    blob = Bytes("folder/ghost.gguf", data)
    header = read([blob])
    path = pathlib.Path(write_ghosts(ghosts([blob], header), str(tmp_path)))
    assert path == tmp_path / "ghost.gguf"
    assert path.stat().st_size == len(data)
    assert path.stat().st_blocks * 512 < len(data) / 4
    again = read([Bytes("ghost.gguf", path.read_bytes())])
    assert again.tensors == header.tensors
    assert again.metadata == header.metadata


def test_a_file_is_never_overwritten(tmp_path: pathlib.Path):
    data = small_model(tmp_path / "m.gguf")
    blob = Bytes("m.gguf", data)
    with pytest.raises(FileExistsError):
        write_ghosts(ghosts([blob], read([blob])), str(tmp_path))


def test_what_llama_cpp_cannot_read_has_no_ghost():
    with pytest.raises(RefusedError, match="GGUF"):
        ghosts([Bytes("m.safetensors", b"")], Header(format="safetensors", metadata={}, tensors={}, n_bytes=0))
