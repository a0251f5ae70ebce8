"""The steps of the command line as functions: open a model, get a machine, estimate settings, fit a plan, write it down.

Each takes a `registry`, so that several steps can share one; without it the installed plugins are loaded again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from fitplug.extension import Export, ExportRequest, Runner
from fitplug.formats.header import Header
from fitplug.machine.records import Host, Machine
from fitplug.memory.records import Estimate
from fitplug.model.records import Model
from fitplug.planner.records import Goal, Plan
from fitplug.registry import Registry, load
from fitplug.settings import (
    FlashAttn,
    KvOverride,
    LazyMode,
    LoadMode,
    Pooling,
    RopeWord,
    ScaledAdapter,
    Settings,
    SplitMode,
    TensorOverride,
)
from fitplug.units import GIB

if TYPE_CHECKING:
    from fitplug.memory.companions import Companions


class GivenSettings(TypedDict, total=False):
    """The fields of `Settings` as keywords: those that are left out are the runner's defaults, or the planner's choice."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    n_gpu_layers: int
    type_k: str
    type_v: str
    flash_attn: FlashAttn
    kv_unified: bool
    swa_full: bool
    offload_kqv: bool
    op_offload: bool
    split_mode: SplitMode
    main_gpu: int
    tensor_split: tuple[float, ...]
    n_cpu_moe: int
    n_cpu_ffn: int
    overrides: tuple[TensorOverride, ...]
    no_host: bool
    repack: bool
    devices: tuple[str, ...] | None
    mmproj: str | None
    mmproj_offload: bool
    mmproj_device: str | None
    image_min_tokens: int | None
    image_max_tokens: int | None
    embedding: bool
    pooling: Pooling | None
    kv_unified_per_slot: int
    model_draft: str | None
    spec_type: str | None
    draft_max: int
    ngram_mod_n_max: int
    ngram_simple_size_m: int
    ngram_map_k_size_m: int
    ngram_map_k4v_size_m: int
    draft_type_k: str
    draft_type_v: str
    draft_n_gpu_layers: int
    draft_devices: tuple[str, ...] | None
    draft_n_cpu_moe: int
    draft_overrides: tuple[TensorOverride, ...]
    draft_backend_sampling: bool
    lora: tuple[str, ...]
    lora_scaled: tuple[ScaledAdapter, ...]
    kv_overrides: tuple[KvOverride, ...]
    rope: tuple[RopeWord, ...]
    use_mmap: bool
    load_mode: LoadMode | None
    lazy_mode: LazyMode
    cache_ram_mib: int | None
    ctx_checkpoints: int | None


def read_header(reference: str, *, registry: Registry | None = None) -> Header:
    """Read the header of a model: a path, or a reference such as "modelscope:OWNER/NAME:Q4_K_M".

    Raises:
        FitplugError: it cannot be opened or is not a model; the message is one line for people.
    """
    from fitplug.opening import as_reference
    from fitplug.opening import open_model as read

    registry = registry or load()
    return read(as_reference(reference, registry), registry)


def open_model(reference: str, *, registry: Registry | None = None, kv_overrides: Sequence[KvOverride] = ()) -> Model:
    """Read a model's header and understand it, layer by layer.

    Args:
        reference: a path, or a reference such as "modelscope:OWNER/NAME:Q4_K_M".
        registry: the plugins; the installed ones.
        kv_overrides: metadata that is taken in place of the file's; the same as the setting of that name.

    Raises:
        FitplugError: it cannot be opened or is not a model; the message is one line for people.
    """
    from fitplug.model.describe import describe
    from fitplug.opening import as_gguf

    registry = registry or load()
    header = as_gguf(reference, read_header(reference, registry=registry))
    return describe(header, [item.record for item in registry.architectures], kv_overrides)


def detect_machine(*, registry: Registry | None = None) -> Machine:
    """This machine."""
    from fitplug.machine.detect import detect

    return detect([item.record for item in (registry or load()).detectors])


