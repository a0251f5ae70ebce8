"""Models behind plain URLs, from a server on this machine."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from fitplug.errors import FitplugError
from fitplug.formats import gguf, safetensors
from fitplug.sources.url import open_url
from formats_support import gguf as make
from formats_support import info, pair, shard
from formats_support import safetensors as make_safetensors

BIG = make([pair("tokenizer.ggml.tokens", "[str]", [f"token {n}" for n in range(20_000)])], [info("a", [8], 0, 0)], 32)
FILES = {
    "/o/big.gguf": BIG,
    "/o/m-00001-of-00002.gguf": shard(0, 2, ["a"]),
    "/o/m-00002-of-00002.gguf": shard(1, 2, ["b"]),
    "/half/m-00001-of-00002.gguf": shard(0, 2, ["a"]),
    "/o/with space.gguf": BIG,
    "/st/model-00001-of-00002.safetensors": make_safetensors({"a": ("U8", [1], 1)}),
    "/st/model-00002-of-00002.safetensors": make_safetensors({"b": ("U8", [1], 1)}),
    "/st/config.json": b'{"model_type": "llama"}',
    "/st/hf_quant_config.json": b'{"quantization": {"quant_algo": "NVFP4"}}',
    "/alone/model.safetensors": make_safetensors({"a": ("U8", [1], 1)}),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        data = FILES.get(unquote(urlsplit(self.path).path))
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if data is None or span is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = int(span[1]), min(int(span[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Asked", (Handler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_header_takes_few_requests(server):
    url, asked = server
    header = gguf.read(open_url(f"{url}/o/big.gguf?download=true"))

    assert header.n_bytes == len(BIG)
    assert header.length("tokenizer.ggml.tokens") == 20_000
    assert len(asked) <= 4


def test_shards_lie_beside_the_first(server):
    url, asked = server
    header = gguf.read(open_url(f"{url}/o/m-00001-of-00002.gguf?x=1"))

    assert list(header.tensors) == ["a", "b"]
    assert "/o/m-00002-of-00002.gguf?x=1" in asked


def test_safetensors_bring_their_config(server):
    header = safetensors.read(open_url(f"{server[0]}/st/model-00001-of-00002.safetensors"))

    assert list(header.tensors) == ["a", "b"]
    assert header.metadata["config.model_type"] == "llama"
    assert header.metadata["hf_quant_config.quantization.quant_algo"] == "NVFP4"


def test_safetensors_without_config_are_read(server):
    assert "no config.json" in safetensors.read(open_url(f"{server[0]}/alone/model.safetensors")).notes[0]


def test_names_are_decoded(server):
    (blob,) = open_url(f"{server[0]}/o/with%20space.gguf")

    assert blob.name == "with space.gguf"
    assert blob.n_bytes == len(BIG)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/o/nothing.gguf", "has nothing at /o/nothing.gguf"),
        ("/half/m-00001-of-00002.gguf", "has nothing at /half/m-00002-of-00002.gguf"),
        ("/o/m-00002-of-00002.gguf", r"is a later part of a split; give the URL of its first file, m-00001-of-00002\.gguf"),
        ("/o/m-00001-of-99999.gguf", "is one of more than 256 files"),
    ],
)
def test_what_cannot_be_read_is_one_line(server, path, problem):
    with pytest.raises(FitplugError, match=problem) as caught:
        gguf.read(open_url(server[0] + path))
    assert "\n" not in str(caught.value)
