"""Who uses a GPU through the compute driver: /sys/class/kfd/kfd/proc/PID/vram_GPU (amdkfd/kfd_process.c)."""

from collections.abc import Mapping
from typing import NamedTuple

_FOLDER = "/sys/class/kfd/kfd/proc/"
_MAX = 64


class Process(NamedTuple):
    """One that holds memory of the GPU."""

    pid: int
    name: str | None
    used: int


def processes_of(gpu_id: str, files: Mapping[str, str]) -> tuple[Process, ...]:
    """The most first. Other users' are seen by root only, and desktops never."""
    found = []
    for path, text in files.items():
        pid, _, rest = path.removeprefix(_FOLDER).partition("/")
        if not path.startswith(_FOLDER) or rest != f"vram_{gpu_id}" or not _is_number(pid) or not _is_number(text):
            continue
        if int(text):
            found.append(Process(int(pid), files.get(f"/proc/{pid}/comm"), int(text)))
    return tuple(sorted(found, key=lambda process: -process.used)[:_MAX])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
