"""What the xe and i915 drivers tell in sysfs."""

import os
import sys
from typing import Any

from fitplug.sysfs import read_tree

_DEVICE = "/sys/class/drm/card*/device"
_LEVEL_ZERO = (
    "usr/lib/x86_64-linux-gnu/libze_intel_gpu.so.1",
    "usr/lib64/libze_intel_gpu.so.1",
    "usr/lib/libze_intel_gpu.so.1",
)


def collect(root: str = "/") -> dict[str, Any] | None:
    """The files of all GPUs that xe or i915 drives, and whether SYCL's driver is installed."""
    if sys.platform != "linux" and root == "/":
        return None
    events = read_tree((f"{_DEVICE}/uevent",), root)
    folders = [
        path.removesuffix("/uevent") for path, text in events.items() if {"DRIVER=xe", "DRIVER=i915"} & set(text.splitlines())
    ]
    if not folders:
        return None
    files = {f"{folder}/uevent": events[f"{folder}/uevent"] for folder in folders}
    wanted = [f"{folder}/{name}" for folder in folders for name in ("device", "tile*/physical_vram_size_bytes")]
    wanted += [f"{folder.removesuffix('/device')}/lmem_total_bytes" for folder in folders]
    files |= read_tree((*wanted, "/proc/meminfo"), root)
    base = root.rstrip("/")
    level_zero = any(os.path.exists(f"{base}/{path}") for path in _LEVEL_ZERO)  # noqa: PTH110 - no pathlib on the start path
    return {"files": files, "level_zero": level_zero}
