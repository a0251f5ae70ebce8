"""The network in the speeds of plans over RPC servers."""

import pytest

from fitplug.machine.records import Device, Host, Machine
from fitplug.memory.estimate import Estimator
from fitplug.memory.placement import place
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.planner.speed import Speedometer
from fitplug.planner.speed_links import GIGABIT, Link, crossing, link_of
from fitplug.settings import Settings
from planner_support import SERVER, Quick, card, make_model

GIB = 1 << 30
MODEL = make_model(n_layer=8)
LOCAL = card(24, bandwidth=936_000_000_000, name="NVIDIA GeForce RTX 3090")


def far(number=0, *, unified=False, **extra):
    """An RTX 3090 behind a server."""
    told = {"endpoint": f"10.0.0.{number}:50052", "served_by": "cuda", "catalogue": "GeForce RTX 3090", "round_trip_s": 0.0003}
    return Device(
        backend="rpc", name=f"far {number}", total_bytes=24 * GIB, free_bytes=23 * GIB, compute_capability="8.6",
        memory_bandwidth=936_000_000_000, unified=unified, extra=told | extra,
    )  # fmt: skip


def speed_of(*devices, **wanted):
    machine = Machine(devices=devices, host=Host(total_bytes=64 * GIB, available_bytes=60 * GIB))
    estimate = Quick(MODEL, machine, SERVER)(Settings(**({"n_ctx": 8192} | wanted)))
    return Speedometer(MODEL, machine, SERVER)(estimate)


def middle(speed):
    return (1 / speed.generation.low + 1 / speed.generation.high) / 2


def test_a_card_that_is_far_is_slower_than_the_same_card_here():
    here, there = speed_of(LOCAL), speed_of(far())
    assert there.generation.high < here.generation.high
    assert there.generation.low < here.generation.low
    assert there.prompt.low < here.prompt.low


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_server_costs_a_way_there_and_back(n):
    near, away = ([far(i, round_trip_s=delay, link_bandwidth=GIGABIT) for i in range(n)] for delay in (0.001, 0.011))
    more = middle(speed_of(*away)) - middle(speed_of(*near))
    assert more == pytest.approx(n * 0.010, rel=0.1)


def test_a_network_that_nobody_measured_is_said_to_be_supposed_and_makes_the_range_wider():
    supposed, measured = speed_of(far()), speed_of(far(link_bandwidth=4 * GIGABIT))
    assert "supposed to carry 1 to 10 Gbit/s" in supposed.basis
    assert "supposed" not in measured.basis
    width = [speed.generation.high / speed.generation.low for speed in (supposed, measured)]
    assert width[0] > width[1]


def test_the_range_holds_what_both_ends_of_the_supposed_network_give():
    supposed = speed_of(far()).generation
    for carried in (1, 10):
        measured = speed_of(far(link_bandwidth=carried * GIGABIT)).generation
        middle_of_it = (measured.low * measured.high) ** 0.5
        assert supposed.low < middle_of_it < supposed.high


def test_logits_come_back_from_the_last_device_only():
    """n_vocab floats each token, which is more than everything else."""
    machine = Machine(devices=(far(0), far(1)), host=Host(total_bytes=64 * GIB, available_bytes=60 * GIB))
    placement = place(MODEL, machine, Settings(n_ctx=4096, tensor_split=(1.0, 1.0)))
    first, last = (crossing(MODEL, placement, name, n_tokens=1, depth=1024, flash_attn=True) for name in ("RPC0", "RPC1"))
    assert last - first == pytest.approx(4 * (MODEL.n_vocab - MODEL.n_embd), abs=1)
    longer = crossing(MODEL, placement, "RPC0", n_tokens=1, depth=5 * 1024, flash_attn=True)
    assert longer - first == 4 * 1024 * 2  # the mask, in f16
    assert crossing(MODEL, placement, "RPC0", n_tokens=1, depth=5 * 1024, flash_attn=False) - longer == 5 * 1024 * 2


