"""LM Studio's official schema, as far as a fixture holds it, and plans for it."""

import json
import pathlib
from typing import Any

from fitplug.settings import Settings
from plugins_support import plan

SCHEMA = json.loads((pathlib.Path(__file__).parents[1] / "fixtures/runners/lmstudio_schema.json").read_text())
LAYERS = 32


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What a JSON schema has against a value; only words that the fixture uses."""
    known = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "minimum", "maximum",
             "exclusiveMinimum", "pattern", "maxLength", "default", "minLength"}  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "anyOf" in schema:
        found = [problems(value, each, where) for each in schema["anyOf"]]
        return [] if [] in found else found[0]
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    wanted = schema.get("type")
    if wanted and (not isinstance(value, types[wanted]) or (isinstance(value, bool) and wanted in ("integer", "number"))):
        return [f"{where}: no {wanted}"]
    wrong = [
        "enum" in schema and value not in schema["enum"],
        "const" in schema and value != schema["const"],
        "minimum" in schema and value < schema["minimum"],
        "maximum" in schema and value > schema["maximum"],
        "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"],
        "maxLength" in schema and len(value) > schema["maxLength"],
    ]
    found = [f"{where}: {value!r}"] if any(wrong) else []
    if isinstance(value, dict):
        found += [f"{where}: lacks {key}" for key in schema.get("required", ()) if key not in value]
        known_keys = schema.get("properties", {})
        for key, item in value.items():
            if key in known_keys:
                found += problems(item, known_keys[key], f"{where}.{key}")
            elif schema.get("additionalProperties") is False:
                found.append(f"{where}: {key} is unknown")
    if isinstance(value, list) and "items" in schema:
        found += [p for i, item in enumerate(value) for p in problems(item, schema["items"], f"{where}[{i}]")]
    return found


def check_fields(fields: list[dict[str, Any]]) -> None:
    assert problems({"fields": fields}, SCHEMA["config"]) == []
    keys = [field["key"] for field in fields]
    assert len(keys) == len(set(keys))
    for field in fields:
        assert field["key"] in SCHEMA["keys"], field["key"]
        assert problems(field["value"], SCHEMA["keys"][field["key"]]["schema"], field["key"]) == []


def settings_of(export: Any) -> dict[str, Any]:
    return json.loads(export.files[0].text)


def values(export: Any) -> dict[str, Any]:
    return {field["key"]: field["value"] for field in settings_of(export)["load"]["fields"]}


def made(settings: Settings, **more: Any) -> Any:
    return plan(settings, n_layer=LAYERS, runner="lmstudio", causal=True, n_params=8_030_261_312, **more)
