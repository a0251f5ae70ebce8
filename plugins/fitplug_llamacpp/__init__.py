"""llama.cpp's own programs: llama-server, llama-cli and llama-fit-params."""

from collections.abc import Iterable

from fitplug.extension import Engine, Exporter, Later, Runner
from fitplug.hookspecs import hookimpl
from fitplug.units import MIB

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
    yield Exporter(
        name="llama-server", help="the complete llama-server command", render=Later("fitplug_llamacpp.command:render_server")
    )
    yield Exporter(
        name="llama-cli",
        help="the complete llama-cli command",
        render=Later("fitplug_llamacpp.command:render_cli"),
        runner="llama-cli",
    )
    yield Exporter(
        name="llama-fit-params",
        help="llama.cpp measuring these settings",
        render=Later("fitplug_llamacpp.command:render_fit_params"),
        runner="llama-fit-params",
    )
    yield Exporter(
        name="llama-server-env", help="LLAMA_ARG_* as an environment file", render=Later("fitplug_llamacpp.files:render_env")
    )
    yield Exporter(
        name="llama-swap", help="an entry of llama-swap's config.yaml", render=Later("fitplug_llamacpp.files:render_swap")
    )
    yield Exporter(
        name="systemd", help="a systemd unit that runs llama-server", render=Later("fitplug_llamacpp.files:render_systemd")
    )


@hookimpl
def fitplug_engines() -> Iterable[Engine]:
    """Programs on PATH that say what they allocate."""
    yield Engine(
        name="llama-fit-params",
        help="llama-fit-params on PATH: whole MiB",
        available=Later("fitplug_llamacpp.engines:version", "llama-fit-params"),
        measure=Later("fitplug_llamacpp.engines:measure_fit_params"),
        runner="llama-fit-params",
        precision=MIB,
    )
    yield Engine(
        name="llama-server",
        help="llama-server on PATH: really loads the model",
        available=Later("fitplug_llamacpp.engines:version", "llama-server"),
        measure=Later("fitplug_llamacpp.engines:measure_server"),
        precision=5244,
        ghosts=False,
        devices=Later("fitplug_llamacpp.listing:listed"),
        devices_precision=MIB,
    )
