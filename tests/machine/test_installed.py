"""An installed llama.cpp's own list of devices, beside what the detectors found."""

import pytest

from fitplug.machine.installed import agree
from fitplug.machine.records import Device, Host, Machine
from fitplug.memory.overhead import device_overhead
from fitplug.memory.records import Basis

GIB, MIB = 1 << 30, 1 << 20
HOST = Host(total_bytes=64 * GIB, available_bytes=60 * GIB)
LAPTOP = Device(backend="cuda", name="NVIDIA GeForce RTX 4070 Laptop GPU", total_bytes=8188 * MIB, free_bytes=7790 * MIB,
                compute_capability="8.9", pci_id="0000:01:00.0")  # fmt: skip
RADEON = Device(kind="igpu", backend="vulkan", name="AMD Radeon 780M", total_bytes=18 * GIB, free_bytes=17 * GIB, unified=True)
MACHINE = Machine(devices=(LAPTOP,), unused=(RADEON,), host=HOST)


def listed(total_mib, free_mib, name=LAPTOP.name, backend="cuda", **more):
    return Device(backend=backend, name=name, total_bytes=total_mib * MIB, free_bytes=free_mib * MIB, **more)


def see(*devices, machine=MACHINE, **more):
    return agree(machine, devices, "llama-server", precision=MIB, **more)


def test_agreement_is_said_and_changes_nothing():
    machine = see(listed(8188, 7788), listed(18432, 17408, RADEON.name, "vulkan"))
    assert machine.notes == ("llama-server lists the same devices",)
    assert [(d.name, d.total_bytes, d.free_bytes) for d in machine.devices] == [(LAPTOP.name, 8188 * MIB, 7790 * MIB)]
    assert [d.name for d in machine.unused] == [RADEON.name]


def test_the_program_is_believed_about_the_total():
    """7805 of 8188 MiB is what CUDA shows of an RTX 4070 Laptop GPU (llama.cpp PR 20184)."""
    machine = see(listed(7805, 7500))
    (device,) = machine.devices
    assert device.total_bytes == 7805 * MIB
    assert any("7.62 GiB by llama-server, 8.00 GiB by its driver" in note for note in machine.notes)


def test_what_opening_the_card_takes_is_overhead_and_counted_once():
    """The program had opened the card when it was answered: its free memory is ours less that."""
    (device,) = see(listed(8188, 7400)).devices
    overhead = device_overhead(device)
    assert device.free_bytes == 7790 * MIB
    assert overhead.low == 390 * MIB
    assert overhead.basis is Basis.ASSUMED or overhead.low <= overhead.typical <= overhead.high
    assert device.free_bytes - overhead.typical <= 7400 * MIB


def test_another_backend_for_the_card_is_taken_and_said():
    machine = see(listed(8188, 7700, backend="vulkan"))
    assert machine.device_names() == ("Vulkan0",)
    assert any("through vulkan, not cuda" in note for note in machine.notes)


def test_a_card_is_known_by_its_address_whatever_its_name():
    machine = see(listed(8188, 7788, name="GeForce", pci_id="00000000:01:00.0"))
    assert [device.name for device in machine.devices] == [LAPTOP.name]


def test_what_the_runner_cannot_see_is_not_planned_with():
    machine = see(only=True)
    assert machine.devices == ()
    assert LAPTOP in machine.unused
    assert any("does not see NVIDIA GeForce RTX 4070 Laptop GPU: it is planned without" in note for note in machine.notes)


def test_what_another_program_cannot_see_stays_with_a_word():
    machine = see(only=False)
    assert machine.devices == (LAPTOP,)
    assert any("built without that backend?" in note for note in machine.notes)


def test_what_only_the_program_knows_is_added():
    machine = see(listed(65536, 60000, "Ascend 910B3", "cann"), machine=Machine(host=HOST))
    assert machine.device_names() == ("CANN0",)
    assert any("only llama-server knows Ascend 910B3" in note for note in machine.notes)


def test_two_equal_cards_are_two():
    twins = [Device(backend="cuda", name="RTX 3090", total_bytes=24 * GIB, free_bytes=n * GIB) for n in (23, 20)]
    machine = see(*(listed(24576, n * 1024, "RTX 3090") for n in (23, 20)), machine=Machine(devices=twins, host=HOST))
    assert [device.free_bytes // GIB for device in machine.devices] == [23, 20]


def test_servers_stay_in_front():
    remote = Device(backend="rpc", name="far", total_bytes=GIB, free_bytes=GIB)
    machine = see(listed(8188, 7788), machine=Machine(devices=(remote, LAPTOP), host=HOST))
    assert machine.device_names() == ("RPC0", "CUDA0")


@pytest.mark.parametrize("free", [0, 8188])
def test_any_free_memory_that_it_says_stays_within_the_total(free):
    (device,) = see(listed(8188, free)).devices
    assert 0 <= device.free_bytes <= device.total_bytes