# What crossed a veth pair for one token of generation, both ways, in bytes (rx and tx of the interface, 100 and more tokens)
SEEN = [
    # n_embd, n_vocab, depth, layers there, output there, bytes
    (256, 128, 128, True, False, 6664),
    (256, 128, 1300, True, False, 9880),
    (256, 128, 128, False, True, 3105),
    (896, 151936, 128, True, False, 13138),
    (896, 151936, 128, True, True, 618703),
]


@pytest.mark.parametrize(("n_embd", "n_vocab", "depth", "layers", "output", "n_bytes"), SEEN)
def test_the_bytes_that_cross_are_those_that_were_counted(n_embd, n_vocab, depth, layers, output, n_bytes):
    model = make_model(n_layer=2, n_embd=n_embd, n_vocab=n_vocab)
    machine = Machine(devices=(far(0), far(1)), host=Host(total_bytes=64 * GIB, available_bytes=60 * GIB))
    split = {(True, False): (2.0, 1.0), (False, True): (2.0, 1.0), (True, True): (1.0, 2.0)}[layers, output]
    placement = place(model, machine, Settings(n_ctx=4096, tensor_split=split))
    predicted = crossing(model, placement, "RPC1" if output else "RPC0", n_tokens=1, depth=depth, flash_attn=True)
    assert predicted == pytest.approx(n_bytes, rel=0.15)


def test_nothing_is_copied_to_servers_for_a_prompt():
    """Their offload_op is empty: what lies on the CPU is computed there, at a speed that nobody measured."""
    assert speed_of(far(), n_gpu_layers=4).prompt is None
    assert speed_of(far(), LOCAL, n_gpu_layers=4).prompt is not None


def test_a_processor_behind_a_server_has_a_speed_only_where_it_was_measured():
    cpu = {"served_by": "cpu", "link_bandwidth": GIGABIT}
    assert speed_of(Device(backend="rpc", total_bytes=64 * GIB, free_bytes=60 * GIB, extra=cpu)) is None
    measured = Device(backend="rpc", total_bytes=64 * GIB, free_bytes=60 * GIB, extra={**cpu, "read_rate": 20_000_000_000})
    speed = speed_of(measured)
    estimate = Estimator(MODEL, Machine(devices=(measured,), host=Host(total_bytes=GIB, available_bytes=GIB)), SERVER)
    n_bytes = estimate(Settings(n_ctx=4096)).n_bytes("RPC0")
    assert speed.generation.high < 1.3 * 20e9 / (0.5 * n_bytes)
    assert speed.prompt is None


def test_a_machine_file_that_says_nonsense_of_its_network_is_read_as_saying_nothing():
    for value in ("fast", None, True, -1, 0, [1]):
        link = link_of(far(link_bandwidth=value, round_trip_s=value))
        assert isinstance(link, Link)
        assert 0 < link.bandwidth[0] <= link.bandwidth[1]
        assert link.round_trip[0] >= link.round_trip[1] > 0
    assert link_of(LOCAL) is None


STRANGER = {"served_by": "cuda", "endpoint": "10.0.0.9:50052"}


@pytest.mark.parametrize(
    "there", [far(), Device(backend="rpc", name="far", total_bytes=24 * GIB, free_bytes=23 * GIB, extra=STRANGER)]
)
def test_a_card_of_this_machine_is_taken_before_one_that_is_no_faster_and_far(there):
    machine = Machine(devices=(there, LOCAL), host=Host(total_bytes=64 * GIB, available_bytes=60 * GIB))
    plan = fit(MODEL, machine, SERVER, Settings(n_ctx=8192), Request(given=frozenset({"n_ctx"})), estimator=Quick)
    assert set(plan.estimate.layer_devices) == {"CUDA0"}


@pytest.mark.parametrize("nonsense", [["cuda"], {"a": 1}, 7, None, ""])
def test_whatever_a_file_says_of_a_server_is_a_plan(nonsense):
    extra = {"served_by": nonsense, "endpoint": nonsense, "read_rate": nonsense, "catalogue": nonsense}
    there = Device(backend="rpc", name="far", total_bytes=24 * GIB, free_bytes=23 * GIB, extra=extra)
    machine = Machine(devices=(there,), host=Host(total_bytes=64 * GIB, available_bytes=60 * GIB))
    assert fit(MODEL, machine, SERVER, Settings(), Request(), estimator=Estimator).estimate.parts
