"""A start imports what it needs and nothing else. Speed is kept by this list, not by a stopwatch (see tests/benchmarks)."""

import json
import subprocess
import sys

import pytest

from cli_support import write_model

SLOW = {
    "asyncio", "concurrent.futures", "email", "gguf", "http.client", "httpx", "huggingface_hub", "importlib.metadata", "json",
    "logging", "modelscope", "multiprocessing", "numpy", "pathlib", "psutil", "pydantic", "requests", "rich", "socket", "ssl",
    "subprocess", "tempfile", "urllib.request", "urllib3", "yaml",
}  # fmt: skip
"""None of these may be there when `auto` has printed its plan for a machine without a GPU."""

PROBE = """
import io, sys
from contextlib import redirect_stdout
from fitplug.cli import main
with redirect_stdout(io.StringIO()):
    status = main(sys.argv[1:])
print(status, *sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("startup")
    write_model("llama-3.1-8b", folder / "model.gguf")
    machine = {"schema": 1, "devices": [], "host": {"total_bytes": 32 << 30, "available_bytes": 32 << 30}}
    (folder / "machine.json").write_text(json.dumps(machine))
    return folder


def modules(*words):
    done = subprocess.run([sys.executable, "-c", PROBE, *map(str, words)], capture_output=True, text=True, check=True)
    status, *names = done.stdout.split()
    assert status == "0", done.stderr
    return set(names)


def test_auto_imports_nothing_slow(files):
    assert modules("auto", files / "model.gguf") & SLOW == set()


def test_explain_for_an_imagined_card_imports_nothing_slow(files):
    assert modules("explain", files / "model.gguf", "--gpu", "RTX 4090", "-c", "4096") & SLOW == set()


def test_of_other_projects_a_start_imports_click_and_pluggy_alone(files):
    found = {name.partition(".")[0] for name in modules("auto", files / "model.gguf")}
    ours = {name for name in found if name.startswith(("fitplug", "_"))}

    assert {"click", "pluggy"} >= found - set(sys.stdlib_module_names) - ours - {"sitecustomize", "distutils-precedence"}


def test_only_json_is_imported_for_json(files):
    words = "auto", files / "model.gguf", "--machine", files / "machine.json", "--json"

    assert modules(*words) & SLOW <= {"json"}


def test_help_imports_no_plugin_and_no_arithmetic():
    names = modules("--help")
    rooms = {
        name for name in names if name.startswith(("fitplug.memory", "fitplug.planner", "fitplug.model", "fitplug.formats"))
    }

    assert rooms == set()
    assert {name for name in names if name.startswith("fitplug_")} == set()
    assert names & SLOW == set()


def test_one_commands_help_imports_no_other_command():
    commands = {"auto", "explain", "check", "show", "devices", "export", "verify", "plugins", "completion"}
    names = modules("explain", "--help")

    assert {name for name in commands if f"fitplug.cli.{name}" in names} == {"explain"}


def test_importing_fitplug_costs_nothing():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; before = set(sys.modules); import fitplug; print(*set(sys.modules) - before)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert {name for name in done.stdout.split() if name.startswith("fitplug")} == {"fitplug"}
    assert set(done.stdout.split()) & SLOW == set()
