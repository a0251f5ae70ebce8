"""The JSON that scripts rely on, to the letter."""

import json

import pytest

from fitplug.cli.app import program

from .conftest import gpu

MEMORY_KEYS = {"device", "kind", "model_bytes", "context_bytes", "compute_bytes", "overhead_bytes"}
SETTINGS_KEYS = {"n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_gpu_layers", "type_k", "type_v", "flash_attn"}
MODEL_KEYS = {"architecture", "n_layer", "n_params", "n_bytes", "file_type"}


@pytest.mark.parametrize(
    "words",
    [["explain", "MODEL"], ["auto", "MODEL"], ["show", "MODEL"], ["show", "MODEL", "--all"], ["devices"], ["plugins"],
     ["completion", "zsh"],
     ["export", "llama-server", "MODEL"], ["explain", "MODEL", "--gpu", "RTX 4090", "-c", "99999999"]],
)  # fmt: skip
def test_every_command_prints_one_json_object_and_nothing_else(run, llama, words):
    ran = run(*(str(llama) if word == "MODEL" else word for word in words), "--json")

    assert ran.status in (0, 1)
    assert ran.err == ""
    assert ran.json["schema"] == 1


@pytest.mark.parametrize("name", list(program.lazy))
def test_every_command_takes_json(name):
    assert any("--json" in param.opts for param in program.get_command(None, name).params)


def test_explain_holds_the_contracts_keys(run, llama, machine_file):
    ran = run("explain", llama, "--machine", machine_file(gpu()), "-c", "8192", "--json")
    answer = ran.json

    assert (ran.status, answer["fits"]) == (0, True)
    assert answer["model"].keys() >= MODEL_KEYS
    assert answer["settings"].keys() >= SETTINGS_KEYS
    assert all(row.keys() >= MEMORY_KEYS for row in answer["memory"])
    assert [(row["device"], row["kind"]) for row in answer["memory"]] == [("CUDA0", "gpu"), ("CPU", "host")]
    assert answer["memory"][0].keys() >= {"total_bytes", "free_bytes"}


def test_the_contracts_own_example(run, llama, machine_file):
    answer = run("explain", llama, "--machine", machine_file(gpu()), "-c", "8192", "-fa", "on", "--json").json

    assert (answer["model"]["architecture"], answer["model"]["n_layer"], answer["model"]["file_type"]) == (
        "llama",
        32,
        "Q4_K_M",
    )
    assert answer["model"]["n_bytes"] == 4912898048
    assert answer["settings"]["n_gpu_layers"] == 33
    assert answer["memory"][0]["model_bytes"] == 4617396224
    assert answer["memory"][0]["context_bytes"] == 1073741824
    assert answer["memory"][1]["model_bytes"] == 295501824


def test_the_parts_add_up_to_the_rows(run, models, machine_file):
    answer = run("explain", models["gemma-3-4b"], "--machine", machine_file(gpu(), gpu(8)), "-c", "4096", "--json").json

    for row in answer["memory"]:
        for kind in ("model", "context", "compute", "overhead"):
            told = sum(part["n_bytes"] for part in answer["parts"] if (part["device"], part["kind"]) == (row["device"], kind))
            assert row[f"{kind}_bytes"] == told


def test_settings_that_do_not_fit_are_one_and_still_explained(run, llama, machine_file):
    ran = run("explain", llama, "--machine", machine_file(gpu(2)), "--json")

    assert (ran.status, ran.json["fits"]) == (1, False)
    assert ran.json["memory"][0]["model_bytes"] > 2 << 30


def test_a_host_that_is_too_small_does_not_fit(run, llama, machine_file):
    assert run("explain", llama, "--machine", machine_file(host_gib=2), "-c", "512", "--json").json["fits"] is False


def test_a_machine_without_a_gpu_has_the_one_host_row(run, llama, machine_file):
    answer = run("explain", llama, "--machine", machine_file(), "-c", "4096", "--json").json

    assert [row["device"] for row in answer["memory"]] == ["CPU"]
    assert answer["settings"]["n_gpu_layers"] == 0


def test_a_reserve_is_kept_when_it_is_asked_for(run, llama, machine_file):
    machine = machine_file(gpu(8))
    free = run("explain", llama, "--machine", machine, "-c", "4096", "--json").json
    left = 8 * 2**30 - sum(free["memory"][0][f"{kind}_bytes"] for kind in ("model", "context", "compute", "overhead"))

    assert free["fits"] is True
    assert run("explain", llama, "--machine", machine, "-c", "4096", "--reserve", str(left + 2**30), "--json").status == 1


