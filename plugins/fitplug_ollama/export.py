"""A plan as a Modelfile, and the environment that Ollama's server needs for it."""

import os
from collections.abc import Iterator
from pathlib import Path

from fitplug.errors import RefusedError
from fitplug.extension import Export, ExportRequest, File
from fitplug.memory.records import HOST, Kind
from fitplug.pinned import pin
from fitplug.planner.records import Plan
from fitplug.settings import Settings
from fitplug_ollama import CANNOT_EXPRESS, server
from fitplug_ollama.modelfile import Command, write
from fitplug_ollama.names import name_from, parse_name
from fitplug_ollama.parameters import PARAMETERS, PLANNED, check
from fitplug_ollama.placement import chosen, predicted_vram, uses

NO_PARALLEL = frozenset({"mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe", "nemotron_h",
                         "nemotron_h_moe", "nemotron_h_omni"})  # fmt: skip
"""Families that Ollama always runs with one slot (server/sched.go)."""
TENSOR_TYPES = frozenset({
    "f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1", "q2_k", "q3_k",
    "q4_k", "q5_k", "q6_k", "q8_k", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_nl", "iq4_xs",
    "mxfp4", "nvfp4", "q1_0",
})  # fmt: skip
"""Types whose size `ollama create` knows (fs/ggml/ggml.go); it refuses a file with any other."""
HUBS = {"hf": "hf.co", "modelscope": "modelscope.cn"}
"""Hubs that speak Ollama's registry protocol under these hosts."""
_COMMANDS = ("system", "template", "adapter", "license", "renderer", "parser")
_OLD = (0, 30)
_OLD_CACHES = frozenset({"f16", "q8_0", "q4_0"})


def render(plan: Plan, request: ExportRequest) -> Export:
    """The Modelfile; nothing that decides memory is left to Ollama's own guesses.

    Options: `name` of the model to create, `version` of Ollama (else the running server is asked), `system`, `template`,
    `adapter`, `license`, `renderer`, `parser`, and any of Ollama's own PARAMETERs that the plan does not decide.
    """
    settings = pin(plan.estimate, plan.machine)
    _refuse_impossible(plan, settings)
    version = request.options.get("version") or server.version()
    name = request.options.get("name") or default_name(plan, request)
    parse_name(name)
    env = environment(plan, settings)
    commands = [*_sources(plan, settings, request), *_parameters(plan, settings), *_wishes(request)]
    comments = [f"{name}: for a server with {' '.join(f'{key}={value}' for key, value in env.items())}"]
    return Export(
        files=(File(path="Modelfile", text=write(commands, comments)),),
        env=env,
        commands=(("ollama", "create", name, "-f", "Modelfile"), ("ollama", "run", name)),
        cannot_express=_lost(plan, settings),
        notes=tuple(_notes(plan, settings, version)),
        expected=_expected(plan),
    )


def default_name(plan: Plan, request: ExportRequest) -> str:
    """A name of its own: making a model never replaces the one it is made from."""
    scheme, _, rest = request.model_reference.partition(":")
    if scheme == "ollama":
        model = parse_name(rest)
        return f"{model.model}-{'' if model.tag == 'latest' else model.tag.lower() + '-'}fit"
    return name_from(plan.model.header.shards[0].rpartition("/")[2] if plan.model.header.shards else plan.model.name)


def _refuse_impossible(plan: Plan, settings: Settings) -> None:
    types = {tensor.type.lower() for tensor in plan.model.header.tensors.values()} - TENSOR_TYPES
    if types and plan.model.header.format == "gguf":
        raise RefusedError(f"Ollama does not take tensors of type {', '.join(sorted(types))}: choose another quantisation")
    if settings.remote:
        raise RefusedError(f"Ollama takes what runs beside a model from this disk: download {settings.remote[0]} first")
    if len(settings.lora) > 1:
        raise RefusedError("a Modelfile takes one ADAPTER")
    if settings.split_mode in ("row", "tensor"):
        raise RefusedError(f"Ollama always splits by layers: it has no place for --split-mode {settings.split_mode}")


def _sources(plan: Plan, settings: Settings, request: ExportRequest) -> Iterator[Command]:
    """FROM: a model by name where Ollama or a hub has it, else every file by its absolute path.

    A relative path counts from the Modelfile's folder, and one that does not exist is taken for a model's name.
    """
    scheme, _, rest = request.model_reference.partition(":")
    if scheme == "ollama":
        yield Command("model", rest)
    elif scheme in HUBS:
        yield Command("model", _hub_name(plan, HUBS[scheme], rest))
    else:
        yield from (Command("model", path) for path in _files(plan, request.model_path))
    if settings.mmproj:
        yield Command("model", os.path.abspath(settings.mmproj))  # noqa: PTH100 - Path.resolve would follow links away from the name
    yield from (Command("adapter", os.path.abspath(path)) for path in settings.lora)  # noqa: PTH100 - as above
    if settings.model_draft:
        yield Command("draft", os.path.abspath(settings.model_draft))  # noqa: PTH100 - as above


