"""LM Studio: load settings where the application reads them, presets, model.yaml, and the models that it has."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fitplug.extension import Export, Exporter, ExportRequest, Runner, Source
from fitplug.hookspecs import hookimpl
from fitplug.settings import DRAFT_SETTINGS

if TYPE_CHECKING:
    from fitplug.formats.header import Blob
    from fitplug.planner.records import Plan

CANNOT_EXPRESS = (
    "overrides", "devices", "swa_full", "op_offload", "mmproj", "mmproj_offload", "model_draft", *DRAFT_SETTINGS, "lora",
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
        name="lmstudio", help="a model's load settings, where LM Studio reads them", render=_settings, runner="lmstudio",
        install=_install, undo=_undo,
    )  # fmt: skip
    yield Exporter(
        name="lmstudio-preset", help="a preset with load fields", render=_preset, runner="lmstudio", install=_install
    )
    yield Exporter(name="lmstudio-model-yaml", help="a virtual model: model.yaml", render=_model_yaml, runner="lmstudio")
    yield Exporter(name="lmstudio-rest", help="the body of POST /api/v1/models/load", render=_rest, runner="lmstudio")


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """Models that LM Studio has already."""
    yield Source(scheme="lmstudio", help="a file in LM Studio's models folder: lmstudio:PUBLISHER/REPO/FILE", open=_open)


def _settings(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_lmstudio.export import render_settings

    return render_settings(plan, request)


def _preset(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_lmstudio.export import render_preset

    return render_preset(plan, request)


def _model_yaml(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_lmstudio.virtual import render_model_yaml

    return render_model_yaml(plan, request)


def _rest(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_lmstudio.export import render_rest

    return render_rest(plan, request)


def _install(export: Export) -> Sequence[str]:
    from fitplug_lmstudio.install import install

    return install(export)


def _undo() -> Sequence[str]:
    from fitplug_lmstudio.install import undo

    return undo()


def _open(reference: str) -> "Sequence[Blob]":
    from fitplug_lmstudio.models import open_model

    return open_model(reference)
