"""Models, machines and a way to run a command line in this process."""

import json
from typing import NamedTuple

import pytest

from cli_support import model_names, write_model
from fitplug.cli import main


class Ran(NamedTuple):
    """What a command line did."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capsys):
    """Run a command line; words are split at spaces unless they come as a list."""

    def call(*words):
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Every model of fixtures/models, written: name → path."""
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(name, folder / f"{name}.gguf") for name in model_names()}


@pytest.fixture
def llama(models):
    return models["llama-3.1-8b"]


def gpu(gib=24, **changes):
    card = {"kind": "gpu", "backend": "cuda", "name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9"}
    card |= {"total_bytes": gib << 30, "free_bytes": gib << 30, "memory_bandwidth": 1008 * 10**9}
    return card | changes


@pytest.fixture
def machine_file(tmp_path):
    """Write a machine file with those devices."""

    def write(*devices, host_gib=64):
        path = tmp_path / "machine.json"
        host = {"total_bytes": host_gib << 30, "available_bytes": host_gib << 30}
        path.write_text(json.dumps({"schema": 1, "devices": list(devices), "host": host}))
        return path

    return write
