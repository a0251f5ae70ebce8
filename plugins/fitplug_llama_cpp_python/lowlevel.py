"""llama.cpp's own count of its memory, through llama-cpp-python's library.

`llama_get_memory_breakdown` is C++ (src/llama-ext.h): it returns a std::map from buffer type to three sizes. On Linux the
library is built with libstdc++, whose map has been a red-black tree of this layout since GCC 3 (bits/stl_tree.h).
"""

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import llama_cpp

_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"
_MOST = 256
"""More buffer types than any machine has: a broken tree ends here."""


class _Map(ctypes.Structure):
    _fields_ = [("compare", ctypes.c_size_t), ("color", ctypes.c_size_t), ("root", ctypes.c_void_p),
                ("first", ctypes.c_void_p), ("last", ctypes.c_void_p), ("count", ctypes.c_size_t)]  # fmt: skip


class _Node(ctypes.Structure):
    _fields_ = [("color", ctypes.c_size_t), ("parent", ctypes.c_void_p), ("left", ctypes.c_void_p),
                ("right", ctypes.c_void_p), ("key", ctypes.c_void_p), ("model", ctypes.c_size_t),
                ("context", ctypes.c_size_t), ("compute", ctypes.c_size_t)]  # fmt: skip


def breakdown(context: int) -> dict[str, dict[str, int]]:
    """Buffer type → model, context and compute bytes of a `llama_context`."""
    found = function(_SYMBOL, _Map, ctypes.c_void_p)(context)
    if found.count > _MOST:
        raise RuntimeError("llama.cpp's memory breakdown does not look as expected")
    name = function("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)
    rows: dict[str, dict[str, int]] = {}
    for node in _walk(found.root, found.count):
        row = rows.setdefault(name(node.key).decode(), {"model": 0, "context": 0, "compute": 0})
        for kind in row:
            row[kind] += getattr(node, kind)
    return {buffer: row for buffer, row in rows.items() if any(row.values())}


def _walk(root: int | None, count: int) -> Iterator[_Node]:
    stack = [root] if root else []
    while stack and count >= 0:
        node = ctypes.cast(stack.pop(), ctypes.POINTER(_Node)).contents
        count -= 1
        yield node
        stack += [child for child in (node.left, node.right) if child]


def load_backends() -> None:
    """Backends that are libraries of their own lie beside libllama; nothing to do where they are built in."""
    if not all_devices():
        folder = os.path.dirname(str(llama_cpp.llama_cpp._lib._name))  # noqa: PTH120, SLF001 - a folder's name; as below
        function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)(folder.encode())


def buffer_type(name: str) -> int:
    """The default buffer type of that name, as -ot takes it (common/arg.cpp, parse_tensor_buffer_overrides)."""
    buft = function("ggml_backend_dev_buffer_type", ctypes.c_void_p, ctypes.c_void_p)
    buft_name = function("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)
    for device in all_devices():
        if buft_name(buft(device)).decode() == name:
            return int(buft(device))
    raise ValueError(f"there is no buffer type {name}")


def device(name: str) -> int:
    """The device of that name, as -dev takes it."""
    device_name = function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    for found in all_devices():
        if device_name(found).decode() == name:
            return found
    raise ValueError(f"there is no device {name}")


def all_devices() -> list[int]:
    """Every ggml_backend_dev_t, the CPU's too."""
    count = function("ggml_backend_dev_count", ctypes.c_size_t)
    get = function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return [int(get(i)) for i in range(count())]


def function(name: str, restype: Any, *argtypes: Any) -> Any:
    """Of libllama, or of the libggml that it is linked to (the package may have loaded another one besides)."""
    function = llama_cpp.llama_cpp._lib[name]  # noqa: SLF001 - the package has no public name for its library
    function.restype, function.argtypes = restype, list(argtypes)
    return function
