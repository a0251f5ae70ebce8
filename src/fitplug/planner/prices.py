"""What the user's own settings cost: each is taken away once, and the plan without it is compared."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fitplug.memory.records import HOST
from fitplug.planner.choose import Choice, choose, make_grid
from fitplug.planner.records import Request
from fitplug.planner.search import Search
from fitplug.planner.trials import DRAFT, PROJECTOR, Trial
from fitplug.settings import Settings
from fitplug.units import MIB, format_bytes, format_tokens

_MOST = 3
_LESS = 64 * MIB
"""Less than this on the CPU is not worth a sentence."""
_LONGER = 1.1


class Flag(NamedTuple):
    """Settings that are said with one flag and taken away together."""

    flag: str
    names: tuple[str, ...]
    companion: str = ""
    """What the sources of its own parts hold, where it brings some."""
    what: str = ""


FLAGS = (
    Flag("-md", ("model_draft", "spec_type"), DRAFT, "The draft model"),
    Flag("-mm", ("mmproj",), PROJECTOR, "The projector"),
    Flag("-ngl", ("n_gpu_layers",)),
    Flag("-ts", ("tensor_split",)),
    Flag("-sm", ("split_mode", "main_gpu")),
    Flag("-dev", ("devices",)),
    Flag("-ot", ("overrides",)),
    Flag("-ncmoe", ("n_cpu_moe",)),
    Flag("-nkvo", ("offload_kqv",)),
    Flag("-c", ("n_ctx",)),
    Flag("-ub", ("n_ubatch", "n_batch")),
    Flag("--swa-full", ("swa_full",)),
    Flag("-fa", ("flash_attn",)),
    Flag("-np", ("n_seq_max",)),
)
"""Those that may cost memory, in the order in which they are asked about."""


def prices(choice: Choice, start: Search, request: Request) -> Iterator[str]:
    """One sentence for each given setting that costs something."""
    n = 0
    for flag in FLAGS:
        if n < _MOST and request.given & set(flag.names) and _is_asked_for(flag, start.settings):
            words = _price(flag, choice, start, request)
            n += 1 if words else 0
            yield from words


def _is_asked_for(flag: Flag, settings: Settings) -> bool:
    """It differs from the default, or takes away a choice."""
    defaults = Settings()
    return flag.flag in ("-c", "-ngl") or any(getattr(settings, n) != getattr(defaults, n) for n in flag.names)


def _price(flag: Flag, choice: Choice, start: Search, request: Request) -> list[str]:
    taken = _own_bytes(flag, choice.trial)
    own = f"{flag.what} takes {taken} ({flag.flag})" if taken else ""
    gain = "" if _lacks_nothing(choice, request) else _gain(flag, choice, start, request)
    if own:
        return [f"{own}; without it {gain}." if gain else f"{own}."]
    return [f"Your {flag.flag} has a price: without it {gain}."] if gain else []


def _own_bytes(flag: Flag, trial: Trial) -> str:
    if not flag.companion:
        return ""
    sizes: dict[str, int] = {}
    for part in trial.estimate.parts:
        if flag.companion in part.source:
            where = "the host's memory" if part.device == HOST else part.device
            sizes[where] = sizes.get(where, 0) + part.n_bytes
    return " and ".join(f"{format_bytes(n)} of {where}" for where, n in sizes.items() if n >= MIB)


def _lacks_nothing(choice: Choice, request: Request) -> bool:
    """All on one GPU with all the context that was wanted: nothing is to be had for it."""
    trial = choice.trial
    longest = "n_ctx" in request.given or trial.settings.n_ctx >= choice.search.model.n_ctx_train * trial.settings.n_seq_max
    return choice.where in ("one", "several") and longest and not choice.conceded


def _gain(flag: Flag, choice: Choice, start: Search, request: Request) -> str:
    """What would be better without the flag; nothing where nothing would."""
    changes = {name: getattr(Settings(), name) for name in flag.names}
    if "n_gpu_layers" in changes:
        changes["n_gpu_layers"] = -1
    given = request.given - set(flag.names)
    free = Search(start.model, start.trials, replace(start.settings, **changes), given)
    free.quick = True
    freer = replace(request, given=given)
    found = choose(free, make_grid(start.model, free.settings, freer), freer)
    if found is None or not found.trial.fits:
        return ""
    less = choice.trial.on_host - found.trial.on_host
    if flag.flag == "-c":
        n_ctx = format_tokens(found.trial.settings.n_ctx)
        return f"({n_ctx} tokens) {format_bytes(less)} less would stay on the CPU" if less > _LESS else ""
    mine, other = (trial.estimate.resolved.n_ctx_seq for trial in (choice.trial, found.trial))
    words = [f"{format_bytes(less)} less would stay on the CPU"] if less > _LESS else []
    if other > mine * _LONGER and less >= -_LESS:
        words.append(f"{format_tokens(other)} instead of {format_tokens(mine)} tokens of context would fit")
    return " and ".join(words)
