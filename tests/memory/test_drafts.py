"""What drafts for what, and that plans leave room for it."""

from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.companions import Companions
from fitplug.memory.drafts import detected
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Kind
from fitplug.memory.targets import GROWN, HANDED_OVER
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.settings import SPEC_TYPES, Settings

DRAFTS = truth.Answers("drafts")
SERVER = truth.RUNNERS["llama-server"]
CARD = {"name": "a", "total_mib": 12288, "free_mib": 8192, "compute_capability": "8.6"}
MTP = Settings(spec_type="draft-mtp")


def _estimator(model, draft=None, cards=1):
    beside = Companions(draft=DRAFTS.model(draft)) if draft else Companions()
    return Estimator(DRAFTS.model(model), truth.machine([CARD] * cards), SERVER, beside)


def test_a_plan_that_drafts_by_mtp_has_room_for_it():
    """Its own cache is a source of its own, and the context gives way to it."""
    model, machine = DRAFTS.model("qwen3.5-27b-mtp"), truth.machine([{**CARD, "free_mib": 6500}])
    plan = fit(model, machine, SERVER, MTP, Request(reserve_bytes=0))
    alone = fit(model, machine, SERVER, Settings(), Request(reserve_bytes=0))
    sources = {part.source for part in plan.estimate.parts}

    assert plan.fits
    assert {"MTP cache", "MTP graph allocator"} <= sources
    assert plan.estimate.n_bytes("CUDA0") <= 6500 << 20
    assert plan.estimate.settings.n_ctx <= alone.estimate.settings.n_ctx
    assert plan.estimate.n_bytes("CUDA0") > replace(plan.estimate, parts=alone.estimate.parts).n_bytes("CUDA0")


def test_mtp_blocks_are_loaded_only_to_draft_with():
    """A plain run skips them; files whose blocks are skipped always cannot draft."""
    estimator = _estimator("glm-4.5-air-mtp")
    plain, drafting = (estimator(Settings(n_ctx=512, spec_type=kind)) for kind in (None, "draft-mtp"))
    skipped = sum(t.n_bytes for name, t in DRAFTS.model("glm-4.5-air-mtp").tensors.items() if name.startswith("blk.6."))
    n_bytes = [sum(e.n_bytes(d, Kind.MODEL) for d in ("CUDA0", HOST)) for e in (plain, drafting)]

    assert n_bytes[1] - n_bytes[0] == pytest.approx(skipped, rel=1e-3)


@pytest.mark.parametrize(
    ("draft", "kind"),
    [
        ("dflash-of-qwen3", "draft-dflash"), ("dspark-of-qwen3", "draft-dspark"), ("qwen3.5-35b-a3b-mtp-head", "draft-mtp"),
        ("eagle3-of-qwen3", None), ("gemma4-assistant", None), ("llama-8-layers", None),
    ],
)  # fmt: skip
def test_llama_cpp_knows_some_drafts_by_their_files(draft, kind):
    """The others must be named; plans name them all."""
    model = DRAFTS.model(draft)
    told = Companions(draft=model).drafting(Settings(model_draft="d.gguf"), SERVER).spec_type

    assert detected(model) == kind
    assert told in SPEC_TYPES
    assert told == kind or kind is None
    assert told != "draft-simple" or draft == "llama-8-layers"


def test_a_draft_that_reads_its_target_is_refused_where_the_target_hands_nothing_out():
    """llama.cpp asserts that a layer's input is there, and so does a draft of a longer target."""
    with pytest.raises(RefusedError, match="cannot read the states of glm4moe"):
        _estimator("glm-4.5-air-mtp", "dflash-of-qwen3")(Settings(n_ctx=512, model_draft="d.gguf"))
    model = DRAFTS.model("dflash-of-qwen3")
    deep = replace(model, header=replace(model.header, metadata={**model.header.metadata, "dflash.target_layers": (1, 40)}))
    with pytest.raises(RefusedError, match="layer 40 of its target, which has 8"):
        Estimator(DRAFTS.model("qwen3-8-layers"), truth.machine([CARD]), SERVER, Companions(draft=deep))(
            Settings(n_ctx=512, model_draft="d.gguf")
        )


def test_a_file_without_mtp_blocks_sends_for_the_one_that_has_them():
    """The trunk alone declares blocks that are not in it."""
    model = DRAFTS.model("qwen3.5-35b-a3b-mtp")
    tensors = {name: tensor for name, tensor in model.tensors.items() if not name.startswith("blk.8.")}
    trunk = replace(model, header=replace(model.header, tensors=tensors))

    with pytest.raises(RefusedError, match="-md"):
        Estimator(trunk, truth.machine([CARD]), SERVER)(replace(MTP, n_ctx=512))
    head = Companions(draft=DRAFTS.model("qwen3.5-35b-a3b-mtp-head"))
    beside = Estimator(trunk, truth.machine([CARD]), SERVER, head)(replace(MTP, n_ctx=512, model_draft="h.gguf"))
    assert any(part.source == "draft's cache" for part in beside.parts)


def test_tokens_picked_by_the_cpu_take_no_more_of_the_device():
    """--no-spec-draft-backend-sampling: the copy of all logits is not made, nor the rows for what is picked."""
    estimator = _estimator("qwen3-8-layers", "dflash-of-qwen3")
    asked = Settings(n_ctx=4096, model_draft="d.gguf")
    picked, left = (estimator(replace(asked, draft_backend_sampling=wanted)) for wanted in (True, False))

    def n_bytes(estimate, source, device):
        return sum(p.n_bytes for p in estimate.parts if p.source == f"draft's {source}" and p.device == device)

    assert n_bytes(picked, GROWN, "CUDA0") > 100 << 20
    assert n_bytes(left, GROWN, "CUDA0") == 0
    assert n_bytes(left, HANDED_OVER, HOST) * 3 < n_bytes(picked, HANDED_OVER, HOST)


def test_several_ways_of_drafting_count_with_the_longest():
    """The target answers the longest draft that any of them may make."""
    estimator = _estimator("qwen3.5-27b-mtp")
    n = [
        estimator(Settings(n_ctx=512, spec_type=kinds, draft_max=most)).resolved
        for kinds, most in (("draft-mtp", 3), ("draft-mtp,ngram-cache", 3), ("ngram-cache,draft-mtp", 16), ("none", 3))
    ]

    assert [resolved.n_outputs_max for resolved in n] == [4, 9, 17, 1]
    assert [resolved.n_rs_seq for resolved in n] == [3, 3, 16, 0]
