"""Kinds of hardware that behave alike: which row of the speed table a device belongs to."""

import re

from fitplug.machine.records import Device

_CUDA = ((6.9, "cuda pascal"), (7.9, "cuda turing"), (8.59, "cuda hbm"), (8.8, "cuda ampere"), (8.99, "cuda ada"),
         (11.9, "cuda hbm"), (99.0, "cuda blackwell"))  # fmt: skip
"""Up to which compute capability: 8.0, 9.0 and 10.x are the cards with HBM."""
_APU = re.compile(r"gfx(90c|103[3-9]|1103|115\d)")
_RDNA = re.compile(r"gfx(10|11|12)\d\d")
_RDNA_NAMES = {"10": "rdna2", "11": "rdna3", "12": "rdna4"}


def backend_of(device: Device) -> str:
    """The backend that computes: behind an RPC server the server's own, where that is known."""
    return str(device.extra.get("served_by", "rpc")) if device.backend == "rpc" else device.backend


def kind_of(device: Device) -> str | None:
    """The row's name; None where nothing was ever measured on the like of it."""
    capability, backend = device.compute_capability or "", backend_of(device)
    if backend == "cuda":
        return _cuda(capability)
    if backend in ("metal", "cpu"):
        return backend
    if backend in ("rocm", "vulkan"):
        return _amd(backend, capability, device) or (_other(device) if backend == "vulkan" else None)
    return None


def _cuda(capability: str) -> str | None:
    try:
        number = float(capability)
    except ValueError:
        return None
    return next((name for limit, name in _CUDA if number <= limit), None)


def _amd(backend: str, capability: str, device: Device) -> str | None:
    rdna = _RDNA.fullmatch(capability)
    if _APU.fullmatch(capability) or (rdna and device.kind == "igpu"):
        return f"{backend} apu"
    if rdna is None:
        return None
    return f"rocm {_RDNA_NAMES[rdna[1]]}" if backend == "rocm" else "vulkan amd"


def _other(device: Device) -> str | None:
    """By name, since Vulkan knows no capability."""
    name = device.name.lower()
    for words, kind in (
        (("radeon 7", "radeon 8", "780m", "890m", "8060s"), "vulkan apu"),
        (("radeon", "amd"), "vulkan amd"),
        (("arc", "intel"), "vulkan intel"),
        (("apple",), "vulkan apple"),
        (("geforce", "nvidia", "rtx", "quadro", "tesla"), "vulkan nvidia"),
    ):
        if any(word in name for word in words):
            return kind
    return None
