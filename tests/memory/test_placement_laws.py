"""Laws of placing layers and weights, whatever the settings."""

import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.estimate import Estimator
from fitplug.memory.overrides import EXPERTS, _compile, _only_block, expert_overrides, rules, targets
from fitplug.memory.placement import _f32, place
from fitplug.memory.records import HOST, Kind
from fitplug.settings import Settings, TensorOverride

CARDS = [
    {"name": "a", "total_mib": 24000, "free_mib": 23000, "compute_capability": "8.6"},
    {"name": "b", "total_mib": 12000, "free_mib": 11500, "compute_capability": "8.9"},
    {"name": "c", "total_mib": 8000, "free_mib": 500, "compute_capability": "7.5"},
]
TWO = truth.machine(CARDS[:2])
THREE = truth.machine(CARDS)
SERVER = truth.RUNNERS["llama-server"]
SMALL = truth.model("tiny/llama-dense", "F32")
MOE = truth.model("qwen3-30b-a3b", "Q4_K_M")
TIED = truth.model("tiny/gemma3-dense", "F32")

ngl = st.integers(-2, 60)
splits = st.lists(st.floats(0, 1e6, width=32), max_size=3).map(tuple)
models = st.sampled_from([SMALL, MOE, TIED])


def _weights(model, machine, settings):
    _, _, parts = Estimator(model, machine, SERVER).static(settings)
    return {p.buffer or p.device: p.n_bytes for p in parts if p.kind == Kind.MODEL}


@given(model=models, n=ngl, split=splits)
def test_layers_on_gpus_are_the_last_ones_and_in_order(model, n, split):
    """The output layer goes first, and a later layer is never on an earlier device."""
    placement = place(model, THREE, Settings(n_gpu_layers=n, tensor_split=split))
    order = [-1 if d == HOST else placement.names.index(d) for d in placement.layer_devices]

    assert order == sorted(order)
    assert len(order) == model.n_layer_all + 1
    wanted = model.n_layer_all + 1 if n < 0 else min(n, model.n_layer_all + 1)
    assert sum(d != HOST for d in placement.layer_devices) == wanted


@given(model=models, n=ngl, split=splits)
def test_splitting_keeps_the_sum_of_weights(model, n, split):
    """All tensors are somewhere; only padding and one copy of a tied matrix per device may be added."""
    held = sum(_weights(model, THREE, Settings(n_gpu_layers=n, tensor_split=split)).values())
    tied = model.tensors["token_embd.weight"].n_bytes if model.tied_output else 0
    shared = sum(t.n_bytes for name, t in model.tensors.items() if name.startswith("rope_")) * len(THREE.devices)

    assert model.n_bytes <= held
    assert held <= model.n_bytes + tied + shared + (len(model.tensors) + 4) * (128 + 512 * 4)


@given(model=models, n=st.integers(0, 59))
def test_one_more_gpu_layer_moves_weights_to_gpus(model, n):
    """GPU weights never shrink and host weights never grow with -ngl."""
    less, more = (_weights(model, TWO, Settings(n_gpu_layers=k)) for k in (n, n + 1))

    def on_gpus(held):
        return sum(size for buffer, size in held.items() if buffer in TWO.device_names())

    assert on_gpus(less) <= on_gpus(more)
    assert sum(less.values()) - on_gpus(less) >= sum(more.values()) - on_gpus(more)


@given(n=st.integers(-1, 60), gpu_layers=ngl)
def test_cpu_moe_is_its_patterns(n, gpu_layers):
    """-ncmoe, counted from sums per layer, equals the same patterns given by hand, tried tensor by tensor."""
    by_flag = _weights(MOE, TWO, Settings(n_gpu_layers=gpu_layers, n_cpu_moe=n))
    by_hand = _weights(MOE, TWO, Settings(n_gpu_layers=gpu_layers, overrides=tuple(expert_overrides(n))))

    assert by_flag == by_hand


