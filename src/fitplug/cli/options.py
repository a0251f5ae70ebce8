"""llama.cpp's settings and fitplug's own questions as options, each once: decorators that hand records to a command."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, cast

import click

from fitplug.cli.command import Option
from fitplug.cli.values import (
    CACHE_TYPE,
    FLASH_ATTN,
    GOAL,
    LAZY_MODE,
    LOAD_MODE,
    POOLING,
    ROPE_SCALING,
    SPLIT_MODE,
    Count,
    KvOverrides,
    Layers,
    Number,
    Overrides,
    ScaledAdapters,
    Shares,
    Size,
    Words,
)  # fmt: skip
from fitplug.planner.records import Goal
from fitplug.settings import MAPPING, ROPE_FLAGS, RopeWord, Settings
from fitplug.units import GIB

Callback = Callable[..., Any]
Decorator = Callable[[Callback], Callback]

_AUTO_SLOTS = 4
"""-np -1 (tools/server/server.cpp, llama_server: "n_parallel is set to auto")."""
REPEATED = ("overrides", "draft_overrides", "lora", "lora_scaled", "kv_overrides")
"""Options that may be, each time with commas; an empty list: not given."""
MOST_NGRAMS = 1024
"""Of --spec-ngram-…-size-m and -n-max (common/arg.cpp)."""


class Given(NamedTuple):
    """The settings of a command line, and which of them were on it."""

    settings: Settings
    names: frozenset[str]


class Target(NamedTuple):
    """Which machine and which program the question is about."""

    machine: str | None
    gpus: tuple[str, ...]
    runner: str
    reserve_bytes: int
    rpc: tuple[str, ...] = ()
    ask: bool = False


class Wish(NamedTuple):
    """What a plan should be good at."""

    min_ctx: int | None
    goal: Goal
    users: int | None


def _named(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _setting(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=Option, section="llama.cpp settings", default=None, **kwargs)


_SETTINGS = (
    _setting("n_ctx", "-c", "--ctx-size", type=Count(), metavar="N", help="tokens of context; 0: as trained"),
    _setting("n_gpu_layers", "-ngl", "--gpu-layers", "--n-gpu-layers", type=Layers(), metavar="N",
             help="layers on the GPU, from the last one: a number, all or auto"),
    _setting("n_batch", "-b", "--batch-size", type=Count(), metavar="N", help="logical batch (2048)"),
    _setting("n_ubatch", "-ub", "--ubatch-size", type=Count(), metavar="N", help="physical batch (512)"),
    _setting("type_k", "-ctk", "--cache-type-k", type=CACHE_TYPE, metavar="TYPE", help="type of the K cache (f16)"),
    _setting("type_v", "-ctv", "--cache-type-v", type=CACHE_TYPE, metavar="TYPE", help="type of the V cache (f16)"),
    _setting("flash_attn", "-fa", "--flash-attn", type=FLASH_ATTN, metavar="on|off|auto", help="flash attention"),
    _setting("n_seq_max", "-np", "--parallel", type=Count(1, also=frozenset({-1})), metavar="N",
             help="sequences at the same time (1)"),
    _setting("kv_unified", "-kvu/-no-kvu", "--kv-unified/--no-kv-unified", help="one cache for all sequences"),
    _setting("swa_full", "--swa-full", is_flag=True, help="sliding windows with a full-size cache"),
    _setting("offload_kqv", "-kvo/-nkvo", "--kv-offload/--no-kv-offload", help="the cache on the GPU, or not"),
    _setting("op_offload", "--op-offload/--no-op-offload", help="big products of host weights on the GPU, or not"),
    _setting("split_mode", "-sm", "--split-mode", type=SPLIT_MODE, metavar="none|layer|row|tensor",
             help="how several GPUs share the model (layer)"),
    _setting("tensor_split", "-ts", "--tensor-split", type=Shares(), metavar="N0,N1,…",
             help="how much each GPU gets, such as 3,1"),
    _setting("main_gpu", "-mg", "--main-gpu", type=Count(), metavar="INDEX", help="the GPU of -sm none and row (0)"),
    _setting("devices", "-dev", "--device", type=Words(none=True), metavar="NAME,…",
             help="GPUs to use, such as CUDA0,CUDA1; none: no GPU"),
    _setting("overrides", "-ot", "--override-tensor", type=Overrides(), multiple=True, metavar="PATTERN=BUFFER,…",
             help="tensors that go elsewhere, such as 'ffn_.*_exps=CPU'; may be repeated"),
    _setting("cpu_moe", "-cmoe", "--cpu-moe", is_flag=True, help="all experts in the host's memory"),
    _setting("n_cpu_moe", "-ncmoe", "--n-cpu-moe", type=Count(), metavar="N",
             help="experts of the first N layers in the host's memory"),
    _setting("n_cpu_ffn", "-ncffn", "--n-cpu-ffn", type=Count(), metavar="N",
             help="dense feed-forward weights of the first N layers in the host's memory"),
    _setting("no_host", "--no-host", is_flag=True, help="the host's weights are not pinned, and so may be repacked"),
    _setting("repack", "--repack/-nr", " /--no-repack", help="weights repacked for the CPU, or as the file has them"),
    _setting("mmproj", "-mm", "--mmproj", metavar="FILE", help="the projector of a model that sees or hears"),
    _setting("mmproj_offload", "--mmproj-offload/--no-mmproj-offload", help="the projector on the GPU, or not"),
    _setting("mmproj_device", "-mmdev", "--mmproj-device", metavar="NAME", help="the projector's GPU; none: no GPU"),
    _setting("image_min_tokens", "--image-min-tokens", type=Count(), metavar="N", help="the least tokens of a picture"),
    _setting("image_max_tokens", "--image-max-tokens", type=Count(), metavar="N", help="the most tokens of a picture"),
    _setting("embedding", "--embedding", "--embeddings", is_flag=True, help="embeddings instead of text"),
    _setting("rerank", "--rerank", "--reranking", is_flag=True, help="scores of documents: --embeddings --pooling rank"),
    _setting("pooling", "--pooling", type=POOLING, metavar="none|mean|cls|last|rank",
             help="how the tokens' embeddings become one (as the model says)"),
    _setting("kv_unified_per_slot", "--kv-unified-per-slot", type=Count(), metavar="N",
             help="the most that one slot may use; without -c the context is that for each"),
    _setting("model_draft", "-md", "--model-draft", "--spec-draft-model", metavar="FILE",
             help="a draft model for speculative decoding"),
    _setting("spec_type", "--spec-type", metavar="TYPE,…", help="how drafts are made, such as draft-mtp or draft-simple"),
    _setting("draft_max", "--spec-draft-n-max", type=Count(), metavar="N", help="tokens that a model may draft (3)"),
    _setting("ngram_mod_n_max", "--spec-ngram-mod-n-max", type=Count(high=MOST_NGRAMS), metavar="N",
             help="tokens that ngram-mod may draft (64)"),
    _setting("ngram_simple_size_m", "--spec-ngram-simple-size-m", type=Count(1, high=MOST_NGRAMS), metavar="N",
             help="the same of ngram-simple (48)"),
    _setting("ngram_map_k_size_m", "--spec-ngram-map-k-size-m", type=Count(1, high=MOST_NGRAMS), metavar="N",
             help="the same of ngram-map-k (48)"),
    _setting("ngram_map_k4v_size_m", "--spec-ngram-map-k4v-size-m", type=Count(1, high=MOST_NGRAMS), metavar="N",
             help="the same of ngram-map-k4v (48)"),
    _setting("draft_type_k", "-ctkd", "--cache-type-k-draft", "--spec-draft-type-k", type=CACHE_TYPE, metavar="TYPE",
             help="type of the draft's K cache (f16)"),
    _setting("draft_type_v", "-ctvd", "--cache-type-v-draft", "--spec-draft-type-v", type=CACHE_TYPE, metavar="TYPE",
             help="type of the draft's V cache (f16)"),
    _setting("draft_n_gpu_layers", "-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl",
             type=Layers(), metavar="N", help="the draft's layers on the GPU (all)"),
    _setting("draft_devices", "-devd", "--device-draft", "--spec-draft-device", type=Words(none=True), metavar="NAME,…",
             help="GPUs for the draft, if not the target's"),
    _setting("draft_overrides", "-otd", "--override-tensor-draft", "--spec-draft-override-tensor", type=Overrides(),
             multiple=True, metavar="PATTERN=BUFFER,…", help="the draft's tensors that go elsewhere"),
    _setting("draft_cpu_moe", "-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe", is_flag=True,
             help="all of the draft's experts in the host's memory"),
    _setting("draft_n_cpu_moe", "-ncmoed", "--n-cpu-moe-draft", "--spec-draft-n-cpu-moe", "--spec-draft-ncmoe",
             type=Count(), metavar="N", help="experts of the draft's first N layers in the host's memory"),
    _setting("draft_backend_sampling", "--spec-draft-backend-sampling/--no-spec-draft-backend-sampling",
             help="the GPU picks the drafted tokens, or not"),
    _setting("lora", "--lora", type=Words(), multiple=True, metavar="FILE,…", help="LoRA adapters"),
    _setting("lora_scaled", "--lora-scaled", type=ScaledAdapters(), multiple=True, metavar="FILE:SCALE,…",
             help="LoRA adapters, each with its scale"),
    _setting("kv_overrides", "--override-kv", type=KvOverrides(), multiple=True, metavar="KEY=TYPE:VALUE,…",
             help="metadata in place of the file's, such as qwen3moe.expert_used_count=int:4"),
    _setting(_named(ROPE_FLAGS[0]), ROPE_FLAGS[0], type=ROPE_SCALING, metavar="VALUE",
             help="how positions are turned; kept, as --rope-… and --yarn-… all are: they decide no memory"),
    *(_setting(_named(flag), flag, type=Number(), metavar="VALUE", hidden=True) for flag in ROPE_FLAGS[1:]),
    _setting("use_mmap", "--mmap/--no-mmap", help="map the file, or read it"),
    _setting("load_mode", "-lm", "--load-mode", type=LOAD_MODE, metavar="MODE",
             help="auto, none, mmap, mlock, mmap+mlock or dio: how the file is read"),
    _setting("lazy_mode", "-lzm", "--lazy-mode", type=LAZY_MODE, metavar="on|auto|off",
             help="rows of large tables are read when they are asked for"),
    _setting("cache_ram_mib", "-cram", "--cache-ram", type=Count(also=frozenset({-1})), metavar="MIB",
             help="host memory for old prompts (8192); -1: no limit"),
    _setting("ctx_checkpoints", "-ctxcp", "--ctx-checkpoints", type=Count(), metavar="N",
             help="copies of windowed caches and states that a slot keeps (32)"),
)  # fmt: skip


def settings_options(function: Callback) -> Callback:
    """Add llama.cpp's arguments; the command gets them as `given: Given`."""

    @wraps(function)
    def call(**values: Any) -> Any:
        names = {*Settings.__dataclass_fields__, *map(_named, ROPE_FLAGS), "cpu_moe", "draft_cpu_moe", "rerank"}
        asked = {name: values.pop(name) for name in names if name in values}
        return function(given=_given(asked), **values)

    return _decorated(call, _SETTINGS)


