"""What random questions found (fixtures/truth/fuzz.py), each with the law that it broke once."""

import gzip
import json

import pytest

import truth_support as truth
from fitplug.errors import RefusedError, UnreadableError
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Basis, Kind
from fitplug.model.describe import describe

with gzip.open(truth.TRUTH / "fuzz.jsonl.gz", "rt") as lines:
    ROWS = [json.loads(line) for line in lines]


def _estimate(row):
    n_vocab = row["metadata"][f"{row['metadata']['general.architecture']}.vocab_size"]
    model = describe(truth.header_of({**row, "n_vocab": n_vocab}))
    estimator = Estimator(model, truth.machine(row["devices"]), truth.RUNNERS[row["runner"]])
    return estimator(truth.settings(row["args"]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["cause"])
def test_what_was_wrong_once_is_llama_cpps_answer(row):
    if "error" in row:
        with pytest.raises((RefusedError, UnreadableError)):
            _estimate(row)
        return

    estimate = _estimate(row)

    for kind in (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE):
        assert truth.predicted(estimate, kind) == truth.told(row, kind)
    assert {part.basis for part in estimate.parts if part.kind is not Kind.OVERHEAD} == {Basis.EXACT}
