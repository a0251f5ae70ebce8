"""llama.cpp's answers about latent and sparse attention, encoder-decoders and drafts (fixtures/latent)."""

import gzip
import json
from functools import cache
from pathlib import Path

import truth_support as truth
from fitplug.memory.estimate import Estimator
from fitplug.model.describe import describe

FOLDER = Path(__file__).parent.parent / "fixtures" / "latent"


@cache
def _read(name):
    with gzip.open(FOLDER / name, "rt") as lines:
        return lines.read()


@cache
def rows():
    return [json.loads(line) for line in _read("rows.jsonl.gz").splitlines()]


@cache
def models():
    """By name."""
    return {model["name"]: model for model in json.loads(_read("models.json.gz"))}


@cache
def model(name):
    return describe(truth.header_of(models()[name]))


def estimator(row, **how):
    return Estimator(model(row["model"]), truth.machine(row["devices"]), truth.RUNNERS[row["runner"]], **how)
