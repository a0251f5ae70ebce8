"""Runs alone: `python -m fitplug_llama_cpp_python.measure` reads a request from standard input and prints bytes as JSON.

In a process of its own because llama.cpp ends the process where it does not like what it sees, and keeps its GPU contexts.
"""

import ctypes
import json
import sys
from typing import Any

import llama_cpp

from fitplug_llama_cpp_python.arguments import SPLIT_MODES, TYPES
from fitplug_llama_cpp_python.lowlevel import breakdown, buffer_type, device, load_backends

FFN_EXPS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""common/common.h, LLM_FFN_EXPS_REGEX: what -cmoe and -ncmoe move."""
FFN_DENSE = r"\.ffn_(up|down|gate)\."
"""LLM_FFN_DENSE_REGEX: what -ncffn moves."""
LAZY_MODES = {"off": 0, "auto": 1, "on": 2}
POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
"""include/llama.h, enum llama_lazy_mode and llama_pooling_type."""


class _Override(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("buffer", ctypes.c_void_p)]


def main() -> int:
    """One request, one answer; llama.cpp's own words go to standard error."""
    request = json.load(sys.stdin)
    keep: list[Any] = []
    load_backends()
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(request["model"].encode(), model_params(request["settings"], keep))
    if not model:
        return _fail("the model was not accepted")
    context = llama_cpp.llama_init_from_model(model, context_params(request["settings"]))
    if not context:
        return _fail("these settings were not accepted")
    print(json.dumps({"buffers": breakdown(context), "n_ctx": llama_cpp.llama_n_ctx(context)}))
    return 0


def model_params(settings: dict[str, Any], keep: list[Any]) -> Any:
    """What decides where weights go; `keep` holds what the structure only points at."""
    params = llama_cpp.llama_model_default_params()
    params.no_alloc = True
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE  # common/fit.cpp measures so: nothing is mapped or read
    n_layers = settings["n_gpu_layers"]
    params.n_gpu_layers = n_layers if n_layers >= 0 else 0x7FFFFFFF
    params.split_mode = SPLIT_MODES[settings["split_mode"]]
    params.main_gpu = settings["main_gpu"]
    if settings["tensor_split"]:
        shares = (ctypes.c_float * llama_cpp.LLAMA_MAX_DEVICES)(*settings["tensor_split"])
        keep.append(shares)
        params.tensor_split = shares
    if settings["devices"] is not None:
        pointers = [device(name) for name in settings["devices"]]
        params.devices = _pointer((ctypes.c_void_p * (len(pointers) + 1))(*pointers, None), keep)
    params.no_host, params.use_extra_bufts = settings["no_host"], settings["repack"]
    params.lazy_mode = LAZY_MODES[settings["lazy_mode"]]
    overrides = list(_overrides(settings))
    if overrides:
        params.tensor_buft_overrides = _pointer((_Override * (len(overrides) + 1))(*overrides), keep)
    return params


def _overrides(settings: dict[str, Any]) -> list[_Override]:
    n = settings["n_cpu_moe"]
    experts = [FFN_EXPS] if n < 0 else [rf"blk\.{i}{FFN_EXPS}" for i in range(n)]
    dense = [rf"blk\.{i}{FFN_DENSE}" for i in range(settings["n_cpu_ffn"])]
    pairs = [(pattern, "CPU") for pattern in (*experts, *dense)] + [tuple(pair) for pair in settings["overrides"]]
    return [_Override(pattern.encode(), buffer_type(buffer)) for pattern, buffer in pairs]


def _pointer(array: Any, keep: list[Any]) -> Any:
    keep.append(array)
    return ctypes.cast(array, ctypes.c_void_p)


def context_params(settings: dict[str, Any]) -> Any:
    """What decides caches and compute buffers, with llama.cpp's command-line defaults for the rest."""
    params = llama_cpp.llama_context_default_params()
    for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "kv_unified", "swa_full", "offload_kqv", "op_offload"):
        setattr(params, name, settings[name])
    params.embeddings = settings["embedding"]
    if settings["pooling"] is not None:
        params.pooling_type = POOLINGS[settings["pooling"]]
    params.n_outputs_max = settings.get("n_outputs_max", 0)
    params.type_k, params.type_v = TYPES[settings["type_k"]], TYPES[settings["type_v"]]
    params.flash_attn_type = {
        "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }[settings["flash_attn"]]
    return params


def _fail(what: str) -> int:
    print(f"fitplug: {what}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
