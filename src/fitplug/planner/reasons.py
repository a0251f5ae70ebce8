"""Why a plan is as it is, in sentences that a beginner understands."""

from collections.abc import Iterator, Sequence

from fitplug.machine.records import Machine
from fitplug.memory.records import HOST, Estimate, Kind
from fitplug.model.records import Model
from fitplug.planner.choose import Choice
from fitplug.planner.climb import Grid
from fitplug.planner.layout import SINGLE_COPY
from fitplug.planner.records import Request
from fitplug.planner.trials import Trial
from fitplug.settings import Settings
from fitplug.units import format_bytes, format_tokens


def explain(choice: Choice, model: Model, machine: Machine, grid: Grid, request: Request) -> tuple[str, ...]:
    """One sentence for each thing that was decided."""
    return (
        *_place(choice, model, machine),
        *_order(choice, machine),
        *_conceded(choice),
        *_context(choice, grid, request),
        *_cache(choice.trial, request),
        *_users(choice.trial, request),
        *_host(choice.trial, request),
        *_spill(choice.trial, machine),
    )


def _place(choice: Choice, model: Model, machine: Machine) -> Iterator[str]:
    trial = choice.trial
    used = [name for name, n in zip(machine.device_names(), trial.counted, strict=True) if n]
    if choice.where == "one":
        yield f"Everything fits on {_named(used[0], machine)}: that is the fastest place for it."
        if len(machine.devices) > 1:
            yield "One GPU is enough, so the others are left out: every step from one GPU to another costs time."
    elif choice.where == "several":
        yield f"No single GPU holds everything, {len(used)} together do: {_shares(trial, machine)}."
        yield from _left_out(used, machine)
        yield from _divided(trial, machine)
    elif choice.where == "experts":
        yield from _experts(trial, model)
        yield from _only_last(trial, model)
    elif choice.where == "layers":
        yield from _layers(trial, model, machine)
        yield from _only_last(trial, model)
    elif choice.where == "cpu":
        yield "Everything runs on the CPU: " + (
            "no GPU that llama.cpp can use was found."
            if not machine.devices
            else f"the {_gpus(machine)} has no room for even one layer beside what must stay free."
        )
    else:
        yield "The layers are placed as you said."


def _left_out(used: Sequence[str], machine: Machine) -> Iterator[str]:
    idle = [name for name in machine.device_names() if name not in used]
    if idle:
        yield (
            f"{_listed(idle)} {'is' if len(idle) == 1 else 'are'} left out: a token passes through the GPUs one after the "
            "other, and the ones that are used are the fastest that are enough."
        )


def _order(choice: Choice, machine: Machine) -> Iterator[str]:
    """Why -dev names the GPUs in another order than llama.cpp, or fewer of them."""
    devices = choice.trial.settings.devices
    if devices is None or "devices" in choice.search.given or choice.where not in ("experts", "layers"):
        return
    names = machine.device_names()
    if len(devices) > 1 and list(devices) != sorted(devices, key=names.index):
        yield (
            f"{_named(devices[0], machine)} comes first in -dev: for long prompts the first GPU computes with what stays in "
            "the host's memory, and it is the fastest."
        )
    idle = [name for name in names if name not in devices]
    if idle:
        yield f"{_listed(idle)} {'is' if len(idle) == 1 else 'are'} left out: too small, or slower than the host's own memory."


def _conceded(choice: Choice) -> Iterator[str]:
    """What was given up for the plan, and what that costs."""
    settings = choice.trial.settings
    for name in choice.conceded:
        if name == "n_ubatch" and settings.n_ubatch > Settings().n_ubatch:
            yield (
                f"Long prompts are read {settings.n_ubatch} tokens at a time (-ub): the weights are fetched less often, "
                "and that gains more time than the larger buffers cost."
            )
        elif name == "n_ubatch":
            yield (
                f"Long prompts are read {settings.n_ubatch} tokens at a time, not {Settings().n_ubatch} (-ub): slower, "
                "but the room that this saves is just what was missing to keep all of the model on the GPU."
            )
        elif name == "mmproj_offload":
            yield (
                "The projector works on the CPU (--no-mmproj-offload): a picture takes many seconds instead of one, but all of "
                "the model fits on the GPU, and so every token is written faster."
            )
        elif name == "type_k":
            yield (
                f"The cache is {settings.type_k}, 8 bits instead of 16 (-ctk, -ctv): hardly any loss of quality for half the "
                "memory."
            )


def _experts(trial: Trial, model: Model) -> Iterator[str]:
    used = model.get_int("expert_used_count")
    share = f"each token uses only {used} of its {model.n_expert} experts a layer" if used else "few are used at a time"
    yield (
        f"Not all of it fits on the GPU, so experts go to the host's memory before anything else does: {share}, "
        "and they are the cheapest part to read from there."
    )
    n_bytes = trial.estimate.n_bytes("CPU")
    yield f"As few experts as possible stay on the CPU; together with the embeddings it holds {format_bytes(n_bytes)}."


def _layers(trial: Trial, model: Model, machine: Machine) -> Iterator[str]:
    n_all = model.n_layer_all + 1
    n_cpu = n_all - min(trial.settings.n_gpu_layers, n_all)
    lacking = f"Not all of it fits on the {_gpus(machine)}:"
    if not n_cpu:
        yield (
            f"{lacking} some feed-forward weights stay in the host's memory, which is several times slower, "
            "so as little as possible."
        )
        return
    slower = "which is several times slower, so as few as possible"
    yield f"{lacking} {n_cpu} of {n_all} layers stay in the host's memory, {slower}."
    if trial.settings.overrides:
        yield "Layers at the border are divided between GPU and CPU, so that no room is left unused."


