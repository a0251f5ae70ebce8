"""fitplug_ollama: a Modelfile says what the plan says, or refuses to."""

import json
import pathlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fitplug.errors import AccessError, NetworkError, NotFoundError, RefusedError, UnreadableError
from fitplug.extension import Export, File
from fitplug.formats.header import Header, Tensor
from fitplug.machine.records import Device
from fitplug.model.describe import describe
from fitplug.registry import load
from fitplug.settings import Settings
from fitplug_ollama import install, server
from fitplug_ollama.export import default_name, render
from fitplug_ollama.modelfile import Command, is_kept, parse, quote, write
from fitplug_ollama.names import Name, name_from, parse_name
from fitplug_ollama.older import translate
from fitplug_ollama.parameters import PARAMETERS, check
from fitplug_ollama.placement import chosen
from fitplug_ollama.store import open_model
from planner_support import make_model
from plugins_support import plan, request

CASES = json.loads((pathlib.Path(__file__).parents[2] / "fixtures/runners/ollama_modelfiles.json").read_text())
GIB = 1 << 30


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # the discard port: nobody listens


# --- the grammar


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["text"])[:40])
def test_ollamas_own_cases(case: dict[str, Any]):
    if case["commands"] is None:
        with pytest.raises(UnreadableError):
            parse(case["text"])
    else:
        assert parse(case["text"]) == [Command(*pair) for pair in case["commands"]]


@given(st.text(max_size=60))
@example('"')
@example('a"""\nb')
@example("\u00a0")
@example(" x ")
@example("")
def test_a_value_is_read_back_or_refused(value: str):
    try:
        spelling = quote(value)
    except RefusedError:
        assert not all(map(is_kept, value)) or any(line.rstrip().endswith('"""') for line in value.splitlines()) or '"' in value
        return
    assert parse(f"FROM x\nSYSTEM {spelling}")[1] == Command("system", value)


values = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), include_characters="\n\t"), max_size=40)


@given(st.lists(st.tuples(st.sampled_from(("system", "template", "stop", "license", "adapter")), values), max_size=6))
def test_a_whole_file_reads_back(pairs: list[tuple[str, str]]):
    commands = [Command("model", "/m.gguf"), *(Command(*pair) for pair in pairs)]
    try:
        text = write(commands, ["made for OLLAMA_NUM_PARALLEL=1"])
    except RefusedError:
        return
    assert parse(text) == commands


@pytest.mark.parametrize("value", ["a\u200db", "\u3000", "x\u00a0y", "\ufeff", "\x1b[0m"])
def test_what_the_parser_drops_is_refused(value: str):
    with pytest.raises(RefusedError, match=r"U\+"):
        quote(value)


def test_exactly_one_blank_stands_before_a_parameters_name():
    assert parse("FROM a\nPARAMETER  num_ctx 1")[1] == Command("", "num_ctx 1")


# --- parameters and names


def test_values_are_checked_as_ollama_checks_them():
    check("num_ctx", "4096")
    check("temperature", "0.7")
    check("use_mmap", "F")
    for name, value in (
        ("num_ctx", "4096.0"),
        ("num_ctx", "4_096"),
        ("use_mmap", "yes"),
        ("temperature", "hot"),
        ("mirostat", "1"),
    ):
        with pytest.raises(RefusedError):
            check(name, value)
    assert "num_gpu" in PARAMETERS


def test_names_are_completed():
    assert parse_name("llama3.2") == Name("registry.ollama.ai", "library", "llama3.2", "latest")
    assert parse_name("me/model:q4") == Name("registry.ollama.ai", "me", "model", "q4")
    assert parse_name("hf.co/a/b-GGUF:Q4_K_M") == Name("hf.co", "a", "b-GGUF", "Q4_K_M")
    assert str(parse_name("hf.co/a/b")) == "hf.co/a/b:latest"
    assert str(parse_name("llama3.2")) == "llama3.2:latest"


@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_store(text: str):
    try:
        name = parse_name(text)
    except NotFoundError:
        return
    assert not any(part in (".", "..") or "/" in part or "\\" in part or "\0" in part for part in name)


@pytest.mark.parametrize("text", ["../../etc/passwd", "a/../b", "..", "a:..", "a:b/c", "", "a b", "h/n/m/x"])
def test_names_that_are_none(text: str):
    with pytest.raises(NotFoundError):
        parse_name(text)


@given(st.text(max_size=100))
def test_a_name_is_made_of_anything(text: str):
    parse_name(name_from(text))


# --- the export


def commands(made: Export) -> dict[str, str]:
    return dict(parse(made.files[0].text))


