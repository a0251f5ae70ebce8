"""llama.cpp's own programs, where they are installed: they take every planned argument and print the planned figures."""

import json
import pathlib
import shutil
from typing import Any

import pytest

from fitplug.cli import main
from fitplug.enginelog import parse_buffer_sizes
from fitplug.errors import RefusedError
from fitplug.settings import Settings
from fitplug_llamacpp.engines import measure_fit_params, measure_server, version

MACHINE = {"schema": 1, "devices": [], "host": {"total_bytes": 8 << 30, "available_bytes": 6 << 30}}
SETTINGS = [
    ("-c", "2048"),
    ("-c", "4096", "-np", "2"),
    ("-c", "4096", "-np", "2", "-kvu"),
    ("-c", "2048", "-ctk", "q8_0", "-ctv", "q8_0"),
    ("-c", "2048", "-fa", "off", "-ub", "256"),
    ("-c", "2048", "-nkvo", "--swa-full"),
]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not on PATH")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    from real import small_model

    path = tmp_path_factory.mktemp("model") / "small.gguf"
    small_model.write(path)
    return path


@pytest.fixture(autouse=True)
def no_virtual_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGPU_DEVICES", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(MACHINE))
    return str(path)


def verify(capfd: pytest.CaptureFixture[str], *argv: str) -> Any:
    main(["verify", *argv, "--json"])
    return json.loads(capfd.readouterr().out)


@needs("llama-server")
@pytest.mark.parametrize("given", SETTINGS, ids=" ".join)
def test_llama_server_reserves_what_was_predicted(
    model: pathlib.Path, machine: str, given: tuple[str, ...], capfd: pytest.CaptureFixture[str]
):
    found = verify(capfd, str(model), *given, "--machine", machine, "--engine", "llama-server")
    assert [row for row in found["buffers"] if not row["agrees"]] == []
    assert len(found["buffers"]) >= 2


@needs("llama-fit-params")
@pytest.mark.parametrize("given", [given for given in SETTINGS if "-kvu" not in given], ids=" ".join)
def test_llama_fit_params_prints_what_was_predicted(
    model: pathlib.Path, machine: str, given: tuple[str, ...], capfd: pytest.CaptureFixture[str]
):
    found = verify(capfd, str(model), *given, "--machine", machine, "--engine", "llama-fit-params")
    assert [row for row in found["buffers"] if not row["agrees"]] == []


@needs("llama-server")
def test_what_llama_server_refuses_is_one_line(model: pathlib.Path):
    with pytest.raises(RefusedError, match="llama-server did not start"):
        measure_server(str(model), Settings(n_ctx=512, n_gpu_layers=0, type_v="q8_0", flash_attn="off"))


@needs("llama-fit-params")
def test_what_llama_fit_params_refuses_is_one_line(tmp_path: pathlib.Path):
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(RefusedError, match="did not answer"):
        measure_fit_params(str(tmp_path / "no.gguf"), Settings(n_ctx=512))
    assert version("llama-fit-params")


def test_programs_that_are_not_there_have_no_version():
    assert version("no-such-program") is None


def test_buffer_lines_of_every_kind_are_read():
    log = """\
load_tensors:        CUDA0 model buffer size =  4403.49 MiB
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
llama_kv_cache:      CUDA0 KV buffer size =   640.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =   384.00 MiB
llama_memory_recurrent:      CUDA0 RS buffer size =     1.50 MiB
llama_kv_cache_dsv4:      CUDA0 DSV4 csa state buffer size =     2.50 MiB
llama_context:  CUDA_Host  output buffer size =     0.49 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
sched_reserve:      CUDA0 compute buffer size =   258.50 MiB
sched_reserve:  CUDA_Host compute buffer size =    24.01 MiB
"""
    mib = 1 << 20
    assert parse_buffer_sizes(log.splitlines()) == {
        "CUDA0": {"model": round(4403.49 * mib), "context": 1028 * mib, "compute": round(258.5 * mib)},
        "CPU_Mapped": {"model": round(281.81 * mib)},
        "CUDA_Host": {"compute": round(24.01 * mib)},
    }
