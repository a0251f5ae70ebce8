"""fitplug_llama_cpp_python: `Llama(...)` gets every setting, in its own spelling."""

import ast
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import RefusedError
from fitplug.settings import CACHE_TYPES, Settings
from fitplug_llama_cpp_python import fitplug_runners
from fitplug_llama_cpp_python.arguments import TYPES, arguments, python_source, render
from fitplug_llama_cpp_python.engine import reason
from plugins_support import plan, request


def test_python_and_json_say_the_same():
    files = {file.path: file.text for file in render(made(Settings(n_ctx=4096, type_k="q8_0")), request()).files}
    call = ast.parse(files["load_model.py"]).body[1].value  # type: ignore[attr-defined]
    as_python = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert as_python == json.loads(files["llama_args.json"])
    assert as_python["type_k"] == 8
    assert as_python["n_ctx"] == 4096


def made(settings: Settings):
    return plan(settings, runner="llama-cpp-python", n_vocab=1000)


@given(st.text(max_size=30))
def test_any_path_survives(path: str):
    source = python_source(arguments(Settings(n_ctx=512, flash_attn="on"), path))
    call = ast.parse(source).body[1].value  # type: ignore[attr-defined]
    assert ast.literal_eval(call.keywords[0].value) == path


def test_nothing_is_left_to_the_class_whose_defaults_are_others():
    found = arguments(Settings(n_ctx=4096, flash_attn="on"), "m.gguf")
    assert found["swa_full"] is False  # the class takes the library's, which is True
    assert found["flash_attn"] is True  # off unless told
    assert found["n_ubatch"] == 512
    assert found["op_offload"] is True


def test_every_cache_type_has_its_number():
    assert set(TYPES) == set(CACHE_TYPES)


def test_what_has_no_argument_is_said():
    export = render(made(Settings(n_ctx=4096, n_cpu_moe=3, n_seq_max=2)), request())
    assert set(export.cannot_express) == {"n_cpu_moe", "n_seq_max"}
    assert render(made(Settings(n_ctx=4096)), request()).cannot_express == ()


def test_two_adapters_are_refused():
    with pytest.raises(RefusedError, match="one adapter"):
        arguments(replace(Settings(), lora=("a", "b")), "m.gguf")


def test_the_runner_reserves_logits_for_the_batch():
    (runner,) = fitplug_runners()
    assert runner.outputs == "batch"
    assert not runner.measuring


def test_llama_cpps_first_complaint_is_shown():
    log = "load: ok\nllama_init_from_model: quantized V cache requires flash_attn to be enabled\nfitplug: not accepted\n"
    assert reason(log) == "llama_init_from_model: quantized V cache requires flash_attn to be enabled"


llama_cpp = pytest.mark.usefixtures("engine")


@pytest.fixture
def engine():
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed", exc_type=ImportError)


@llama_cpp
def test_the_class_knows_every_argument_and_number():
    import inspect

    import llama_cpp

    known = inspect.signature(llama_cpp.Llama.__init__).parameters
    assert set(arguments(Settings(lora=("a",)), "m.gguf")) <= set(known)
    for name, number in TYPES.items():
        constant = getattr(llama_cpp, f"GGML_TYPE_{name.upper()}", None)
        assert constant in (number, None), name
