"""From NVML's answers to devices. Pure."""

from collections.abc import Mapping
from typing import Any

from fitplug.machine.order import normal_pci_id
from fitplug.machine.records import Device
from fitplug_nvidia.visible import Card, visible_cards

_ATS = 2
"""NVML_DEVICE_ADDRESSING_MODE_ATS: the card reads the host's page tables."""
_INTEGRATED = ("GB10", "Thor", "(nvgpu)", "Jetson")
"""In the names of chips whose GPU has no memory of its own, besides those that say ATS."""
_GB10 = 0x2E1210DE
_VGPU = 2
_TEGRA = {
    "tegra264": ("Jetson Thor", "11.0"),
    "tegra234": ("Jetson Orin", "8.7"),
    "tegra194": ("Jetson Xavier", "7.2"),
    "tegra186": ("Jetson TX2", "6.2"),
    "tegra210": ("Jetson Nano", "5.3"),
}
"""Chip in the device tree → name where the tree has none, compute capability (NVIDIA's table of CUDA GPUs)."""


def parse(raw: Mapping[str, Any]) -> list[Device]:
    """The cards that CUDA shows, in its order, each with what is free on it."""
    files = raw.get("files") or {}
    shown = visible_cards(raw["cards"], raw.get("env") or {}).cards
    devices = [_device(card, files) for card in shown]
    return [device for device in (*devices, *_jetson(files)) if device]


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Hidden cards, cards that do not answer, and shared ones."""
    shown = visible_cards(raw["cards"], raw.get("env") or {})
    lines = list(shown.notes)
    for card in shown.cards:
        at = card["name"] or f"card {card['index']}"
        if _device(card, raw.get("files") or {}) is None:
            lines.append(f"{at} does not say how much memory it has ({card.get('problem') or 'no answer'}); left out")
        elif card.get("virtualization") == _VGPU:
            lines.append(f"{at} is a virtual GPU: its memory is its own, its speed is shared with other guests")
    return lines


def _device(card: Card, files: Mapping[str, str]) -> Device | None:
    memory = card.get("memory")
    unified = not memory and _is_integrated(card)
    if unified:
        memory = host_memory(files.get("/proc/meminfo", ""))
    if not memory or not memory["total"]:
        return None
    capability = card.get("compute_capability")
    return Device(
        kind="igpu" if unified else "gpu",
        backend="cuda",
        name=card["name"],
        total_bytes=memory["total"],
        free_bytes=min(memory["free"], memory["total"]),
        compute_capability=".".join(map(str, capability)) if capability else None,
        memory_bandwidth=_bandwidth(card),
        unified=unified,
        pci_id=normal_pci_id(card["pci_id"]) if card.get("pci_id") else None,
        extra=_extra(card),
    )


def _is_integrated(card: Card) -> bool:
    """Whether "memory: not supported" may be read as "the host's memory".

    Only for chips that are known to have none of their own: a lost card or a slice must not become all of the RAM.
    """
    by_name = any(word in card["name"] for word in _INTEGRATED)
    return card.get("memory_error") == 3 and (by_name or card.get("addressing") == _ATS or card.get("pci_device") == _GB10)


def host_memory(meminfo: str) -> dict[str, int] | None:
    """What CUDA calls total and free where the GPU uses the host's memory.

    Source: ggml/src/ggml-cuda/ggml-cuda.cu, ggml_backend_cuda_get_available_uma_memory: MemAvailable, or the free huge
    pages where the system has set some aside.
    """
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    sizes = {key: int(value.split()[0]) for key, value in fields.items() if value.split() and value.split()[0].isdigit()}
    if "MemTotal" not in sizes:
        return None
    free = sizes.get("MemAvailable", 0)
    if sizes.get("HugePages_Total"):
        free = sizes.get("HugePages_Free", 0) * sizes.get("Hugepagesize", 0)
    return {"total": sizes["MemTotal"] * 1024, "free": free * 1024}


def _bandwidth(card: Card) -> int | None:
    """Bus width times the memory's clock, twice a cycle.

    NVML's clock is half of the data rate for GDDR (all generations) and HBM alike: an RTX 4090 says 10501 MHz at 384
    bits, which is its 1008 GB/s. A MIG slice has the share of the bus that it has of the memory.
    """
    width, clock = card.get("bus_width_bits"), card.get("memory_clock_mhz")
    if not isinstance(width, int) or not isinstance(clock, int) or not width * clock:  # a recording can hold anything
        return None
    whole = width * clock * 1_000_000 * 2 // 8
    parent = card.get("parent")
    if parent and not parent.get("memory"):
        return None  # a container may not ask the whole card: its share is not known here
    if parent and card.get("memory"):
        part, all_of_it = int(card["memory"]["total"]), int(parent["memory"]["total"])
        return whole * min(part, all_of_it) // max(all_of_it, 1)
    return whole


def _extra(card: Card) -> dict[str, Any]:
    """What is worth keeping besides, without what is not known."""
    memory = card.get("memory") or {}
    keys = ("uuid", "bus_width_bits", "memory_clock_mhz", "pcie_generation", "pcie_width", "n_cores", "core_clock_mhz")
    extra = {key: card.get(key) for key in keys} | {
        "reserved_bytes": memory.get("reserved"),
        "virtual": True if card.get("virtualization") == _VGPU else None,
        "slice_of": card["parent"]["name"] if "parent" in card else None,
        "numa_node": card.get("numa_node") if card.get("memory") and card.get("addressing") == _ATS else None,
        "processes": list(card.get("processes") or ()) or None,
    }
    return {key: value for key, value in extra.items() if value is not None}


def _jetson(files: Mapping[str, str]) -> list[Device]:
    """A Jetson without NVML: the device tree names the chip."""
    compatible, memory = files.get("/proc/device-tree/compatible", ""), host_memory(files.get("/proc/meminfo", ""))
    chip = next((chip for chip in _TEGRA if chip in compatible), None)
    if chip is None or memory is None:
        return []
    name, capability = _TEGRA[chip]
    return [
        Device(
            kind="igpu",
            backend="cuda",
            name=files.get("/proc/device-tree/model") or name,
            total_bytes=memory["total"],
            free_bytes=memory["free"],
            compute_capability=capability,
            unified=True,
        )
    ]
