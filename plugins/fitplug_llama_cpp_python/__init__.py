"""llama-cpp-python: a plan as the arguments of `llama_cpp.Llama`, and the installed package as an engine to ask."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fitplug.extension import Engine, Export, Exporter, ExportRequest, Runner
from fitplug.hookspecs import hookimpl
from fitplug.settings import DRAFT_SETTINGS

if TYPE_CHECKING:
    from fitplug.machine.records import Device
    from fitplug.planner.records import Plan
    from fitplug.settings import Settings

CANNOT_EXPRESS = (
    "n_seq_max", "kv_unified", "devices", "n_cpu_moe", "overrides", "mmproj", "mmproj_offload", "model_draft",
    *DRAFT_SETTINGS,
)  # fmt: skip
"""`Llama(...)` swallows unknown arguments silently: these have none (llama_cpp/llama.py, Llama.__init__)."""


@hookimpl
def fitplug_runners() -> Iterable[Runner]:
    """Reserves logits for a whole batch, since n_outputs_max has no argument; its own batch of 512 keeps that small."""
    yield Runner(
        name="llama-cpp-python",
        help="Llama(...) in a Python program",
        outputs="batch",
        defaults={"n_batch": 512},
        cannot_express=CANNOT_EXPRESS,
        exporter="llama-cpp-python",
    )


@hookimpl
def fitplug_exporters() -> Iterable[Exporter]:
    """Arguments as Python and as JSON."""
    yield Exporter(
        name="llama-cpp-python",
        help="the arguments of Llama(...), as Python and as JSON",
        render=_render,
        runner="llama-cpp-python",
    )


@hookimpl
def fitplug_engines() -> Iterable[Engine]:
    """The installed package measures in a process of its own, without reading weights, to the byte."""
    yield Engine(
        name="llama-cpp-python",
        help="the installed llama-cpp-python, without loading weights",
        available=_version,
        measure=_measure,
        runner="llama-fit-params",
        devices=_listed,
    )


def _render(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llama_cpp_python.arguments import render

    return render(plan, request)


def _listed() -> "Sequence[Device] | None":
    from fitplug_llama_cpp_python.engine import listed

    return listed()


def _version() -> str | None:
    from fitplug_llama_cpp_python.engine import version

    return version()


def _measure(model: str, settings: "Settings") -> Mapping[str, Mapping[str, int]]:
    from fitplug_llama_cpp_python.engine import measure

    return measure(model, settings)
