"""A plan as llama.cpp's command line: one row a setting, checked against common/arg.cpp."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.extension import Export, ExportRequest
from fitplug.pinned import pin
from fitplug.planner.records import Plan
from fitplug.settings import ROPE_FLAGS, Settings, TensorOverride, is_url
from fitplug_llamacpp.model import model_words

FFN_EXPS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""Which tensors -cmoe and -ncmoe mean: common/common.h, LLM_FFN_EXPS_REGEX."""
FFN_DENSE = r"\.ffn_(up|down|gate)\."
"""Which ones -ncffn means: LLM_FFN_DENSE_REGEX."""

ROPE_VARIABLES = (
    "LLAMA_ARG_ROPE_SCALING_TYPE", *(f"LLAMA_ARG_{flag[2:].upper().replace('-', '_')}" for flag in ROPE_FLAGS[1:]),
)  # fmt: skip
DEFAULTS = Settings()


class Flag(NamedTuple):
    """How one setting is written."""

    setting: str
    flag: str
    env: str | None
    value: Callable[[Settings], str | None]
    """None: leave the flag out; "": a bare flag."""
    env_value: str | None = None
    """What a bare flag's variable is set to."""
    server_only: bool = False


def _split(s: Settings) -> str | None:
    return ",".join(str(int(share)) if share == int(share) else repr(share) for share in s.tensor_split) or None


def _overrides(overrides: Sequence[TensorOverride]) -> str | None:
    for override in overrides:
        if "," in override.pattern or "=" in override.pattern:
            raise RefusedError(
                f"llama.cpp splits -ot at commas and at the first '=': the pattern '{override.pattern}' cannot be given"
            )
    return ",".join(f"{override.pattern}={override.buffer}" for override in overrides) or None


def _listed(words: Iterable[str]) -> str | None:
    """common/arg.cpp, parse_csv_row: a name with a comma or a quote stands in double quotes."""
    quoted = ['"' + word.replace('"', '""') + '"' if set(',"') & set(word) else word for word in words]
    return ",".join(quoted) or None


def _scaled(s: Settings) -> str | None:
    for adapter in s.lora_scaled:
        if ":" in adapter.name:
            raise RefusedError(f"llama.cpp splits --lora-scaled at colons: '{adapter.name}' cannot be given; use --lora")
    return _listed(f"{adapter.name}:{adapter.scale!r}" for adapter in s.lora_scaled)


def _kv_overrides(s: Settings) -> str | None:
    words = []
    for key, value in s.kv_overrides:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if "," in text or "," in key or "=" in key:
            raise RefusedError(f"llama.cpp splits --override-kv at commas: {key} cannot be given")
        words.append(f"{key}={type(value).__name__}:{text}")
    return ",".join(words) or None


def _rope(flag: str) -> Callable[[Settings], str | None]:
    return lambda s: next((word.value for word in s.rope if word.flag == flag), None)


def _reranks(s: Settings) -> bool:
    return s.embedding and s.pooling == "rank"


def _projector(s: Settings, *, url: bool) -> str | None:
    return s.mmproj if s.mmproj is not None and is_url(s.mmproj) == url else None


def _splits(s: Settings) -> bool:
    return s.split_mode != "layer" or s.main_gpu != 0 or bool(s.tensor_split)


def _unless(name: str) -> Callable[[Settings], str | None]:
    """A setting that is said where it is not llama.cpp's default."""

    def value(s: Settings) -> str | None:
        given = getattr(s, name)
        return str(given) if given != getattr(DEFAULTS, name) else None

    return value


def _of_drafts(name: str, *, of_models: bool = False) -> Callable[[Settings], str | None]:
    """A setting that says something only where a model drafts, or one that has a file of its own: said there, or if given."""

    def value(s: Settings) -> str | None:
        given = getattr(s, name)
        decides = s.drafts_by_model and not (of_models and s.model_draft is None)
        return str(given) if decides or given != getattr(DEFAULTS, name) else None

    return value


