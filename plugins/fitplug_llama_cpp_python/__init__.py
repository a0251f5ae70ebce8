"""llama-cpp-python: a plan as the arguments of `llama_cpp.Llama`, and the installed package as an engine to ask."""

from collections.abc import Iterable

from fitplug.extension import Engine, Exporter, Later, Runner
from fitplug.hookspecs import hookimpl
from fitplug.settings import DRAFT_SETTINGS, OWN_SETTINGS

CANNOT_EXPRESS = (
    "n_seq_max", "kv_unified", "devices", "n_cpu_moe", "overrides", "mmproj", "mmproj_offload", "model_draft",
    "embedding", "pooling", *OWN_SETTINGS, *DRAFT_SETTINGS,
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
        render=Later("fitplug_llama_cpp_python.arguments:render"),
        runner="llama-cpp-python",
    )


@hookimpl
def fitplug_engines() -> Iterable[Engine]:
    """The installed package measures in a process of its own, without reading weights, to the byte."""
    yield Engine(
        name="llama-cpp-python",
        help="the installed llama-cpp-python, without loading weights",
        available=Later("fitplug_llama_cpp_python.engine:version"),
        measure=Later("fitplug_llama_cpp_python.engine:measure"),
        runner="llama-fit-params",
        devices=Later("fitplug_llama_cpp_python.engine:listed"),
    )
