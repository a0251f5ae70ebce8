"""`--list-devices` of llama.cpp's programs, as text and from a program on PATH."""

import stat
import time

import pytest

from fitplug.cli import main
from fitplug_llamacpp import listing

GIB, MIB = 1 << 30, 1 << 20
# printed by llama.cpp of August 2026 with two virtual cards
TWO = """Available devices:
  CUDA0: RTX3060 (12288 MiB, 11900 MiB free)
  CUDA1: NVIDIA GeForce RTX 4090 (24564 MiB, 24000 MiB free)
"""


def test_the_list_is_read_as_it_is_printed():
    first, second = listing.parse(TWO)
    assert (first.backend, first.name, first.total_bytes, first.free_bytes) == ("cuda", "RTX3060", 12288 * MIB, 11900 * MIB)
    assert second.name == "NVIDIA GeForce RTX 4090"


def test_every_backend_is_known_by_its_devices_names():
    lines = ["ROCm0", "Vulkan1", "MTL0", "SYCL2", "GPUOpenCL", "CANN0", "RPC0", "BLAS", "ZDNN0"]
    text = "Available devices:\n" + "".join(f"  {name}: card (1024 MiB, 512 MiB free)\n" for name in lines)
    found = listing.parse(text)
    wanted = ["rocm", "vulkan", "metal", "sycl", "opencl", "cann", "rpc", "blas", "zdnn"]
    assert [device.backend for device in found] == wanted
    assert [device.kind for device in found if device.backend == "blas"] == ["accel"]


def test_none_and_nonsense_are_told_apart():
    assert listing.parse("Available devices:\n  (none)\n") == ()
    assert listing.parse("error: invalid argument: --list-devices\n") is None
    assert listing.parse("Available devices:\n  CUDA0: x (99999999999999 MiB, 1 MiB free)\n") == ()


@pytest.fixture
def program(tmp_path, monkeypatch):
    def make(script):
        path = tmp_path / "llama-server"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


def test_the_program_on_path_is_asked(program, capsys):
    program(f"cat <<E\n{TWO}E")
    assert main(["devices"]) == 0
    out = capsys.readouterr().out
    assert "RTX 4090" in out
    assert "only llama-server knows RTX3060" in out
    assert main(["devices", "--no-ask"]) == 0
    assert "RTX3060" not in capsys.readouterr().out


def test_a_program_that_hangs_or_fails_is_no_answer(program, monkeypatch):
    monkeypatch.setattr(listing, "TIMEOUT", 0.3)
    start = time.monotonic()
    program("exec sleep 30")
    assert listing.listed() is None
    assert time.monotonic() - start < 5
    program("exit 1")
    assert listing.listed() is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert listing.listed() is None
