"""What `fitplug devices` says besides sizes: who uses a device, what opening it takes, what it shares."""

import pytest

from fitplug.machine.records import Device, Host, Machine
from fitplug.render.device_facts import facts

GIB, MIB = 1 << 30, 1 << 20
HOST = Host(total_bytes=64 * GIB, available_bytes=50 * GIB)


def said(*devices):
    return {block.heading: block.sentences for block in facts(Machine(devices=devices, host=HOST))}


def rtx(**more):
    return Device(backend="cuda", name="RTX", total_bytes=24 * GIB, free_bytes=20 * GIB, compute_capability="8.6", **more)


def test_users_are_named_the_largest_first_and_the_desktop_is_summed():
    processes = [
        {"pid": 1, "kind": "graphics", "name": "/usr/lib/xorg/Xorg", "used": 300 * MIB},
        {"pid": 2, "kind": "compute", "name": "C:\\tools\\llama-server.exe", "used": 3 * GIB},
        {"pid": 3, "kind": "graphics", "name": None, "used": None},
    ]
    (line,) = said(rtx(extra={"processes": processes}))["used by"]
    wanted = "llama-server.exe (3.00 GiB), Xorg (300 MiB), process 3 (how much is not known); the desktop holds 300 MiB"
    assert line == f"CUDA0: {wanted}"


def test_of_many_users_the_largest_are_named():
    processes = [{"pid": i, "kind": "compute", "name": f"p{i}", "used": i * MIB} for i in range(1, 11)]
    (line,) = said(rtx(extra={"processes": processes}))["used by"]
    assert "p10 (10.0 MiB)" in line
    assert "p4 " not in line
    assert line.endswith("and 4 more")


@pytest.mark.parametrize("nonsense", ["", "text", 7, [1, None, "x"], [{"used": "much", "name": 5}], {"pid": 1}])
def test_whatever_a_machine_file_says_of_users_is_a_page(nonsense):
    said(rtx(extra={"processes": nonsense}))


def test_what_opening_takes_is_said_with_its_range_once_for_equal_cards():
    lines = said(rtx(), rtx())["taken besides, when a program opens it"]
    assert lines == ["CUDA0, CUDA1: about 277 MiB (104 MiB to 450 MiB, measured)"]


def test_shared_memory_is_said_to_be_the_hosts():
    apu = Device(kind="igpu", backend="rocm", name="8060S", total_bytes=48 * GIB, free_bytes=40 * GIB, unified=True)
    (line,) = said(apu)["shared with the host"]
    assert "up to 48.0 GiB" in line
    assert "50.0 GiB for both" in line
    assert "shared with the host" not in said(rtx())
