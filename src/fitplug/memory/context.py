"""Settings as llama.cpp rounds them, and what it refuses: llama_init_from_model and llama_context (src/llama-context.cpp)."""

from dataclasses import replace

from fitplug.errors import RefusedError
from fitplug.extension import Runner
from fitplug.memory.records import Resolved
from fitplug.memory.sizes import block, is_quantised
from fitplug.model.pooling import pooling_of
from fitplug.model.records import Model
from fitplug.settings import CACHE_TYPES, SPEC_TYPES, FlashAttn, Settings, SpecType
from fitplug.units import pad

MAX_SEQ = 256
"""LLAMA_MAX_SEQ (src/llama-cparams.h)."""
MAX_CTX = (1 << 31) - 256
"""The command line takes an int, and the context is rounded up to 256."""
ROUND_CTX = 256
SINGLE_SEQUENCE = frozenset(("kimi-linear", "minimax-01"))
"""Whose last reservation is for one sequence, since theirs grows with the square of its tokens (sched_reserve)."""


def resolve(model: Model, settings: Settings, runner: Runner, n_gpu_layers: int, *, has_target: bool = False) -> Resolved:
    """Work out the context's parameters. Flash attention that is on "auto" is still hoped for: see `resolve_auto`.

    Raises:
        RefusedError: llama.cpp does not make this context.
    """
    _refuse_model(model, has_target=has_target)
    settings = as_the_server(settings) if runner.outputs == "sequences" else settings
    n_ctx = settings.n_ctx or model.n_ctx_train
    if not 0 < n_ctx <= MAX_CTX:
        raise RefusedError("a context of 0 tokens" if n_ctx == 0 else f"a context of {n_ctx} tokens is too long")
    if not 1 <= settings.n_seq_max <= MAX_SEQ:
        raise RefusedError(f"-np {settings.n_seq_max}: llama.cpp takes 1 to {MAX_SEQ} sequences")
    if settings.n_batch < 1 and settings.n_ubatch < 1:
        raise RefusedError("-b and -ub cannot both be 0")
    flash_attn = flash_attn_wanted(model, settings)
    _refuse_types(model, settings, flash_attn)
    n_batch = min(n_ctx, settings.n_batch) if model.causal else settings.n_batch
    n_ubatch = min(n_batch, settings.n_ubatch or settings.n_batch)
    n_ctx = pad(n_ctx, ROUND_CTX)
    n_ctx_seq = n_ctx if settings.kv_unified else pad(n_ctx // settings.n_seq_max, ROUND_CTX)
    if n_ctx_seq == 0:
        raise RefusedError(f"{n_ctx} tokens are too few for {settings.n_seq_max} sequences")
    if not settings.kv_unified:
        _refuse_uneven(model, settings.n_seq_max, min(n_ctx_seq * settings.n_seq_max, n_ubatch))
    n_outputs_max = _outputs(model, settings, runner, n_batch)
    if n_outputs_max < settings.n_seq_max:  # llama_context::output_reserve asserts it
        raise RefusedError(f"-np {settings.n_seq_max}: llama.cpp aborts where a batch has fewer tokens than that; raise -b")
    return Resolved(
        n_ctx=n_ctx if settings.kv_unified else n_ctx_seq * settings.n_seq_max, n_ctx_seq=n_ctx_seq, n_batch=n_batch,
        n_ubatch=n_ubatch, n_seq_max=settings.n_seq_max, n_gpu_layers=n_gpu_layers,
        n_stream=1 if settings.kv_unified and model.memory != "dsv4" else settings.n_seq_max,
        n_outputs_max=n_outputs_max, type_k=settings.type_k, type_v=settings.type_v,
        flash_attn=flash_attn != "off", v_trans=flash_attn == "off", n_rs_seq=_rollback(model, settings),
        pooling=(settings.pooling or pooling_of(model)) if settings.embedding else None,
    )  # fmt: skip


def as_the_server(settings: Settings) -> Settings:
    """With the batch that llama-server makes do with for embeddings (llama_server, tools/server/server.cpp)."""
    if settings.embedding and settings.n_batch > settings.n_ubatch:
        return replace(settings, n_batch=settings.n_ubatch)
    return settings


def _refuse_uneven(model: Model, n_seq_max: int, n_tokens: int) -> None:
    """Some reserve for one sequence with all streams: attention then loses the tokens that do not divide, and ggml aborts.

    T5 adds one bias of positions to all streams alike, which ggml cannot (build_pos_bias, src/llama-graph.cpp).
    """
    if model.architecture == "t5" and n_seq_max > 1:
        raise RefusedError(f"-np {n_seq_max}: llama.cpp aborts for T5 with a cache per sequence; add -kvu")
    in_between = any(layer.has_kv and not layer.is_recurrent for layer in model.layers[: model.n_layer - 1])
    if model.drawn_as in SINGLE_SEQUENCE and n_tokens % n_seq_max and in_between:
        raise RefusedError(
            f"-np {n_seq_max}: llama.cpp aborts where it does not divide a micro-batch of {n_tokens} tokens; "
            "choose another -ub, or -kvu"
        )


def _outputs(model: Model, settings: Settings, runner: Runner, n_batch: int) -> int:
    """How many rows of logits are reserved; an encoder needs them all."""
    if runner.outputs == "batch" or model.has_encoder:
        return n_batch
    if settings.embedding or settings.pooling not in (None, "none"):  # server_output_limits
        return settings.n_batch
    return min(settings.n_batch, settings.n_seq_max * (1 + n_drafted(settings)))


def n_drafted(settings: Settings) -> int:
    """How many tokens a draft may have; its target answers them at once (common_speculative_n_max, common/speculative.cpp).

    Raises:
        RefusedError: llama.cpp knows no such way of drafting.
    """
    lengths = (kind.longest for kind in _spec_types(settings))
    return max((n if isinstance(n, int) else getattr(settings, n) for n in lengths), default=0)


def _rollback(model: Model, settings: Settings) -> int:
    """How many tokens a recurrent state can be taken back (cparams.n_rs_seq; llm_arch_supports_rs_rollback)."""
    rolls_back = any(kind.rolls_back for kind in _spec_types(settings))
    return settings.draft_max if rolls_back and model.row.rolls_back else 0


def _spec_types(settings: Settings) -> list[SpecType]:
    kinds = settings.spec_types()
    for kind in kinds:
        if kind not in SPEC_TYPES:
            raise RefusedError(f"--spec-type {kind}: llama.cpp has {', '.join(SPEC_TYPES)}")
    return [SPEC_TYPES[kind] for kind in kinds]


def flash_attn_wanted(model: Model, settings: Settings) -> FlashAttn:
    """What is left of "auto" before a graph is tried: some models forbid it, a quantised V and -sm tensor need it."""
    wanted = settings.flash_attn
    if model.flash_attn_forced == "off" and wanted != "off":
        wanted = "off"
    if settings.split_mode == "tensor":
        if wanted == "off":
            raise RefusedError("-sm tensor needs flash attention: leave -fa at auto or on")
        wanted = "on"
    if is_quantised(settings.type_v):
        if wanted == "off":
            why = "this model cannot use it" if settings.flash_attn != "off" else "use -fa auto or on, or -ctv f16"
            raise RefusedError(f"a quantised V cache ({settings.type_v}) needs flash attention: {why}")
        wanted = "on"
    return wanted


def _refuse_model(model: Model, *, has_target: bool) -> None:
    if model.refusals:
        raise RefusedError(f"llama.cpp does not load this file: {model.refusals[0]}")
    if model.row.target_context and not has_target:
        raise RefusedError(f"'{model.architecture}' is a draft that only runs beside its target model")


def _refuse_types(model: Model, settings: Settings, flash_attn: FlashAttn) -> None:
    for flag, type_ in (("-ctk", settings.type_k), ("-ctv", settings.type_v)):
        if type_ not in CACHE_TYPES:
            raise RefusedError(f"{flag} {type_}: llama.cpp takes {', '.join(CACHE_TYPES)}")
    if (model.is_mla or model.memory == "dsv4") and settings.type_k != settings.type_v:
        raise RefusedError(f"this model keeps K only: -ctk {settings.type_k} and -ctv {settings.type_v} must be the same")
    if flash_attn == "off":
        return
    for name, type_ in (("K", settings.type_k), ("V", settings.type_v)):
        if not is_quantised(type_):
            continue
        elements = block(type_)[0]
        for layer in model.layers[: model.n_layer]:
            width = layer.n_embd_head_k if name == "K" else layer.n_embd_head_v
            if width % elements:
                raise RefusedError(f"a {name} cache of type {type_}: its blocks of {elements} do not divide heads of {width}")
