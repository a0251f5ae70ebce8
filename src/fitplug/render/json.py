"""The JSON that scripts rely on, key by key as the contract has it; more keys may stand beside those."""

import json
from typing import Any

from fitplug.machine.records import Machine
from fitplug.memory.kept import Kept
from fitplug.memory.records import HOST, Estimate, Kind
from fitplug.model.records import Model
from fitplug.planner.records import Alternative, Plan, Range, Speed
from fitplug.render.numbers import DeviceRow, device_rows, n_layers_on_gpu

SCHEMA = 1


def dump(value: dict[str, Any]) -> str:
    """One JSON object with its schema."""
    return json.dumps({"schema": SCHEMA} | value)


def model_json(model: Model) -> dict[str, Any]:
    """What is being planned for."""
    return {
        "architecture": model.architecture,
        "name": model.name,
        "n_layer": model.n_layer,
        "n_params": model.n_params,
        "n_bytes": model.n_bytes,
        "file_type": model.file_type,
        "n_ctx_train": model.n_ctx_train,
        "known": model.known,
        "assumptions": list(model.assumptions),
    }


def settings_json(estimate: Estimate, machine: Machine, model: Model) -> dict[str, Any]:
    """The settings as llama.cpp resolves them."""
    asked, resolved = estimate.settings, estimate.resolved
    return {
        "n_ctx": resolved.n_ctx,
        "n_batch": resolved.n_batch,
        "n_ubatch": resolved.n_ubatch,
        "n_seq_max": resolved.n_seq_max,
        "n_gpu_layers": n_layers_on_gpu(estimate, machine, model),
        "type_k": resolved.type_k,
        "type_v": resolved.type_v,
        "flash_attn": resolved.flash_attn,
        "n_ctx_seq": resolved.n_ctx_seq,
        "kv_unified": asked.kv_unified,
        "swa_full": asked.swa_full,
        "offload_kqv": asked.offload_kqv,
        "op_offload": asked.op_offload,
        "split_mode": asked.split_mode,
        "main_gpu": asked.main_gpu,
        "tensor_split": list(asked.tensor_split),
        "n_cpu_moe": asked.n_cpu_moe,
        "n_cpu_ffn": asked.n_cpu_ffn,
        "override_tensor": [f"{override.pattern}={override.buffer}" for override in asked.overrides],
        "device": None if asked.devices is None else list(asked.devices),
        "mmproj": asked.mmproj,
        "model_draft": asked.model_draft,
        "spec_type": asked.spec_type,
        "draft_max": asked.draft_max,
        "draft_type_k": asked.draft_type_k,
        "draft_type_v": asked.draft_type_v,
        "draft_n_gpu_layers": asked.draft_n_gpu_layers,
        "draft_device": None if asked.draft_devices is None else list(asked.draft_devices),
        "draft_n_cpu_moe": asked.draft_n_cpu_moe,
        "draft_override_tensor": [f"{override.pattern}={override.buffer}" for override in asked.draft_overrides],
        "lora": list(asked.lora),
        "lora_scaled": [f"{adapter.name}:{adapter.scale:g}" for adapter in asked.lora_scaled],
        "embedding": asked.embedding,
        "pooling": resolved.pooling,
    }


def memory_json(estimate: Estimate, machine: Machine) -> list[dict[str, Any]]:
    """One row for each device, and the host's."""
    return [_row_json(row) for row in device_rows(estimate, machine)]


def _row_json(row: DeviceRow) -> dict[str, Any]:
    shown: dict[str, Any] = {"device": row.device, "kind": row.kind}
    if row.device != HOST:
        shown |= {"name": row.name, "total_bytes": row.total_bytes, "free_bytes": row.free_bytes}
    return shown | {f"{kind}_bytes": row.n_bytes(kind) for kind in Kind}


def estimate_json(estimate: Estimate, machine: Machine, model: Model, *, fits: bool) -> dict[str, Any]:
    """The answer of `explain`."""
    return {
        "fits": fits,
        "model": model_json(model),
        "settings": settings_json(estimate, machine, model),
        "memory": memory_json(estimate, machine),
        "host": {"total_bytes": machine.host.total_bytes, "available_bytes": machine.host.available_bytes},
        "basis": str(estimate.basis()),
        "parts": [
            {"device": part.device, "kind": str(part.kind), "n_bytes": part.n_bytes, "basis": str(part.basis),
             "source": part.source, "buffer": part.buffer or part.device}
            for part in estimate.parts
        ],
        "notes": [*estimate.notes, *machine.notes],
    }  # fmt: skip


def kept_json(found: Kept) -> dict[str, Any]:
    """From nothing to the most that a server keeps in the host's memory as requests come; null: no limit."""
    return {"prompts_bytes": [0, found.prompts], "checkpoints_bytes": [0, found.checkpoints]}


def speed_json(speed: Speed | None) -> dict[str, Any] | None:
    """Tokens per second, from the lowest to the highest that one should expect."""
    if speed is None:
        return None
    return {
        "generation_tokens_per_s": _range(speed.generation),
        "prompt_tokens_per_s": _range(speed.prompt),
        "basis": speed.basis,
    }


def _range(value: Range | None) -> list[float] | None:
    return None if value is None else [round(value.low, 2), round(value.high, 2)]


def plan_json(plan: Plan, argv: list[str], alternatives: list[tuple[Alternative, list[str]]]) -> dict[str, Any]:
    """The answer of `auto`: each alternative with its own command."""
    return estimate_json(plan.estimate, plan.machine, plan.model, fits=plan.fits) | {
        "runner": plan.runner,
        "argv": argv,
        "speed": speed_json(plan.speed),
        "reasons": list(plan.reasons),
        "fixes": list(plan.fixes),
        "alternatives": [
            {
                "title": other.title,
                "cost": other.cost,
                "settings": settings_json(other.estimate, plan.machine, plan.model),
                "argv": other_argv,
                "memory": memory_json(other.estimate, plan.machine),
                "speed": speed_json(other.speed),
            }
            for other, other_argv in alternatives
        ],
    }
