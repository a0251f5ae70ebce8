"""Real RPC servers: what llama.cpp put on them, and that it generated there what it generates alone (fixtures/rpc)."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from fitplug.machine.load import machine_from_json
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Basis, Kind
from truth_support import EVERY, RUNNERS, model, predicted, settings

FILE = Path(__file__).parents[2] / "fixtures/rpc/rows.jsonl.gz"
ROWS = [json.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]
KINDS = (Kind.MODEL, Kind.CONTEXT, Kind.COMPUTE)


def estimate(row):
    machine = machine_from_json(row["machine"])
    return Estimator(model(f"tiny/{row['model']}", "F32"), machine, RUNNERS["llama-server"])(settings(row["args"]))


def told(row, kind):
    found = Counter()
    for name, held in row["buffers"].items():
        found[name if name.startswith("RPC") or name == "CUDA0" else HOST] += held[kind]
    return {device: n for device, n in found.items() if n}


@pytest.mark.parametrize("row", ROWS[:: max(1, EVERY // 4)], ids=lambda row: f"{row['model']} {' '.join(row['args'])}")
def test_what_lies_on_a_server_is_what_was_planned(row):
    found = estimate(row)
    for kind in KINDS:
        ours, theirs = predicted(found, kind), told(row, kind)
        if row["sort"] == "generated" and kind is Kind.MODEL:  # the host's part is a stretch of the mapped file
            ours, theirs = ({k: n for k, n in side.items() if k != HOST} for side in (ours, theirs))
        assert ours == theirs, kind


def test_tokens_over_two_servers_are_those_of_one_machine():
    generated = [row for row in ROWS if row["sort"] == "generated"]
    assert len(generated) > 300
    assert [row["tokens"] for row in generated] == [row["alone"] for row in generated]


def test_figures_behind_known_servers_are_exact_and_behind_strangers_are_not():
    row = next(row for row in ROWS if row["sort"] == "generated")
    parts = [part for part in estimate(row).parts if part.kind is Kind.COMPUTE]
    assert {part.basis for part in parts} == {Basis.EXACT}
    for device in row["machine"]["devices"]:
        device.pop("served_by")
    parts = [part for part in estimate(row).parts if part.kind is Kind.COMPUTE]
    assert {part.basis for part in parts} == {Basis.MODELLED}


@pytest.mark.parametrize("name", ["gemma2-dense", "gemma3-dense", "qwen3moe-moe"])
def test_one_estimator_answers_as_many_fresh_ones_do(name):
    """A server's first answer decides for all that look alike, so what is kept from other settings must not answer."""
    row = next(row for row in ROWS if row["model"] == name and "q8_0" in row["args"])
    machine, runner, tiny = machine_from_json(row["machine"]), RUNNERS["llama-server"], model(f"tiny/{name}", "F32")
    one = Estimator(tiny, machine, runner)
    for n_ctx in (2048, 4096, 512, 2048):
        for kind in ("q8_0", "f16"):
            wanted = settings(["-c", str(n_ctx), "-ctk", kind, "-ctv", kind, "-fa", "on"])
            assert one(wanted).parts == Estimator(tiny, machine, runner)(wanted).parts
