"""A machine that was recorded, written down or taken from the catalogue is planned for exactly like the real one."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fitplug.extension import Detector
from fitplug.machine.detect import compose, detect, machine_from_file
from fitplug.machine.imagined import imagined_machine
from fitplug.machine.load import machine_to_json
from fitplug.machine.records import Machine
from fitplug.planner.fit import fit
from fitplug.planner.records import Request
from fitplug.registry import load
from fitplug.settings import Settings
from planner_support import SERVER, Quick, make_model

FOLDER = Path(__file__).parents[2] / "fixtures/machines"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
DETECTORS = tuple(item.record for item in load().detectors)
MODEL = make_model(n_layer=32)


def planned(machine):
    plan = fit(MODEL, machine, SERVER, Settings(), Request(), estimator=Quick)
    return plan.estimate.settings, plan.estimate.parts, plan.speed, plan.reasons


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_its_machine_file_and_the_machine_itself_give_one_plan(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    raw = json.loads(text)["raw"]
    there = [replace(d, collect=partial(raw.get, d.name)) for d in DETECTORS]
    real = detect(there)
    recorded = machine_from_file(text, DETECTORS)
    written = machine_from_file(json.dumps(machine_to_json(real)), DETECTORS)
    assert planned(real) == planned(recorded) == planned(written)


CARDS = {
    "desktop-rtx-4090": "RTX 4090", "desktop-rtx-5090": "RTX 5090", "container-t4-8gib": "T4", "wsl-rtx-3060": "RTX 3060 12GB",
    "laptop-rtx-4070-and-780m": "RTX 4070 laptop", "desktop-rx-7900-xtx": "7900 XTX", "server-gh200": "GH200",
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_a_card_of_the_catalogue_is_planned_for_like_the_one_that_its_driver_reports(name):
    """With the same memory free, everything else that a plan uses is the same."""
    real = compose(DETECTORS, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["raw"])
    (seen,) = real.devices
    (card,) = imagined_machine([CARDS[name]], real.host).devices
    assert card.total_bytes == pytest.approx(seen.total_bytes, rel=0.03)
    assert card.memory_bandwidth == pytest.approx(seen.memory_bandwidth, rel=0.02)
    assert (card.compute_capability, card.backend, card.kind) == (seen.compute_capability, seen.backend, seen.kind)
    alike = replace(
        card, total_bytes=seen.total_bytes, free_bytes=seen.free_bytes, memory_bandwidth=seen.memory_bandwidth, name=seen.name
    )
    assert planned(Machine(devices=(alike,), host=real.host)) == planned(replace(real, unused=(), notes=()))


def test_the_test_replaces_what_every_detector_collects():
    assert all(isinstance(detector, Detector) for detector in DETECTORS)
    assert {"nvidia", "amd", "intel", "apple", "windows", "vulkan", "host"} <= {detector.name for detector in DETECTORS}
