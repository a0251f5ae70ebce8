"""A plan as the keyword arguments of `llama_cpp.Llama`."""

import json
from typing import Any

from fitplug.errors import RefusedError
from fitplug.extension import Export, ExportRequest, File
from fitplug.pinned import pin
from fitplug.planner.records import Plan
from fitplug.settings import Settings
from fitplug_llama_cpp_python import CANNOT_EXPRESS

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
"""ggml/include/ggml.h, enum ggml_type: the class takes numbers, and has no constant for each."""
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
"""include/llama.h, enum llama_split_mode."""


def arguments(settings: Settings, model_path: str) -> dict[str, Any]:
    """Keyword arguments that leave nothing to defaults, since the class has other ones than llama.cpp's programs.

    Flash attention is off and the sliding-window cache full-sized unless it is told (llama_cpp/llama.py, Llama.__init__;
    src/llama-context.cpp, llama_context_default_params).
    """
    if len(settings.adapters) > 1:
        raise RefusedError("Llama(...) takes one adapter: lora_path")
    found: dict[str, Any] = {
        "model_path": model_path,
        "n_ctx": settings.n_ctx,
        "n_batch": settings.n_batch,
        "n_ubatch": settings.n_ubatch,
        "n_gpu_layers": settings.n_gpu_layers,
        "split_mode": SPLIT_MODES[settings.split_mode],
        "main_gpu": settings.main_gpu,
        "tensor_split": list(settings.tensor_split) or None,
        "type_k": TYPES[settings.type_k],
        "type_v": TYPES[settings.type_v],
        "flash_attn": settings.flash_attn == "on",
        "swa_full": settings.swa_full,
        "offload_kqv": settings.offload_kqv,
        "op_offload": settings.op_offload,
        "use_mmap": settings.use_mmap and not settings.adapters,
        "use_mlock": False,
        "embedding": False,
    }
    if settings.kv_overrides:
        found["kv_overrides"] = dict(reversed(settings.kv_overrides))  # of two the first one counts
    for name, scale in settings.adapters:
        found |= {"lora_path": name} | ({"lora_scale": scale} if scale != 1 else {})
    return found


def render(plan: Plan, request: ExportRequest) -> Export:
    """`llama_args.json` for a program to read, and the same as a Python call."""
    settings = pin(plan.estimate, plan.machine)
    found = arguments(settings, request.model_path)
    files = (
        File(path="llama_args.json", text=json.dumps(found, indent=2, ensure_ascii=False) + "\n"),
        File(path="load_model.py", text=python_source(found)),
    )
    plain = Settings()
    lost = tuple(name for name in CANNOT_EXPRESS if getattr(settings, name) != getattr(plain, name))
    return Export(files=files, cannot_express=lost, notes=_notes(plan, settings))


def python_source(found: dict[str, Any]) -> str:
    """The call, one argument a line."""
    names = {"type_k": {v: k for k, v in TYPES.items()}, "split_mode": {v: k for k, v in SPLIT_MODES.items()}}
    names["type_v"] = names["type_k"]
    lines = []
    for key, value in found.items():
        comment = f"  # {names[key][value]}" if key in names else ""
        lines.append(f"    {key}={value!r},{comment}\n")
    return f"from llama_cpp import Llama\n\nllm = Llama(\n{''.join(lines)})\n"


def _notes(plan: Plan, settings: Settings) -> tuple[str, ...]:
    rows = 4 * plan.model.n_vocab * settings.n_batch
    return (f"Llama keeps a copy of the logits in Python: {rows} bytes of the machine's own memory, beside the plan.",)
