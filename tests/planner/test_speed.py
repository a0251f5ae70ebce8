"""Speed: ranges that measurements lie in, and nothing where nobody measured."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitplug.memory.estimate import Estimator
from fitplug.planner.speed import Speedometer
from fitplug.planner.speed_model import generation_seconds, prompt_seconds
from fitplug.planner.speed_table import BACKENDS, HOP, KINDS, PIPELINE
from fitplug.settings import Settings, TensorOverride
from planner_support import SERVER, Quick, card, make_machine, make_model

DENSE = make_model(n_layer=8)
EXPERTS = make_model(n_layer=8, n_embd=2048, n_ff=1024, n_expert=64, n_used=4)


@pytest.fixture(scope="module")
def calibrate():
    path = Path(__file__).parents[2] / "fixtures/speed/calibrate.py"
    spec = importlib.util.spec_from_file_location("speed_calibrate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def speed_of(model, *cards, host=None, **wanted):
    machine = make_machine(*cards)
    if host:
        machine = replace(machine, host=replace(machine.host, memory_bandwidth=host))
    estimate = Quick(model, machine, SERVER)(Settings(**({"n_ctx": 8192} | wanted)))
    return Speedometer(model, machine, SERVER)(estimate)


def rtx(bandwidth=900e9):
    return card(24, bandwidth=int(bandwidth), name="NVIDIA GeForce RTX 3090")


def by_table(row):
    """What the planner's own table says of a measured row, and the kind's spread."""
    kind, backend = KINDS[row.kind], BACKENDS.get(row.kind) or BACKENDS[row.backend]
    work = [each._replace(kind=kind, backend=backend) for each in row.work]
    if row.test == "tg":
        return 1 / generation_seconds(work, HOP), kind.spread
    n = row.n_tokens or 1024
    return 1 / prompt_seconds(work, min(n, 512), PIPELINE if n > 512 else 0.0), kind.prompt_spread


@pytest.mark.parametrize(("test", "median"), [("tg", 0.15), ("pp", 0.25)])
def test_measured_speeds_lie_in_the_printed_range(calibrate, test, median):
    rows = [r for r in calibrate.load() if r.test == test and r.via == "llama-bench" and not r.old]
    rows = [r for r in rows if test == "tg" or (r.tflops and KINDS[r.kind].throughput)]
    plain = {("bandwidth", r.kind): 1.0 for r in rows} | {("per_layer", r.kind): 0.0 for r in rows}
    for row in rows:
        row.work = calibrate.work_of(row, plain)
    errors = [abs(math.log(by_table(r)[0] / r.tok_s)) for r in rows]
    inside = [e <= math.log(by_table(r)[1]) for e, r in zip(errors, rows, strict=True)]
    assert len(rows) > 150
    assert math.expm1(sorted(errors)[len(errors) // 2]) <= median
    assert sum(inside) / len(inside) >= 0.8


@given(st.integers(100, 3000), st.integers(1, 1000))
@settings(max_examples=20)
def test_more_bandwidth_is_never_slower(gbs, more):
    slow, fast = (speed_of(DENSE, rtx(b * 1e9)) for b in (gbs, gbs + more))
    assert fast.generation.low > slow.generation.low


def test_only_the_experts_in_use_are_read():
    few = make_model(n_layer=8, n_embd=2048, n_ff=1024, n_expert=64, n_used=1)
    assert speed_of(few, rtx()).generation.low > speed_of(EXPERTS, rtx()).generation.low


def test_a_layer_on_the_cpu_is_slower_and_less_sure():
    whole, part = speed_of(DENSE, rtx()).generation, speed_of(DENSE, rtx(), n_gpu_layers=4).generation
    assert part.low < whole.low
    assert part.high / part.low > whole.high / whole.low


def test_a_measured_host_is_surer_than_a_supposed_one():
    supposed = speed_of(DENSE, rtx(), n_gpu_layers=4)
    measured = speed_of(DENSE, rtx(), n_gpu_layers=4, host=60_000_000_000)
    assert measured.generation.high / measured.generation.low < supposed.generation.high / supposed.generation.low
    assert "supposed" in supposed.basis
    assert "supposed" not in measured.basis


def test_a_large_micro_batch_reads_prompts_faster_where_experts_are_on_the_cpu():
    small, large = (speed_of(EXPERTS, rtx(), n_cpu_moe=8, n_ubatch=n) for n in (512, 2048))
    assert large.prompt.low > small.prompt.low


@pytest.mark.parametrize("device", [card(24, backend="cann"), card(24, backend="rpc"), card(24, name="a card of next year")])
def test_nothing_is_said_of_strangers(device):
    assert speed_of(DENSE, device) is None


def test_the_range_is_a_range_on_every_kind_of_backend():
    for backend, name in (("cuda", "NVIDIA GeForce RTX 3090"), ("vulkan", "Radeon RX 7900 XTX"), ("metal", "Apple M1 Max")):
        speed = speed_of(DENSE, card(24, bandwidth=400 * 10**9, name=name, backend=backend))
        assert 0 < speed.generation.low < speed.generation.high


def test_the_bytes_of_a_token_are_those_of_the_placement():
    machine = make_machine(rtx())
    estimate = Estimator(DENSE, machine, SERVER)(Settings(n_ctx=8192))
    slow = Speedometer(DENSE, machine, SERVER)(estimate).generation
    n_bytes = estimate.n_bytes("CUDA0")
    assert slow.high < 900e9 / (0.8 * n_bytes)  # nothing reads faster than the bandwidth


@pytest.mark.parametrize("model", [DENSE, EXPERTS], ids=["dense", "experts"])
def test_the_last_layers_feed_forward_on_the_cpu_is_not_copied_for_a_prompt(model):
    """It is run for the tokens alone whose outputs are wanted."""
    everything = speed_of(model, rtx())

    def without(layer):
        return speed_of(model, rtx(), overrides=(TensorOverride(rf"blk\.{layer}\.ffn_(up|gate|down)", "CPU"),))

    assert without(0).prompt.low < without(7).prompt.low == pytest.approx(everything.prompt.low, rel=0.05)
    assert without(0).generation.middle == pytest.approx(without(7).generation.middle, rel=0.01)
