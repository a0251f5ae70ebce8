"""Speed with a part on the CPU: runs that say what stayed there, and what the host's memory and the bus are taken for."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fitplug.machine.records import Host, Machine
from fitplug.planner.speed_host import DESKTOP, LAPTOP, READ_SHARE, copy_seconds, host_bandwidth
from planner_support import card


@pytest.fixture(scope="module")
def partial():
    path = Path(__file__).parents[2] / "fixtures/speed/partial.py"
    spec = importlib.util.spec_from_file_location("speed_partial", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine(*names, **host):
    devices = tuple(replace(card(8), name=name) for name in names)
    return Machine(devices=devices, host=Host(total_bytes=1 << 35, available_bytes=1 << 35, **host))


@pytest.mark.parametrize(("test", "memory", "median"), [("tg", "told", 0.15), ("tg", "supposed", 0.3), ("pp", "told", 0.25)])
def test_runs_with_a_part_on_the_cpu_lie_in_the_printed_range(partial, test, memory, median):
    rows = [row for row in partial.rows() if row["test"] == test and bool(row["machine"]["bandwidth"]) == (memory == "told")]
    found = partial.compared(rows)
    assert partial.median_error(found) <= median
    assert sum(inside for _, _, inside in found) >= 0.8 * len(found)


def test_the_middle_of_the_range_is_not_off_to_one_side_where_the_memory_is_told(partial):
    rows = [row for row in partial.rows() if row["machine"]["bandwidth"]]
    errors = sorted(error for _, error, _ in partial.compared(rows))
    assert abs(math.expm1(errors[len(errors) // 2])) < 0.1


def test_a_laptop_is_supposed_to_have_slower_memory_than_a_desktop():
    assert host_bandwidth(machine("NVIDIA GeForce RTX 3060")) == (DESKTOP, False)
    assert host_bandwidth(machine("NVIDIA GeForce RTX 3060 Laptop GPU")) == (LAPTOP, False)
    assert host_bandwidth(machine()) == (DESKTOP, False)


def test_memory_that_was_measured_is_nominally_faster_than_it_was_read():
    told = machine(memory_bandwidth=48 * 10**9)
    seen = machine(memory_bandwidth=48 * 10**9, extra={"bandwidth_basis": "measured"})
    assert host_bandwidth(told) == (48 * 10**9, True)
    assert host_bandwidth(seen) == (round(48e9 / READ_SHARE), True)


def test_weights_are_copied_as_fast_as_the_cards_bus_and_the_hosts_memory_let_them():
    narrow, wide = (replace(card(8), name=f"NVIDIA GeForce {name}") for name in ("RTX 4060", "RTX 4090"))  # 4.0 x8, 4.0 x16
    unknown = replace(card(8), name="a card of next year")
    assert copy_seconds(wide, 64e9) < copy_seconds(narrow, 64e9) == pytest.approx(copy_seconds(unknown, 64e9), rel=0.01)
    assert copy_seconds(wide, 200e9) < copy_seconds(wide, 64e9)
    assert 1 / copy_seconds(wide, 64e9) == pytest.approx(16.6e9, rel=0.02)