def test_everything_can_be_overridden_to_the_cpu():
    """With .* on the CPU no GPU holds a weight."""
    held = _weights(MOE, TWO, Settings(overrides=(TensorOverride(".*", HOST),)))

    assert not set(held) & set(TWO.device_names())


def test_the_first_override_that_matches_wins():
    """Order matters as on llama.cpp's command line."""
    first = (TensorOverride("attn_q", "CUDA1"), TensorOverride("attn", HOST))
    found = targets([("blk.0.attn_q.weight", 0), ("blk.0.attn_k.weight", 0)], rules(Settings(overrides=first), ["CUDA1"]))

    assert found == {"blk.0.attn_q.weight": "CUDA1", "blk.0.attn_k.weight": HOST}


PATTERNS = st.one_of(
    st.sampled_from([
        r"blk\.1\.", r"blk\.1\.*", r"blk\.1\.?ffn", r"^blk\.12\.ffn_(up|down)", r"blk\.1\.a|ffn", r"norm",
        r"(blk\.1\.|blk\.2\.)attn",
        r"blk\.(1|2)\.", r"blk\.1\.+attn", r"blk\.1\.{0,2}attn", r"\.ffn_(up|down|gate)_exps", r"blk\.01\.", EXPERTS,
    ]),
    st.text(alphabet=r"blk.\1023()|ffn_", max_size=12),
)  # fmt: skip


@given(pattern=PATTERNS)
def test_knowing_a_patterns_block_changes_nothing(pattern):
    """Where `_only_block` names a block, the pattern finds no tensor of another one."""
    try:
        compiled = _compile(pattern)
    except RefusedError:
        return
    block = _only_block(pattern)
    names = [(name, int(name.split(".")[1])) for name in MOE.tensors if name.startswith("blk.")]

    if block is not None:
        assert {il for name, il in names if compiled.search(name)} <= {block}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (Settings(split_mode="row"), "row"),
        (Settings(split_mode="none", main_gpu=2), "-mg"),
        (Settings(devices=("CUDA7",)), "CUDA7"),
        (Settings(overrides=(TensorOverride("x", "NOPE"),)), "NOPE"),
        (Settings(overrides=(TensorOverride("(", HOST),)), "regular expression"),
        (Settings(overrides=(TensorOverride("(a+)+$", HOST),)), "forever"),
        (Settings(overrides=(TensorOverride("attn_q", "CUDA1"),), devices=("CUDA0",)), "CUDA1"),
        (Settings(tensor_split=(1.0,) * 17), "-ts"),
    ],
)
def test_refusals_name_their_cause(settings, word):
    """What llama.cpp refuses is one line that says what."""
    with pytest.raises(RefusedError, match=word):
        _weights(SMALL, TWO, settings)


def test_one_device_only():
    """-sm none takes the main GPU, -mg -1 and -dev none the CPU alone."""

    def devices(**settings):
        return set(place(SMALL, TWO, Settings(**settings)).layer_devices)

    assert devices(split_mode="none", main_gpu=1) == {"CUDA1"}
    assert devices(split_mode="none", main_gpu=-1) == {HOST}
    assert devices(devices=("none",)) == {HOST}
    assert devices(devices=("CUDA1", "CUDA0"), tensor_split=(0.0, 1.0)) == {"CUDA0"}


def test_devices_without_any_free_memory_are_refused():
    """llama.cpp would divide by zero and stop."""
    full = replace(TWO, devices=[replace(d, free_bytes=0) for d in TWO.devices])

    with pytest.raises(RefusedError, match="free memory"):
        place(SMALL, full, Settings())


@given(value=st.floats(allow_nan=False, width=64))
def test_rounding_to_float(value):
    """`_f32` rounds as the machine does."""
    try:
        expected = array.array("f", [value])[0]
    except OverflowError:
        expected = float("inf")
    assert abs(_f32(value)) == abs(expected)
