"""What an installed llama.cpp says it has, held against what the detectors found. Its word is taken: it is what will run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from fitplug.machine.order import normal_pci_id, take_devices
from fitplug.machine.records import Device, Machine
from fitplug.units import GIB, MIB, format_bytes

CONTEXT_MOST = 2 * GIB
"""A program that asks CUDA has opened the card before it is answered; no context takes more than this."""
WORTH_SAYING = 64 * MIB
"""Differences of less are the time between two questions."""


def agree(machine: Machine, listed: Sequence[Device], program: str, *, precision: int = 1, only: bool = True) -> Machine:
    """The machine as that program sees it, and in its notes where the detectors saw it otherwise.

    Args:
        machine: As the detectors found it.
        listed: The program's own list, in its order.
        program: What to call it.
        precision: How far its figures may be off because of how they are printed.
        only: It will run the model: what it does not list cannot be used.
    """
    found = [device for device in (*machine.devices, *machine.unused) if device.backend != "rpc"]
    remote = [device for device in machine.devices if device.backend == "rpc"]
    notes: list[str] = []
    devices = []
    for theirs in listed:
        ours = _same(theirs, found)
        if ours is None:
            notes.append(f"only {program} knows {theirs.name} ({format_bytes(theirs.total_bytes)})")
            devices.append(theirs)
            continue
        found = [device for device in found if device is not ours]
        device = _as_listed(ours, theirs, precision)
        notes += _differences(ours, device, program)
        devices.append(device)
    missed = [device for device in found if device in machine.devices]
    what = "it is planned without" if only else "was it built without that backend?"
    notes += [f"{program} does not see {device.name}: {what}" for device in missed]
    devices += [] if only else missed
    found = [device for device in found if only or device not in missed]
    if not notes:
        notes.append(f"{program} lists the same devices")
    taken, unused = take_devices(devices)
    return replace(machine, devices=(*remote, *taken), unused=(*unused, *found), notes=(*machine.notes, *notes))


def _same(theirs: Device, found: Iterable[Device]) -> Device | None:
    """The detectors' device that this one is: by address, else by backend and name, else by name alone."""
    found = list(found)
    tests: tuple[Callable[[Device], object], ...] = (
        lambda d: d.pci_id and theirs.pci_id and normal_pci_id(d.pci_id) == normal_pci_id(theirs.pci_id),
        lambda d: d.backend == theirs.backend and _alike(d.name, theirs.name),
        lambda d: _alike(d.name, theirs.name),
        lambda d: d.backend == theirs.backend and abs(d.total_bytes - theirs.total_bytes) < d.total_bytes // 8,
    )
    return next((device for test in tests for device in found if test(device)), None)


def _alike(one: str, other: str) -> bool:
    """Names of one card by two programs: one may say more, as in "AMD Radeon 780M (RADV PHOENIX)"."""
    words = [set("".join(c if c.isalnum() else " " for c in name.lower()).split()) - {"r", "tm"} for name in (one, other)]
    return bool(words[0] and words[1]) and (words[0] <= words[1] or words[1] <= words[0])


def _as_listed(ours: Device, theirs: Device, precision: int) -> Device:
    """Its backend and its sizes, and all that the detector knows besides.

    CUDA's free memory is less the context that the asking program just made: that is what any program's will take.
    """
    total = theirs.total_bytes if abs(theirs.total_bytes - ours.total_bytes) >= precision else ours.total_bytes
    free, extra = min(theirs.free_bytes, total), dict(ours.extra)
    taken = min(ours.free_bytes, total) - free
    if theirs.backend == "cuda" and ours.backend == "cuda" and 0 <= taken <= CONTEXT_MOST and not ours.unified:
        free, extra["context_bytes"] = free + taken, taken
    return replace(ours, backend=theirs.backend, total_bytes=total, free_bytes=free, extra=extra)


def _differences(ours: Device, device: Device, program: str) -> Iterable[str]:
    if device.backend != ours.backend:
        yield f"{program} uses {ours.name} through {device.backend}, not {ours.backend}"
    for what, before, after in (
        ("has", ours.total_bytes, device.total_bytes), ("has free", ours.free_bytes, device.free_bytes)
    ):  # fmt: skip
        if abs(after - before) > WORTH_SAYING:
            yield f"{ours.name} {what} {format_bytes(after)} by {program}, {format_bytes(before)} by its driver"
    context = device.extra.get("context_bytes", 0)
    if context > WORTH_SAYING:
        yield f"{ours.name}: opening it takes {format_bytes(context)}, as {program} shows"
