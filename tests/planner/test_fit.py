"""Plans: they fit, the next step up does not, and nothing that was given is changed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitplug.memory.kept import checkpoint_bytes
from fitplug.memory.records import HOST, Kind
from fitplug.planner.budget import spare
from fitplug.planner.choose import choose, make_grid
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.planner.search import Search
from fitplug.planner.trials import Trials
from fitplug.settings import Settings
from planner_support import GIB, SERVER, Quick, card, make_machine, make_model

DENSE = make_model()
EXPERTS = make_model(n_layer=24, n_embd=2048, n_ff=1024, n_expert=64, n_used=4, n_ctx_train=65536)
MODELS = {"dense": DENSE, "experts": EXPERTS}
WINDOWED = make_model(arch="gemma3", n_layer=24, n_embd=2560, n_ff=10240)


def plan_of(model, machine, *, wanted=None, **request):
    return fit(model, machine, SERVER, wanted or Settings(), Request(**request), estimator=Quick)


def weights_on_cpu(plan):
    return plan.estimate.n_bytes(HOST, Kind.MODEL)


@pytest.mark.parametrize("name", MODELS)
@given(gib=st.integers(15, 260).map(lambda n: n / 10))
@settings(max_examples=25)
def test_a_plan_fits_and_a_longer_context_would_not(name, gib):
    model = MODELS[name]
    machine = make_machine(gib)
    plan = plan_of(model, machine)
    chosen = plan.estimate.settings
    assert plan.fits
    assert spare(plan.estimate, machine, GIB).fits
    if chosen.n_ctx < model.n_ctx_train and chosen.n_gpu_layers:
        longer = Quick(model, machine, SERVER)(replace(chosen, n_ctx=chosen.n_ctx + 256))
        assert not spare(longer, machine, GIB).fits


@pytest.mark.parametrize("name", MODELS)
@given(gib=st.integers(15, 160).map(lambda n: n / 10), more=st.integers(1, 40).map(lambda n: n / 10))
@settings(max_examples=25)
def test_a_bigger_card_never_gets_a_worse_plan(name, gib, more):
    model = MODELS[name]
    small, big = plan_of(model, make_machine(gib)), plan_of(model, make_machine(gib + more))
    assert weights_on_cpu(big) <= weights_on_cpu(small) * 1.01 + (8 << 20)
    if weights_on_cpu(big) == weights_on_cpu(small):
        assert big.estimate.settings.n_ctx >= small.estimate.settings.n_ctx


@pytest.mark.parametrize("name", MODELS)
@given(cards=st.lists(st.integers(20, 120).map(lambda n: n / 10), min_size=2, max_size=4))
@settings(max_examples=15)
def test_splitting_keeps_the_sum(name, cards):
    model = MODELS[name]
    machine = make_machine(*cards)
    plan = plan_of(model, machine)
    assert plan.fits
    assert all(n >= 0 for n in spare(plan.estimate, machine, GIB).devices)
    alone = Quick(model, make_machine(1000), SERVER)(Settings())
    total = [sum(p.n_bytes for p in e.parts if p.kind == Kind.MODEL) for e in (plan.estimate, alone)]
    assert total[0] == total[1]


@given(st.permutations([6, 8, 24]))
@settings(max_examples=6)
def test_equal_cards_in_another_order_get_the_same_plan(order):
    twins = [card(gib, name=f"{gib}{twin}") for gib in order for twin in "ab"]
    swapped = [twins[i ^ 1] for i in range(6)]
    one, two = plan_of(DENSE, make_machine(*twins)), plan_of(DENSE, make_machine(*swapped))
    assert one.estimate.settings == two.estimate.settings


@pytest.mark.parametrize(
    "wanted",
    [
        {"n_ctx": 20000},
        {"type_k": "q8_0", "type_v": "q8_0"},
        {"n_gpu_layers": 7},
        {"n_gpu_layers": 99},
        {"n_ubatch": 128},
        {"n_cpu_moe": 3},
        {"flash_attn": "off"},
        {"offload_kqv": False},
        {"n_seq_max": 4, "kv_unified": True},
        {"split_mode": "none", "main_gpu": 1},
        {"tensor_split": (1.0, 3.0)},
    ],
    ids="+".join,
)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_given_is_kept(name, wanted):
    model = MODELS[name]
    plan = plan_of(model, make_machine(6, 8), wanted=Settings(**wanted), given=frozenset(wanted))
    assert {name: getattr(plan.estimate.settings, name) for name in wanted} == wanted


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gib", [3, 6, 9, 20])
def test_alternatives_fit_and_are_others(name, gib):
    model = MODELS[name]
    machine = make_machine(gib)
    plan = plan_of(model, machine)
    found = [plan.estimate.settings, *(other.estimate.settings for other in plan.alternatives)]
    assert len(set(found)) == len(found)
    assert all(spare(other.estimate, machine, GIB).fits for other in plan.alternatives)
    assert len(plan.alternatives) <= 4


def test_a_smaller_cache_is_offered_and_never_chosen():
    plan = plan_of(DENSE, make_machine(12))
    assert plan.estimate.resolved.type_k == plan.estimate.resolved.type_v == "f16"
    offered = next(other for other in plan.alternatives if other.estimate.resolved.type_k == "q8_0")
    assert offered.estimate.settings.n_ctx > 1.5 * plan.estimate.settings.n_ctx


def test_experts_leave_the_gpu_before_layers_do():
    chosen = plan_of(EXPERTS, make_machine(4)).estimate.settings
    assert chosen.n_gpu_layers == EXPERTS.n_layer_all + 1
    assert chosen.n_cpu_moe or chosen.overrides


def test_one_card_of_several_is_used_alone_where_it_is_enough():
    plan = plan_of(DENSE, make_machine(card(40, bandwidth=400), card(40, bandwidth=900)))
    assert (plan.estimate.settings.split_mode, plan.estimate.settings.main_gpu) == ("none", 1)


def test_the_faster_card_takes_what_it_can():
    slow, fast = card(24, bandwidth=400 * 10**9), card(12, bandwidth=1000 * 10**9)
    plan = plan_of(DENSE, make_machine(slow, fast))
    machine = make_machine(slow, fast)
    assert spare(plan.estimate, machine, GIB).devices[1] < GIB


def test_every_user_has_a_context():
    plan = plan_of(DENSE, make_machine(24), users=4, min_ctx=4096)
    assert plan.estimate.resolved.n_seq_max == 4
    assert plan.estimate.resolved.n_ctx_seq >= 4096
    assert plan.estimate.settings.n_ctx == 4 * plan.estimate.resolved.n_ctx_seq


def test_the_goal_context_takes_the_trained_length():
    plan = plan_of(EXPERTS, make_machine(4), goal="context")
    assert plan.fits
    assert plan.estimate.settings.n_ctx == EXPERTS.n_ctx_train


def test_the_goal_context_prefers_length_to_speed():
    fast, long = (plan_of(DENSE, make_machine(12), goal=goal) for goal in ("balanced", "context"))
    assert fast.estimate.settings.n_ctx < long.estimate.settings.n_ctx == DENSE.n_ctx_train
    assert any(set(other.estimate.layer_devices) == {"CUDA0"} for other in long.alternatives)


def test_the_goal_speed_takes_the_fast_card_alone():
    cards = card(9, bandwidth=900 * 10**9), card(24, bandwidth=300 * 10**9)
    quick, long = (plan_of(DENSE, make_machine(*cards), goal=goal).estimate for goal in ("speed", "balanced"))
    assert set(quick.layer_devices) == {"CUDA0"}
    assert quick.settings.n_ctx < long.settings.n_ctx


def test_a_quarter_of_the_host_stays_free_where_everything_is_on_the_cpu():
    machine = make_machine(host_gib=16)
    plan = plan_of(DENSE, machine)
    assert plan.estimate.settings.n_ctx > 8192
    assert spare(plan.estimate, machine, GIB).host >= 4 * GIB


def test_without_a_gpu_everything_is_on_the_cpu():
    plan = plan_of(DENSE, make_machine(host_gib=16))
    assert plan.fits
    assert plan.estimate.settings.n_gpu_layers == 0


def test_a_card_too_small_for_anything_is_left_alone():
    plan = plan_of(DENSE, make_machine(1.01))
    assert plan.fits
    assert plan.estimate.settings.devices == ()


def test_memory_of_the_host_is_a_budget_too():
    plan = plan_of(DENSE, make_machine(3, host_gib=2))
    assert not plan.fits
    assert any("host's memory" in fix for fix in plan.fixes)


def test_a_smaller_quant_that_is_named_does_fit():
    big = make_model(kind="q8_0")
    machine = make_machine(4, host_gib=3)
    plan = plan_of(big, machine)
    assert not plan.fits
    fix = next(fix for fix in plan.fixes if "smaller quant" in fix)
    from fitplug.planner.fixes import requantised

    smaller = requantised(big, fix.split(":")[1].split()[0])
    assert plan_of(smaller, machine).fits


@pytest.mark.parametrize("gib", [7, 9, 12, 26])
def test_a_model_that_fits_the_card_is_decided_in_few_estimates(gib):
    trials = Trials(DENSE, make_machine(gib), SERVER, GIB, Quick)
    search = Search(DENSE, trials, Settings(n_gpu_layers=-1), frozenset())
    choice = choose(search, make_grid(DENSE, search.settings, Request()), Request())
    assert choice.where == "one"
    assert trials.n_estimates <= 8


def test_eight_cards_are_decided_in_few_estimates():
    deep = make_model(n_layer=60, n_embd=8192, n_ff=28672)
    trials = Trials(deep, make_machine(*[8] * 8), SERVER, GIB, Quick)
    search = Search(deep, trials, Settings(n_gpu_layers=-1), frozenset())
    choose(search, make_grid(deep, search.settings, Request()), Request())
    assert trials.n_estimates <= 40


WITH_CACHES = replace(SERVER, prompt_cache_mib=8192, ctx_checkpoints=32)


@given(host=st.integers(20, 300).map(lambda n: n / 10))
@settings(max_examples=20)
def test_the_servers_caches_stay_within_the_hosts_memory(host):
    machine = make_machine(12, host_gib=host)
    plan = fit(WINDOWED, machine, WITH_CACHES, Settings(), Request(), estimator=Quick)
    if plan.fits:
        chosen = plan.estimate.settings
        prompts = 8192 if chosen.cache_ram_mib is None else chosen.cache_ram_mib
        copies = 32 if chosen.ctx_checkpoints is None else chosen.ctx_checkpoints
        kept = (prompts << 20) + copies * chosen.n_seq_max * checkpoint_bytes(WINDOWED, plan.estimate)
        assert kept <= max(0, spare(plan.estimate, machine, GIB).host)


def test_a_host_with_room_keeps_the_servers_defaults():
    chosen = fit(WINDOWED, make_machine(12), WITH_CACHES, Settings(), Request(), estimator=Quick).estimate.settings
    assert (chosen.cache_ram_mib, chosen.ctx_checkpoints) == (None, None)


def test_a_runner_without_such_caches_is_given_no_limits():
    chosen = fit(WINDOWED, make_machine(12, host_gib=3), SERVER, Settings(), Request(), estimator=Quick).estimate.settings
    assert (chosen.cache_ram_mib, chosen.ctx_checkpoints) == (None, None)


@pytest.mark.parametrize("lacks", [("overrides",), ("overrides", "n_cpu_moe"), ("tensor_split", "overrides", "n_cpu_moe")])
@pytest.mark.parametrize("cards", [(4,), (3, 4)])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_runner_has_no_place_for_is_left_alone(name, cards, lacks):
    runner = replace(SERVER, cannot_express=lacks)
    plan = fit(MODELS[name], make_machine(*cards), runner, Settings(), Request(), estimator=Quick)
    assert plan.fits
    for found in (plan.estimate, *(other.estimate for other in plan.alternatives)):
        assert all(getattr(found.settings, field) == getattr(Settings(), field) for field in lacks)


def test_windows_is_warned_of_what_it_moves_to_the_host_in_silence():
    machine = make_machine(12)
    windows = replace(machine, host=replace(machine.host, extra={"system": "windows"}))
    warned, quiet = (any("Windows" in reason for reason in plan_of(DENSE, each).reasons) for each in (windows, machine))
    assert warned
    assert not quiet


def test_a_slow_first_card_lets_a_fast_one_go_first_where_weights_stay_on_the_cpu():
    slow = card(6, name="NVIDIA GeForce GTX 1060 6GB", bandwidth=192 * 10**9)
    fast = card(12, name="NVIDIA GeForce RTX 4090", bandwidth=1008 * 10**9)
    large = make_model(n_layer=80, n_embd=8192, n_ff=28672)
    plan = plan_of(large, make_machine(slow, fast))
    assert plan.estimate.settings.devices == ("CUDA1", "CUDA0")
    assert any("comes first" in reason for reason in plan.reasons)
    assert plan_of(large, make_machine(fast, slow)).estimate.settings.devices is None


def test_a_slow_card_is_left_out_where_faster_ones_are_enough():
    fast, slow = card(12, bandwidth=1000 * 10**9), card(24, bandwidth=200 * 10**9)
    large = make_model(n_layer=100, n_ctx_train=8192)
    plan = plan_of(large, make_machine(fast, slow, fast))
    assert set(plan.estimate.layer_devices) == {"CUDA0", "CUDA2"}
    assert any("CUDA1 is left out" in reason for reason in plan.reasons)


def test_a_smaller_micro_batch_is_taken_before_a_layer_leaves_the_gpu():
    whole = Quick(DENSE, make_machine(100), SERVER)(Settings(n_ctx=8192))
    counted = whole.n_bytes("CUDA0") - whole.n_bytes("CUDA0", Kind.COMPUTE)
    machine = make_machine(card((counted + whole.n_bytes("CUDA0", Kind.COMPUTE) * 0.7) / GIB + 1))
    plan = plan_of(DENSE, machine)
    assert plan.estimate.settings.n_ubatch == 256
    assert set(plan.estimate.layer_devices) == {"CUDA0"}
    kept = plan_of(DENSE, machine, wanted=Settings(n_ubatch=512), given=frozenset({"n_ubatch"}))
    assert kept.estimate.settings.n_ubatch == 512


def test_the_goal_speed_reads_more_tokens_at_a_time_where_weights_are_copied():
    cards = card(4, name="NVIDIA GeForce RTX 3060", bandwidth=360 * 10**9)
    fast, plain = (plan_of(EXPERTS, make_machine(cards), goal=goal).estimate.settings for goal in ("speed", "balanced"))
    assert (fast.n_ubatch, plain.n_ubatch) == (2048, 512)


def test_the_price_of_a_given_setting_is_told():
    machine = make_machine(12)
    plan = plan_of(DENSE, machine, wanted=Settings(n_gpu_layers=7), given=frozenset({"n_gpu_layers"}))
    assert any("-ngl has a price" in reason for reason in plan.reasons)
    free = plan_of(DENSE, machine, wanted=Settings(n_gpu_layers=99), given=frozenset({"n_gpu_layers"}))
    assert not any("price" in reason for reason in free.reasons)


def test_a_layer_is_divided_between_cards_for_a_longer_context():
    large = make_model(n_layer=16, n_embd=8192, n_ff=28672)
    layer = sum(t.n_bytes for name, t in large.tensors.items() if name.startswith("blk.1."))
    machine = make_machine(*[card(1.6 + 9.4 * layer / GIB)] * 2)
    divided = plan_of(large, machine).estimate.settings
    whole = plan_of(large, machine, given=frozenset({"overrides"})).estimate.settings
    assert any(each.buffer == "CUDA1" for each in divided.overrides)
    assert divided.n_gpu_layers == whole.n_gpu_layers == large.n_layer_all + 1
    assert divided.n_ctx > whole.n_ctx * 1.05


def test_a_model_larger_than_all_memory_is_refused_in_few_estimates():
    large = make_model(n_layer=80, n_embd=8192, n_ff=28672)
    plan = plan_of(large, make_machine(6, 8, host_gib=16))
    assert not plan.fits
    assert plan.n_estimates <= 5
    assert any("smaller quant" in fix for fix in plan.fixes)
