"""llama.cpp's answers from other backends than CUDA (fixtures/backends)."""

import gzip
import json
from dataclasses import replace
from functools import cache

import truth_support as truth
from fitplug.memory.estimate import Estimator

SETS = {name: truth.Answers(name) for name in ("recurrent", "latent")}


@cache
def rows(backend):
    with gzip.open(truth.FIXTURES / "backends" / f"{backend}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def sample(backend, every=truth.EVERY):
    """Every so many rows, the same ones each time; of the usual sample's length a third."""
    return rows(backend)[:: max(1, every // 3)]


def label(row):
    return f"{row['set']} {truth.label(row)}"


def estimator(row):
    known = SETS.get(row["set"])
    model = known.model(row["model"]) if known else truth.model(row["model"], row["ftype"])
    machine = truth.machine(row["devices"])
    asked = replace(machine, host=replace(machine.host, extra={"cpu": "x86"}))  # all of them were, Metal's code too
    return Estimator(model, asked, truth.RUNNERS[row["runner"]])
