"""llama.cpp's own programs: llama-server, llama-cli and llama-fit-params."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fitplug.extension import Engine, Export, Exporter, ExportRequest, Runner
from fitplug.hookspecs import hookimpl
from fitplug.units import MIB

if TYPE_CHECKING:
    from fitplug.machine.records import Device
    from fitplug.planner.records import Plan
    from fitplug.settings import Settings


PROMPT_CACHE_MIB, CTX_CHECKPOINTS = 8192, 32
"""common/common.h, common_params: cache_ram_mib and n_ctx_checkpoints; llama-cli runs the server's code."""


@hookimpl
def fitplug_runners() -> Iterable[Runner]:
    """The program that runs the model, and the one that only measures."""
    yield Runner(
        name="llama-server",
        help="llama.cpp's server (llama-cli is the same)",
        prompt_cache_mib=PROMPT_CACHE_MIB,
        ctx_checkpoints=CTX_CHECKPOINTS,
    )
    yield Runner(
        name="llama-cli",
        help="llama.cpp's command line: reserves what llama-server does",
        prompt_cache_mib=PROMPT_CACHE_MIB,
        ctx_checkpoints=CTX_CHECKPOINTS,
        exporter="llama-cli",
    )
    yield Runner(
        name="llama-fit-params",
        help="what llama.cpp's own measuring reports, which differs from a run in known places",
        outputs="batch",
        measuring=True,
        exporter="llama-fit-params",
    )


@hookimpl
def fitplug_exporters() -> Iterable[Exporter]:
    """A command, or a file that holds the same."""
    yield Exporter(name="llama-server", help="the complete llama-server command", render=_server)
    yield Exporter(name="llama-cli", help="the complete llama-cli command", render=_cli, runner="llama-cli")
    yield Exporter(
        name="llama-fit-params", help="llama.cpp measuring these settings", render=_fit_params, runner="llama-fit-params"
    )
    yield Exporter(name="llama-server-env", help="LLAMA_ARG_* as an environment file", render=_env)
    yield Exporter(name="llama-swap", help="an entry of llama-swap's config.yaml", render=_swap)
    yield Exporter(name="systemd", help="a systemd unit that runs llama-server", render=_systemd)


@hookimpl
def fitplug_engines() -> Iterable[Engine]:
    """Programs on PATH that say what they allocate."""
    yield Engine(
        name="llama-fit-params",
        help="llama-fit-params on PATH: whole MiB",
        available=_fit_params_version,
        measure=_fit_params_measure,
        runner="llama-fit-params",
        precision=MIB,
    )
    yield Engine(
        name="llama-server",
        help="llama-server on PATH: really loads the model",
        available=_server_version,
        measure=_server_measure,
        precision=5244,
        ghosts=False,
        devices=_listed,
        devices_precision=MIB,
    )


def _server(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llamacpp.command import render_server

    return render_server(plan, request)


def _cli(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llamacpp.command import render_cli

    return render_cli(plan, request)


def _fit_params(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llamacpp.command import render_fit_params

    return render_fit_params(plan, request)


def _env(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llamacpp.files import render_env

    return render_env(plan, request)


def _swap(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llamacpp.files import render_swap

    return render_swap(plan, request)


def _systemd(plan: "Plan", request: ExportRequest) -> Export:
    from fitplug_llamacpp.files import render_systemd

    return render_systemd(plan, request)


def _fit_params_version() -> str | None:
    from fitplug_llamacpp.engines import version

    return version("llama-fit-params")


def _fit_params_measure(model: str, settings: "Settings") -> Mapping[str, Mapping[str, int]]:
    from fitplug_llamacpp.engines import measure_fit_params

    return measure_fit_params(model, settings)


def _listed() -> "Sequence[Device] | None":
    from fitplug_llamacpp.listing import listed

    return listed()


def _server_version() -> str | None:
    from fitplug_llamacpp.engines import version

    return version("llama-server")


def _server_measure(model: str, settings: "Settings") -> Mapping[str, Mapping[str, int]]:
    from fitplug_llamacpp.engines import measure_server

    return measure_server(model, settings)
