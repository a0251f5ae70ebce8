"""Files of repositories that other tools made of one."""

import struct

from cli_support import make_models
from fitplug.formats import gguf
from fitplug.formats.ggml_types import BY_NAME
from fitplug.sources.local import LocalFile


def shards(path, folder, n, *, first=None):
    """The model in `n` files as llama-gguf-split writes them: keys and vocabulary in the first, with so many tensors."""
    header = gguf.read([LocalFile(str(path))])
    raw = LocalFile(str(path)).read(0, header.data_offsets[0])
    make = make_models()
    tensors, files = list(header.tensors.values()), {}
    per = -(-len(tensors) // n)
    cuts = [0, per if first is None else first, *(per * i for i in range(2, n)), len(tensors)]
    kv_end = raw.find(make.string(tensors[0].name) + struct.pack("<I", len(tensors[0].shape)))
    n_kv = struct.unpack_from("<Q", raw, 16)[0]
    for i in range(n):
        mine = tensors[cuts[i] : cuts[i + 1]]
        split = [
            make.string("split.no") + struct.pack("<IH", 2, i),
            make.string("split.tensors.count") + struct.pack("<Ii", 5, len(tensors)),
            make.string("split.count") + struct.pack("<IH", 2, n),
        ]
        out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(mine), (0 if i else n_kv) + 3))
        out += (b"" if i else raw[24:kv_end]) + b"".join(split)
        at = 0
        for t in mine:
            out += make.string(t.name) + struct.pack(f"<I{len(t.shape)}QIQ", len(t.shape), *t.shape, BY_NAME[t.type].id, at)
            at += -(-t.n_bytes // 32) * 32
        out += bytes(-len(out) % 32)
        file = folder / f"Big-Q4_K_M-{i + 1:05d}-of-{n:05d}.gguf"
        with file.open("wb") as stream:
            stream.write(out)
            stream.truncate(len(out) + at)
        files[f"Q4_K_M/{file.name}"] = file
    return files
