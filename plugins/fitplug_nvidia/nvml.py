"""Everything that NVML is asked. Imported only where its library is."""

from typing import Any

import pynvml

from fitplug.errors import NotFoundError
from fitplug.sysfs import read_tree

_MAX_CARDS = 64
_MAX_PROCESSES = 64


def ask_nvml() -> dict[str, Any] | None:
    """All cards, in NVML's order, which is that of their PCI addresses."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in {pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_LIBRARY_NOT_FOUND}:
            return None  # the library came with some package; there is no card
        raise NotFoundError(_init_problem(error)) from error
    try:
        cards = [_card(index) for index in range(min(_ask("nvmlDeviceGetCount") or 0, _MAX_CARDS))]
        raw = {"driver": _ask("nvmlSystemGetDriverVersion"), "cards": cards}
    finally:
        _ask("nvmlShutdown")
    if any(card.get("memory_error") == pynvml.NVML_ERROR_NOT_SUPPORTED for card in cards):
        raw["files"] = read_tree(("/proc/meminfo",))
    return raw


def _init_problem(error: Any) -> str:
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the NVIDIA driver was updated under the running kernel; restart the machine"
    return f"the NVIDIA driver does not answer: {error}"


def _ask(function: str, *arguments: Any) -> Any:
    """The answer, or None where this driver, card or binding has none."""
    try:
        return getattr(pynvml, function)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def _card(index: int) -> dict[str, Any]:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        return {"index": index, "name": "", "problem": str(error)}
    pci = _ask("nvmlDeviceGetPciInfo", handle)
    card = {
        "index": index,
        "name": _ask("nvmlDeviceGetName", handle) or "",
        "uuid": _ask("nvmlDeviceGetUUID", handle),
        "pci_id": _text(pci.busId) if pci else None,
        "pci_device": pci.pciDeviceId if pci else None,
        "compute_capability": _ask("nvmlDeviceGetCudaComputeCapability", handle),
        "bus_width_bits": _ask("nvmlDeviceGetMemoryBusWidth", handle),
        "memory_clock_mhz": _ask("nvmlDeviceGetMaxClockInfo", handle, pynvml.NVML_CLOCK_MEM),
        "core_clock_mhz": _ask("nvmlDeviceGetMaxClockInfo", handle, pynvml.NVML_CLOCK_SM),
        "n_cores": _ask("nvmlDeviceGetNumGpuCores", handle),
        "pcie_generation": _ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
        "pcie_width": _ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
        "virtualization": _ask("nvmlDeviceGetVirtualizationMode", handle),
        "addressing": _ask("nvmlDeviceGetAddressingMode", handle),
        "numa_node": _ask("nvmlDeviceGetNumaNodeId", handle),
        "processes": _processes(handle),
        **_memory(handle),
    }
    if (_ask("nvmlDeviceGetMigMode", handle) or [0])[0]:
        card["mig"] = _slices(handle)
    return card


def _memory(handle: Any) -> dict[str, Any]:
    """Version 2 tells what the driver keeps for itself; version 1, of drivers before 510, counts it as used."""
    second = _ask("nvmlDeviceGetMemoryInfo", handle, pynvml.nvmlMemory_v2)
    if second is not None:
        return {"memory": {name: getattr(second, name) for name in ("total", "free", "used", "reserved")}}
    try:
        first = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:
        return {"memory": None, "memory_error": error.value, "problem": str(error)}
    return {"memory": {name: getattr(first, name) for name in ("total", "free", "used")}}


def _slices(parent: Any) -> list[dict[str, Any]]:
    found = []
    for index in range(min(_ask("nvmlDeviceGetMaxMigDeviceCount", parent) or 0, 16)):
        handle = _ask("nvmlDeviceGetMigDeviceHandleByIndex", parent, index)
        if handle is not None:
            name, uuid = _ask("nvmlDeviceGetName", handle), _ask("nvmlDeviceGetUUID", handle)
            instances = {
                "gpu_instance": _ask("nvmlDeviceGetGpuInstanceId", handle),
                "compute_instance": _ask("nvmlDeviceGetComputeInstanceId", handle),
            }
            found.append({"name": name or "", "uuid": uuid, **instances, **_memory(handle)})
    return found


def _processes(handle: Any) -> list[dict[str, Any]]:
    """Who uses the card. On Windows the driver does not know how much; in containers other processes stay unseen."""
    kinds = (("compute", "nvmlDeviceGetComputeRunningProcesses"), ("graphics", "nvmlDeviceGetGraphicsRunningProcesses"))
    found: dict[int, dict[str, Any]] = {}
    for kind, function in kinds:
        for process in (_ask(function, handle) or [])[:_MAX_PROCESSES]:
            found.setdefault(
                process.pid,
                {
                    "pid": process.pid,
                    "kind": kind,
                    "name": _text(_ask("nvmlSystemGetProcessName", process.pid)),
                    "used": process.usedGpuMemory,
                },
            )
    return list(found.values())


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
