"""The planner's one door: what is known goes in, a plan comes out."""

from dataclasses import replace

from fitplug.errors import RefusedError
from fitplug.extension import Runner
from fitplug.machine.records import Machine
from fitplug.memory.companions import Companions
from fitplug.model.records import Model
from fitplug.planner.alternatives import find_others
from fitplug.planner.choose import Choice, choose, make_grid
from fitplug.planner.climb import Grid
from fitplug.planner.host import hold_caches
from fitplug.planner.prices import prices
from fitplug.planner.prompts import read_faster
from fitplug.planner.reasons import explain
from fitplug.planner.records import Alternative, Plan, Request
from fitplug.planner.search import Search
from fitplug.planner.speed import Speedometer
from fitplug.planner.trials import EstimatorFactory, Trial, Trials
from fitplug.planner.ways import Question
from fitplug.settings import Settings


def fit(
    model: Model,
    machine: Machine,
    runner: Runner,
    settings: Settings,
    request: Request,
    *,
    estimator: EstimatorFactory | None = None,
    companions: Companions | None = None,
) -> Plan:
    """Choose all settings that are not given.

    Args:
        model: What is to run.
        machine: Where.
        runner: The program that will run it.
        settings: The user's settings; those named in `request.given` are kept.
        request: The goal, and what must stay free.
        estimator: What estimates settings; None: `fitplug.memory.estimate.Estimator`.
        companions: The projector, the draft and the adapters that the settings name, for that estimator.

    Raises:
        RefusedError: llama.cpp refuses these settings with every choice of the others.
    """
    trials = Trials(model, machine, runner, request.reserve_bytes, estimator or _default_estimator(companions))
    trials.keep_auto = "flash_attn" in request.given
    search = Search(model, trials, open_settings(settings, request), request.given)
    grid = make_grid(model, search.settings, request)
    choice = choose(search, grid, request)
    if choice is None:
        trials.estimate(search.settings)  # says why
        raise RefusedError("llama.cpp refuses these settings")
    speed = Speedometer(model, machine, runner)
    if choice.trial.fits:
        choice = read_faster(choice, grid, request, lambda trial: speed(trial.estimate))
    choice = choice._replace(trial=_pin_flash_attention(choice.trial, trials, request))
    if choice.trial.fits:
        choice = choice._replace(trial=hold_caches(choice.trial, model, runner, request.given))
    question = Question(choice, search, grid, request)
    others = find_others(question, lambda trial: speed(trial.estimate)) if choice.trial.fits else ()
    return Plan(
        model=model,
        machine=machine,
        runner=runner.name,
        request=request,
        estimate=choice.trial.estimate,
        fits=choice.trial.fits,
        speed=speed(choice.trial.estimate) if choice.trial.fits else None,
        reasons=(*explain(choice, model, machine, grid, request), *prices(choice, search, request))
        if choice.trial.fits
        else (),
        alternatives=[
            Alternative(title=other.title, cost=other.cost, estimate=pinned.estimate, speed=speed(pinned.estimate))
            for other in others
            for pinned in [hold_caches(_pin_flash_attention(other.trial, trials, request), model, runner, request.given)]
        ],
        fixes=() if choice.trial.fits else _fixes(choice, search, grid, request),
        n_estimates=trials.n_estimates,
    )


def _fixes(choice: Choice, search: Search, grid: Grid, request: Request) -> tuple[str, ...]:
    from fitplug.planner.fixes import find_fixes  # brings llama-quantize's rules along

    return find_fixes(choice, search, grid, request)


def open_settings(settings: Settings, request: Request) -> Settings:
    """Where the search starts: the user's settings, as many slots as users, everything on the GPUs."""
    if "n_seq_max" not in request.given and request.users > 1:
        settings = replace(settings, n_seq_max=request.users)
    if "n_gpu_layers" not in request.given:
        settings = replace(settings, n_gpu_layers=-1)
    return settings


def _pin_flash_attention(trial: Trial, trials: Trials, request: Request) -> Trial:
    """Write down what `auto` comes to, so that the runner chooses nothing; only where that changes nothing else.

    With layers on the CPU llama.cpp may find that flash attention would not run where its layer lies (hybrids do), and
    turn it off: then it is asked once more.
    """
    settings = trial.settings
    if "flash_attn" in request.given or "flash_attn" in trials.runner.cannot_express:
        return trial
    is_on = trial.estimate.resolved.flash_attn
    if is_on and 0 < settings.n_gpu_layers < len(trial.estimate.layer_devices):
        is_on = trials.estimate(replace(settings, flash_attn="auto")).resolved.flash_attn
    pinned = trials(replace(settings, flash_attn="on" if is_on else "off"))
    return pinned if pinned is not None and (pinned.counted == trial.counted or pinned.fits) else trial


def _default_estimator(companions: Companions | None) -> EstimatorFactory:
    from fitplug.memory.estimate import Estimators

    return Estimators() if companions is None else Estimators(companions)
