"""The page of `fitplug devices`."""

from collections.abc import Sequence

from fitplug.machine.records import Device, Machine
from fitplug.render.device_facts import facts
from fitplug.render.page import Bar, Bars, Block, Line, Points, Share, Table, write
from fitplug.render.text import one_line, shortened
from fitplug.units import format_bytes


def show(machine: Machine) -> None:
    """Write it."""
    write(page(machine))


def page(machine: Machine) -> Sequence[Block]:
    """A bar and a row for each device, then what else was seen."""
    names = machine.device_names()
    host = machine.host
    rows = [_row(name, device) for name, device in zip(names, machine.devices, strict=True)]
    rows.append(("CPU", "host memory", "", format_bytes(host.total_bytes), format_bytes(host.available_bytes),
                 _bandwidth(host.memory_bandwidth)))  # fmt: skip
    bars = [_bar(row[0], device) for row, device in zip(rows, machine.devices, strict=False)]
    bars.append(_memory_bar("CPU", "host memory", host.total_bytes, host.available_bytes, [_bandwidth(host.memory_bandwidth)]))
    blocks: list[Block] = [
        Line(_sentence(machine), "good" if machine.devices else "plain"),
        Bars(bars, Table("", ("device", "name", "backend", ">memory", ">free", ">bandwidth"), rows)),
    ]
    if machine.unused:
        left = [f"{one_line(device.name or device.backend)} ({device.backend})" for device in machine.unused]
        blocks.append(Points("seen, and not used by llama.cpp unless asked", left))
    blocks += facts(machine)
    if machine.notes:
        blocks.append(Points("notes", list(map(one_line, machine.notes))))
    return blocks


def _sentence(machine: Machine) -> str:
    n = len(machine.devices)
    return "no GPU was found" if n == 0 else "1 GPU was found" if n == 1 else f"{n} GPUs were found"


def _bar(label: str, device: Device) -> Bar:
    capability = f" {device.compute_capability}" if device.compute_capability else ""
    facts = [_bandwidth(device.memory_bandwidth), one_line(device.backend + capability)]
    return _memory_bar(label, device.name, device.total_bytes, device.free_bytes, facts)


def _memory_bar(label: str, name: str, total: int, free: int, facts: Sequence[str]) -> Bar:
    shares = [Share("in use", total - free), Share("free", free)]
    return Bar(
        label,
        shortened(name, 60),
        shares,
        f"{format_bytes(free)} of {format_bytes(total)} free",
        [fact for fact in facts if fact],
    )


def _row(label: str, device: Device) -> tuple[str, ...]:
    capability = f" {device.compute_capability}" if device.compute_capability else ""
    return (
        label, shortened(device.name, 40), one_line(device.backend + capability), format_bytes(device.total_bytes),
        format_bytes(device.free_bytes), _bandwidth(device.memory_bandwidth),
    )  # fmt: skip


def _bandwidth(value: int | None) -> str:
    return f"{value / 1e9:.0f} GB/s" if value else ""