def _given(asked: dict[str, Any]) -> Given:
    values = {name: value for name, value in asked.items() if value is not None}
    for name in REPEATED:
        if not values.setdefault(name, ()):
            del values[name]
        else:
            values[name] = tuple(item for group in values[name] for item in group)
    for flag, name in (("cpu_moe", "n_cpu_moe"), ("draft_cpu_moe", "draft_n_cpu_moe")):
        if values.pop(flag, False):
            values[name] = -1
    for name in ("n_gpu_layers", "draft_n_gpu_layers"):
        if values.get(name, 0) < 0:
            values[name] = -1
    words = tuple(RopeWord(flag, values.pop(_named(flag))) for flag in ROPE_FLAGS if _named(flag) in values)
    if words:
        values["rope"] = words
    _resolve(values)
    return Given(Settings(**values), frozenset(values))


def _resolve(values: dict[str, Any]) -> None:
    """What words of llama.cpp's stand for (common/arg.cpp; llama_server, tools/server/server.cpp)."""
    if values.get("n_seq_max") == -1:
        values |= {"n_seq_max": _AUTO_SLOTS, "kv_unified": True}
    if values.get("kv_unified_per_slot") and "n_ctx" not in values:
        values["n_ctx"] = values["kv_unified_per_slot"] * values.get("n_seq_max", 1)
    if values.pop("rerank", False):
        values.setdefault("pooling", "rank")
        values["embedding"] = True
    if values.get("mmproj_device") == "none":
        values |= {"mmproj_device": None, "mmproj_offload": False}
    if "load_mode" in values:
        values["use_mmap"] = values["load_mode"] in MAPPING
        if values["load_mode"] == "none":  # which use_mmap says alone
            del values["load_mode"]


