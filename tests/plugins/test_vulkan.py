"""Vulkan's calls against a library with its interface, built here, and against this machine's own where it has one."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fitplug_vulkan import notes, parse
from fitplug_vulkan.library import physical_devices

SOURCE = Path(__file__).parent / "vulkan/vulkan.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
GIB = 1 << 30


@pytest.mark.skipif(COMPILER is None or sys.platform == "win32", reason="the virtual Vulkan is built with a C compiler")
def test_devices_heaps_and_budgets_are_read(tmp_path):
    path = tmp_path / "libvirtualvulkan.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", path, SOURCE], check=True, timeout=120)
    found = physical_devices(ctypes.CDLL(str(path)))
    card, chip = parse({"devices": found})
    assert (card.kind, card.name, card.pci_id) == ("gpu", "AMD Radeon RX 7900 XTX (RADV NAVI31)", "0000:03:00.0")
    assert (card.total_bytes, card.free_bytes) == (24 * GIB, 21 * GIB)  # the host's heap is not the card's
    assert (chip.kind, chip.unified, chip.pci_id) == ("igpu", True, None)
    assert (chip.total_bytes, chip.free_bytes) == (24 * GIB, 24 * GIB)
    assert [line.partition(":")[0] for line in notes({"devices": found})] == ["Adreno X1-85"]
    limits = {key: value for key, value in card.extra.items() if key != "pci_device"}
    assert limits == {"alignment": 4, "host_alignment": 4096, "max_buffer_bytes": GIB, "max_tensor_bytes": 0xFFFFFFF8}
    assert set(chip.extra) == {"pci_device"}  # a driver that says nothing of them


def test_this_machines_own_library_is_understood():
    try:
        library = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        pytest.skip("no Vulkan library here")
    for device in physical_devices(library):
        assert device["name"].isprintable()
        assert device["kind"] in range(5)
        assert all(heap["size"] > 0 for heap in device["heaps"])


def device(kind, *heaps, **fields):
    return {"name": "x", "kind": kind, "vendor": 1, "device": 2, "pci_id": None, "heaps": list(heaps)} | fields


def test_heaps_of_an_integrated_gpu_are_all_summed():
    heaps = ({"size": 2 * GIB, "flags": 1}, {"size": 8 * GIB, "flags": 0})
    assert [found.total_bytes for found in parse({"devices": [device(1, *heaps), device(2, *heaps)]})] == [10 * GIB, 2 * GIB]


def test_processors_and_virtual_gpus_are_no_devices():
    heap = {"size": GIB, "flags": 1}
    assert parse({"devices": [device(kind, heap) for kind in (0, 3, 4)]}) == []


def test_a_card_of_two_drivers_is_one():
    card = device(2, {"size": GIB, "flags": 1}, pci_id="0000:03:00.0")
    assert len(parse({"devices": [card, card | {"name": "other driver"}]})) == 1


def test_a_driver_that_has_overdrawn_its_budget_has_nothing_free():
    (found,) = parse({"devices": [device(2, {"size": GIB, "flags": 1, "budget": 5, "usage": 9})]})
    assert found.free_bytes == 0
