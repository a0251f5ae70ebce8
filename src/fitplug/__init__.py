"""fitplug: which settings of a local language model fit this machine, to the byte.

    import fitplug

    model = fitplug.open_model("model.gguf")
    machine = fitplug.imagine_machine("RTX 4090")
    plan = fitplug.fit(model, machine, n_ctx=32768)

What stands here is imported when it is used: `import fitplug` itself costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitplug.api import detect_machine, estimate, export, fit, fits, imagine_machine, open_model, read_header, read_machine
    from fitplug.errors import FitplugError
    from fitplug.formats.header import Header
    from fitplug.hookspecs import hookimpl
    from fitplug.loading import load
    from fitplug.machine.records import Device, Host, Machine
    from fitplug.memory.records import Estimate, Part
    from fitplug.model.records import Model
    from fitplug.planner.records import Plan
    from fitplug.registry import Registry
    from fitplug.registry import load as load_registry
    from fitplug.settings import Settings, TensorOverride

__all__ = [
    "Device", "Estimate", "FitplugError", "Header", "Host", "Machine", "Model", "Part", "Plan", "Registry", "Settings",
    "TensorOverride", "detect_machine", "estimate", "export", "fit", "fits", "hookimpl", "imagine_machine", "load",
    "load_registry", "open_model", "read_header", "read_machine",
]  # fmt: skip

_HOMES = {
    "fitplug.api": (
        "detect_machine", "estimate", "export", "fit", "fits", "imagine_machine", "open_model", "read_header", "read_machine",
    ),
    "fitplug.errors": ("FitplugError",),
    "fitplug.formats.header": ("Header",),
    "fitplug.hookspecs": ("hookimpl",),
    "fitplug.loading": ("load",),
    "fitplug.machine.records": ("Device", "Host", "Machine"),
    "fitplug.memory.records": ("Estimate", "Part"),
    "fitplug.model.records": ("Model",),
    "fitplug.planner.records": ("Plan",),
    "fitplug.registry": ("Registry", "load_registry"),
    "fitplug.settings": ("Settings", "TensorOverride"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), {"load_registry": "load"}.get(name, name))
            globals()[name] = value
            return value
    raise AttributeError(f"module 'fitplug' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
