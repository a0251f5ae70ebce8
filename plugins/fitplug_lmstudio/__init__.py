"""LM Studio: load settings where the application reads them, presets, model.yaml, and the models that it has."""

from collections.abc import Iterable

from fitplug.extension import Exporter, Later, Runner, Source
from fitplug.hookspecs import hookimpl
from fitplug.settings import DRAFT_SETTINGS, OWN_SETTINGS

CANNOT_EXPRESS = (
    "overrides", "devices", "swa_full", "op_offload", "mmproj", "mmproj_offload", "model_draft", *DRAFT_SETTINGS, "lora",
    "lora_scaled", "kv_overrides", "embedding", "pooling", *OWN_SETTINGS,
)  # fmt: skip
"""No load field says these; a projector beside the model is attached without asking."""


@hookimpl
def fitplug_runners() -> Iterable[Runner]:
    """Its engine is a llama-server, told everything by load fields."""
    yield Runner(
        name="lmstudio", help="LM Studio 0.4 or Bionic", cannot_express=CANNOT_EXPRESS, exporter="lmstudio",
    )  # fmt: skip


@hookimpl
def fitplug_exporters() -> Iterable[Exporter]:
    """The per-model settings, and the other places that take the same fields."""
    yield Exporter(
        name="lmstudio", help="a model's load settings, where LM Studio reads them", runner="lmstudio",
        render=Later("fitplug_lmstudio.export:render_settings"),
        install=Later("fitplug_lmstudio.install:install"), undo=Later("fitplug_lmstudio.install:undo"),
    )  # fmt: skip
    yield Exporter(
        name="lmstudio-preset",
        help="a preset with load fields",
        render=Later("fitplug_lmstudio.export:render_preset"),
        runner="lmstudio",
        install=Later("fitplug_lmstudio.install:install"),
    )
    yield Exporter(
        name="lmstudio-model-yaml",
        help="a virtual model: model.yaml",
        render=Later("fitplug_lmstudio.virtual:render_model_yaml"),
        runner="lmstudio",
    )
    yield Exporter(
        name="lmstudio-rest",
        help="the body of POST /api/v1/models/load",
        render=Later("fitplug_lmstudio.export:render_rest"),
        runner="lmstudio",
    )


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """Models that LM Studio has already."""
    yield Source(
        scheme="lmstudio",
        help="a file in LM Studio's models folder: lmstudio:PUBLISHER/REPO/FILE",
        open=Later("fitplug_lmstudio.models:open_model"),
    )
