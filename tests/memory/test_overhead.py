"""The driver's own memory: a range per generation, from what was seen."""

import importlib.util
from pathlib import Path

import pytest

from fitplug.machine.records import Device
from fitplug.memory.overhead import SEEN, device_overhead
from fitplug.memory.records import Basis
from fitplug.units import MIB

MAKE = Path(__file__).parents[2] / "fixtures" / "overhead" / "make.py"


def _device(capability, backend="cuda"):
    return Device(backend=backend, total_bytes=1 << 34, free_bytes=1 << 34, compute_capability=capability)


def test_the_table_is_what_the_observations_say():
    """Nobody typed these figures."""
    spec = importlib.util.spec_from_file_location("make_overhead", MAKE)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)

    assert {major: tuple(row[:3]) for major, row in SEEN.items()} == make.table()


@pytest.mark.parametrize(
    ("capability", "basis"), [("8.6", Basis.MEASURED), ("9.0", Basis.MEASURED), ("10.0", Basis.ASSUMED), (None, Basis.ASSUMED)]
)
def test_generations_without_observations_are_assumed(capability, basis):
    """And the figure lies in its range."""
    found = device_overhead(_device(capability))

    assert found.basis == basis
    assert 0 < found.low <= found.n_bytes <= found.high < 2048 * MIB


def test_a_processor_behind_a_server_opens_nothing():
    """And a card there takes what cards take."""
    far = Device(backend="rpc", total_bytes=1 << 34, free_bytes=1 << 34, extra={"served_by": "cpu"})
    assert device_overhead(far).n_bytes == 0
    assert device_overhead(_device(None, "rpc")).n_bytes > 100 * MIB
