"""Laws of plans, whatever the machine: more is never worse, what is chosen fits, the next step up does not."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fitplug.memory.records import HOST, Kind
from fitplug.planner.budget import spare
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.settings import Settings
from planner_support import GIB, SERVER, Quick, card, make_machine, make_model

DENSE = make_model(n_layer=20)
EXPERTS = make_model(n_layer=12, n_embd=2048, n_ff=1024, n_expert=64, n_used=4, n_ctx_train=65536)
WINDOWED = make_model(arch="gemma3", n_layer=18, n_embd=2560, n_ff=10240)
MODELS = st.sampled_from([DENSE, EXPERTS, WINDOWED])
GB = 10**9
CARDS = st.lists(
    st.builds(lambda gib, speed: card(gib / 10, bandwidth=speed * GB), st.integers(14, 90), st.sampled_from([200, 450, 1000])),
    min_size=1,
    max_size=4,
)
GOALS = st.sampled_from(["balanced", "speed", "context", "quality"])
FIXED = st.sampled_from([
    {}, {"n_ctx": 12288}, {"n_ubatch": 256}, {"n_gpu_layers": 5}, {"type_k": "q8_0", "type_v": "q8_0"}, {"offload_kqv": False},
    {"n_cpu_moe": 3}, {"main_gpu": 0, "split_mode": "none"}, {"kv_unified": True, "n_seq_max": 3}, {"op_offload": False},
])  # fmt: skip
NEARLY = 8 << 20
"""Of choices that differ by less the one that cuts fewer layers is taken."""


def plan_of(model, machine, *, wanted=None, **request):
    return fit(model, machine, SERVER, Settings(**(wanted or {})), Request(given=frozenset(wanted or {}), **request),
               estimator=Quick)  # fmt: skip


def on_host(estimate):
    return estimate.n_bytes(HOST, Kind.MODEL) + estimate.n_bytes(HOST, Kind.CONTEXT)


def is_worse(one, other):
    """More on the CPU, or as much and a shorter context for micro-batches that are no larger."""
    if on_host(one.estimate) > on_host(other.estimate) * 1.01 + NEARLY:
        return True
    alike = abs(on_host(one.estimate) - on_host(other.estimate)) <= NEARLY
    mine, theirs = one.estimate.settings, other.estimate.settings
    return alike and mine.n_ubatch <= theirs.n_ubatch and mine.n_ctx < theirs.n_ctx * 0.95


@given(MODELS, CARDS, GOALS, FIXED)
@settings(max_examples=25, deadline=None)
def test_a_plan_and_its_alternatives_fit_and_keep_what_is_given(model, cards, goal, wanted):
    machine = make_machine(*cards)
    plan = plan_of(model, machine, wanted=wanted, goal=goal)
    found = [plan.estimate, *(other.estimate for other in plan.alternatives)] if plan.fits else [plan.estimate]
    for estimate in found:
        assert {name: getattr(estimate.settings, name) for name in wanted} == wanted
        assert not plan.fits or spare(estimate, machine, GIB).fits
    assert len({estimate.settings for estimate in found}) == len(found) <= 5
    assert plan.fits or plan.fixes


@given(MODELS, CARDS, st.integers(0, 3), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_card_with_more_memory_never_makes_a_worse_plan(model, cards, which, more):
    which %= len(cards)
    n = cards[which].total_bytes + more * GIB // 10
    larger = [replace(each, total_bytes=n, free_bytes=n) if i == which else each for i, each in enumerate(cards)]
    assert not is_worse(plan_of(model, make_machine(*larger)), plan_of(model, make_machine(*cards)))


@given(MODELS, CARDS, st.integers(14, 90))
@settings(max_examples=20, deadline=None)
def test_another_card_never_makes_a_worse_plan(model, cards, gib):
    more = [*cards, card(gib / 10, bandwidth=450 * GB)]
    assert not is_worse(plan_of(model, make_machine(*more)), plan_of(model, make_machine(*cards)))


@given(MODELS, CARDS)
@settings(max_examples=20, deadline=None)
def test_the_next_step_up_does_not_fit(model, cards):
    machine = make_machine(*cards)
    plan = plan_of(model, machine)
    chosen = plan.estimate.settings
    if chosen.n_ctx < model.n_ctx_train and chosen.n_gpu_layers:
        longer = Quick(model, machine, SERVER)(replace(chosen, n_ctx=chosen.n_ctx + 256))
        assert not spare(longer, machine, GIB).fits
    if 0 < chosen.n_gpu_layers <= model.n_layer_all and len(cards) == 1:
        more = Quick(model, machine, SERVER)(replace(chosen, n_gpu_layers=chosen.n_gpu_layers + 1))
        assert not spare(more, machine, GIB).fits


@given(MODELS, CARDS, GOALS)
@settings(max_examples=20, deadline=None)
def test_no_weight_is_lost_or_held_twice(model, cards, goal):
    plan = plan_of(model, make_machine(*cards), goal=goal)
    alone = Quick(model, make_machine(1000), SERVER)(Settings(n_ctx=512))
    assert sum(p.n_bytes for p in plan.estimate.parts if p.kind == Kind.MODEL) == sum(
        p.n_bytes for p in alone.parts if p.kind == Kind.MODEL
    )


@given(MODELS, CARDS)
@settings(max_examples=12, deadline=None)
def test_quality_never_makes_the_cache_smaller(model, cards):
    plan = plan_of(model, make_machine(*cards), goal="quality")
    for estimate in (plan.estimate, *(other.estimate for other in plan.alternatives)):
        assert (estimate.resolved.type_k, estimate.resolved.type_v) == ("f16", "f16")


@given(MODELS, CARDS)
@settings(max_examples=12, deadline=None)
def test_the_goal_context_never_has_a_shorter_one(model, cards):
    longest, plain = (plan_of(model, make_machine(*cards), goal=goal) for goal in ("context", "balanced"))
    assert longest.estimate.settings.n_ctx >= plain.estimate.settings.n_ctx