def _draft_layers(s: Settings) -> str | None:
    n = _of_drafts("draft_n_gpu_layers", of_models=True)(s)
    return "all" if n == "-1" else n


def _devices(devices: Sequence[str] | None) -> str | None:
    return None if devices is None else ",".join(devices) or "none"


def _bare(wanted: bool) -> str | None:
    return "" if wanted else None


def _count(number: int | None) -> str | None:
    return None if number is None else str(number)


FLAGS = (
    Flag("n_ctx", "-c", "LLAMA_ARG_CTX_SIZE", lambda s: str(s.n_ctx)),
    Flag("n_gpu_layers", "-ngl", "LLAMA_ARG_N_GPU_LAYERS", lambda s: str(s.n_gpu_layers)),
    Flag("n_batch", "-b", "LLAMA_ARG_BATCH", lambda s: str(s.n_batch)),
    Flag("n_ubatch", "-ub", "LLAMA_ARG_UBATCH", lambda s: str(s.n_ubatch)),
    Flag("n_seq_max", "-np", "LLAMA_ARG_N_PARALLEL", lambda s: str(s.n_seq_max)),
    # Never left out: without -np the server turns it on by itself (tools/server/server.cpp, llama_server).
    Flag("kv_unified", "-kvu", "LLAMA_ARG_KV_UNIFIED", lambda s: _bare(s.kv_unified), "1", server_only=True),
    Flag("kv_unified", "-no-kvu", "LLAMA_ARG_KV_UNIFIED", lambda s: _bare(not s.kv_unified), "0", server_only=True),
    Flag("type_k", "-ctk", "LLAMA_ARG_CACHE_TYPE_K", lambda s: s.type_k),
    Flag("type_v", "-ctv", "LLAMA_ARG_CACHE_TYPE_V", lambda s: s.type_v),
    Flag("flash_attn", "-fa", "LLAMA_ARG_FLASH_ATTN", lambda s: s.flash_attn),
    Flag("swa_full", "--swa-full", "LLAMA_ARG_SWA_FULL", lambda s: _bare(s.swa_full), "1"),
    Flag("offload_kqv", "-nkvo", "LLAMA_ARG_KV_OFFLOAD", lambda s: _bare(not s.offload_kqv), "0"),
    Flag("op_offload", "--no-op-offload", None, lambda s: _bare(not s.op_offload)),
    Flag("devices", "-dev", "LLAMA_ARG_DEVICE", lambda s: _devices(s.devices)),
    # The defaults of these two never move by themselves; said where there is something to split.
    Flag("split_mode", "-sm", "LLAMA_ARG_SPLIT_MODE", lambda s: s.split_mode if _splits(s) else None),
    Flag("main_gpu", "-mg", "LLAMA_ARG_MAIN_GPU", lambda s: str(s.main_gpu) if _splits(s) else None),
    Flag("tensor_split", "-ts", "LLAMA_ARG_TENSOR_SPLIT", _split),
    Flag("n_cpu_moe", "-cmoe", "LLAMA_ARG_CPU_MOE", lambda s: _bare(s.n_cpu_moe < 0), "1"),
    Flag("n_cpu_moe", "-ncmoe", "LLAMA_ARG_N_CPU_MOE", lambda s: str(s.n_cpu_moe) if s.n_cpu_moe > 0 else None),
    Flag("n_cpu_ffn", "-ncffn", "LLAMA_ARG_N_CPU_FFN", _unless("n_cpu_ffn")),
    Flag("overrides", "-ot", "LLAMA_ARG_OVERRIDE_TENSOR", lambda s: _overrides(s.overrides)),
    Flag("no_host", "--no-host", "LLAMA_ARG_NO_HOST", lambda s: _bare(s.no_host), "1"),
    Flag("repack", "-nr", "LLAMA_ARG_REPACK", lambda s: _bare(not s.repack), "0"),
    Flag("embedding", "--embeddings", "LLAMA_ARG_EMBEDDINGS", lambda s: _bare(s.embedding and not _reranks(s)), "1",
         server_only=True),
    Flag("pooling", "--rerank", "LLAMA_ARG_RERANKING", lambda s: _bare(_reranks(s)), "1", server_only=True),
    Flag("pooling", "--pooling", "LLAMA_ARG_POOLING", lambda s: None if _reranks(s) else s.pooling, server_only=True),
    Flag("kv_unified_per_slot", "--kv-unified-per-slot", "LLAMA_ARG_KV_UNIFIED_PER_SLOT", _unless("kv_unified_per_slot"),
         server_only=True),
    Flag("mmproj", "-mm", "LLAMA_ARG_MMPROJ", lambda s: _projector(s, url=False)),
    Flag("mmproj", "-mmu", "LLAMA_ARG_MMPROJ_URL", lambda s: _projector(s, url=True)),
    Flag("mmproj_offload", "--no-mmproj-offload", "LLAMA_ARG_MMPROJ_OFFLOAD",
         lambda s: _bare(s.mmproj is not None and not s.mmproj_offload), "0"),
    Flag("mmproj_device", "-mmdev", "MTMD_BACKEND_DEVICE", _unless("mmproj_device")),
    Flag("image_min_tokens", "--image-min-tokens", "LLAMA_ARG_IMAGE_MIN_TOKENS", _unless("image_min_tokens")),
    Flag("image_max_tokens", "--image-max-tokens", "LLAMA_ARG_IMAGE_MAX_TOKENS", _unless("image_max_tokens")),
    Flag("model_draft", "-md", "LLAMA_ARG_SPEC_DRAFT_MODEL", lambda s: s.model_draft),
    Flag("spec_type", "--spec-type", "LLAMA_ARG_SPEC_TYPE", lambda s: s.spec_type),
    Flag("draft_max", "--spec-draft-n-max", "LLAMA_ARG_SPEC_DRAFT_N_MAX", _of_drafts("draft_max")),
    Flag("ngram_mod_n_max", "--spec-ngram-mod-n-max", None, _unless("ngram_mod_n_max")),
    Flag("ngram_simple_size_m", "--spec-ngram-simple-size-m", None, _unless("ngram_simple_size_m")),
    Flag("ngram_map_k_size_m", "--spec-ngram-map-k-size-m", None, _unless("ngram_map_k_size_m")),
    Flag("ngram_map_k4v_size_m", "--spec-ngram-map-k4v-size-m", None, _unless("ngram_map_k4v_size_m")),
    Flag("draft_type_k", "-ctkd", "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", _of_drafts("draft_type_k")),
    Flag("draft_type_v", "-ctvd", "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", _of_drafts("draft_type_v")),
    Flag("draft_n_gpu_layers", "-ngld", "LLAMA_ARG_N_GPU_LAYERS_DRAFT", _draft_layers),
    Flag("draft_devices", "-devd", None, lambda s: _devices(s.draft_devices)),
    Flag("draft_n_cpu_moe", "-cmoed", "LLAMA_ARG_SPEC_DRAFT_CPU_MOE", lambda s: _bare(s.draft_n_cpu_moe < 0), "1"),
    Flag("draft_n_cpu_moe", "-ncmoed", "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",
         lambda s: str(s.draft_n_cpu_moe) if s.draft_n_cpu_moe > 0 else None),
    Flag("draft_overrides", "-otd", None, lambda s: _overrides(s.draft_overrides)),
    Flag("draft_backend_sampling", "--no-spec-draft-backend-sampling", "LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING",
         lambda s: _bare(not s.draft_backend_sampling), "0"),
    Flag("lora", "--lora", None, lambda s: _listed(s.lora)),
    Flag("lora_scaled", "--lora-scaled", None, _scaled),
    Flag("kv_overrides", "--override-kv", None, _kv_overrides),
    *(Flag("rope", flag, variable, _rope(flag)) for flag, variable in zip(ROPE_FLAGS, ROPE_VARIABLES, strict=True)),
    Flag("use_mmap", "--load-mode", "LLAMA_ARG_LOAD_MODE", lambda s: s.load_mode or (None if s.use_mmap else "none")),
    Flag("lazy_mode", "--lazy-mode", "LLAMA_ARG_LAZY_MODE", _unless("lazy_mode")),
    Flag("cache_ram_mib", "-cram", "LLAMA_ARG_CACHE_RAM", lambda s: _count(s.cache_ram_mib)),
    Flag("ctx_checkpoints", "-ctxcp", "LLAMA_ARG_CTX_CHECKPOINTS", lambda s: _count(s.ctx_checkpoints)),
    Flag("fit", "--fit", "LLAMA_ARG_FIT", lambda _: "off"),
)  # fmt: skip
"""Every setting that decides memory, as common/arg.cpp spells it, common_params_parser_init. `fit` is no setting of ours:
it is on unless told otherwise and would change all the others."""