def read_machine(data: str | bytes | Mapping[str, Any]) -> Machine:
    """The machine of a machine file: its text, or the JSON object itself.

    Raises:
        UnreadableError: it is not one.
    """
    from fitplug.machine.load import machine_from_json, machine_from_text

    return machine_from_text(data) if isinstance(data, (str, bytes)) else machine_from_json(data)


def imagine_machine(*cards: str, host_bytes: int = 64 * GIB) -> Machine:
    """A machine with cards one does not have, each by its name: "RTX 4090", "2x RTX 3090", "M4 Max 64GB".

    Raises:
        NotFoundError: no such card, or several; the message says which there are.
    """
    from fitplug.machine.imagined import imagined_machine

    return imagined_machine(cards, Host(total_bytes=host_bytes, available_bytes=host_bytes))


def estimate(
    model: Model,
    machine: Machine,
    *,
    runner: str | Runner = "llama-server",
    registry: Registry | None = None,
    **settings: Unpack[GivenSettings],
) -> Estimate:
    """Where every byte of exactly these settings goes.

    Raises:
        RefusedError: llama.cpp itself refuses these settings.
    """
    from fitplug.memory.estimate import Estimator

    program = _runner(runner, registry)
    companions, asked = _companions(_with_defaults(settings, program), registry)
    return Estimator(model, machine, program, companions)(asked)


def fits(estimate: Estimate, machine: Machine, *, reserve_bytes: int = 0) -> bool:
    """Whether an estimate fits the machine, with so many bytes left on every GPU."""
    from fitplug.planner.budget import spare

    return spare(estimate, machine, reserve_bytes).fits


def fit(
    model: Model,
    machine: Machine,
    *,
    goal: Goal = "balanced",
    reserve_bytes: int = GIB,
    min_ctx: int | None = None,
    users: int = 1,
    runner: str | Runner = "llama-server",
    registry: Registry | None = None,
    **settings: Unpack[GivenSettings],
) -> Plan:
    """The best settings for the machine; those that are given are kept.

    Raises:
        RefusedError: llama.cpp itself refuses the settings that are given.
    """
    from fitplug.planner.fit import fit as choose
    from fitplug.planner.records import Request

    program = _runner(runner, registry)
    request = Request(goal=goal, reserve_bytes=reserve_bytes, min_ctx=min_ctx, users=users, given=frozenset(settings))
    companions, asked = _companions(_with_defaults(settings, program), registry)
    return choose(model, machine, program, companions.drafting(asked, program), request, companions=companions)


def export(
    plan: Plan, name: str, reference: str, *, registry: Registry | None = None, options: Mapping[str, str] | None = None
) -> Export:
    """Write a plan in the words of an exporter, such as "llama-server", "ollama" or "lmstudio".

    Args:
        plan: what to write.
        name: the exporter.
        reference: the model as it was opened.
        registry: where the exporter is looked up.
        options: what only this exporter knows.
    """
    from fitplug.opening import local_path

    registry = registry or load()
    exporter = registry.exporter(name)
    path = local_path(reference, registry)
    return exporter.render(plan, ExportRequest(model_reference=reference, model_path=path, options=options or {}))


def _runner(runner: str | Runner, registry: Registry | None) -> Runner:
    return runner if isinstance(runner, Runner) else (registry or load()).runner(runner)


def _companions(settings: Settings, registry: Registry | None) -> "tuple[Companions, Settings]":
    """What the settings name beside the model, opened, and settings that name places; plugins are not loaded for nothing."""
    from fitplug.memory.companions import NOTHING_BESIDE
    from fitplug.opening import open_companions

    if settings.mmproj is None and settings.model_draft is None and not settings.adapters:
        return NOTHING_BESIDE, settings
    return open_companions(settings, registry or load())


def _with_defaults(given: GivenSettings, runner: Runner) -> Settings:
    left_out = {name: value for name, value in runner.defaults.items() if name not in given}
    return replace(Settings(**given), **left_out) if left_out else Settings(**given)
