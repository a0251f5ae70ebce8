"""Speculative decoding, as llama-server makes it: every byte of targets and drafts; FITPLUG_TRUTH_EVERY=1 tries every row."""

from collections import Counter

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.companions import Companions
from fitplug.memory.graph.architectures.mtp import ROWS
from fitplug.memory.records import HOST, Basis, Kind
from fitplug.memory.targets import GROWN, HANDED_OVER
from fitplug.model.architectures import TABLE

DRAFTS = truth.Answers("drafts")
EVERY = max(1, truth.EVERY // 6)


def _estimate(row):
    beside = Companions(draft=DRAFTS.model(row["draft"])) if row["draft"] else Companions()
    settings = truth.settings([*row["args"], *(["-md", row["draft"]] if row["draft"] else [])])
    return DRAFTS.estimator(row, companions=beside)(settings)


def _told(held, kind):
    """llama.cpp's bytes of one kind per device; all host buffers are one."""
    return truth.told({"out": {"buffers": held}}, kind)


def _predicted(estimate, kind, whose):
    found = Counter()
    for part in estimate.parts:
        if part.kind == kind and whose == ("draft" if part.source.startswith(("MTP ", "draft's ")) else "target"):
            found[part.device] += part.n_bytes
    return {device: n for device, n in found.items() if n}


def _grown(estimate):
    found = Counter()
    for part in estimate.parts:
        if part.source.endswith(GROWN):
            found[part.device] += part.n_bytes
    return dict(found)


def _told_grown(out):
    """By how much the compute buffers are larger after the first batch, the draft's after it was fed its target's states."""
    found = Counter()
    for whose in ("target", "draft"):
        later = _told(out.get(f"{whose}_fed") or out.get(f"{whose}_later", {}), Kind.COMPUTE)
        before = _told(out.get(whose, {}), Kind.COMPUTE)
        for device, n in later.items():
            found[device] += max(0, n - before.get(device, 0))  # without the first trial of flash attention it may shrink
    return {device: n for device, n in found.items() if n}


def _is_proven(row):
    """Drafts with a vocabulary of their own are within the two small tensors that are picked for each sequence."""
    return not row["draft"] or "d2t" not in DRAFTS.model(row["draft"]).tensors


@pytest.mark.parametrize("row", DRAFTS.answered[::EVERY], ids=truth.label)
def test_every_byte_of_a_target_and_of_its_draft_is_llama_cpps(row):
    """Weights with MTP blocks, caches, states that can be taken back, compute buffers when all has been loaded."""
    estimate = _estimate(row)

    kinds = (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE)
    for whose in ("target", "draft"):
        told = {kind: _told(row["out"].get(whose, {}), kind) for kind in kinds}
        assert {kind: _predicted(estimate, kind, whose) for kind in kinds} == told, whose
    assert {part.basis for part in estimate.parts if part.kind in kinds} == {Basis.EXACT}


@pytest.mark.parametrize("row", [row for row in DRAFTS.answered if "target_later" in row["out"]][::EVERY], ids=truth.label)
def test_so_is_what_drafting_takes_more_at_the_first_batch(row):
    """Picked tokens, and the states that a draft reads, in graphs that are reserved anew; the buffers of all outputs."""
    estimate = _estimate(row)

    grown, told = _grown(estimate), _told_grown(row["out"])
    slack = 0 if _is_proven(row) else 2 * 128 * estimate.resolved.n_seq_max
    assert grown.keys() == told.keys()
    assert all(0 <= told[device] - n <= slack for device, n in grown.items())
    assert {p.basis for p in estimate.parts if p.source == f"draft's {GROWN}"} <= {
        Basis.EXACT if _is_proven(row) else Basis.MODELLED
    }
    if "draft-simple" not in row["args"]:  # whose outputs are not counted, as those of a model that runs alone are not
        assert sum(p.n_bytes for p in estimate.parts if p.source.endswith(HANDED_OVER)) == sum(row["out"]["outputs"].values())


@pytest.mark.parametrize("row", DRAFTS.refused, ids=truth.label)
def test_what_llama_cpp_cannot_draft_with_is_refused(row):
    """Two types of cache where keys hold the values, for one."""
    with pytest.raises(RefusedError):
        _estimate(row)


def test_every_mtp_graph_of_llama_cpp_is_drawn_and_proven():
    """The table of architectures says which have one."""
    drawn = {name for name, row in TABLE.items() if row.mtp}

    assert drawn == {*ROWS, "deepseek4"}
    assert drawn - {"mistral4"} <= {DRAFTS.model(row["model"]).architecture for row in DRAFTS.answered}


@pytest.mark.parametrize("row", [row for row in DRAFTS.answered if row["devices"]][::40], ids=truth.label)
def test_the_host_holds_what_no_device_does(row):
    """A draft with its layers on the CPU takes nothing of the device but what it computes there."""
    estimate = _estimate(row)

    assert {part.device for part in estimate.parts} <= {HOST, *(f"CUDA{i}" for i in range(len(row["devices"])))}
