"""What else is known of a machine's devices, as lines: who uses them, what opening them takes, whose memory they share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fitplug.machine.records import Device, Machine
from fitplug.memory.overhead import device_overhead
from fitplug.render.page import Block, Points
from fitplug.render.text import one_line, shortened
from fitplug.units import format_bytes

_MOST = 6
"""Processes named for each device."""


def facts(machine: Machine) -> Iterator[Block]:
    """Blocks of those that there is something to say about."""
    named = list(zip(machine.device_names(), machine.devices, strict=True))
    for title, lines in (
        ("used by", [f"{name}: {users}" for name, device in named if (users := _users(device.extra.get("processes")))]),
        ("taken besides, when a program opens it", [f"{name}: {_opening(device)}" for name, device in named]),
        ("shared with the host", [f"{name}: {_shared(device, machine)}" for name, device in named if device.unified]),
    ):
        if lines:
            yield Points(title, _joined(lines))


def _users(processes: Any) -> str:
    """The largest first; a machine file can say anything."""
    rows = [row for row in processes if isinstance(row, Mapping)] if isinstance(processes, Sequence) else []
    rows.sort(key=lambda row: -_size(row))
    told = [_user(row) for row in rows[:_MOST]]
    more = f" and {len(rows) - _MOST} more" if len(rows) > _MOST else ""
    desktop = sum(_size(row) for row in rows if row.get("kind") == "graphics")
    reserve = f"; the desktop holds {format_bytes(desktop)}" if desktop else ""
    return ", ".join(told) + more + reserve


def _user(row: Mapping[str, Any]) -> str:
    name = str(row.get("name") or f"process {row.get('pid', '?')}").replace("\\", "/").rpartition("/")[2]
    size = format_bytes(_size(row)) if _size(row) else "how much is not known"
    return f"{shortened(one_line(name), 30)} ({size})"


def _size(row: Mapping[str, Any]) -> int:
    used = row.get("used")
    return used if type(used) is int and 0 < used < 1 << 53 else 0


def _opening(device: Device) -> str:
    found = device_overhead(device)
    if found.high == found.n_bytes == 0:
        return "nothing"
    return f"about {format_bytes(found.n_bytes)} ({format_bytes(found.low)} to {format_bytes(found.high)}, {found.basis.value})"


def _shared(device: Device, machine: Machine) -> str:
    both = format_bytes(max(machine.host.available_bytes, 0))
    return f"up to {format_bytes(device.total_bytes)} of it; what the GPU takes is gone for the host, which has {both} for both"


def _joined(lines: Sequence[str]) -> list[str]:
    """Devices with the same to say in one line: "CUDA0, CUDA1: …"."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, said = line.partition(": ")
        found.setdefault(said, []).append(name)
    return [f"{', '.join(names)}: {said}" for said, names in found.items()]
