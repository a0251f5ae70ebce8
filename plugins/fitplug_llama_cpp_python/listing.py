"""Runs alone: `python -m fitplug_llama_cpp_python.listing` prints the devices of the installed package's library as JSON.

In a process of its own because asking opens the cards.
"""

import ctypes
import json
from typing import Any

from fitplug_llama_cpp_python.lowlevel import all_devices, function, load_backends

_KINDS = {1: "gpu", 2: "igpu", 3: "accel"}
"""ggml_backend_dev_type; 0 is the CPU."""


class _Props(ctypes.Structure):
    """ggml_backend_dev_props (ggml/include/ggml-backend.h); its capabilities behind it only need their place."""

    _fields_ = [("name", ctypes.c_char_p), ("description", ctypes.c_char_p), ("free", ctypes.c_size_t),
                ("total", ctypes.c_size_t), ("kind", ctypes.c_int), ("device_id", ctypes.c_char_p),
                ("caps", ctypes.c_uint8 * 64)]  # fmt: skip


def main() -> int:
    """One JSON line."""
    load_backends()
    ask = function("ggml_backend_dev_get_props", None, ctypes.c_void_p, ctypes.POINTER(_Props))
    found: list[dict[str, Any]] = []
    for device in all_devices():
        props = _Props()
        ask(device, ctypes.byref(props))
        if props.kind in _KINDS:
            found.append(
                {"name": _text(props.name), "description": _text(props.description), "kind": _KINDS[props.kind],
                 "total_bytes": props.total, "free_bytes": props.free, "pci_id": _text(props.device_id) or None}
            )  # fmt: skip
    print(json.dumps({"devices": found}))
    return 0


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


if __name__ == "__main__":
    raise SystemExit(main())
