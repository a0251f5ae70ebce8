"""DXGI through ctypes: its objects are tables of functions, called by their places.

Layouts and places: dxgi.h and dxgi1_4.h of the Windows SDK (IDXGIFactory1, IDXGIAdapter1, IDXGIAdapter3,
DXGI_ADAPTER_DESC1, DXGI_QUERY_VIDEO_MEMORY_INFO). Strings are UTF-16 wherever this runs, so that a library with the same
interface can stand in for Windows's.
"""

import ctypes
import uuid
from typing import Any

_FACTORY1 = uuid.UUID("770aae78-f26f-4dba-a829-253c83d1b387")
_ADAPTER3 = uuid.UUID("645967a4-1392-4310-a798-8053ce3e93fd")
_QUERY_INTERFACE, _RELEASE, _GET_DESC1, _ENUM_ADAPTERS1, _QUERY_VIDEO_MEMORY_INFO = 0, 2, 10, 12, 14
_MAX_ADAPTERS = 32
_METHOD = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)


class _Desc1(ctypes.Structure):
    _fields_ = (
        ("description", ctypes.c_uint16 * 128), ("vendor", ctypes.c_uint), ("device", ctypes.c_uint),
        ("subsystem", ctypes.c_uint), ("revision", ctypes.c_uint), ("dedicated_video", ctypes.c_size_t),
        ("dedicated_system", ctypes.c_size_t), ("shared_system", ctypes.c_size_t), ("luid", ctypes.c_uint32 * 2),
        ("flags", ctypes.c_uint),
    )  # fmt: skip


class _MemoryInfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("budget", "usage", "available", "reserved"))


def adapters(library: str) -> list[dict[str, Any]]:
    """All adapters that the library's factory lists, with their memory; an empty list where it gives no factory."""
    create = ctypes.CDLL(library).CreateDXGIFactory1
    create.restype, create.argtypes = ctypes.c_long, [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]
    factory = ctypes.c_void_p()
    if create(_FACTORY1.bytes_le, ctypes.byref(factory)) != 0:
        return []
    found = []
    for index in range(_MAX_ADAPTERS):
        adapter = ctypes.c_void_p()
        types = (ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p))
        if _call(factory, _ENUM_ADAPTERS1, types, index, ctypes.byref(adapter)) != 0:
            break
        found.append(_adapter(adapter))
        _call(adapter, _RELEASE, ())
    _call(factory, _RELEASE, ())
    return found


def _adapter(adapter: ctypes.c_void_p) -> dict[str, Any]:
    desc = _Desc1()
    _call(adapter, _GET_DESC1, (ctypes.POINTER(_Desc1),), ctypes.byref(desc))
    name = bytes(desc.description).decode("utf-16-le", "replace").partition("\0")[0]
    keys = ("vendor", "device", "dedicated_video", "dedicated_system", "shared_system", "flags")
    return {"name": name, **{key: getattr(desc, key) for key in keys}, "budgets": _budgets(adapter)}


def _budgets(adapter: ctypes.c_void_p) -> list[dict[str, int]] | None:
    """What a process may use now, of the adapter's own memory and of the shared; Windows 10 and later."""
    newer = ctypes.c_void_p()
    identity = (ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p))
    if _call(adapter, _QUERY_INTERFACE, identity, _ADAPTER3.bytes_le, ctypes.byref(newer)) != 0:
        return None
    found = []
    for group in (0, 1):  # DXGI_MEMORY_SEGMENT_GROUP_LOCAL, _NON_LOCAL
        info = _MemoryInfo()
        types = (ctypes.c_uint, ctypes.c_int, ctypes.POINTER(_MemoryInfo))
        if _call(newer, _QUERY_VIDEO_MEMORY_INFO, types, 0, group, ctypes.byref(info)) == 0:
            found.append({"budget": info.budget, "usage": info.usage})
    _call(newer, _RELEASE, ())
    return found


def _call(target: ctypes.c_void_p, place: int, types: tuple[Any, ...], *arguments: Any) -> int:
    """Call the method at that place of the object's table."""
    table = ctypes.cast(target, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    method = _METHOD(ctypes.c_long, ctypes.c_void_p, *types)(table[place])
    return int(method(target, *arguments))
