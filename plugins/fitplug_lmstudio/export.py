"""A plan as LM Studio's files: per-model settings, a preset, a request."""

import json
import re
from typing import Any

from fitplug.extension import Export, ExportRequest, File
from fitplug.pinned import pin
from fitplug.planner.records import Plan
from fitplug.settings import Settings
from fitplug_lmstudio import CANNOT_EXPRESS
from fitplug_lmstudio.fields import Field, context_length, load_fields, offload_ratio
from fitplug_lmstudio.home import CONFIGS
from fitplug_lmstudio.models import identifier_of, import_command, other_names


def render_settings(plan: Plan, request: ExportRequest) -> Export:
    """The file of load settings that LM Studio reads whenever it loads the model.

    Options: `key` (what LM Studio calls the model, if not by its file), `exact=1` (say the layers as the engine's own
    argument, which engines of 2026-09 and later take).
    """
    identifier = identifier_of(request)
    commands: list[tuple[str, ...]] = []
    if identifier is None:
        words, identifier = import_command(request.model_path)
        commands.append(words)
    fields = load_fields(plan, exact=request.options.get("exact", "") in ("1", "true", "yes"))
    body = {"preset": "", "operation": {"fields": []}, "load": {"fields": as_json(fields)}}
    file = File(path=f"{CONFIGS}/{identifier}.json", text=json.dumps(body, indent=2) + "\n")
    commands.append(load_command(plan, identifier))
    return Export(files=(file,), commands=commands, cannot_express=lost(plan), notes=_notes(plan, identifier))


def render_preset(plan: Plan, request: ExportRequest) -> Export:
    """A preset with the same load fields."""
    name = request.options.get("name") or f"fitplug {plan.model.name or plan.model.architecture}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "fitplug"
    body = {
        "identifier": f"@local:{slug}", "name": name, "changed": False, "operation": {"fields": []},
        "load": {"fields": as_json(load_fields(plan))},
    }  # fmt: skip
    note = "LM Studio takes a preset's load fields only where Settings > Developer > model load configuration in presets is on."
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    return Export(files=(File(path=f"config-presets/{slug}.preset.json", text=text),), cannot_express=lost(plan), notes=(note,))


def render_rest(plan: Plan, request: ExportRequest) -> Export:
    """The request, and the command that sends it; layers, cache types and experts come from the per-model settings.

    What the endpoint does not take it answers with unrecognized_keys.
    """
    settings = pin(plan.estimate, plan.machine)
    identifier = identifier_of(request) or import_command(request.model_path)[1]
    body = {
        "model": identifier,
        "context_length": context_length(plan),
        "eval_batch_size": settings.n_batch,
        "flash_attention": settings.flash_attn == "on",
        "offload_kv_cache_to_gpu": settings.offload_kqv,
        "parallel": settings.n_seq_max,
        "echo_load_config": True,
    }
    send = (
        "curl",
        "-s",
        "http://127.0.0.1:1234/api/v1/models/load",
        "-H",
        "Content-Type: application/json",
        "-d",
        "@load.json",
    )
    plain = Settings()
    names = [name for name in ("n_gpu_layers", "type_k", "type_v", "n_cpu_moe", "n_ubatch", "tensor_split", "kv_unified")
             if getattr(settings, name) != getattr(plain, name)]  # fmt: skip
    return Export(
        files=(File(path="load.json", text=json.dumps(body, indent=2) + "\n"),),
        commands=(send,),
        cannot_express=(*names, *lost(plan)),
        notes=("The rest of the plan is taken from the model's own settings: install them with the exporter 'lmstudio'.",),
    )


def as_json(fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    """The `fields` of a KVConfig."""
    return [{"key": field.key, "value": field.value} for field in fields]


def load_command(plan: Plan, identifier: str) -> tuple[str, ...]:
    """`lms load`; what it has no option for comes from the file."""
    settings = pin(plan.estimate, plan.machine)
    ratio = offload_ratio(settings.n_gpu_layers, plan.model.n_layer_all) if plan.machine.devices else 0
    words: dict[float, str] = {1: "max", 0: "off"}
    return ("lms", "load", identifier, "--gpu", words.get(ratio) or repr(ratio), "--context-length", str(context_length(plan)),
            "--parallel", str(settings.n_seq_max), "-y")  # fmt: skip


def lost(plan: Plan) -> tuple[str, ...]:
    """Settings of the plan that no field says."""
    asked, plain = plan.estimate.settings, Settings()
    return tuple(name for name in CANNOT_EXPRESS if getattr(asked, name) != getattr(plain, name))


def _notes(plan: Plan, identifier: str) -> tuple[str, ...]:
    notes = []
    settings = pin(plan.estimate, plan.machine)
    if 0 < settings.n_gpu_layers <= plan.model.n_layer_all:
        notes.append(
            "Older engines may offload one layer less than planned; with --option exact=1 newer ones take the count itself."
        )
    names = other_names(identifier)
    if names:
        notes.append(
            f"The same file is also known as {', '.join(names)}: loaded under that name, --option key={names[0]} counts."
        )
    notes.append("Guardrails (Settings > Hardware) may still refuse to load it: LM Studio has an estimate of its own.")
    return tuple(notes)