def _hub_name(plan: Plan, host: str, rest: str) -> str:
    if len(plan.model.header.shards) > 1:
        raise RefusedError("the hubs do not hand split files to Ollama: download the model and export it from there")
    name = f"{host}/{rest.partition('@')[0]}"
    parse_name(name)
    return name


def _files(plan: Plan, path: str) -> list[str]:
    shards = plan.model.header.shards
    if len(shards) < 2:
        return [os.path.abspath(path)]  # noqa: PTH100 - see _sources
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - see _sources
    return [str(folder / shard.replace("\\", "/").rpartition("/")[2]) for shard in shards]


def _parameters(plan: Plan, settings: Settings) -> Iterator[Command]:
    yield Command("num_ctx", str(plan.estimate.resolved.n_ctx_seq))
    yield Command("num_batch", str(settings.n_ubatch))
    yield Command("num_gpu", str(settings.n_gpu_layers if plan.machine.devices and settings.devices != () else 0))
    if settings.split_mode == "none" and plan.machine.devices:
        yield Command("main_gpu", str(settings.main_gpu))
    if not settings.use_mmap:
        yield Command("use_mmap", "false")


def _wishes(request: ExportRequest) -> Iterator[Command]:
    for key, value in request.options.items():
        if key in _COMMANDS:
            yield Command(key, value)
        elif key in PARAMETERS and key not in PLANNED:
            check(key, value)
            yield Command(key, value)
        elif key not in {"name", "version"}:
            raise RefusedError(f"the Modelfile has no place for '{key}'; say the plan's own settings as llama.cpp's arguments")


def environment(plan: Plan, settings: Settings) -> dict[str, str]:
    """What only the server's environment can say; it holds for all models."""
    env = {"OLLAMA_FLASH_ATTENTION": "1" if settings.flash_attn == "on" else "0"}
    if settings.type_k == settings.type_v:
        env["OLLAMA_KV_CACHE_TYPE"] = settings.type_k
    else:  # its llama-server inherits these, where OLLAMA_KV_CACHE_TYPE is not set
        env |= {"LLAMA_ARG_CACHE_TYPE_K": settings.type_k, "LLAMA_ARG_CACHE_TYPE_V": settings.type_v}
    env["OLLAMA_NUM_PARALLEL"] = str(settings.n_seq_max)
    if _must_spread(plan, settings):
        env["OLLAMA_SCHED_SPREAD"] = "1"
    return env


def _must_spread(plan: Plan, settings: Settings) -> bool:
    """Ollama would take one GPU, by its own formula, where the plan takes several."""
    if settings.split_mode == "none" or len(uses(plan.estimate, plan.machine)) < 2:
        return False
    predicted = predicted_vram(plan.model, settings.n_ctx)
    return len(chosen(plan.machine.devices, predicted, plan.machine.host.available_bytes)) < 2


def _lost(plan: Plan, settings: Settings) -> tuple[str, ...]:
    asked, plain = plan.estimate.settings, Settings()
    lost = [name for name in CANNOT_EXPRESS if getattr(asked, name) != getattr(plain, name)]
    if asked.devices:  # none at all is num_gpu 0: then Ollama shows its llama-server no GPU
        lost.append("devices")
    if settings.n_batch != settings.n_ubatch:
        lost.append("n_batch")
    if settings.n_seq_max > 1 and plan.model.architecture in NO_PARALLEL:
        lost.append("n_seq_max")
    if plan.model.n_ctx_train and plan.estimate.resolved.n_ctx_seq > plan.model.n_ctx_train:
        lost.append("n_ctx")
    return tuple(lost)


def _notes(plan: Plan, settings: Settings, version: str | None) -> Iterator[str]:
    if settings.n_batch != settings.n_ubatch:
        yield f"num_batch sets both batches: {settings.n_ubatch}, the physical one of the plan, is written for both."
    if plan.estimate.settings.n_cpu_moe or plan.estimate.settings.overrides:
        yield "No PARAMETER moves experts to the CPU: without num_gpu, Ollama's llama-server does so by itself when it must."
    if settings.type_k != settings.type_v:
        yield "OLLAMA_KV_CACHE_TYPE must not be set on the server: it would give both caches one type."
    if version is None:
        yield "No Ollama server was asked: this is for version 0.30 or later."
    elif server.version_numbers(version) < _OLD:
        yield (f"Ollama {version} lays out memory by itself and offloads the output layer last: the figures of this plan hold "
               "from 0.30 on.")  # fmt: skip
        if {settings.type_k, settings.type_v} - _OLD_CACHES:
            yield f"Ollama {version} knows the cache types f16, q8_0 and q4_0 only."
        if len(plan.model.header.shards) > 1:
            yield f"Ollama {version} cannot create a model from split files."


def _expected(plan: Plan) -> dict[str, int]:
    """What /api/ps should say: buffers on GPUs without overhead, and the context of one sequence."""
    vram = sum(part.n_bytes for part in plan.estimate.parts if part.device != HOST and part.kind != Kind.OVERHEAD)
    return {"size_vram": vram, "context_length": plan.estimate.resolved.n_ctx_seq}
