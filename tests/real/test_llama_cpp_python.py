"""A plan, loaded: llama-cpp-python takes exactly the planned settings, speaks, and its buffers are those predicted."""

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fitplug.cli import main
from fitplug.enginelog import PRECISION, parse_buffer_sizes

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed", exc_type=ImportError)

MACHINE = {"schema": 1, "devices": [], "host": {"total_bytes": 8 << 30, "available_bytes": 6 << 30}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    from real import small_model

    path = tmp_path_factory.mktemp("model") / "small.gguf"
    small_model.write(path)
    return path


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(MACHINE))
    return str(path)


@pytest.fixture
def loaded() -> Iterator[list[Any]]:
    """Models to be closed in any case: llama.cpp's memory is no garbage to Python."""
    models: list[Any] = []
    yield models
    for each in models:
        each.close()


def ask(capfd: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main([*argv, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def rows(memory: list[dict[str, Any]]) -> dict[str, int]:
    """The host's row of a plan for a machine without GPU."""
    (row,) = memory
    return {kind: row[f"{kind}_bytes"] for kind in ("model", "context", "compute")}


SETTINGS = [
    (),
    ("-c", "2048"),
    ("-c", "1024", "-ctk", "q8_0", "-ctv", "q8_0"),
    ("-c", "2048", "-b", "256", "-ub", "128"),
    ("-c", "2048", "-fa", "off"),
]


@pytest.mark.parametrize("given", SETTINGS, ids=" ".join)
def test_what_was_planned_is_what_is_loaded(
    model: pathlib.Path, machine: str, given: tuple[str, ...], capfd: pytest.CaptureFixture[str], loaded: list[Any]
):
    options = [*given, "--machine", machine, "--runner", "llama-cpp-python"]
    plan = ask(capfd, "auto", str(model), *options)
    export = ask(capfd, "export", "llama-cpp-python", str(model), *options)
    arguments = json.loads(next(file["text"] for file in export["files"] if file["path"].endswith(".json")))
    assert arguments["n_ctx"] == plan["settings"]["n_ctx"]

    llm = llama_cpp.Llama(**arguments, verbose=True)
    loaded.append(llm)
    log = capfd.readouterr().err

    spoken = llm.create_completion("the rain in spain", max_tokens=8, temperature=0.8, seed=1)
    assert spoken["usage"]["completion_tokens"] > 0
    assert llm.n_ctx() == plan["settings"]["n_ctx"]

    predicted = rows(plan["memory"])
    printed = parse_buffer_sizes(log.splitlines())
    for kind in ("context", "compute"):
        total = sum(row.get(kind, 0) for row in printed.values())
        assert total == pytest.approx(predicted[kind], abs=PRECISION * len(printed)), (kind, printed)
    assert log_flash_attention(log) is plan["settings"]["flash_attn"]


def log_flash_attention(log: str) -> bool:
    found = re.search(r"flash_attn\s*=\s*(\w+)", log)
    assert found is not None
    return found[1] not in ("disabled", "0")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library can be asked for bytes on Linux only")
@pytest.mark.parametrize("given", SETTINGS, ids=" ".join)
def test_every_byte_of_a_real_load_was_predicted(
    model: pathlib.Path, machine: str, given: tuple[str, ...], capfd: pytest.CaptureFixture[str], loaded: list[Any]
):
    """Not mapped, so that llama.cpp counts weights as tensors and not as stretches of a file."""
    from fitplug_llama_cpp_python.lowlevel import breakdown

    options = [*given, "--machine", machine, "--runner", "llama-cpp-python"]
    plan = ask(capfd, "auto", str(model), *options)
    export = ask(capfd, "export", "llama-cpp-python", str(model), *options)
    arguments = json.loads(next(file["text"] for file in export["files"] if file["path"].endswith(".json")))
    llm = llama_cpp.Llama(**(arguments | {"use_mmap": False}), verbose=False)
    loaded.append(llm)
    llm.create_completion("hello", max_tokens=4)
    counted = breakdown(llm._ctx.ctx)
    assert {kind: sum(row[kind] for row in counted.values()) for kind in ("model", "context", "compute")} == rows(
        plan["memory"]
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library can be asked for bytes on Linux only")
@pytest.mark.parametrize("given", SETTINGS[1:], ids=" ".join)
def test_verify_agrees_with_the_installed_library(
    model: pathlib.Path, machine: str, given: tuple[str, ...], capfd: pytest.CaptureFixture[str]
):
    found = ask(capfd, "verify", str(model), *given, "--machine", machine, "--engine", "llama-cpp-python")
    assert found["agrees"] is True
    assert found["engine"]["version"] == llama_cpp.__version__


def test_settings_that_llama_cpp_refuses_are_refused(model: pathlib.Path, machine: str, capfd: pytest.CaptureFixture[str]):
    from fitplug.errors import RefusedError
    from fitplug.settings import Settings
    from fitplug_llama_cpp_python.engine import measure

    with pytest.raises(RefusedError, match="V cache"):
        measure(str(model), Settings(n_ctx=512, type_v="q8_0", flash_attn="off"))
    argv = ["verify", str(model), "-c", "512", "-ctv", "q8_0", "-fa", "off", "--machine", machine]
    assert main(argv) == 3
    assert capfd.readouterr().err.count("\n") == 1


def test_load_plans_and_returns_a_model_that_speaks(model: pathlib.Path, loaded: list[Any]):
    import fitplug

    llm = fitplug.load(str(model), n_ctx=1024, machine=fitplug.read_machine(MACHINE), llama={"verbose": False})
    loaded.append(llm)
    assert llm.n_ctx() == 1024
    assert llm.context_params.flash_attn_type == llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert llm.create_completion("a", max_tokens=2)["choices"]


def test_load_refuses_what_it_cannot_do(model: pathlib.Path):
    import fitplug

    machine = fitplug.read_machine({"schema": 1, "devices": [], "host": {"total_bytes": 1 << 20, "available_bytes": 1 << 20}})
    with pytest.raises(fitplug.FitplugError, match="nothing fits"):
        fitplug.load(str(model), machine=machine)
    with pytest.raises(fitplug.FitplugError, match="n_ctx"):
        fitplug.load(str(model), machine=fitplug.read_machine(MACHINE), llama={"n_ctx": 5})
    with pytest.raises(fitplug.FitplugError, match="download"):
        fitplug.load("hf:a/b:Q4_K_M")