def flags(settings: Settings, *, server: bool = True) -> Iterator[str]:
    """The words of `settings`, without program and model."""
    for row in FLAGS:
        value = None if row.server_only and not server else row.value(settings)
        if value is not None:
            yield row.flag
            if value:
                yield value


def variables(settings: Settings) -> tuple[dict[str, str], tuple[str, ...]]:
    """The same as LLAMA_ARG_* variables, and the settings that have none.

    llama.cpp reads variables in the order of its options, -ot before -cmoe and -ncffn: where it is wanted too their patterns
    are written into the one variable, in the order that the command line would have given.
    """
    settings = _all_as_overrides(settings) if settings.overrides else settings
    env, missing = {}, []
    for row in FLAGS:
        value = row.value(settings)
        if value is not None and row.env is None:
            missing.append(row.setting)
        elif value is not None and row.env is not None:
            env[row.env] = value or row.env_value or ""
    return env, tuple(missing)


def _all_as_overrides(settings: Settings) -> Settings:
    n = settings.n_cpu_moe
    patterns = [FFN_EXPS] if n < 0 else [rf"blk\.{i}{FFN_EXPS}" for i in range(n)]
    patterns += [rf"blk\.{i}{FFN_DENSE}" for i in range(settings.n_cpu_ffn)]
    written = tuple(TensorOverride(pattern, "CPU") for pattern in patterns)
    return replace(settings, n_cpu_moe=0, n_cpu_ffn=0, overrides=written + settings.overrides)


