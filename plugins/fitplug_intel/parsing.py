"""From sysfs to devices. Pure."""

from collections.abc import Mapping
from typing import Any

from fitplug.machine.order import normal_pci_id
from fitplug.machine.records import Device

_NAMES = {
    "56a0": "Intel(R) Arc(TM) A770 Graphics", "56a1": "Intel(R) Arc(TM) A750 Graphics",
    "56a2": "Intel(R) Arc(TM) A580 Graphics", "56a5": "Intel(R) Arc(TM) A380 Graphics",
    "56a6": "Intel(R) Arc(TM) A310 Graphics", "5690": "Intel(R) Arc(TM) A770M Graphics",
    "5691": "Intel(R) Arc(TM) A730M Graphics", "56c0": "Intel(R) Data Center GPU Flex 170",
    "0bd5": "Intel(R) Data Center GPU Max 1550", "0bda": "Intel(R) Data Center GPU Max 1100",
    "e20b": "Intel(R) Arc(TM) B580 Graphics", "e20c": "Intel(R) Arc(TM) B570 Graphics",
    "e211": "Intel(R) Arc(TM) Pro B60 Graphics", "e212": "Intel(R) Arc(TM) Pro B50 Graphics",
    "e223": "Intel(R) Arc(TM) Pro B70 Graphics", "7d55": "Intel(R) Arc(TM) Graphics",
    "7d51": "Intel(R) Arc(TM) 140T GPU", "64a0": "Intel(R) Arc(TM) 140V GPU",
    "9a49": "Intel(R) Iris(R) Xe Graphics", "46a6": "Intel(R) Iris(R) Xe Graphics",
    "a7a0": "Intel(R) Iris(R) Xe Graphics", "4680": "Intel(R) UHD Graphics 770", "a780": "Intel(R) UHD Graphics 770",
}  # fmt: skip
"""PCI device → name (the drivers' tables of ids, include/drm/intel/pciids.h, and Intel's product pages)."""
_SYCL_PERMILLE = 944
"""Of a card's memory SYCL shows 94.4 %: 16225243136 bytes of 16 GiB on an Arc A770 (log in llama.cpp issue 6036)."""


def parse(raw: Mapping[str, Any]) -> list[Device]:
    """All GPUs; SYCL's where its driver is installed, else Vulkan's."""
    files: Mapping[str, str] = raw["files"]
    backend = "sycl" if raw.get("level_zero") else "vulkan"
    folders = sorted(path.removesuffix("/uevent") for path in files if path.endswith("/device/uevent"))
    devices = [_card(folder, files, backend) or _integrated(folder, files, backend) for folder in folders]
    return [device for device in devices if device]


def notes(raw: Mapping[str, Any]) -> list[str]:
    """The drivers do not tell others how much is in use."""
    return [f"how much of {device.name} is in use is not known; all of it is taken as free"
            for device in parse(raw) if device.kind == "gpu"]  # fmt: skip


def _card(folder: str, files: Mapping[str, str], backend: str) -> Device | None:
    """A card with memory of its own: xe says it per tile, i915 per card."""
    tiles = [text for path, text in files.items() if path.startswith(f"{folder}/tile")]
    size = sum(map(_int, tiles)) or _int(files.get(f"{folder.removesuffix('/device')}/lmem_total_bytes", ""))
    if not size:
        return None
    free = size * _SYCL_PERMILLE // 1000 if backend == "sycl" else size
    return Device(backend=backend, total_bytes=size, free_bytes=free, **_identity(folder, files))


def _integrated(folder: str, files: Mapping[str, str], backend: str) -> Device | None:
    """The processor's GPU, whose memory is the machine's.

    Mesa's Vulkan driver gives it three quarters of the memory, half where there are 4 GiB or less, and calls nine tenths
    of what is available free (src/intel/vulkan, anv_compute_sys_heap_size and anv_update_meminfo).
    """
    fields = dict(line.partition(":")[::2] for line in files.get("/proc/meminfo", "").splitlines())
    total, available = (_kilobytes(fields.get(key, "")) for key in ("MemTotal", "MemAvailable"))
    if not total:
        return None
    heap = total // 2 if total <= 4 << 30 else total * 3 // 4
    free = min(heap, available * 9 // 10)
    return Device(kind="igpu", backend=backend, total_bytes=heap, free_bytes=free, unified=True, **_identity(folder, files))


def _identity(folder: str, files: Mapping[str, str]) -> dict[str, Any]:
    said = dict(line.partition("=")[::2] for line in files[f"{folder}/uevent"].splitlines())
    device = files.get(f"{folder}/device", "").removeprefix("0x").lower()
    name = _NAMES.get(device, f"Intel GPU [8086:{device or '?'}]")
    pci_id = said.get("PCI_SLOT_NAME")
    extra = {"driver": said.get("DRIVER")}
    return {"name": name, "pci_id": normal_pci_id(pci_id) if pci_id else None, "extra": extra}


def _kilobytes(text: str) -> int:
    return _int(text.strip().partition(" ")[0]) * 1024


def _int(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
