"""What must be left on a card: the reserve, or what is taken uncounted where that is more."""

import pytest

from fitplug.memory.estimate import Estimator
from fitplug.memory.overhead import device_overhead
from fitplug.memory.records import Kind
from fitplug.memory.targets import SCRATCH
from fitplug.planner.budget import counted_bytes, spare
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.settings import Settings
from planner_support import GIB, SERVER, card, make_machine, make_model

MACHINE = make_machine(card(24))
CUDA0 = "CUDA0"


def _estimate(**wanted):
    return Estimator(make_model(), MACHINE, SERVER)(Settings(n_gpu_layers=99, n_seq_max=1, **wanted))


def _left(estimate, reserve):
    return MACHINE.devices[0].free_bytes - counted_bytes(estimate, CUDA0) - spare(estimate, MACHINE, reserve).devices[0]


def test_little_overhead_is_what_the_reserve_is_for():
    estimate = _estimate(n_ctx=8192)

    assert 0 < estimate.n_bytes(CUDA0, Kind.OVERHEAD) < GIB == _left(estimate, GIB)
    assert _left(estimate, 0) == estimate.n_bytes(CUDA0, Kind.OVERHEAD)


def test_what_kernels_surely_take_is_asked_for_besides_the_driver_at_its_largest():
    estimate, driver = _estimate(n_ctx=65536, flash_attn="off"), device_overhead(MACHINE.devices[0])
    scratch = sum(part.n_bytes for part in estimate.parts if part.source == SCRATCH)

    assert scratch > 2 * GIB
    assert _left(estimate, GIB) == scratch + driver.high
    assert _left(estimate, 0) == scratch + driver.typical


@pytest.mark.parametrize("flash_attn", ["on", "off"])
def test_a_plan_says_what_its_context_leaves_room_for(flash_attn):
    machine = make_machine(card(12))
    given = Request(given=frozenset({"flash_attn"}))
    plan = fit(make_model(), machine, SERVER, Settings(flash_attn=flash_attn), given, estimator=Estimator)
    said = next(reason for reason in plan.reasons if reason.startswith("The context is"))

    assert plan.fits
    assert ("driver and its kernels" in said) == (plan.estimate.n_bytes(CUDA0, Kind.OVERHEAD) > GIB) == (flash_attn == "off")
