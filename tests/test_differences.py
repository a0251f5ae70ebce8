"""`verify --record`: what the installed llama.cpp took beyond the prediction is left free from then on."""

import json
import pathlib
from dataclasses import replace

import pytest

from fitplug import differences
from fitplug.cli import main
from planner_support import card, make_machine, make_model

MIB = 1 << 20


@pytest.fixture(autouse=True)
def state(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(differences, "path", lambda: str(tmp_path / "state" / "differences.json"))
    return tmp_path / "state" / "differences.json"


def test_what_was_taken_beyond_is_left_free():
    model, machine = make_model(n_layer=2), make_machine(card(8, name="A"), card(8, name="B"))
    more = differences.by_device([("CUDA1", 100, 100 + 5 * MIB), ("CUDA_Host", 7, 7 + MIB), ("CPU", 9, 9)], machine)
    assert more == {"CUDA1": 5 * MIB, "CPU": MIB}
    assert "6.00 MiB" in differences.record(model, machine, more, "engine 1")
    now = differences.with_differences(model, machine)
    assert now.devices[0].free_bytes == machine.devices[0].free_bytes
    assert now.devices[1].free_bytes == machine.devices[1].free_bytes - 5 * MIB
    assert now.host.available_bytes == machine.host.available_bytes - MIB
    assert "6.00 MiB" in now.notes[-1]


def test_it_is_for_that_model_and_that_card_only():
    model, machine = make_model(n_layer=2), make_machine(card(8, name="A"))
    differences.record(model, machine, {"CUDA0": MIB}, "engine 1")
    other = make_machine(card(8, name="B"))
    assert differences.with_differences(make_model(n_layer=3), machine) is machine
    assert differences.with_differences(model, other) is other


def test_less_than_predicted_takes_the_record_back():
    model, machine = make_model(n_layer=2), make_machine(card(8, name="A"))
    differences.record(model, machine, {"CUDA0": MIB}, "engine 1")
    differences.record(model, machine, {"CUDA0": -MIB}, "engine 2")
    assert differences.with_differences(model, machine) is machine


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 5}',
                                     '{"ID": {"more_bytes": 5}}', '{"ID": {"more_bytes": {"CPU": "1"}}}',
                                     '{"ID": {"more_bytes": {"CPU": -5, "CUDA0 A": 1e99}}}'])  # fmt: skip
def test_a_damaged_record_changes_nothing(content: str, state: pathlib.Path):
    model, machine = make_model(n_layer=2), make_machine(card(8, name="A"))
    state.parent.mkdir(parents=True)
    state.write_text(content.replace("ID", differences.identity(model)))
    assert differences.with_differences(model, machine) is machine


def test_the_name_of_a_file_is_no_part_of_a_model():
    model = make_model(n_layer=2)
    renamed = replace(model, header=replace(model.header, shards=("other.gguf",)))
    assert differences.identity(renamed) == differences.identity(model)


def test_verify_records_and_auto_knows(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: pathlib.Path
):
    from fitplug.cli import plans, verify
    from real import small_model

    model = tmp_path / "m.gguf"
    small_model.write(model)
    monkeypatch.setattr(verify, "_installed", lambda registry, name: (engine, "1"))
    engine = type("Engine", (), {"name": "fake", "runner": "llama-fit-params", "precision": 1, "ghosts": True})()
    engine.measure = lambda path, settings: {"CPU": {"model": 1 << 40, "context": 0, "compute": 0}}
    machine = make_machine(host_gib=8)
    for module in (plans, verify):
        monkeypatch.setattr(module, "find_machine", lambda target, registry: machine)
    assert main(["verify", str(model), "-c", "512", "--record"]) == 1
    assert "recorded" in capsys.readouterr().err
    assert json.loads(state.read_text())
    assert main(["auto", str(model)]) == 1  # nothing is left on this machine
    monkeypatch.setattr(plans, "find_machine", lambda target, registry: machine)
    assert main(["auto", str(model), "--gpu", "RTX 4090"]) == 0  # another machine knows nothing of it
