"""Both hubs in small, the command line, and repositories as people publish them."""

import json

import pytest

from cli_support import make_models
from fitplug.cli import main
from hubs.local_hub import LocalHub

QUANTS = ("Q2_K", "Q4_K_M", "Q6_K")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The three servers; everything that the packages and fitplug keep goes to a temporary home."""
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "MODELSCOPE_API_TOKEN",
        "MODELSCOPE_DOMAIN",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "home" / "ms"))
    monkeypatch.setattr("fitplug.sources.http.RETRY_WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr("fitplug.sources.http.READ_TIMEOUT", 10)
    local = LocalHub()
    with local.running():
        for name, value in local.environment().items():
            monkeypatch.setenv(name, value)
        yield local


@pytest.fixture(params=["hf", "modelscope"])
def scheme(request):
    """Each hub's."""
    return request.param


class Ran:
    """What a command line did."""

    def __init__(self, status, captured):
        self.status, self.out, self.err = status, captured.out, captured.err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capsys):
    """Run a command line."""

    def call(*words):
        status = main([str(word) for word in words])
        return Ran(status, capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def gguf(tmp_path_factory):
    """A model file of full size that is a hole: name in fixtures/models → path."""
    folder = tmp_path_factory.mktemp("hub-models")

    def write(name, label="Q4_K_M", **options):
        path = folder / f"{name}-{label}.gguf"
        if not path.exists():
            make_models().write(name, path, **options)
        return path

    return write


@pytest.fixture
def team(hub, gguf):
    """team/model: one quant under three names, and what lies beside it."""
    path = gguf("gemma-3-4b", n_merges=1000)
    beside = {
        "mmproj-F16.gguf": b"GGUF" + b"\0" * 100,
        "imatrix.gguf": b"GGUF" + b"\0" * 50,
        "README.md": b"hello",
        "mtp-Model-Q4_K_M.gguf": b"GGUF" + b"\0" * 70,
        "Old.Q4_0.gguf.part1of2": b"GGUF",
        "Old.Q4_0.gguf.part2of2": b"x",
    }
    hub.add("team/model", {f"Model-{quant}.gguf": path for quant in QUANTS} | beside)
    return hub
