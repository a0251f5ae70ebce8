"""What `fitplug verify --record` found on this machine: where the installed llama.cpp takes more than was predicted.

A later plan for the same model on this machine leaves so much free besides. Less than predicted changes nothing: it may be
owed to the settings that were asked about.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from fitplug.machine.records import Machine
from fitplug.memory.records import HOST
from fitplug.model.records import Model
from fitplug.units import format_bytes

# The start path of every plan: os.path where the style would have pathlib, and nothing imported while there is no record.
# ruff: noqa: PTH111, PTH113, PTH118, PTH123 - see above

_MOST = 1 << 22
_MOST_MODELS = 1000


def path() -> str:
    """Where they are kept: what platformdirs calls user_state_dir, without its 30 ms."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        folder = os.path.join(home, "Library", "Application Support")
    elif os.name == "nt":
        folder = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    else:
        folder = os.environ.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return os.path.join(folder, "fitplug", "differences.json")


def identity(model: Model) -> str:
    """The same for the same tensors, whatever the file is called."""
    from hashlib import sha256

    digest = sha256(model.architecture.encode())
    for name, tensor in model.tensors.items():
        digest.update(f"{name} {tensor.type} {tensor.shape}\n".encode())
    return digest.hexdigest()


def record(model: Model, machine: Machine, more: Mapping[str, int], engine: str) -> str:
    """Keep the bytes that each device took beyond the prediction; none at all takes an earlier record back.

    Returns:
        What was done, one line.
    """
    import json
    from pathlib import Path

    from fitplug.writing import write_whole

    found = _read()
    found.pop(identity(model), None)
    names = _names(machine)
    kept = {names.get(device, device): n for device, n in more.items() if n > 0}
    if kept:
        found[identity(model)] = {"engine": engine, "more_bytes": kept}
    write_whole(Path(path()), json.dumps(dict(list(found.items())[-_MOST_MODELS:]), indent=1) + "\n")
    total = format_bytes(sum(kept.values()))
    return f"recorded: later plans for this model here leave {total} more free" if kept else "recorded: nothing to add"


def with_differences(model: Model, machine: Machine) -> Machine:
    """The machine with less free by what was recorded for this model, and a note that says so."""
    found = _read()
    entry = found.get(identity(model)) if found else None
    more = entry.get("more_bytes") if isinstance(entry, dict) else None
    if not isinstance(more, dict):
        return machine
    from dataclasses import replace

    sizes = {str(name): n for name, n in more.items() if isinstance(n, int) and 0 < n < 1 << 50}
    names = _names(machine)
    devices = []
    for device, name in zip(machine.devices, names.values(), strict=True) if machine.devices else ():
        devices.append(replace(device, free_bytes=max(0, device.free_bytes - sizes.get(name, 0))))
    host = replace(machine.host, available_bytes=max(0, machine.host.available_bytes - sizes.get(HOST, 0)))
    total = sum(n for name, n in sizes.items() if name in {HOST, *names.values()})
    if not total:
        return machine
    note = f"{format_bytes(total)} are left free besides: the installed llama.cpp took more for this model than was predicted."
    return replace(machine, devices=tuple(devices), host=host, notes=(*machine.notes, note))


def by_device(rows: Iterable[tuple[str, int, int]], machine: Machine) -> dict[str, int]:
    """Measured beyond predicted bytes of each device: buffers of the host's memory together.

    Args:
        rows: buffer, predicted, measured.
        machine: whose devices are named; every other buffer is the host's.
    """
    names = machine.device_names() if machine.devices else ()
    found: dict[str, int] = {}
    for buffer, predicted, measured in rows:
        device = buffer if buffer in names else HOST
        found[device] = found.get(device, 0) + measured - predicted
    return found


def _names(machine: Machine) -> dict[str, str]:
    """Ggml's name of a device → a name that another card in its place does not have."""
    if not machine.devices:
        return {}
    return {name: f"{name} {device.name}" for name, device in zip(machine.device_names(), machine.devices, strict=True)}


def _read() -> dict[str, Any]:
    if not os.path.isfile(path()):
        return {}
    import json

    try:
        with open(path(), "rb") as file:
            found = json.loads(file.read(_MOST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
