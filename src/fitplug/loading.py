"""From a model's name to a loaded `llama_cpp.Llama`: plan, then load exactly what was planned."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from fitplug.api import GivenSettings, detect_machine, export, fit, open_model
from fitplug.errors import NotFoundError, RefusedError
from fitplug.machine.records import Machine
from fitplug.opening import local_path, split_reference
from fitplug.planner.records import Goal
from fitplug.registry import Registry
from fitplug.registry import load as load_registry
from fitplug.units import GIB

if TYPE_CHECKING:
    from llama_cpp import Llama

RUNNER = "llama-cpp-python"


def load(
    reference: str,
    *,
    machine: Machine | None = None,
    goal: Goal = "balanced",
    reserve_bytes: int = GIB,
    min_ctx: int | None = None,
    llama: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    **settings: Unpack[GivenSettings],
) -> "Llama":
    """Plan for llama-cpp-python on this machine, and load the model with the planned settings.

    Args:
        reference: a model that is on this disk: a path, "ollama:NAME", "lmstudio:PUBLISHER/REPO/FILE".
        machine: where it will run; this machine, as it is now.
        goal: what to prefer.
        reserve_bytes: left free on every GPU.
        min_ctx: the shortest context that may be chosen.
        llama: arguments of `Llama` that decide no memory: `chat_format`, `verbose`, `n_threads`, …
        registry: the plugins; the installed ones.
        settings: fields of `Settings` that are kept as they are given.

    Raises:
        NotFoundError: llama-cpp-python is not installed, or there is no such model.
        RefusedError: nothing fits, or the model must be downloaded first.
    """
    try:
        from llama_cpp import Llama
    except ImportError as error:
        raise NotFoundError(f"llama-cpp-python is not installed ({error}): pip install 'fitplug[llama-cpp]'") from error
    registry = registry or load_registry()
    if split_reference(local_path(reference, registry))[0] != "file":
        raise RefusedError(f"'{reference}' is not on this disk: download it first")
    plan = fit(
        open_model(reference, registry=registry), machine or detect_machine(registry=registry), runner=RUNNER, goal=goal,
        reserve_bytes=reserve_bytes, min_ctx=min_ctx, registry=registry, **settings,
    )  # fmt: skip
    if not plan.fits:
        raise RefusedError("; ".join(["nothing fits", *plan.fixes]))
    written = export(plan, RUNNER, reference, registry=registry)
    arguments = json.loads(next(file.text for file in written.files if file.path.endswith(".json")))
    clash = sorted(set(arguments) & set(llama or {}))
    if clash:
        raise RefusedError(f"{', '.join(clash)}: the plan decides this; give it as a setting of its own")
    return Llama(**arguments, **(llama or {}))
