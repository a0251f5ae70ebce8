"""A draft is a model like any other, with its target's context, in what its target leaves."""

from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.companions import Companions
from fitplug.memory.drafts import draft_settings, is_own
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.settings import Settings

TARGET = truth.model("llama-3.1-8b", "Q4_K_M")
DRAFT = truth.model("llama-3.2-1b", "Q4_K_M")
SERVER = truth.RUNNERS["llama-server"]
CARD = {"name": "a", "total_mib": 12288, "free_mib": 11900, "compute_capability": "8.6"}
BESIDE = Companions(draft=DRAFT)


def _parts(settings, cards, runner=SERVER):
    estimate = Estimator(TARGET, truth.machine([CARD] * cards), runner, BESIDE)(settings)
    return estimate, [part for part in estimate.parts if part.source.startswith("draft's")]


@pytest.mark.parametrize("asked", [
    Settings(n_ctx=5000), Settings(n_ctx=8192, type_k="q8_0", type_v="q8_0", flash_attn="on"),
    Settings(n_ctx=4096, n_seq_max=2), Settings(n_ctx=4096, n_gpu_layers=10),
    Settings(n_ctx=4096, offload_kqv=False, n_ubatch=128),
])  # fmt: skip
@pytest.mark.parametrize("runner", ["llama-server", "llama-fit-params"])
def test_a_draft_takes_what_it_would_take_alone(asked, runner):
    """All layers on the GPU and a cache of 16 bits whatever the target's; as many outputs as sequences."""
    runner = truth.RUNNERS[runner]
    estimate, beside = _parts(replace(asked, model_draft="d.gguf"), 1, runner)
    own = draft_settings(estimate.settings, estimate.resolved)
    alone = Estimator(DRAFT, truth.machine([CARD]), replace(runner, outputs="sequences"))(own)

    assert (own.n_gpu_layers, own.type_k, own.n_ctx) == (-1, "f16", estimate.resolved.n_ctx)
    expected = [part for part in alone.parts if is_own(part)]
    assert [(p.device, p.kind, p.n_bytes) for p in beside] == [(p.device, p.kind, p.n_bytes) for p in expected]
    assert {part.basis for part in beside if part.kind != Kind.OVERHEAD} == {Basis.EXACT}


def test_on_several_cards_a_draft_goes_where_its_target_left_room():
    """Shares follow free memory, and the target is there first; a split that is given holds for both."""
    crowded = Settings(n_ctx=4096, tensor_split=(1.0, 0.0), model_draft="d.gguf")
    _, given = _parts(crowded, 2)
    estimate, _ = _parts(replace(crowded, tensor_split=()), 2)
    drafts = [part for part in estimate.parts if part.source.startswith("draft's")]
    own = {f"CUDA{i}": sum(part.n_bytes for part in drafts if part.device == f"CUDA{i}") for i in (0, 1)}
    left = [11900 * 2**20 - (estimate.n_bytes(name) - n) for name, n in own.items()]
    alone = Estimator(DRAFT, truth.machine([CARD] * 2), SERVER)(
        replace(draft_settings(estimate.settings, estimate.resolved), tensor_split=tuple(map(float, left)))
    )

    assert {part.device for part in given if part.kind == Kind.CONTEXT} == {"CUDA0"}
    target = Estimator(TARGET, truth.machine([CARD] * 2), SERVER)(replace(estimate.settings, model_draft=None))
    for kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE):
        for device in ("CUDA0", "CUDA1", "CPU"):
            assert estimate.n_bytes(device, kind) == target.n_bytes(device, kind) + alone.n_bytes(device, kind)


def test_a_plan_has_room_for_the_draft():
    """What is chosen with a draft fits with it, and is shorter than without."""
    machine = truth.machine([CARD])
    settings = Settings(model_draft="d.gguf")
    with_it = fit(TARGET, machine, SERVER, settings, Request(), companions=BESIDE)
    alone = fit(TARGET, machine, SERVER, Settings(), Request())

    assert with_it.fits
    assert any(part.source == "draft's cache" for part in with_it.estimate.parts)
    assert with_it.estimate.n_bytes("CUDA0") <= 11900 * 2**20
    assert with_it.estimate.settings.n_ctx < alone.estimate.settings.n_ctx


def test_a_plan_uses_its_draft_and_explain_does_not():
    """Drafting makes the target answer four tokens of each sequence at once; llama-server must be told to do it."""
    asked = Settings(n_ctx=4096, n_seq_max=2, model_draft="d.gguf")
    told = BESIDE.drafting(asked, SERVER)
    estimator = Estimator(TARGET, truth.machine([CARD]), SERVER, BESIDE)

    assert told.spec_type == "draft-simple"
    assert (estimator(asked).resolved.n_outputs_max, estimator(told).resolved.n_outputs_max) == (2, 8)
    assert any("--spec-type" in note for note in estimator(asked).notes)
    assert not any("--spec-type" in note for note in estimator(told).notes)
    assert BESIDE.drafting(replace(asked, spec_type="none"), SERVER).spec_type == "none"
    assert Companions().drafting(asked, SERVER) == asked


def test_drafting_by_mtp_is_refused_where_llama_cpp_has_no_graph_for_it():
    """Never an estimate of a context that aborts."""
    with pytest.raises(RefusedError, match="no MTP graph for llama"):
        Estimator(TARGET, truth.machine([CARD]), SERVER)(Settings(n_ctx=512, spec_type="ngram-simple,draft-mtp"))
    with pytest.raises(RefusedError, match=r"llama\.cpp has none, draft-simple"):
        Estimator(TARGET, truth.machine([CARD]), SERVER)(Settings(n_ctx=512, spec_type="eagle"))