def test_the_plan_is_all_there():
    made = render(plan(Settings(n_ctx=16384, n_batch=512, type_k="q8_0", type_v="q8_0")), request(version="0.33.0"))
    assert commands(made) == {"model": "/models/m.gguf", "num_ctx": "16384", "num_batch": "512", "num_gpu": "33"}
    assert dict(made.env) == {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_NUM_PARALLEL": "1"}
    assert made.cannot_express == ()
    assert made.commands[0] == ("ollama", "create", "m", "-f", "Modelfile")
    assert not made.notes


def test_the_context_is_told_for_one_sequence():
    made = render(plan(Settings(n_ctx=32768, n_batch=512, n_seq_max=4)), request())
    assert commands(made)["num_ctx"] == "8192"
    assert made.env["OLLAMA_NUM_PARALLEL"] == "4"
    assert made.expected["context_length"] == 8192


def test_a_machine_without_gpu_offloads_nothing():
    assert commands(render(plan(Settings(n_ctx=4096, n_batch=512), n_gpus=0), request()))["num_gpu"] == "0"


def test_two_batches_become_one_and_that_is_said():
    made = render(plan(Settings(n_ctx=4096, n_batch=2048, n_ubatch=256)), request())
    assert commands(made)["num_batch"] == "256"
    assert made.cannot_express == ("n_batch",)


def test_experts_on_the_cpu_have_no_place():
    made = render(plan(Settings(n_ctx=4096, n_batch=512, n_cpu_moe=8)), request())
    assert made.cannot_express == ("n_cpu_moe",)
    assert any("experts" in note for note in made.notes)


def test_two_cache_types_need_other_variables():
    env = render(plan(Settings(n_ctx=4096, n_batch=512, type_k="q8_0", type_v="q4_0")), request()).env
    assert "OLLAMA_KV_CACHE_TYPE" not in env
    assert env["LLAMA_ARG_CACHE_TYPE_V"] == "q4_0"


def test_one_chosen_gpu_is_named():
    made = render(plan(Settings(n_ctx=4096, n_batch=512, split_mode="none", main_gpu=1), n_gpus=2), request())
    assert commands(made)["main_gpu"] == "1"
    assert "OLLAMA_SCHED_SPREAD" not in made.env


def test_a_plan_over_two_gpus_is_not_packed_onto_one():
    """By Ollama's own formula one card would do, so it must be told to spread."""
    made = render(plan(Settings(n_ctx=4096, n_batch=512), n_gpus=2, get=lambda key, default=None: 8), request())
    assert made.env["OLLAMA_SCHED_SPREAD"] == "1"


@pytest.mark.parametrize("mode", ["row", "tensor"])
def test_other_splits_are_refused(mode: Any):
    with pytest.raises(RefusedError, match=mode):
        render(plan(Settings(n_ctx=4096, split_mode=mode)), request())


def test_tensors_that_ollama_create_refuses_are_refused_here():
    made = plan(Settings(n_ctx=4096))
    made.model.header.tensors["x"] = Tensor(name="x", type="tq2_0", shape=(256,), n_bytes=66, offset=0)
    made.model.header.format = "gguf"
    with pytest.raises(RefusedError, match="tq2_0"):
        render(made, request())


def test_every_shard_is_named():
    made = plan(Settings(n_ctx=4096, n_batch=512))
    made.model.header.shards = ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    found = parse(render(made, request("/m/big-00001-of-00002.gguf")).files[0].text)
    assert [c.value for c in found if c.name == "model"] == ["/m/big-00001-of-00002.gguf", "/m/big-00002-of-00002.gguf"]


def test_models_that_ollama_knows_are_named_and_never_replaced():
    wanted = replace(request(), model_reference="ollama:llama3.2:3b", model_path="ollama:llama3.2:3b")
    made = render(plan(Settings(n_ctx=4096, n_batch=512)), wanted)
    assert commands(made)["model"] == "llama3.2:3b"
    assert made.commands[0][2] == "llama3.2-3b-fit"


def test_hubs_are_named_as_their_registries():
    wanted = replace(request(), model_reference="modelscope:Qwen/Qwen3-8B-GGUF:Q4_K_M")
    made = render(plan(Settings(n_ctx=4096, n_batch=512)), wanted)
    assert commands(made)["model"] == "modelscope.cn/Qwen/Qwen3-8B-GGUF:Q4_K_M"


def test_wishes_are_written_and_checked():
    made = render(plan(Settings(n_ctx=4096)), request(system='Say "hi"\nand stop.', temperature="0.5", name="mine:1"))
    assert commands(made)["system"] == 'Say "hi"\nand stop.'
    assert commands(made)["temperature"] == "0.5"
    assert made.commands[0][2] == "mine:1"
    for wish in ({"num_ctx": "1"}, {"colour": "red"}, {"top_k": "1.5"}, {"system": "a\u200d"}, {"name": "../x"}):
        with pytest.raises((RefusedError, NotFoundError)):
            render(plan(Settings(n_ctx=4096)), request(**wish))


def test_an_older_version_is_warned_about():
    made = render(plan(Settings(n_ctx=4096, type_k="q4_1", type_v="q4_1")), request(version="0.24.0"))
    assert any("0.30" in note for note in made.notes)
    assert any("q4_0" in note for note in made.notes)


def test_the_default_name_says_what_the_file_is_called():
    made = plan(Settings())
    made.model.header.shards = ("Qwen3 8B (final).Q4_K_M.gguf",)
    assert default_name(made, request()) == "qwen3-8b-final-.q4_k_m"


# --- which GPUs


def gpu(free: int, kind: Any = "gpu", backend: str = "cuda") -> Device:
    return Device(kind=kind, backend=backend, total_bytes=free, free_bytes=free)


def test_one_gpu_is_enough_at_four_fifths():
    two = (gpu(10 * GIB), gpu(20 * GIB))
    assert chosen(two, 8 * GIB, 0) == (1,)
    assert chosen(two, 16 * GIB, 0) == (1,)
    assert chosen(two, 16 * GIB + 1, 0) == (0, 1)
    assert chosen(two, 8 * GIB, 0, spread=True) == (0, 1)
    assert chosen((), 1, 0) == ()


def test_libraries_are_never_mixed_and_dedicated_ones_win():
    mixed = (gpu(8 * GIB, "igpu", "vulkan"), gpu(12 * GIB), gpu(12 * GIB), gpu(16 * GIB, backend="rocm"))
    assert chosen(mixed, 40 * GIB, 64 * GIB) == (1, 2)
    assert chosen((gpu(64 * GIB, "igpu"), gpu(8 * GIB)), 4 * GIB, 64 * GIB) == (1,)


# --- the store


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


# --- the server


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


class Ollama:
    """A server that speaks as much of the API as an installation uses, and remembers what it was asked."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.loaded: list[dict[str, Any]] = []
        self.requests: list[tuple[str, Any]] = []
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, found: Any) -> None:
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                found = {"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": [{"name": n} for n in ollama.models]},
                         "/api/ps": {"models": ollama.loaded}}  # fmt: skip
                self.answer(200, found[self.path])

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ollama.requests.append((self.path, body))
                if self.path == "/api/create":
                    ollama.models[body["model"]] = body
                    self.answer(200, {"status": "success"})
                elif body["model"] == "broken":
                    self.answer(500, {"error": "out of memory"})
                else:
                    self.answer(200, {"done_reason": "load", "done": True})

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


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


# --- headers of older models


def older_header(architecture: str, metadata: Any = ()) -> Header:
    """A model's header under the name that Ollama's own converter gave its architecture."""
    ours = make_model(n_layer=4, n_embd=256, n_ff=512, n_vocab=512, n_expert=8, arch="llama").header
    keys = {re.sub("^llama", architecture, key): value for key, value in ours.metadata.items()}
    return replace(ours, metadata=keys | {"general.architecture": architecture} | dict(metadata), tensors=dict(ours.tensors))


def test_gpt_oss_is_read_as_llama_cpp_calls_it():
    header = older_header("gptoss", {"gptoss.attention.sliding_window": 128})
    header.tensors["blk.0.attn_sinks"] = Tensor("blk.0.attn_sinks", "f32", (64,), 256, 0)
    found = translate(header)
    assert "blk.0.attn_sinks.weight" in found.tensors
    assert "blk.3.post_attention_norm.weight" in found.tensors
    assert not any(name.endswith("ffn_norm.weight") for name in found.tensors)
    assert found.metadata["gpt-oss.expert_feed_forward_length"] == 512
    assert not any(key.startswith("gptoss.") for key in found.metadata)
    model = describe(header, [item.record for item in load().architectures])
    assert model.architecture == "gpt-oss"
    assert model.known
    assert model.n_layer_all == 4


def test_a_projector_inside_the_file_is_no_weight_of_the_text_model():
    header = older_header("qwen25vl", {"qwen25vl.rope.mrope_section": (16, 24, 24)})
    header.tensors["v.blk.0.attn_q.weight"] = Tensor("v.blk.0.attn_q.weight", "f16", (64, 64), 8192, 0)
    found = translate(header)
    assert "v.blk.0.attn_q.weight" not in found.tensors
    assert found.metadata["qwen2vl.rope.dimension_sections"] == (16, 24, 24, 0)
    assert found.metadata["general.architecture"] == "qwen2vl"


def test_other_headers_are_left_as_they_are():
    header = older_header("llama")
    assert translate(header) is header
