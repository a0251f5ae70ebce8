"""The calls to the Vulkan library. Structures and their numbers: vulkan_core.h."""

import ctypes
import itertools
from typing import Any

_VK_1_1 = 1 << 22 | 1 << 12
_APPLICATION_INFO, _INSTANCE_CREATE_INFO = 0, 1
_PROPERTIES_2, _MEMORY_PROPERTIES_2 = 1000059001, 1000059006
_BUDGET, _PCI = 1000237000, 1000212000
_MAINTENANCE_3, _MAINTENANCE_4 = 1000168000, 1000413001
_MAX_DEVICES, _MAX_EXTENSIONS, _N_HEAPS = 32, 1024, 16
_u32, _u64, _pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p


class _Application(ctypes.Structure):
    _fields_ = (
        ("type", _u32), ("next", _pointer), ("name", ctypes.c_char_p), ("version", _u32), ("engine", ctypes.c_char_p),
        ("engine_version", _u32), ("api", _u32),
    )  # fmt: skip


class _InstanceCreate(ctypes.Structure):
    _fields_ = (
        ("type", _u32), ("next", _pointer), ("flags", _u32), ("application", ctypes.POINTER(_Application)),
        ("n_layers", _u32), ("layers", _pointer), ("n_extensions", _u32), ("extensions", _pointer),
    )  # fmt: skip


class _Limits(ctypes.Structure):
    """VkPhysicalDeviceLimits, of which three are read."""

    _fields_ = (
        ("before", _u32 * 7), ("storage_range", _u32), ("between", ctypes.c_uint8 * 272), ("map_alignment", _u64),
        ("texel_and_uniform", _u64 * 2), ("storage_alignment", _u64), ("rest", ctypes.c_uint8 * 1720),
    )  # fmt: skip


class _Properties2(ctypes.Structure):
    """VkPhysicalDeviceProperties2, with more place behind it than any version needs."""

    _fields_ = (
        ("type", _u32), ("next", _pointer), ("api", _u32), ("driver", _u32), ("vendor", _u32), ("device", _u32),
        ("kind", _u32), ("name", ctypes.c_char * 256), ("uuid", ctypes.c_uint8 * 16), ("limits", _Limits),
    )  # fmt: skip


class _Maintenance3(ctypes.Structure):
    _fields_ = (("type", _u32), ("next", _pointer), ("descriptors", _u32), ("allocation", _u64))


class _Maintenance4(ctypes.Structure):
    _fields_ = (("type", _u32), ("next", _pointer), ("buffer", _u64))


class _Pci(ctypes.Structure):
    _fields_ = (("type", _u32), ("next", _pointer), ("domain", _u32), ("bus", _u32), ("device", _u32), ("function", _u32))


class _Heap(ctypes.Structure):
    _fields_ = (("size", _u64), ("flags", _u32))


class _Memory2(ctypes.Structure):
    _fields_ = (
        ("type", _u32), ("next", _pointer), ("n_types", _u32), ("types", _u32 * 64), ("n_heaps", _u32),
        ("heaps", _Heap * _N_HEAPS),
    )  # fmt: skip


class _Budget(ctypes.Structure):
    _fields_ = (("type", _u32), ("next", _pointer), ("budget", _u64 * _N_HEAPS), ("usage", _u64 * _N_HEAPS))


class _Extension(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 256), ("version", _u32))


def physical_devices(library: ctypes.CDLL) -> list[dict[str, Any]]:
    """Name, kind, identity and memory heaps of each physical device; none where no instance can be made."""
    application = _Application(type=_APPLICATION_INFO, name=b"fitplug", api=_VK_1_1)
    create = _InstanceCreate(type=_INSTANCE_CREATE_INFO, application=ctypes.pointer(application))
    instance = _pointer()
    if library.vkCreateInstance(ctypes.byref(create), None, ctypes.byref(instance)) != 0:
        return []
    try:
        count = _u32(_MAX_DEVICES)
        handles = (_pointer * _MAX_DEVICES)()
        status = library.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        return [_describe(library, _pointer(handle)) for handle in handles[: count.value]] if status in {0, 5} else []
    finally:
        library.vkDestroyInstance(instance, None)


def _describe(library: ctypes.CDLL, device: ctypes.c_void_p) -> dict[str, Any]:
    extensions = _extensions(library, device)
    pci, budget = _Pci(type=_PCI), _Budget(type=_BUDGET)
    has_pci, has_budget = b"VK_EXT_pci_bus_info" in extensions, b"VK_EXT_memory_budget" in extensions
    larger, largest = _Maintenance3(type=_MAINTENANCE_3), _Maintenance4(type=_MAINTENANCE_4)
    chained = [larger, *([largest] if b"VK_KHR_maintenance4" in extensions else []), *([pci] if has_pci else [])]
    properties = _Properties2(type=_PROPERTIES_2)
    for link, following in itertools.pairwise([properties, *chained]):
        link.next = ctypes.addressof(following)
    memory = _Memory2(type=_MEMORY_PROPERTIES_2, next=ctypes.addressof(budget) if has_budget else None)
    library.vkGetPhysicalDeviceProperties2(device, ctypes.byref(properties))
    library.vkGetPhysicalDeviceMemoryProperties2(device, ctypes.byref(memory))
    heaps = [
        {
            "size": heap.size,
            "flags": heap.flags,
            **({"budget": budget.budget[i], "usage": budget.usage[i]} if has_budget else {}),
        }
        for i, heap in enumerate(memory.heaps[: min(memory.n_heaps, _N_HEAPS)])
    ]
    return {
        "name": properties.name.decode("utf-8", "replace"),
        "kind": properties.kind,
        "vendor": properties.vendor,
        "device": properties.device,
        "pci_id": f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.{pci.function:x}" if has_pci else None,
        "heaps": heaps,
        "limits": {
            "storage_alignment": properties.limits.storage_alignment,
            "map_alignment": properties.limits.map_alignment,
            "storage_range": properties.limits.storage_range,
            "allocation": larger.allocation,
            "buffer": largest.buffer or larger.allocation,
        },
    }


def _extensions(library: ctypes.CDLL, device: ctypes.c_void_p) -> set[bytes]:
    count = _u32(_MAX_EXTENSIONS)
    found = (_Extension * _MAX_EXTENSIONS)()
    library.vkEnumerateDeviceExtensionProperties(device, None, ctypes.byref(count), found)
    return {extension.name for extension in found[: min(count.value, _MAX_EXTENSIONS)]}
