"""Programs that are kept answer other settings as a new drawing of every layer would."""

import itertools

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator, Estimators
from fitplug.memory.graph import fused
from fitplug.memory.graph.layers import WHOLE
from fitplug.memory.graph.reuse import Layouts
from fitplug.memory.graph.sketches import Samples
from fitplug.memory.graph.stretches import Walk
from fitplug.settings import Settings
from graph_models import MODELS

SERVER = truth.RUNNERS["llama-server"]
CARD = {"name": "RTX4090", "total_mib": 24564, "free_mib": 24000, "compute_capability": "8.9"}
OLD_CARD = {"name": "T4", "total_mib": 15360, "free_mib": 15000, "compute_capability": "7.5"}
SHORT, LONG = 512, 131072


def _questions(n_layer):
    """Neighbours that differ in the context, some also in what lies where; the first contexts are shorter than a batch."""
    half = n_layer // 2
    return [
        *[Settings(n_ctx=n) for n in (SHORT, 8192, LONG, 8192)],
        *[Settings(n_ctx=n, n_gpu_layers=half + i) for i, n in enumerate((4096, LONG, 16384))],
        *[Settings(n_ctx=n, n_cpu_moe=half + i, type_k="q8_0", type_v="q8_0") for i, n in enumerate((4096, LONG))],
        *[Settings(n_ctx=n, flash_attn="off", n_seq_max=2, offload_kqv=i > 0) for i, n in enumerate((4096, 65536, LONG))],
        *[Settings(n_ctx=n, tensor_split=(3.0 + i, 4.0, 5.0)) for i, n in enumerate((4096, LONG))],
    ]


def _sizes(compute, estimator, settings):
    return compute.sizes(truth.setup(estimator, settings))


def _compare(model, cards, some):
    estimator = Estimator(model, truth.machine(cards, host_bytes=1 << 40), SERVER)
    kept, whole = (ComputeEstimator(model, estimator.machine, SERVER, shorten=shorten) for shorten in (True, False))
    asked = 0
    for settings in some:
        try:
            expected = _sizes(whole, estimator, settings)
        except RefusedError:
            continue
        asked += 1
        assert _sizes(kept, estimator, settings) == expected, settings
    assert asked


