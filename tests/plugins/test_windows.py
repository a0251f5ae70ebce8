"""DXGI's calls against a library with its interface, built here; the rest on recorded machines."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fitplug_windows import notes, parse
from fitplug_windows.dxgi import adapters

SOURCE = Path(__file__).parent / "dxgi/dxgi.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@pytest.mark.skipif(COMPILER is None or sys.platform == "win32", reason="the virtual DXGI is built with a C compiler")
def test_adapters_are_read_through_the_objects_tables(tmp_path):
    library = tmp_path / "dxgi.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, SOURCE], check=True, timeout=120)
    card, software = adapters(str(library))
    assert card == {
        "name": "AMD Radeon RX 6600", "vendor": 0x1002, "device": 0x73FF, "dedicated_video": 8557000000, "dedicated_system": 0,
        "shared_system": 8589934592, "flags": 0,
        "budgets": [{"budget": 7400000000, "usage": 2}, {"budget": 7000000000, "usage": 1}],
    }  # fmt: skip
    assert (software["name"], software["flags"], software["budgets"]) == ("Microsoft Basic Render Driver", 2, None)
    assert ctypes.CDLL(str(library)).live_references() == 0
    (device,) = parse({"adapters": [card, software], "registry": []})
    assert (device.backend, device.total_bytes, device.free_bytes) == ("vulkan", 8557000000, 7399999998)


def adapter(**fields):
    return {
        "name": "Some GPU", "vendor": 0x8086, "device": 1, "dedicated_video": 128 << 20, "dedicated_system": 0,
        "shared_system": 8 << 30, "flags": 0, "budgets": None,
    } | fields  # fmt: skip


def test_little_memory_of_its_own_means_integrated():
    (device,) = parse({"adapters": [adapter()]})
    assert (device.kind, device.unified, device.total_bytes) == ("igpu", True, (8 << 30) + (128 << 20))
    (device,) = parse({"adapters": [adapter(dedicated_video=6 << 30)]})
    assert (device.kind, device.unified, device.total_bytes) == ("gpu", False, 6 << 30)


def test_a_known_chip_is_integrated_whatever_is_set_aside_for_it():
    (device,) = parse({"adapters": [adapter(name="AMD Radeon(TM) 8060S Graphics", vendor=0x1002, dedicated_video=64 << 30)]})
    assert device.kind == "igpu"


def test_a_windows_that_does_not_say_what_is_free_is_said():
    assert any("does not say" in line for line in notes({"adapters": [adapter()]}))
    assert notes({"adapters": [adapter(budgets=[{"budget": 1, "usage": 0}])]}) == []


def test_software_is_no_gpu():
    assert parse({"adapters": [adapter(flags=2), adapter(vendor=0x1414)]}) == []
    assert parse({}) == []
