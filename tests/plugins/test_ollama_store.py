"""Ollama's store and its server: what is there, and nothing else."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import fitplug
from cli_support import write_model
from fitplug.errors import AccessError, NetworkError, NotFoundError, UnreadableError
from fitplug.extension import Export, File
from fitplug.settings import Settings
from fitplug_ollama import install, server
from fitplug_ollama.export import render
from fitplug_ollama.modelfile import parse
from fitplug_ollama.parameters import PARAMETERS
from fitplug_ollama.store import open_model
from ollama_support import Ollama
from plugins_support import plan, request

GIB = 1 << 30


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # the discard port: nobody listens


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    (tmp_path / "blobs").mkdir()
    return tmp_path


def put(store: pathlib.Path, path: str, manifest: Any) -> None:
    file = store / "manifests" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


def layer(digest: str, kind: str = "model") -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": 4}


def test_a_model_is_found_by_name_whatever_its_case(store: pathlib.Path):
    (store / "blobs" / f"sha256-{'a' * 64}").write_bytes(b"GGUF")
    layers = [layer(f"sha256:{'b' * 64}", "template"), layer(f"sha256:{'a' * 64}")]
    put(store, "registry.ollama.ai/library/Llama3.2/latest", {"schemaVersion": 2, "layers": layers})
    (blob,) = open_model("llama3.2")
    assert blob.read(0, 4) == b"GGUF"
    assert blob.name == "llama3.2-latest.gguf"


def test_what_is_loaded_beside_a_model_is_a_note_of_its_header(store: pathlib.Path):
    write_model("llama-3.1-8b", store / "blobs" / f"sha256-{'a' * 64}")
    (store / "blobs" / f"sha256-{'c' * 64}").write_bytes(b"GGUF")
    layers = [layer(f"sha256:{'a' * 64}"), layer(f"sha256:{'c' * 64}", "projector"), layer(f"sha256:{'d' * 64}", "adapter")]
    put(store, "registry.ollama.ai/library/llava/latest", {"schemaVersion": 2, "layers": layers})
    notes = fitplug.open_model("ollama:llava").header.notes
    assert [note for note in notes if "--mmproj" in note and str(store / "blobs" / f"sha256-{'c' * 64}") in note]
    assert not any("--lora" in note for note in notes)  # its file is not there


def test_a_missing_model_says_what_is_there(store: pathlib.Path):
    put(store, "registry.ollama.ai/library/phi4/14b", {"layers": []})
    with pytest.raises(NotFoundError, match="phi4:14b"):
        open_model("nope")


@pytest.mark.parametrize("manifest", ["", "[]", "{", {"layers": 5}, {"layers": [None]}, {"layers": [layer("sha256:../../x")]},
                                      {"layers": [layer("x", "tensor")]}, {"layers": [{"mediaType": 1}]}])  # fmt: skip
def test_hostile_manifests_are_one_line(store: pathlib.Path, manifest: Any):
    put(store, "registry.ollama.ai/library/m/latest", manifest)
    with pytest.raises(UnreadableError):
        open_model("m")


def test_a_lost_blob_is_said(store: pathlib.Path):
    put(store, "registry.ollama.ai/library/m/latest", {"layers": [layer(f"sha256:{'c' * 64}")]})
    with pytest.raises(NotFoundError, match="pull"):
        open_model("m")


def test_a_store_that_may_not_be_read_is_said(store: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    put(store, "registry.ollama.ai/library/m/latest", {"layers": []})

    def refuse(self: pathlib.Path) -> Iterator[pathlib.Path]:
        raise PermissionError(13, "no", str(self))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(AccessError, match="Ollama's own user"):
        open_model("m")


def commands(made: Export) -> dict[str, str]:
    return dict(parse(made.files[0].text))


@pytest.mark.parametrize(("told", "address"), [
    ("", "http://127.0.0.1:11434"), ("1.2.3.4", "http://1.2.3.4:11434"), (":5000", "http://127.0.0.1:5000"),
    ("0.0.0.0:1", "http://127.0.0.1:1"), ("https://host", "https://host:443"), ("http://host", "http://host:80"),
    ("host:99999", "http://host:11434"), ("[::1]:7", "http://[::1]:7"), ("http://h:1/p/", "http://h:1/p"), ("'h'", "http://h:11434"),
])  # fmt: skip
def test_the_address_is_read_as_ollama_reads_it(told: str, address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_HOST", told)
    assert server.address() == address


def test_no_server_is_no_error_for_the_version():
    assert server.version() is None
    with pytest.raises(NetworkError, match="no Ollama server"):
        server.call("/api/version")


def test_versions_are_compared_as_numbers():
    assert server.version_numbers("0.33.0-rc2") == (0, 33, 0)
    assert server.version_numbers("v0.9.1") < (0, 30)


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ollama]:
    found = Ollama()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{found.server.server_port}")
    yield found
    found.server.shutdown()
    found.server.server_close()


def made_export(**expected: int) -> Export:
    return Export(files=(File(path="Modelfile", text="FROM x\n"),), commands=(("ollama", "create", "m", "-f", "Modelfile"),),
                  expected={"size_vram": 5 * GIB, "context_length": 4096} | expected)  # fmt: skip


def test_the_running_version_is_asked(ollama: Ollama):
    assert render(plan(Settings(n_ctx=4096, n_batch=512)), request()).notes == ()


def test_what_the_server_loaded_is_compared_with_the_plan(ollama: Ollama):
    ollama.loaded = [{"name": "m:latest", "size": 5 * GIB, "size_vram": 5 * GIB + 1000, "context_length": 4096}]
    assert list(install.check("m", made_export())) == ["loaded: 5.00 GiB on GPUs, as planned"]
    ollama.loaded = [{"name": "m:latest", "size_vram": 4 * GIB, "context_length": 2048}]
    context, vram = install.check("m", made_export())
    assert "2048" in context
    assert "4.00 GiB" in vram


def test_a_load_that_fails_is_said(ollama: Ollama):
    assert list(install.check("broken", made_export())) == ["it could not be loaded: Ollama: out of memory"]
    assert list(install.check("m", made_export())) == ["the server does not list it as loaded"]


def test_install_creates_keeps_and_checks(ollama: Ollama, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "ollama"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.log"\n[ "$1" = create ] && cat "$4" >> "$0.log"\nexit 0\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ollama.models = {"m:latest": {}}
    ollama.loaded = [{"name": "m:latest", "size_vram": 5 * GIB, "context_length": 4096}]
    done = install.install(made_export())
    assert done[0] == "kept the model that was called m as m:before-fitplug-1"
    assert done[1:] == ["created m", "loaded: 5.00 GiB on GPUs, as planned"]
    log = (tmp_path / "ollama.log").read_text()
    assert log.startswith("cp m m:before-fitplug-1\ncreate m -f ")
    assert log.endswith("FROM x\n")


def test_install_needs_the_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFoundError, match="--output"):
        install.install(made_export())


def test_the_official_client_takes_what_the_modelfile_says(ollama: Ollama):
    client_module = pytest.importorskip("ollama", reason="the official client is not installed")
    made = render(plan(Settings(n_ctx=8192, n_batch=512)), request(temperature="0.5", system="hi"))
    found = commands(made)
    types = {"int": int, "float": float, "bool": lambda text: text in ("true", "1"), "string": str}
    given_parameters = {name: types[PARAMETERS[name]](value) for name, value in found.items() if name in PARAMETERS}
    client_module.Options(**{k: v for k, v in given_parameters.items() if k != "min_p"})
    client = client_module.Client(host=server.address())
    answer = client.create("made", from_=found["model"], system=found["system"], parameters=given_parameters)
    assert answer.status == "success"
    assert ollama.models["made"]["parameters"] == {"num_ctx": 8192, "num_batch": 512, "num_gpu": 33, "temperature": 0.5}
