"""From DXGI and the registry to devices. Pure."""

from collections.abc import Mapping
from typing import Any

from fitplug.machine.catalogue import card_for_device
from fitplug.machine.records import Device
from fitplug.units import GIB

_SOFTWARE = 2
"""DXGI_ADAPTER_FLAG_SOFTWARE."""
_NVIDIA, _MICROSOFT = 0x10DE, 0x1414


def parse(raw: Mapping[str, Any]) -> list[Device]:
    """Hardware adapters, each once; NVIDIA's for CUDA, all others for Vulkan, which llama.cpp's Windows builds come with."""
    devices = []
    for adapter in raw.get("adapters") or []:
        if adapter["flags"] & _SOFTWARE or adapter["vendor"] == _MICROSOFT:
            continue
        own = max(adapter["dedicated_video"], _registered(adapter, raw.get("registry") or []))
        device = _integrated(adapter, own) if _is_integrated(adapter, own) else _dedicated(adapter, own)
        if device.total_bytes:
            devices.append(device)
    return devices


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Where Windows is too old to say what is free."""
    found = [adapter for adapter in raw.get("adapters") or [] if not adapter["flags"] & _SOFTWARE]
    return [f"{adapter['name']}: Windows does not say what is free; all of it is taken as free"
            for adapter in found if not adapter.get("budgets")]  # fmt: skip


def _dedicated(adapter: Mapping[str, Any], own: int) -> Device:
    backend = "cuda" if adapter["vendor"] == _NVIDIA else "vulkan"
    return Device(
        backend=backend, name=adapter["name"], total_bytes=own, free_bytes=_free(adapter, own, shared=False),
        extra=_extra(adapter),
    )  # fmt: skip


def _integrated(adapter: Mapping[str, Any], own: int) -> Device:
    """Vulkan's heaps of an integrated GPU are all summed: its carve-out and the shared memory."""
    total = own + adapter["shared_system"]
    return Device(
        kind="igpu", backend="vulkan", name=adapter["name"], total_bytes=total, unified=True,
        free_bytes=_free(adapter, total, shared=True), extra=_extra(adapter),
    )  # fmt: skip


def _is_integrated(adapter: Mapping[str, Any], own: int) -> bool:
    """DXGI does not say. The catalogue does where it knows the name; else less than 1 GiB of own memory means it."""
    device = Device(backend="vulkan", name=adapter["name"], total_bytes=own, free_bytes=0)
    card = card_for_device(device)
    return card.unified if card else own < GIB


def _free(adapter: Mapping[str, Any], total: int, *, shared: bool) -> int:
    """The budget that Windows gives a process, less what it has; for a shared one, of both kinds of memory."""
    budgets = (adapter.get("budgets") or [])[: 2 if shared else 1]
    if not budgets:
        return total
    left: int = sum(budget["budget"] - budget["usage"] for budget in budgets)
    return max(0, min(total, left))


def _registered(adapter: Mapping[str, Any], registry: list[Mapping[str, Any]]) -> int:
    """The size that the adapter's driver wrote down; of several like cards any, for they are alike."""
    identity = f"ven_{adapter['vendor']:04x}&dev_{adapter['device']:04x}"
    for entry in registry:
        size = entry.get("HardwareInformation.qwMemorySize")
        if identity in str(entry.get("MatchingDeviceId", "")).lower() and isinstance(size, int) and 0 < size < 1 << 50:
            return size
    return 0


def _extra(adapter: Mapping[str, Any]) -> dict[str, Any]:
    return {"pci_device": f"{adapter['vendor']:04x}:{adapter['device']:04x}", "shared_bytes": adapter["shared_system"]}
