"""What macOS says of its chip: sysctl, and Metal through the Objective-C runtime."""

import ctypes
import platform
import sys
from typing import Any

_NUMBERS = ("hw.memsize", "iogpu.wired_limit_mb", "hw.perflevel0.physicalcpu")
_CHIP = "machdep.cpu.brand_string"


def collect() -> dict[str, Any] | None:
    """Sizes from sysctl, and Metal's own recommendation."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return None
    libc = ctypes.CDLL(None)
    numbers = {name: value for name in _NUMBERS if (value := _number(libc, name)) is not None}
    return {"chip": _text(libc, _CHIP), "sysctl": numbers, "metal": _metal(), "macos": platform.mac_ver()[0]}


def _number(libc: ctypes.CDLL, name: str) -> int | None:
    value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)  # 4-byte values fill the lower half
    failed = libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else value.value


def _text(libc: ctypes.CDLL, name: str) -> str:
    buffer, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    failed = libc.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else buffer.value.decode("utf-8", "replace")


def _metal() -> dict[str, int] | None:
    """What llama.cpp's Metal backend asks the default device (ggml-metal-device.m, ggml_metal_device_get_memory)."""
    try:
        metal = ctypes.CDLL("/System/Library/Frameworks/Metal.framework/Metal")
        objc = ctypes.CDLL("/usr/lib/libobjc.A.dylib")
    except OSError:
        return None
    metal.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
    objc.sel_registerName.restype, objc.sel_registerName.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    device = metal.MTLCreateSystemDefaultDevice()
    if not device:
        return None
    # objc_msgSend has the type of the method that it calls; on arm64 a variadic call would be another one
    send = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", objc))
    names = ("recommendedMaxWorkingSetSize", "currentAllocatedSize", "maxBufferLength")
    return {name: send(device, objc.sel_registerName(name.encode())) for name in names}