@pytest.mark.parametrize("name", list(MODELS)[:: max(1, truth.EVERY // 2)])
def test_what_is_kept_changes_no_byte(name):
    """On one card."""
    model = MODELS[name]()
    _compare(model, [CARD], _questions(model.n_layer))


@pytest.mark.parametrize("name", list(MODELS)[1 :: max(1, truth.EVERY)])
def test_nor_does_it_on_unlike_cards(name):
    """Which take different operations, and where most of the layers change places."""
    model = MODELS[name]()
    _compare(model, [CARD, OLD_CARD, CARD], _questions(model.n_layer)[::2])


@pytest.mark.parametrize(
    "name", ["llama-3.1-8b Q8_0", *(f"recurrent/{name}" for name in ("qwen4exp-a3b", "jamba")), "latent/hy_v4", "latent/gemma4"]
)
def test_another_context_is_not_scheduled_again(name, monkeypatch):
    """It is only measured."""
    made = _counted(monkeypatch, Walk, "stretch")
    model = MODELS[name]()
    estimator = Estimator(model, truth.machine([CARD], host_bytes=1 << 40), SERVER)
    estimator(Settings(n_ctx=4096, n_gpu_layers=model.n_layer // 2))
    first = len(made)

    for n_ctx in (8192, 16384, 32768):
        estimator(Settings(n_ctx=n_ctx, n_gpu_layers=model.n_layer // 2))

    assert first
    assert len(made) == first


@pytest.mark.parametrize("name", ["llama-3.1-8b Q8_0", "recurrent/qwen3next-legacy", "latent/deepseek4"])
def test_another_plan_is_not_drawn(name, monkeypatch):
    """Of its layers only those are scheduled that were not seen in such a place before."""
    drawn = _counted(monkeypatch, ComputeEstimator, "draw")
    scheduled = _counted(monkeypatch, Walk, "stretch")
    model = MODELS[name]()
    estimator = Estimator(model, truth.machine([CARD, CARD], host_bytes=1 << 40), SERVER)
    half = model.n_layer // 2
    for n in range(half, half + 4):
        estimator(Settings(n_gpu_layers=n, tensor_split=(1.0, 1.0)))
    n_drawn, n_scheduled = len(drawn), len(scheduled)

    estimator(Settings(n_gpu_layers=half + 4, tensor_split=(1.0, 1.0)))

    assert len(drawn) == n_drawn
    assert len(scheduled) - n_scheduled < model.n_layer // 4


@pytest.mark.parametrize("name", ["llama-3.1-8b Q8_0", "recurrent/jamba", "latent/deepseek4"])
def test_what_one_estimator_has_drawn_another_need_not(name, monkeypatch):
    """Of the same model, for a runner that measures, and on fewer and on unlike cards: they answer as if they were alone."""
    drawn = _counted(monkeypatch, ComputeEstimator, "draw")
    model, estimators = MODELS[name](), Estimators()
    questions = _questions(model.n_layer)[1::4]
    for cards, runner in itertools.product([[CARD, CARD], [CARD, OLD_CARD, CARD]], [SERVER, truth.RUNNERS["llama-fit-params"]]):
        machine = truth.machine(cards, host_bytes=1 << 40)
        found = []
        for ask in (estimators(model, machine, runner), Estimator(model, machine, runner)):
            before = len(drawn)
            answers = []
            for settings in questions:
                try:
                    answers.append(ask(settings).parts)
                except RefusedError:
                    answers.append(())
            found.append((answers, len(drawn) - before))
        (shared, n_drawn), (own, n_drawn_alone) = found
        assert shared == own
        is_first = cards == [CARD, CARD] and runner is SERVER
        assert is_first or n_drawn < n_drawn_alone

    other = estimators(MODELS["llama-3.1-8b Q4_K_M"](), machine, SERVER)
    assert other.graphs.layouts is not estimators(model, machine, SERVER).graphs.layouts


@pytest.mark.parametrize("name", list(MODELS)[:: max(1, truth.EVERY)])
def test_samples_whose_tensors_were_made_in_the_same_order_have_one_structure(name):
    """And those that were not are compared tensor by tensor."""
    model = MODELS[name]()
    estimator = Estimator(model, truth.machine([CARD], host_bytes=1 << 40), SERVER)
    compute, samples = ComputeEstimator(model, estimator.machine, SERVER), []
    for settings in _questions(model.n_layer)[::4]:
        try:
            params = compute.params(truth.setup(estimator, settings))
        except RefusedError:
            continue
        samples += [Samples(compute.draw)(params(n, 1, 1)) for n in (512, 1)]

    for one, other in itertools.combinations(samples, 2):
        assert one.is_like(other) == (one.structure == other.structure)


def _counted(monkeypatch, owner, name):
    calls, method = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, *how: calls.append(how) or method(self, *how))
    return calls


@pytest.mark.parametrize(("name", "composed"), [
    ("llama-3.1-8b Q8_0", True), ("recurrent/qwen4exp-a3b", True), ("latent/mistral4-narrow", True),
    ("llama-3.1-8b Q8_0", False), ("latent/hy_v4", False),
])  # fmt: skip
def test_a_trial_answers_as_one_of_every_layer_would(name, composed, monkeypatch):
    """Whichever trials of other plans came before, on cards of which one takes fewer kinds of attention."""
    model = MODELS[name]()
    machine = truth.machine([CARD, OLD_CARD, CARD], host_bytes=1 << 40)
    kept = Estimator(model, machine, SERVER)
    for settings in (*_questions(model.n_layer)[4:], *(Settings(n_gpu_layers=n) for n in range(1, 7))):
        with monkeypatch.context() as patched:
            if not composed:
                patched.setattr(Layouts, "at_home", lambda *_, **__: None)
            found = kept(settings)
            patched.setattr(Layouts, "at_home", lambda *_, **__: None)
            patched.setattr(fused, "TRIED", WHOLE)
            own = Estimator(model, machine, SERVER)(settings)
        assert (found.resolved, found.parts) == (own.resolved, own.parts), settings
