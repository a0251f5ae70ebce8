"""From sysctl and Metal to a device. Pure."""

from collections.abc import Mapping
from typing import Any

from fitplug.errors import FitplugError
from fitplug.machine.catalogue import find
from fitplug.machine.records import Device
from fitplug.units import GIB, MIB, format_bytes


def parse(raw: Mapping[str, Any]) -> list[Device]:
    """Metal's device: total is the working set that it recommends, free what this process has not taken of it.

    Source: ggml/src/ggml-metal/ggml-metal-device.m, ggml_metal_device_get_memory. To llama.cpp it is a GPU, not an
    integrated one (ggml-metal.cpp, ggml_backend_metal_device_get_type).
    """
    memory = _memory(raw)
    if not memory:
        return []
    total, basis = _working_set(raw, memory)
    taken = (raw.get("metal") or {}).get("currentAllocatedSize", 0)
    chip = raw.get("chip") or "Apple GPU"
    return [
        Device(
            backend="metal", name=chip, total_bytes=total, free_bytes=max(0, total - taken), unified=True,
            memory_bandwidth=_bandwidth(chip, memory), extra={"memory_bytes": memory, "working_set": basis},
        )
    ]  # fmt: skip


def notes(raw: Mapping[str, Any]) -> list[str]:
    """How much of the memory the GPU may use, and by whose word."""
    memory = _memory(raw)
    if not memory:
        return []
    total, basis = _working_set(raw, memory)
    line = f"the GPU may use {format_bytes(total)} of {format_bytes(memory)} ({basis})"
    return [f"{line}; `sudo sysctl iogpu.wired_limit_mb=…` changes it"]


def _memory(raw: Mapping[str, Any]) -> int:
    return int((raw.get("sysctl") or {}).get("hw.memsize", 0))


def _working_set(raw: Mapping[str, Any], memory: int) -> tuple[int, str]:
    """Metal's word; the limit that was set, which Metal would repeat; or the cautious share, which depends on macOS."""
    recommended = (raw.get("metal") or {}).get("recommendedMaxWorkingSetSize", 0)
    if recommended:
        return min(recommended, memory), "Metal's recommendation"
    limit = (raw.get("sysctl") or {}).get("iogpu.wired_limit_mb", 0)
    if isinstance(limit, int) and limit > 0:  # a recording can hold anything
        return min(limit * MIB, memory), "iogpu.wired_limit_mb"
    share = memory * 2 // 3 if memory <= 36 * GIB else memory * 3 // 4
    return share, "the share of macOS up to 15; Metal did not answer"


def _bandwidth(chip: str, memory: int) -> int | None:
    """The catalogue's; chips that come with two sizes of GPU are told apart by the memory that they come with."""
    try:
        return find(f"{chip} {round(memory / GIB)}GB").bandwidth
    except FitplugError:
        return None
