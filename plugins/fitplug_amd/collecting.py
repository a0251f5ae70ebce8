"""What amdgpu and amdkfd tell in sysfs."""

import os
import sys
from typing import Any

from fitplug.sysfs import read_tree

_DEVICE = "/sys/class/drm/card*/device"
_CARD_FILES = (
    "mem_info_vram_total", "mem_info_vram_used", "mem_info_gtt_total", "mem_info_gtt_used", "mem_info_vram_vendor",
    "board_info", "product_name", "unique_id", "device", "revision", "max_link_width", "max_link_speed",
)  # fmt: skip
_TOPOLOGY = (
    "/sys/class/kfd/kfd/topology/nodes/*/properties",
    "/sys/class/kfd/kfd/topology/nodes/*/mem_banks/*/properties",
    "/sys/class/kfd/kfd/topology/nodes/*/gpu_id",
)
_PROCESSES = "/sys/class/kfd/kfd/proc/*/vram_*"
_NAMES = "usr/share/libdrm/amdgpu.ids"
_ENV = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def collect(root: str = "/") -> dict[str, Any] | None:
    """The files of all cards that amdgpu drives, and of the topology that HIP reads."""
    if sys.platform != "linux" and root == "/":
        return None
    events = read_tree((f"{_DEVICE}/uevent",), root)
    folders = [path.removesuffix("/uevent") for path, text in events.items() if "DRIVER=amdgpu" in text]
    if not folders:
        return None
    files = {f"{folder}/uevent": events[f"{folder}/uevent"] for folder in folders}
    files |= read_tree((f"{folder}/{name}" for folder in folders for name in _CARD_FILES), root)
    files |= read_tree((*_TOPOLOGY, "/proc/meminfo"), root)
    using = read_tree((_PROCESSES,), root)
    pids = dict.fromkeys(path.split("/")[-2] for path in using)
    files |= using | read_tree((f"/proc/{pid}/comm" for pid in pids), root)
    env = {name: os.environ[name] for name in _ENV if name in os.environ}
    ids = {files.get(f"{folder}/device", "").removeprefix("0x") for folder in folders}
    return {"files": files, "names": _names(root, ids), "env": env}


def _names(root: str, ids: set[str]) -> list[str]:
    """The lines of libdrm's list of product names that are about these cards."""
    try:
        with open(f"{root.rstrip('/')}/{_NAMES}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - no pathlib on the start path
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return []
    return [line for line in lines if line.split(",")[0].strip().lower() in ids][:64]
