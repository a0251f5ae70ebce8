"""Where LM Studio keeps things on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MOST = 64 << 20
"""The model index of a large collection has some megabytes."""
CONFIGS = "user-concrete-model-default-config"


def find_home() -> Path:
    """LM Studio's folder, as its own command finds it (lms, findLMStudioHome.ts); nothing is written.

    A pointer file in the user's folder wins; then the folder of old installations, where there is one.
    """
    user = Path.home()
    pointer = user / ".lmstudio-home-pointer"
    try:
        told = pointer.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        told = ""
    if told:
        return Path(told)
    old = user / ".cache" / "lm-studio"
    return old if old.is_dir() else user / ".lmstudio"


def settings_folders(home: Path) -> list[Path]:
    """Folders of per-model settings, one for each generation of the application that is there."""
    found = [home / ".internal"] if home.is_dir() else []
    if (home / "apps" / "bionic").is_dir():
        found.append(home / "apps" / "bionic" / ".internal")
    return found


def models_root(home: Path) -> Path:
    """The folder of models: the one that the settings name, else the usual one."""
    folder = read_json(home / "settings.json").get("downloadsFolder")
    return Path(folder) if isinstance(folder, str) and folder else home / "models"


def indexed_models(home: Path) -> Iterator[dict[str, Any]]:
    """What the application itself knows of its models (model-index-cache.json)."""
    for base in settings_folders(home):
        models = read_json(base / "model-index-cache.json").get("models")
        for model in models if isinstance(models, list) else ():
            if isinstance(model, dict) and isinstance(model.get("indexedModelIdentifier"), str):
                yield model


def read_json(path: Path) -> dict[str, Any]:
    """An object, or an empty one where there is no such file or it holds something else."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
