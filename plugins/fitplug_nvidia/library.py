"""Whether there is an NVML at all: most machines have none, and importing its bindings costs more than all the rest."""

import os
import sys
from collections.abc import Iterator
from typing import Any

from fitplug.errors import NotFoundError
from fitplug.sysfs import read_tree

_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/local/lib",
    "/usr/lib/wsl/lib",  # Windows hands its driver to WSL here; not every distribution's linker looks there
    "/usr/local/nvidia/lib64",  # containers of older toolkits and of GKE
    "/run/opengl-driver/lib",  # NixOS
)
_ENV = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def collect() -> dict[str, Any] | None:
    """What NVML says; None where no NVIDIA driver is."""
    if sys.platform == "darwin":
        return None
    if not any(load(path) for path in _candidates()):
        return _without_library()
    from fitplug_nvidia.nvml import ask_nvml

    raw = ask_nvml()
    return raw and {**raw, "env": {name: os.environ[name] for name in _ENV if name in os.environ}}


def _candidates() -> Iterator[str]:
    if sys.platform == "win32":
        yield os.path.join(os.environ.get("WINDIR", "C:/Windows"), "System32/nvml.dll")  # noqa: PTH118 - no pathlib on the start path
        return
    for folder in (*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *_FOLDERS):
        if folder:
            yield f"{folder}/libnvidia-ml.so.1"


def load(path: str) -> bool:
    """Load that library, so that the bindings' own search by its plain name finds it loaded."""
    if not os.path.exists(path):  # noqa: PTH110 - no pathlib on the start path
        return False
    import ctypes

    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError:  # built for another processor, or not a library
        return False
    return True


def _without_library() -> dict[str, Any] | None:
    """A Jetson of older systems has no NVML at all; a driver without its library is worth a word."""
    files = read_tree(("/proc/device-tree/compatible", "/proc/device-tree/model", "/proc/driver/nvidia/version"))
    if "nvidia,tegra" in files.get("/proc/device-tree/compatible", ""):
        return {"cards": [], "files": files | read_tree(("/proc/meminfo",))}
    if "/proc/driver/nvidia/version" in files:
        raise NotFoundError(
            "the NVIDIA driver is loaded, but libnvidia-ml.so.1 is not here; "
            "a container gets it with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )
    events = read_tree(("/sys/class/drm/card*/device/uevent",))
    if any("PCI_ID=10DE:" in text and "DRIVER=nvidia" not in text for text in events.values()):
        raise NotFoundError("an NVIDIA card is here, but not NVIDIA's driver: CUDA cannot use it")
    return None
