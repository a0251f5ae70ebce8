"""The devices that llama.cpp's own programs list: `--list-devices` (common/arg.cpp, common_print_available_devices)."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from fitplug.machine.backends import backend_named
from fitplug.machine.records import Device
from fitplug.units import MIB

PROGRAMS = ("llama-server", "llama-cli")
TIMEOUT = 5.0
"""Seconds; opening a card takes one at most."""
_HEAD = "Available devices:"
_LINE = re.compile(r"\s+(\S{1,32}): (.{0,200}) \((\d{1,9}) MiB, (\d{1,9}) MiB free\)")


def listed() -> Sequence[Device] | None:
    """What the first of them on PATH lists; None where there is none or it does not answer."""
    path = next((found for found in map(shutil.which, PROGRAMS) if found), None)
    if path is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the user's own program
            [path, "--list-devices"], capture_output=True, text=True, timeout=TIMEOUT, check=False, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(done.stdout)


def parse(text: str) -> Sequence[Device] | None:
    """None where it is no such list: programs of before 2025 do not know the word."""
    lines = text.splitlines()
    if _HEAD not in lines:
        return None
    found = map(_LINE.fullmatch, lines[lines.index(_HEAD) + 1 :])
    return tuple(_device(*match.groups()) for match in found if match)


def _device(name: str, description: str, total: str, free: str) -> Device:
    size = int(total) * MIB
    backend = backend_named(name)
    return Device(
        kind="accel" if backend == "blas" else "gpu",
        backend=backend,
        name=description,
        total_bytes=size,
        free_bytes=min(int(free) * MIB, size),
        basis="llama.cpp",
    )