def _target(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=Option, section="Machine and runner", **kwargs)


def target_options(*, reserve: int, runner: str | None = "llama-server") -> Decorator:
    """Add --machine, --gpu, --runner and --reserve; the command gets them as `target: Target`.

    `runner` None: what the command itself knows better; `Target.runner` is then empty.
    """
    kept = "1GiB" if reserve == GIB else "0"
    options = (
        _target("--machine", metavar="FILE", help="a recorded machine instead of this one (fitplug devices --json)"),
        _target("gpus", "--gpu", multiple=True, metavar="NAME[=FREE_GIB]", shell_complete=complete_cards,
                help="a card one does not have; may be repeated"),
        _target("--rpc", multiple=True, metavar="HOST:PORT[=CARD]",
                help="an rpc-server of llama.cpp whose devices are used too; may be repeated"),
        _target("--ask", is_flag=True, help="ask the installed llama.cpp for its devices too, which takes a second"),
        _target("--runner", metavar="NAME", default=runner or "", shell_complete=complete_runners,
                help=f"the program that will run it ({runner or 'as RUNNER'})"),
        _target("reserve_bytes", "--reserve", type=Size(), metavar="SIZE", help=f"to leave free on every GPU ({kept})"),
    )  # fmt: skip

    def decorate(function: Callback) -> Callback:
        @wraps(function)
        def call(
            *,
            machine: str | None,
            gpus: tuple[str, ...],
            rpc: tuple[str, ...],
            ask: bool,
            runner: str,
            reserve_bytes: int | None,
            **rest: Any,
        ) -> Any:
            asked = reserve if reserve_bytes is None else reserve_bytes
            return function(target=Target(machine, gpus, runner, asked, split_addresses(rpc), ask), **rest)

        return _decorated(call, options)

    return decorate


