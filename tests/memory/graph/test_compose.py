"""A graph that is composed of kept layers asks for what a drawing of all of them does."""

import random

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.memory.graph.allocator import DynAllocator
from fitplug.memory.graph.cuda import CudaBackend
from fitplug.memory.graph.layers import REPEATED, WHOLE
from fitplug.memory.graph.reuse import Layouts
from fitplug.memory.graph.samples import likes
from fitplug.memory.graph.segments import Drawing
from fitplug.memory.graph.sketches import Samples
from fitplug.memory.graph.unfold import unfold
from fitplug.settings import Settings, TensorOverride
from graph_models import MODELS

SERVER = truth.RUNNERS["llama-server"]
CARD = {"name": "RTX4090", "total_mib": 24564, "free_mib": 24000, "compute_capability": "8.9"}
OLD_CARD = {"name": "T4", "total_mib": 15360, "free_mib": 15000, "compute_capability": "7.5"}
MACHINES = ([CARD], [CARD, CARD], [CARD, OLD_CARD, CARD], [CARD] * 5)
N_PLANS = 5
VULKAN = {"backend": "vulkan", "name": "any", "total_mib": 24576, "free_mib": 24000}


def _plan(rng, n_layer, n_cards):
    """Any plan: each of its settings is likely enough to meet each other one."""
    given = {"n_ctx": rng.choice([512, 4096, 8192, 131072])}
    some = {
        "n_gpu_layers": rng.randint(0, n_layer + 1), "n_cpu_moe": rng.randint(0, n_layer), "offload_kqv": False,
        "op_offload": False, "flash_attn": "off", "n_ubatch": 2048, "n_seq_max": 2, "type_k": "q8_0",
        "tensor_split": (*(float(rng.randint(0, 5)) for _ in range(n_cards - 1)), 1.0),
        "overrides": (TensorOverride(rf"blk\.({rng.randint(0, n_layer)}|{rng.randint(0, n_layer)})\.", "CPU"),),
    }  # fmt: skip
    likely = {"n_gpu_layers": 0.5, "n_cpu_moe": 0.4, "tensor_split": 0.5}
    given |= {name: value for name, value in some.items() if rng.random() < likely.get(name, 0.15)}
    if "type_k" in given and "flash_attn" not in given:
        given["type_v"] = "q8_0"
    return Settings(**given)


def _compare(name, seed):
    """How many graphs were drawn whole."""
    model, rng = MODELS[name](), random.Random(f"{name} {seed}")
    cards = rng.choice(MACHINES)
    estimator = Estimator(model, truth.machine(cards, host_bytes=1 << 40), SERVER)
    kept, whole = (ComputeEstimator(model, estimator.machine, SERVER, shorten=shorten) for shorten in (True, False))
    for _ in range(N_PLANS):
        settings = _plan(rng, model.n_layer, len(cards))
        try:
            setup = truth.setup(estimator, settings)
            expected = whole.sizes(setup)
        except RefusedError:
            continue
        assert kept.sizes(setup) == expected, settings


@pytest.mark.parametrize("name", list(MODELS)[:: max(1, truth.EVERY // 3)])
def test_no_plan_makes_a_difference_to_a_byte(name, monkeypatch):
    """Random ones in any order; on CUDA none of their graphs is drawn but for the first of its kind."""
    drawn = []
    monkeypatch.setattr(Layouts, "_drawn_anew", lambda *how: drawn.append(how))

    _compare(name, 1)

    assert not drawn


@pytest.mark.parametrize("name", list(MODELS)[2 :: truth.EVERY])
def test_nor_does_it_where_nothing_is_composed(name, monkeypatch):
    """What cannot be composed is drawn, and then its programs are kept."""
    monkeypatch.setattr(Layouts, "_composing", lambda *_: None)

    _compare(name, 2)


@pytest.mark.parametrize("name", ["qwen3-30b-a3b Q4_K_M", "latent/deepseek4"])
def test_what_is_fused_across_layers_is_not_composed(name, monkeypatch):
    """A kernel that reaches into the next layer could be seen in neither."""
    monkeypatch.setattr(CudaBackend, "fused_at", lambda *_: 100)
    drawn, draw = [], Layouts._drawn_anew
    monkeypatch.setattr(Layouts, "_drawn_anew", lambda *how: drawn.append(how) or draw(*how))

    _compare(name, 3)

    assert drawn


def test_a_backend_with_an_order_of_its_own_is_drawn(monkeypatch):
    """Which node comes first is not decided layer by layer."""
    drawn, draw = [], Layouts._drawn_anew
    monkeypatch.setattr(Layouts, "_drawn_anew", lambda *how: drawn.append(how) or draw(*how))
    estimator = Estimator(truth.model("llama-3.1-8b", "Q4_K_M"), truth.machine([VULKAN]), SERVER)

    estimator(Settings(n_gpu_layers=12))

    assert drawn


def _outline(name, cut, n_tokens):
    model = MODELS[name]()
    estimator = Estimator(model, truth.machine([CARD, CARD], host_bytes=1 << 40), SERVER)
    compute = ComputeEstimator(model, estimator.machine, SERVER)
    params = compute.params(truth.setup(estimator, Settings(n_ctx=8192)))(n_tokens, 1, 1)
    g = compute.draw(params.keeping(cut))
    drawing = Drawing(g, likes(Samples(compute.draw)(params), g.gf))
    return unfold(drawing, [run for _, run in g.gf.marks]), g.gf


@pytest.mark.parametrize("n_tokens", [512, 1])
@pytest.mark.parametrize(
    "name",
    ["llama-3.1-8b Q4_K_M", "qwen3-30b-a3b Q4_K_M", "recurrent/qwen3next-legacy", "latent/deepseek32"],
)
def test_layers_that_were_not_drawn_are_those_of_a_whole_drawing(name, n_tokens):
    """Every number, every home and every layer."""
    (found, graph), (whole, drawn) = (_outline(name, cut, n_tokens) for cut in (REPEATED, WHOLE))

    assert len(graph.nodes) < len(drawn.nodes)
    assert [segment[1:4] + segment[5:] for segment in found.segments] == [
        segment[1:4] + segment[5:] for segment in whole.segments
    ]
    assert [segment.template.content for segment in found.segments] == [segment.template.content for segment in whole.segments]
    assert found[1:4] == whole[1:4]
    assert sorted(found.fused) == sorted(whole.fused)


@pytest.mark.parametrize("seed", range(20))
def test_an_allocator_goes_on_from_a_state_as_the_one_that_was_in_it(seed):
    """With several chunks, too."""
    rng = random.Random(seed)
    one, other = DynAllocator(32, 4096), DynAllocator(32, 4096)
    living = []
    for i in range(200):
        if i == 100:
            other.restore(one.state())
        if living and rng.random() < 0.45:
            address, n = living.pop(rng.randrange(len(living)))
            one.free(address, n)
            if i >= 100:
                other.free(address, n)
        else:
            n = 32 * rng.randint(1, 40)
            living.append((one.alloc(n), n))
            assert i < 100 or other.alloc(n) == living[-1][0]

    assert other.state() == one.state()