def test_auto_holds_the_contracts_keys(run, llama, machine_file):
    ran = run("auto", llama, "--machine", machine_file(gpu()), "--json")
    answer = ran.json

    assert ran.status == 0
    assert answer.keys() >= {"fits", "model", "settings", "memory", "argv", "speed", "reasons", "alternatives"}
    assert answer["argv"][0] == "llama-server"
    assert all(isinstance(word, str) for word in answer["argv"])
    for other in answer["alternatives"]:
        assert other.keys() >= {"settings", "argv", "cost"}


def test_what_auto_prints_explains_to_the_same_bytes(run, models, machine_file):
    machine = machine_file(gpu(8))
    for model in models.values():
        plan = run("auto", model, "--machine", machine, "--json").json
        words = [word for word in plan["argv"][1:] if word not in ("-m", "--model", str(model))]
        words = words[: words.index("--fit")] if "--fit" in words else words
        again = run("explain", model, "--machine", machine, *words, "--json").json

        assert again["memory"] == plan["memory"]


def test_auto_keeps_what_is_given(run, llama, machine_file):
    words = ["-c", "12288", "-ctk", "q8_0", "-ctv", "q8_0", "-ub", "256", "-np", "2"]
    settings = run("auto", llama, "--machine", machine_file(gpu()), *words, "--json").json["settings"]

    assert (settings["n_ctx"], settings["type_k"], settings["n_ubatch"], settings["n_seq_max"]) == (12288, "q8_0", 256, 2)


def test_nothing_fits_is_one(run, llama, machine_file):
    ran = run("auto", llama, "--machine", machine_file(gpu(1), host_gib=1), "--json")

    assert (ran.status, ran.json["fits"]) == (1, False)


def test_export_holds_the_contracts_keys(run, llama):
    answer = run("export", "llama-server", llama, "--gpu", "RTX 4090", "--json").json

    assert answer.keys() >= {"files", "env", "commands", "cannot_express"}


def test_a_refused_combination_is_three(run, llama):
    ran = run("explain", llama, "--gpu", "RTX 4090", "-fa", "off", "-ctv", "q8_0", "--json")

    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "/nowhere/model.gguf"], "/nowhere/model.gguf"),
        (["explain", "MODEL", "--runner", "abacus"], "there is: "),
        (["explain", "MODEL", "--machine", "/nowhere.json"], "fitplug devices --json"),
        (["explain", "MODEL", "--gpu", "Voodoo 2"], "Voodoo 2"),
        (["export", "abacus", "MODEL"], "llama-server"),
        (["auto", "gopher:thing"], "gopher"),
        (["check", "nothing"], "OWNER/NAME"),
        (["verify", "MODEL", "--engine", "abacus"], "abacus"),
    ],
)
def test_what_is_not_there_is_three_and_a_line_that_helps(run, llama, words, said):
    ran = run(*(str(llama) if word == "MODEL" else word for word in words))

    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert said in ran.err


def test_the_machine_file_is_what_devices_prints(run, llama, machine_file, tmp_path):
    recorded = tmp_path / "recorded.json"
    recorded.write_text(run("devices", "--machine", machine_file(gpu(), gpu(12)), "--json").out)
    first = run("explain", llama, "--machine", machine_file(gpu(), gpu(12)), "--json").json

    assert run("explain", llama, "--machine", recorded, "--json").json["memory"] == first["memory"]
    assert json.loads(recorded.read_text())["schema"] == 1


def file_head(path):
    with path.open("rb") as file:
        return file.read(8 << 20)


def test_a_models_name_cannot_talk_to_the_terminal(run, llama, tmp_path):
    evil = tmp_path / "evil.gguf"
    head = file_head(llama)
    name = b"Llama 3.1 8B Instruct"
    head = head.replace(name, b"\x1b[2J\x1b[31mgone\x07\n\r\n".ljust(len(name), b"."))
    with evil.open("wb") as file:
        file.write(head)
        file.truncate(llama.stat().st_size)

    assert "\x1b" not in run("explain", evil, "-c", "512").out
    assert "\\x1b[2J" in run("explain", evil, "-c", "512").out
