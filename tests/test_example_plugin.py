"""docs/plugins.md: the plugin that it builds is installed as it stands there, and works."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PLUGIN = ROOT / "fixtures/plugins/fitplug-llama-bench"


def test_the_document_shows_the_files_as_they_are():
    blocks = re.findall(r"```(?:toml|python)\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL)
    for file in PLUGIN.iterdir():
        if file.is_file():
            assert file.read_text() in blocks, file.name


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the plugin is installed, in a folder of its own."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the plugin, is not installed")
    pytest.importorskip("pip", reason="pip is not installed")
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in PLUGIN.iterdir():
        if file.is_file():
            (source / file.name).write_text(file.read_text())
    argv = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target",
            str(folder), str(source)]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    paths = [str(folder), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from real import small_model

    path = tmp_path_factory.mktemp("model") / "small.gguf"
    small_model.write(path)
    return str(path)


def fitplug(env: dict[str, str], *argv: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "fitplug", *argv, "--json"], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_it_is_listed(installed: dict[str, str]):
    listed = {plugin["name"]: plugin for plugin in fitplug(installed, "plugins")["plugins"]}  # type: ignore[attr-defined]
    mine = listed["llama_bench"]
    assert mine["problem"] is None
    assert mine["distribution"].replace("_", "-") == "fitplug-llama-bench"
    assert set(mine["adds"]) == {"runner llama-bench", "exporter llama-bench"}


def test_its_arithmetic_is_the_runners(installed: dict[str, str], model: str):
    def compute(runner: str) -> int:
        found = fitplug(installed, "explain", model, "-c", "2048", "--gpu", "RTX 4090", "--runner", runner)
        return sum(row["compute_bytes"] for row in found["memory"])  # type: ignore[attr-defined]

    assert compute("llama-bench") == compute("llama-cpp-python") > compute("llama-server")


def test_a_plan_is_exported(installed: dict[str, str], model: str):
    found = fitplug(installed, "export", "llama-bench", model, "--gpu", "RTX 4090", "-c", "2048")
    argv = found["argv"]
    assert isinstance(argv, list)
    assert argv[:3] == ["llama-bench", "-m", model]
    assert argv[argv.index("-d") + 1] == str(2048 - 640)


def test_its_own_test_passes(installed: dict[str, str], model: str, tmp_path: pathlib.Path):
    (tmp_path / "test_llama_bench.py").write_text((PLUGIN / "test_llama_bench.py").read_text())
    (tmp_path / "conftest.py").write_text(f"import pytest\n\n\n@pytest.fixture\ndef model_path():\n    return {model!r}\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, env=installed, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
