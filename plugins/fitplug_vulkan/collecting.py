"""What the Vulkan library says of its devices, through ctypes.

Layouts: vulkan_core.h of Vulkan 1.1 (VkPhysicalDeviceProperties, VkPhysicalDeviceMemoryProperties2) and the extensions
VK_EXT_memory_budget and VK_EXT_pci_bus_info.
"""

import os
import sys
from typing import Any

from fitplug.sysfs import read_tree

_NAMES = {"linux": ("libvulkan.so.1",), "win32": ("vulkan-1.dll",)}


def collect() -> dict[str, Any] | None:
    """All physical devices. Nothing is loaded on a Linux without a render node: there is no GPU then."""
    if sys.platform not in _NAMES:
        return None
    if sys.platform == "linux" and not _render_nodes():
        return None
    import ctypes

    from fitplug_vulkan.library import physical_devices

    for name in _NAMES[sys.platform]:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return {"devices": physical_devices(library), "files": read_tree(("/proc/meminfo",))}
    return None


def _render_nodes() -> bool:
    try:
        return any(name.startswith("renderD") for name in os.listdir("/dev/dri"))  # noqa: PTH208 - no pathlib on the start path
    except OSError:
        return os.path.exists("/dev/dxg")  # noqa: PTH110 - WSL has no render node but can have Vulkan
