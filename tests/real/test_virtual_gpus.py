"""Three models as the runners themselves load them, on the CUDA backend without a GPU behind it.

Runs where FITPLUG_LLAMA_CPP names a folder with llama.cpp's libraries built that way (docs: how the reference is built).
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from fitplug.cli import main

FOLDER = os.environ.get("FITPLUG_LLAMA_CPP", "")
pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="FITPLUG_LLAMA_CPP names no llama.cpp with virtual GPUs"),
    pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"),
]
CARDS = {"small": ("RTX3060", 12288, 11900, "8.6"), "large": ("RTX4090", 24564, 24000, "8.9")}
CASES = [
    ("llama-3.1-8b", ("large",)),
    ("qwen3-30b-a3b", ("small",)),
    ("qwen3-30b-a3b", ("small", "large")),
    ("gemma-3-4b", ("small",)),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} on {'+'.join(case[1])}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, str]]:
    """A ghost of the model, a machine file, and the environment that shows llama.cpp the same machine."""
    name, cards = request.param
    folder = tmp_path_factory.mktemp("case")
    make = importlib.util.spec_from_file_location("make", pathlib.Path(__file__).parents[2] / "fixtures/models/make.py")
    assert make is not None
    assert make.loader is not None
    maker = importlib.util.module_from_spec(make)
    make.loader.exec_module(maker)
    if name not in maker.names():
        pytest.skip(f"there is no {name} among the fixtures")
    maker.write(name, folder / "model.gguf", n_merges=0)
    keys = ("name", "total_bytes", "free_bytes", "compute_capability")
    rows = [(gpu, total << 20, free << 20, capability) for gpu, total, free, capability in map(CARDS.__getitem__, cards)]
    devices = [{"kind": "gpu", "backend": "cuda"} | dict(zip(keys, row, strict=True)) for row in rows]
    machine = {"schema": 1, "devices": devices, "host": {"total_bytes": 128 << 30, "available_bytes": 100 << 30}}
    (folder / "machine.json").write_text(json.dumps(machine))
    virtual = ",".join(
        f"{gpu}:{total}:{free}:{capability}:100" for gpu, total, free, capability in map(CARDS.__getitem__, cards)
    )
    env = os.environ | {"VGPU_DEVICES": virtual, "LLAMA_CPP_LIB_PATH": FOLDER}
    return str(folder / "model.gguf"), str(folder / "machine.json"), env


def by_device(buffers: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for buffer, kinds in buffers.items():
        device = "CPU" if buffer.startswith("CPU") or buffer.endswith("_Host") else buffer
        row = found.setdefault(device, {"model": 0, "context": 0, "compute": 0})
        for kind, n_bytes in kinds.items():
            row[kind] += n_bytes
    return found


def answer(capfd: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    status = main([*argv, "--json"])
    assert status in (0, 1)
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_llama_cpp_python_loads_what_was_planned(case: tuple[str, str, dict[str, str]], capfd: pytest.CaptureFixture[str],
                                                 tmp_path: pathlib.Path):  # fmt: skip
    model, machine, env = case
    options = ["--machine", machine, "--runner", "llama-cpp-python", "--min-ctx", "4096"]
    plan = answer(capfd, "auto", model, *options)
    export = answer(capfd, "export", "llama-cpp-python", model, *options)
    assert export["cannot_express"] == []
    arguments = tmp_path / "arguments.json"
    arguments.write_text(next(file["text"] for file in export["files"] if file["path"].endswith(".json")))
    argv = [sys.executable, str(pathlib.Path(__file__).with_name("load_unread.py")), str(arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-500:]
    planned = {
        row["device"]: {kind: row[f"{kind}_bytes"] for kind in ("model", "context", "compute")} for row in plan["memory"]
    }
    assert by_device(json.loads(lines[-1])) == {device: row for device, row in planned.items() if any(row.values())}


def test_verify_agrees_for_the_planned_settings(case: tuple[str, str, dict[str, str]], capfd: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    model, machine, env = case
    for name in ("VGPU_DEVICES", "LLAMA_CPP_LIB_PATH"):
        monkeypatch.setenv(name, env[name])
    found = answer(capfd, "verify", model, "-c", "8192", "--machine", machine, "--engine", "llama-cpp-python")
    assert [row for row in found["buffers"] if not row["agrees"]] == []
    assert {row["buffer"] for row in found["buffers"]} >= {"CUDA0"}
