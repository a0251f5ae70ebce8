"""What -mm, -md and --lora name is opened like any MODEL and counted in every command that plans."""

import pytest

import fitplug
from cli.conftest import gpu
from cli_support import write_projector
from fitplug.memory.records import Kind

ASKED = ("-c", "4096")


@pytest.fixture(scope="module")
def projector(tmp_path_factory):
    """A projector's file."""
    return write_projector("llava-1.5", tmp_path_factory.mktemp("projectors") / "llava.gguf")


def _bytes(memory, kind):
    return sum(row[f"{kind}_bytes"] for row in memory)


@pytest.mark.parametrize("command", ["explain", "auto"])
def test_a_projector_is_in_the_totals(run, llama, projector, machine_file, command):
    """On the GPU, or with --no-mmproj-offload on the host."""
    words = (command, llama, "--machine", machine_file(gpu()), *ASKED, "--json")
    alone, beside = run(*words).json["memory"], run(*words, "-mm", projector).json["memory"]
    on_host = run(*words, "-mm", projector, "--no-mmproj-offload").json["memory"]

    assert beside[0]["model_bytes"] - alone[0]["model_bytes"] == 625594368
    assert beside[0]["compute_bytes"] - alone[0]["compute_bytes"] == 22593152
    assert beside[1]["compute_bytes"] - alone[1]["compute_bytes"] == 1359392
    assert on_host[0] == alone[0]
    assert _bytes(on_host, "model") > _bytes(alone, "model")


def test_a_draft_is_in_the_totals_and_on_the_page(run, models, llama, machine_file):
    """With its own lines in the table of every byte."""
    words = ("explain", llama, "--machine", machine_file(gpu()), *ASKED, "-md", models["llama-3.1-8b"])
    one = run("explain", llama, "--machine", machine_file(gpu()), *ASKED, "--json").json["memory"]
    two = run(*words, "--json").json["memory"]

    for kind in ("model", "context", "compute"):
        assert [row[f"{kind}_bytes"] for row in two] == [2 * row[f"{kind}_bytes"] for row in one]
    assert "draft's cache" in run(*words).out


def test_an_export_fits_with_its_projector(run, llama, projector, machine_file):
    """A card that the model fills has no room for a projector beside the same context."""
    words = ("export", "llama-server", llama, "--machine", machine_file(gpu(7)), "--json")
    alone, beside = run(*words).json["argv"], run(*words, "-mm", projector).json["argv"]

    assert "-mm" in beside
    assert alone != [word for word in beside if word not in ("-mm", str(projector))]


def test_a_projector_goes_to_the_cpu_before_a_layer_or_the_room_for_its_pictures_does(run, llama, projector, machine_file):
    """A picture must fit into one micro-batch of some models, so that is not made smaller."""
    alone = run("explain", llama, "--machine", machine_file(gpu()), *ASKED, "--json").json["memory"][0]
    needed = sum(alone[f"{kind}_bytes"] for kind in ("model", "context", "compute"))
    card = gpu(free_bytes=needed + (1200 << 20))
    words = ("auto", llama, "--machine", machine_file(card), *ASKED, "-mm", projector)
    chosen = run(*words, "--json").json

    assert "--no-mmproj-offload" in chosen["argv"]
    assert chosen["settings"]["n_gpu_layers"] == 33
    assert chosen["settings"]["n_ubatch"] == 512
    assert any("projector works on the CPU" in reason for reason in chosen["reasons"])
    kept = run(*words, "--mmproj-offload", "--json").json
    assert "--no-mmproj-offload" not in kept["argv"]
    assert kept["settings"]["n_gpu_layers"] < 33


@pytest.mark.parametrize("option", ["-mm", "-md", "--lora"])
def test_what_is_not_there_is_said(run, llama, machine_file, option):
    """One line, as for MODEL itself."""
    ran = run("explain", llama, "--machine", machine_file(gpu()), option, "nowhere.gguf")

    assert ran.status == 3
    assert ran.err.startswith("error: ")
    assert "nowhere.gguf" in ran.err


def test_the_python_api_opens_them_too(llama, projector):
    """`estimate` and `fit` take the same references."""
    machine, model = fitplug.imagine_machine("RTX 4090"), fitplug.open_model(str(llama))
    alone = fitplug.estimate(model, machine, n_ctx=4096)
    beside = fitplug.estimate(model, machine, n_ctx=4096, mmproj=str(projector))
    plan = fitplug.fit(model, machine, n_ctx=4096, mmproj=str(projector))

    assert beside.n_bytes("CUDA0", Kind.MODEL) - alone.n_bytes("CUDA0", Kind.MODEL) == 625594368
    assert any(part.source.startswith("projector") for part in plan.estimate.parts)


@pytest.mark.parametrize("command", ["explain", "auto", "export llama-server"])
def test_a_projector_of_another_model_is_refused(run, llama, machine_file, tmp_path, command):
    """llama-server would not start."""
    other = write_projector("smolvlm", tmp_path / "smolvlm.gguf")
    ran = run(*command.split(), llama, "-mm", other, "--machine", machine_file(gpu()), *ASKED)

    assert ran.status == 3
    assert "960 numbers" in ran.err
