"""A virtual model: several load profiles of one file without another copy of it (model.yaml, manifest.json)."""

import json
import re
from typing import Any

from fitplug.errors import RefusedError
from fitplug.extension import Export, ExportRequest, File
from fitplug.planner.records import Plan
from fitplug.units import format_tokens
from fitplug_lmstudio.export import as_json, lost
from fitplug_lmstudio.fields import load_fields
from fitplug_lmstudio.models import identifier_of

_NAME = re.compile(r"[a-z0-9-]+/[a-z0-9.-]+")


def render_model_yaml(plan: Plan, request: ExportRequest) -> Export:
    """`hub/models/OWNER/NAME/` with both files.

    Options: `name` (OWNER/NAME, kebab-case), `key` (what LM Studio calls the model that it stands on).

    Raises:
        RefusedError: the model is not in LM Studio's folder, or the name cannot be one.
    """
    identifier = identifier_of(request)
    if identifier is None:
        raise RefusedError("a virtual model stands on one that LM Studio has: `lms import` the file first")
    publisher, repository, *_ = identifier.split("/")
    name = request.options.get("name") or f"local/{kebab(repository)}-{format_tokens(plan.estimate.resolved.n_ctx)}"
    if not _NAME.fullmatch(name):
        raise RefusedError(f"'{name}' is no name of a virtual model: OWNER/NAME in small letters, digits and dashes")
    base = [{"key": identifier, "sources": [{"type": "huggingface", "user": publisher, "repo": repository}]}]
    definition = {
        "model": name, "base": base, "metadataOverrides": _metadata(plan),
        "config": {"load": {"fields": as_json(load_fields(plan))}},
    }  # fmt: skip
    owner, _, short = name.partition("/")
    depends = {"type": "model", "modelKeys": [identifier], "sources": base[0]["sources"], "purpose": "baseModel"}
    manifest = {"type": "model", "owner": owner, "name": short, "dependencies": [depends]}
    folder = f"hub/models/{name}"
    return Export(
        files=(File(path=f"{folder}/model.yaml", text=to_yaml(definition)),
               File(path=f"{folder}/manifest.json", text=json.dumps(manifest, indent=2) + "\n")),
        commands=(("lms", "load", name, "-y"),),
        cannot_express=lost(plan),
        notes=("Both files belong below LM Studio's folder; it lists the model after a new scan.",),
    )  # fmt: skip


def _metadata(plan: Plan) -> dict[str, Any]:
    """Without these the model never appears; they only describe it."""
    return {
        "domain": "llm" if plan.model.causal else "embedding",
        "architectures": [plan.model.architecture],
        "compatibilityTypes": ["gguf"],
        "paramsStrings": [f"{plan.model.n_params / 1e9:.3g}B"],
        "minMemoryUsageBytes": sum(part.n_bytes for part in plan.estimate.parts),
        "contextLengths": [plan.model.n_ctx_train],
    }


def kebab(text: str) -> str:
    """Small letters, digits, dots and single dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def to_yaml(value: Any, indent: int = 0) -> str:
    """Block style for objects and lists, JSON for everything else: every YAML reader takes that as JSON does."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{key}:{_after(item, indent)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}-{_after(item, indent)}" for item in value)
    return f"{pad}{_scalar(value)}\n"


def _scalar(value: Any) -> str:
    """JSON in ASCII, but for what lies beyond 16 bits: YAML has one longer escape for it where JSON has two."""
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + "".join(f"\\U{ord(char):08X}" if ord(char) > 0xFFFF else json.dumps(char)[1:-1] for char in value) + '"'


def _after(value: Any, indent: int) -> str:
    if isinstance(value, (dict, list)) and value:
        return "\n" + to_yaml(value, indent + 1)
    return f" {_scalar(value)}\n"