def split_addresses(given: tuple[str, ...]) -> tuple[str, ...]:
    """The servers of --rpc, which may be repeated and takes several with commas, as llama.cpp's does."""
    return tuple(address.strip() for words in given for address in words.split(",") if address.strip())


def _wish(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=Option, section="What the plan should be good at", default=None, **kwargs)


_WISHES = (
    _wish("--min-ctx", type=Count(1), metavar="N", help="the shortest context that may be chosen (8192)"),
    _wish("--goal", type=GOAL, metavar="balanced|speed|context|quality", help="what comes first (balanced)"),
    _wish("--users", type=Count(1), metavar="N", help="people at the same time, each with a context of their own"),
)


def wish_options(function: Callback) -> Callback:
    """Add --min-ctx, --goal and --users; the command gets them as `wish: Wish`."""

    @wraps(function)
    def call(*, min_ctx: int | None, goal: str | None, users: int | None, **rest: Any) -> Any:
        return function(wish=Wish(min_ctx, cast("Goal", goal or "balanced"), users), **rest)

    return _decorated(call, _WISHES)


def json_option(function: Callback) -> Callback:
    """Add --json; the command gets it as `as_json`."""
    return click.option("as_json", "--json", cls=Option, section="Output", is_flag=True, help="one JSON object")(function)


def model_argument(function: Callback) -> Callback:
    """Add MODEL."""
    return click.argument("reference", metavar="MODEL", shell_complete=complete_models, callback=from_page)(function)


def from_page(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """MODEL or REPO, or several, where a hub's page was named instead."""
    if isinstance(value, tuple):
        return tuple(from_page(_ctx, _param, each) for each in value)
    if not value.startswith("https://"):
        return value
    from fitplug.cli.steps import load_registry
    from fitplug.opening import as_reference

    return as_reference(value, load_registry())


def _decorated(function: Callback, options: tuple[Decorator, ...]) -> Callback:
    for option in reversed(options):
        function = option(function)
    return function


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete a path or a scheme."""
    from fitplug.cli import completion

    return completion.models(ctx, param, incomplete)


def complete_runners(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of a runner."""
    from fitplug.cli import completion

    return completion.runners(ctx, param, incomplete)


def complete_exporters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of an exporter."""
    from fitplug.cli import completion

    return completion.exporters(ctx, param, incomplete)


def complete_engines(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of an engine."""
    from fitplug.cli import completion

    return completion.engines(ctx, param, incomplete)


def complete_cards(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of a card."""
    from fitplug.cli import completion

    return completion.cards(ctx, param, incomplete)
