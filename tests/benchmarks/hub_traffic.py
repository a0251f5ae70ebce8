"""Requests and bytes of `check`, then `auto` or `show` of one model, against the local hubs; each a first and a second time.

    python tests/benchmarks/hub_traffic.py

Four repositories: 25 quants of a model with 128k tokens and 280k merges, one of 20 shards, one with projector and draft, one of
FP8 safetensors with a tokenizer.json of ten megabytes.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli_support import make_models
from conversion import checkpoints
from hubs.hub_files import shards
from hubs.local_hub import LocalHub


def main():
    """Count."""
    from fitplug.cli import main as fitplug

    folder = Path(tempfile.mkdtemp())
    os.environ |= {"HOME": str(folder), "HF_HOME": str(folder), "XDG_CACHE_HOME": str(folder), "MODELSCOPE_CACHE": str(folder)}
    model = folder / "m.gguf"
    make_models().write("llama-3.1-8b", model, n_merges=280_000)
    from fitplug.formats import gguf
    from fitplug.sources.local import LocalFile

    print(f"one header: {gguf.read([LocalFile(str(model))]).data_offsets[0]:,} bytes")
    hub = LocalHub()
    hub.add("team/quants", {f"Model-{i:02d}-Q4_K_M.gguf": model for i in range(25)})
    for i, stored in enumerate(hub.repositories["team/quants"].files.values()):
        stored.digest = f"{i:064d}"
    hub.add("team/shards", shards(model, folder, 20))
    beside = {"mmproj-F16.gguf": model, "mtp-Model-Q8_0.gguf": model}
    hub.add("team/beside", {"Model-Q4_K_M.gguf": model, **beside})
    config, tensors = checkpoints.qwen3_30b_a3b()
    config |= {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    files = checkpoints.write(folder / "fp8", config, tensors, dtype="F8_E4M3", n_shards=7)
    hub.add(
        "team/fp8", files | {"tokenizer.json": tokenizer(151_936), "tokenizer_config.json": b"{}", "README.md": b"# A model"}
    )
    with hub.running():
        os.environ |= hub.environment()
        for name, model in (("quants", ":Model-07-Q4_K_M.gguf"), ("shards", ""), ("beside", ""), ("fp8", "")):
            for scheme in ("hf", "modelscope"):
                os.environ["XDG_CACHE_HOME"] = str(folder / scheme)
                card = ["--gpu", "RTX 4090"]
                one = (
                    ["show", f"{scheme}:team/{name}{model}"]
                    if name == "fp8"
                    else ["auto", f"{scheme}:team/{name}{model}", *card]
                )
                for words in (["check", f"{scheme}:team/{name}", *card], one):
                    for again in ("first", "again"):
                        hub.log.clear()
                        start = time.perf_counter()
                        with contextlib.redirect_stdout(io.StringIO()):
                            status = fitplug(words)
                        n_requests, n_bytes = hub.traffic()
                        took = time.perf_counter() - start
                        print(f"{name:8} {scheme:10} {words[0]:6} {again:6} {status}: ", end="")
                        print(f"{n_requests:4} requests, {n_bytes:10,} bytes, {took:.0f} s")


def tokenizer(n_tokens):
    """Of byte pairs, as long as such a one is."""
    words = [f"w{i:x}" for i in range(n_tokens)]
    model = {"type": "BPE", "vocab": {word: i for i, word in enumerate(words)}, "merges": [[word, word] for word in words]}
    tokenizer = {"added_tokens": [], "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"}, "model": model}
    return json.dumps(tokenizer, indent=2).encode()


if __name__ == "__main__":
    main()