def render_server(plan: Plan, request: ExportRequest) -> Export:
    """`llama-server -m …`: nothing is left for the server to choose."""
    return _command("llama-server", plan, request, tuple(flags(pin(plan.estimate, plan.machine))))


def render_cli(plan: Plan, request: ExportRequest) -> Export:
    """`llama-cli` does not know -kvu (common/arg.cpp lists the programs that do); it reserves what the server does."""
    return _command("llama-cli", plan, request, tuple(flags(pin(plan.estimate, plan.machine), server=False)))


def render_fit_params(plan: Plan, request: ExportRequest) -> Export:
    """The program that prints what it would take, per device in MiB."""
    return _command("llama-fit-params", plan, request, tuple(measuring_flags(pin(plan.estimate, plan.machine))))


def _command(program: str, plan: Plan, request: ExportRequest, rest: tuple[str, ...]) -> Export:
    model = model_words(plan, request)
    argv = (program, *model.words, *rest)
    lost: tuple[str, ...] = ()
    if program != "llama-server":
        asked, names = plan.estimate.settings, dict.fromkeys(row.setting for row in FLAGS if row.server_only)
        lost = tuple(name for name in names if getattr(asked, name) != getattr(DEFAULTS, name))
    return Export(argv=argv, env=model.env, commands=(argv,), cannot_express=lost, notes=model.notes)


def measuring_flags(settings: Settings) -> Iterator[str]:
    """Those that llama-fit-params knows: no -kvu, no draft model, no projector; it prints instead of fitting."""
    alone = replace(settings.without_drafts(), mmproj=None, mmproj_device=None, image_min_tokens=None, image_max_tokens=None)
    yield from flags(alone, server=False)
    yield from ("-fitp", "on")
