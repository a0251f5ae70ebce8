"""The accuracy that the documents claim is the one that was measured."""

import importlib.util
import json
from pathlib import Path

import pytest

from fitplug.errors import RefusedError
from truth_support import estimate, predicted, rows, sample, told

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "fixtures" / "accuracy"


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_accuracy", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found():
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def test_the_documents_are_what_the_measurement_gives(make, found):
    assert (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8") == make.page(found)
    assert f"{make.START}\n{make.block(found)}{make.END}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_row_was_measured(make, found):
    assert found["rows"] == {name: len(rows(name)) for name in make.SETS}
    assert sum(t["n"] for t in found["runners"].values()) + sum(
        sum(counts.values()) for counts in found["refused"].values()
    ) == sum(found["rows"].values())


def test_a_sample_measured_again_is_as_exact_as_the_documents_say(make, found):
    """Only where all rows were claimed to be exact: then each one of any sample is."""
    for name in make.SETS:
        for row in sample(name, 61):
            if "error" in row:
                with pytest.raises(RefusedError):
                    estimate(row)
                continue
            ours = estimate(row)
            for kind in make.KINDS:
                claims = [
                    found["parts"][f"{name} {kind} {place}"]
                    for place in ("gpu", "host")
                    if f"{name} {kind} {place}" in found["parts"]
                ]
                if all(tally["exact"] == tally["n"] for tally in claims):
                    assert predicted(ours, kind) == told(row, kind)