def _only_last(trial: Trial, model: Model) -> Iterator[str]:
    settings = trial.settings
    last = rf"blk\.({model.n_layer - 1})\."
    alone = bool(settings.overrides) and all(each.pattern.startswith(last) for each in settings.overrides)
    if alone and not settings.n_cpu_moe and model.causal and model.has_output:
        yield (
            "They are the last layer's, which is run for the newest token alone: so they are never copied to the GPU, and long "
            "prompts are read at full speed."
        )


def _divided(trial: Trial, machine: Machine) -> Iterator[str]:
    """Overrides that keep nothing on the CPU: layers between two GPUs, and none at all but for what any override does."""
    names = machine.device_names()
    if any(each.buffer in names for each in trial.settings.overrides):
        yield (
            "A layer at the border is divided between two GPUs (-ot), so that the room there goes to the context. llama.cpp "
            "then gives up working on several parts of a long prompt at once, so that is read more slowly."
        )
    elif SINGLE_COPY in trial.settings.overrides:
        yield (
            f"-ot '{SINGLE_COPY.pattern}={SINGLE_COPY.buffer}' moves nothing; it stops llama.cpp from keeping four copies "
            "of the buffers between the GPUs, and the room goes to the context. Long prompts are read more slowly."
        )


def _room(estimate: Estimate, request: Request) -> str:
    """What must be left for whom; the reserve is no room where more than that is taken uncounted."""
    besides = max((estimate.n_bytes(name, Kind.OVERHEAD) for name in {*estimate.layer_devices} - {HOST}), default=0)
    if besides <= request.reserve_bytes:
        return f"{format_bytes(request.reserve_bytes)} free on every GPU"
    return f"room for the {format_bytes(besides)} that the driver and its kernels take besides"


def _context(choice: Choice, grid: Grid, request: Request) -> Iterator[str]:
    n_ctx = choice.trial.settings.n_ctx
    n_slots = 1 if choice.trial.settings.kv_unified else choice.trial.settings.n_seq_max
    words, trained = f"{format_tokens(n_ctx)} tokens", format_tokens(grid.high // n_slots)
    longest = f"the longest that the model was trained for{f' for each of {n_slots} users' if n_slots > 1 else ''}"
    if "n_ctx" in request.given:
        yield f"The context is {words}, as you asked."
    elif n_ctx == grid.high and request.goal == "context" and choice.where in ("experts", "layers"):
        yield f"The context is {words}, {longest}: that is what --goal context asks for."
    elif n_ctx == grid.high:
        yield f"The context is {words}, {longest}."
    elif choice.where in ("one", "several", "given"):
        yield (
            f"The context is {words}, the longest that leaves {_room(choice.trial.estimate, request)}; "
            f"the model was trained for {trained}{' a user' if n_slots > 1 else ''}."
        )
    elif choice.where == "cpu":
        yield f"The context is {words}, the longest that leaves a quarter of the host's memory to others."
    else:
        yield (
            f"The context is {words}: at least {format_tokens(grid.low)} were wanted, and a longer one would push more of "
            "the model off the GPU."
        )


def _cache(trial: Trial, request: Request) -> Iterator[str]:
    resolved = trial.estimate.resolved
    if "type_k" not in request.given and "type_v" not in request.given and resolved.type_k == "f16":
        yield "The cache keeps its 16 bits: nothing here costs quality."
    if not resolved.flash_attn and "flash_attn" not in request.given:
        yield "Flash attention is off: llama.cpp has none for this model on these devices."


def _users(trial: Trial, request: Request) -> Iterator[str]:
    if request.users > 1:
        each = format_tokens(trial.estimate.resolved.n_ctx_seq)
        yield (
            f"{trial.settings.n_seq_max} users are served at once, each with {each} tokens of context"
            + (", out of one cache that all share." if trial.settings.kv_unified else " that nobody else can take.")
        )


def _host(trial: Trial, request: Request) -> Iterator[str]:
    settings = trial.settings
    if settings.cache_ram_mib is not None and "cache_ram_mib" not in request.given:
        yield (
            f"The server would keep up to 8 GiB of old prompts in the host's memory; -cram {settings.cache_ram_mib} is what is "
            "left for them."
        )
    if settings.ctx_checkpoints is not None and "ctx_checkpoints" not in request.given:
        yield (
            f"It would also keep 32 copies of each slot's windowed cache or state; -ctxcp {settings.ctx_checkpoints} keeps "
            "them from filling the host's memory."
        )


def _spill(trial: Trial, machine: Machine) -> Iterator[str]:
    """Windows's display driver model hands out the host's memory where a GPU is full, and no program sees it fail."""
    used = [d for d, n in zip(machine.devices, trial.counted, strict=True) if n and not d.unified]
    if used and machine.host.extra.get("system") in ("windows", "wsl"):
        yield (
            "Windows moves what a GPU has no room for into the host's memory without a word, and everything becomes many times "
            "slower. So leave free what is free now, or forbid it in NVIDIA's control panel (CUDA - Sysmem Fallback Policy)."
        )


def _shares(trial: Trial, machine: Machine) -> str:
    names = machine.device_names()
    layers = trial.estimate.layer_devices
    return ", ".join(f"{name} {layers.count(name)} layers" for name in names if name in layers)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _gpus(machine: Machine) -> str:
    return "GPU" if len(machine.devices) == 1 else "GPUs"


def _named(name: str, machine: Machine) -> str:
    device = machine.devices[machine.device_names().index(name)]
    return f"{name} ({device.name})" if device.name else name
