"""From Vulkan's heaps to devices. Pure."""

from collections.abc import Mapping
from typing import Any

from fitplug.machine.records import Device

_INTEGRATED, _DISCRETE = 1, 2
"""VkPhysicalDeviceType. llama.cpp takes virtual GPUs and processors only where it is told to."""
_DEVICE_LOCAL = 1
_BLOCK = 1 << 30
"""ggml allocates no larger blocks at once."""


def parse(raw: Mapping[str, Any]) -> list[Device]:
    """One device a card: a card that two drivers show is taken from the first."""
    seen: set[str] = set()
    devices = []
    for found in raw.get("devices") or []:
        if found["kind"] not in {_INTEGRATED, _DISCRETE} or (found.get("pci_id") or "") in seen:
            continue
        seen |= {found["pci_id"]} if found.get("pci_id") else set()
        device = _device(found)
        if device.total_bytes:
            devices.append(device)
    return devices


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Drivers that do not tell what is free."""
    shown = [found for found in raw.get("devices") or [] if found["kind"] in {_INTEGRATED, _DISCRETE}]
    return [f"{found['name']}: its driver does not say what is free; all of it is taken as free"
            for found in shown if not any("budget" in heap for heap in found["heaps"])]  # fmt: skip


def _device(found: Mapping[str, Any]) -> Device:
    """Heaps of its own are summed, all heaps where it is integrated.

    Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_backend_vk_get_device_memory.
    """
    integrated = found["kind"] == _INTEGRATED
    heaps = [heap for heap in found["heaps"] if integrated or heap["flags"] & _DEVICE_LOCAL]
    total = sum(heap["size"] for heap in heaps)
    free = sum(max(0, heap.get("budget", heap["size"]) - heap.get("usage", 0)) for heap in heaps)
    return Device(
        kind="igpu" if integrated else "gpu", backend="vulkan", name=found["name"], total_bytes=total,
        free_bytes=min(free, total), unified=integrated, pci_id=found.get("pci_id"),
        extra={"pci_device": f"{found['vendor']:04x}:{found['device']:04x}", **_limits(found.get("limits") or {})},
    )  # fmt: skip


def _limits(told: Mapping[str, int]) -> dict[str, int]:
    """The driver's limits as keys of a machine file, those that say something.

    Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_get_device (suballocation_block_size, max_buffer_size) and
    ggml_backend_vk_device_supports_op (tensor_size_supported).
    """
    if not all(told.get(key) for key in ("storage_alignment", "map_alignment", "storage_range", "allocation", "buffer")):
        return {}
    return {
        "alignment": told["storage_alignment"], "host_alignment": told["map_alignment"],
        "max_buffer_bytes": min(_BLOCK, told["allocation"], told["buffer"]),
        "max_tensor_bytes": min(told["storage_range"], told["buffer"]),
    }  # fmt: skip
