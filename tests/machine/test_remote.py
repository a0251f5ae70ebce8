"""Devices of other machines: where they stand, what is kept of them, and what a user says that they are."""

import pytest

from fitplug.errors import FitplugError, NotFoundError
from fitplug.machine.load import machine_from_json, machine_to_json
from fitplug.machine.records import Device, Host, Machine
from fitplug.machine.remote import join, known_as

GIB = 1 << 30
HERE = Machine(
    devices=(Device(backend="cuda", name="RTX", total_bytes=8 * GIB, free_bytes=7 * GIB),),
    host=Host(total_bytes=64 * GIB, available_bytes=60 * GIB),
)


def far(number=0, free=20, **extra):
    told = {"endpoint": "10.0.0.2:50052", "served_by": "cuda", **extra}
    return Device(
        backend="rpc", name=f"device {number} of 10.0.0.2:50052", total_bytes=24 * GIB, free_bytes=free * GIB, extra=told
    )


def test_servers_come_first_as_llama_cpp_has_them():
    assert join(HERE, [far(0), far(1)]).device_names() == ("RPC0", "RPC1", "CUDA0")


def test_a_recorded_server_is_asked_for_its_memory_and_keeps_the_speeds_that_were_measured():
    recorded = join(HERE, known_as("3090", [far(free=23, link_bandwidth=117_000_000)]))
    recorded = machine_from_json(machine_to_json(recorded))
    machine = join(recorded, [far(free=11)])
    assert [device.backend for device in machine.devices] == ["rpc", "cuda"]
    device = machine.devices[0]
    assert device.free_bytes == 11 * GIB
    assert device.extra["link_bandwidth"] == 117_000_000
    assert device.memory_bandwidth == 936_200_000_000


def test_a_card_is_known_by_what_the_user_calls_it():
    (device,) = known_as("3090", [far()])
    assert (device.compute_capability, device.memory_bandwidth) == ("8.6", 936_200_000_000)
    assert (device.backend, device.free_bytes) == ("rpc", 20 * GIB)
    first, second = known_as("4090+3060", [far(0), far(1)])
    assert (first.compute_capability, second.compute_capability) == ("8.9", "8.6")
    assert [d.extra["catalogue"] for d in known_as("2x3090", [far(0), far(1)])] == ["GeForce RTX 3090"] * 2


def test_what_looks_like_cuda_may_be_hip_and_a_processor_is_no_card():
    (device,) = known_as("7900 XTX", [far(served_by="cuda")])
    assert (device.extra["served_by"], device.compute_capability) == ("rocm", "gfx1100")
    with pytest.raises(FitplugError, match="is a processor, not a NVIDIA GeForce RTX 3090"):
        known_as("3090", [far(served_by="cpu")])


def test_what_names_no_card_or_too_many_is_one_line():
    with pytest.raises(FitplugError, match="names 3 cards; the server has 2 devices"):
        known_as("3x3090", [far(0), far(1)])
    with pytest.raises(NotFoundError):
        known_as("voodoo 2", [far()])
