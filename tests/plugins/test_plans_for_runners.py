"""A plan that is made for a runner uses nothing that the runner has no place for, and arrives there unchanged."""

import json
from typing import Any

import pytest

from fitplug.extension import Exporter, Runner
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.registry import load
from fitplug.settings import Settings
from fitplug_lmstudio.fields import load_fields
from fitplug_ollama.modelfile import parse
from planner_support import Quick, card, make_machine, make_model
from plugins_support import request

REGISTRY = load()
RUNNERS = ["llama-server", "llama-cli", "llama-cpp-python", "ollama", "lmstudio"]
MODELS = {
    "dense": make_model(),
    "experts": make_model(n_layer=24, n_embd=2048, n_ff=1024, n_expert=64, n_used=8),
    "too large": make_model(n_layer=80, n_embd=8192, n_ff=28672),
}
MACHINES = {
    "one card": make_machine(card(24)),
    "a small card": make_machine(card(6)),
    "two cards": make_machine(card(8), card(12)),
    "none": make_machine(host_gib=64),
}


def runner(name: str) -> Runner:
    return REGISTRY.runner(name)


def exporter(name: str) -> Exporter:
    return REGISTRY.exporter(REGISTRY.runner(name).exporter)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", RUNNERS)
def test_nothing_that_was_planned_is_lost(name: str, model: str, machine: str):
    program = runner(name)
    settings = Settings(**program.defaults)
    plan = fit(MODELS[model], MACHINES[machine], program, settings, Request(), estimator=Quick)
    for other in (plan.estimate, *(each.estimate for each in plan.alternatives)):
        assert {field: getattr(other.settings, field) for field in program.cannot_express} == {
            field: getattr(settings, field) for field in program.cannot_express
        }
    options = {"lmstudio": {"key": "a/b/m.gguf"}, "ollama": {"version": "0.33.0"}}.get(name, {})
    assert exporter(name).render(plan, request(**options)).cannot_express == ()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("model", MODELS)
def test_the_modelfile_says_the_plan(model: str, machine: str):
    program = runner("ollama")
    plan = fit(MODELS[model], MACHINES[machine], program, Settings(**program.defaults), Request(), estimator=Quick)
    found = dict(parse(exporter("ollama").render(plan, request(version="0.33.0")).files[0].text))
    on_gpus = sum(1 for device in plan.estimate.layer_devices if device != "CPU")
    assert int(found["num_gpu"]) == on_gpus
    assert int(found["num_ctx"]) == plan.estimate.resolved.n_ctx_seq
    assert int(found["num_batch"]) == plan.estimate.resolved.n_ubatch
    if plan.estimate.settings.split_mode == "none":
        assert f"CUDA{found['main_gpu']}" in plan.estimate.layer_devices


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("model", MODELS)
def test_lm_studio_is_told_the_plan(model: str, machine: str):
    program = runner("lmstudio")
    plan = fit(MODELS[model], MACHINES[machine], program, Settings(), Request(), estimator=Quick)
    found: dict[str, Any] = {field.key: field.value for field in load_fields(plan)}
    n_layer = plan.model.n_layer_all
    on_gpus = sum(1 for device in plan.estimate.layer_devices if device != "CPU")
    asked = round(found["llm.load.llama.acceleration.offloadRatio"] * (n_layer + 1))
    assert asked == on_gpus or (machine == "none" and on_gpus == 0)
    experts = found["llm.load.numCpuExpertLayersRatio"] * n_layer
    assert round(experts) == plan.estimate.settings.n_cpu_moe
    assert json.loads(json.dumps(found)) == found


def test_experts_stay_whole_where_only_their_number_can_be_said():
    plan = fit(MODELS["experts"], make_machine(card(4)), runner("lmstudio"), Settings(), Request(), estimator=Quick)
    assert plan.estimate.settings.n_cpu_moe > 0
    assert plan.estimate.settings.overrides == ()
    assert plan.fits
