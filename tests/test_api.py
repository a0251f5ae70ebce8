"""The steps of the command line from Python: typed, without printing, over the same records."""

import json

import pytest

import fitplug
from cli_support import write_model
from fitplug.units import GIB


@pytest.fixture(scope="module")
def registry():
    return fitplug.load_registry()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(write_model("llama-3.1-8b", tmp_path_factory.mktemp("api") / "model.gguf"))


@pytest.fixture(scope="module")
def model(path, registry):
    return fitplug.open_model(path, registry=registry)


@pytest.fixture(scope="module")
def machine():
    return fitplug.imagine_machine("RTX 4090")


def test_it_says_what_the_command_line_says(path, model, machine, registry, tmp_path, capsys):
    from fitplug.cli import main
    from fitplug.machine.load import machine_to_json

    file = tmp_path / "machine.json"
    file.write_text(json.dumps(machine_to_json(machine)))
    main(["auto", path, "--machine", str(file), "-c", "16384", "--json"])
    told = json.loads(capsys.readouterr().out)
    plan = fitplug.fit(model, machine, n_ctx=16384, registry=registry)

    assert told["memory"][0]["model_bytes"] == plan.estimate.n_bytes("CUDA0", "model")
    assert told["argv"] == list(fitplug.export(plan, "llama-server", path, registry=registry).argv)
    assert told["fits"] is fitplug.fits(plan.estimate, machine, reserve_bytes=GIB)


def test_what_is_given_is_kept_and_the_rest_is_chosen(model, machine, registry):
    plan = fitplug.fit(model, machine, n_ubatch=256, registry=registry)

    assert plan.request.given == {"n_ubatch"}
    assert plan.estimate.resolved.n_ubatch == 256
    assert plan.estimate.resolved.n_ctx > 8192


def test_an_estimate_of_what_does_not_fit_is_still_an_estimate(model, registry):
    small = fitplug.read_machine({"devices": [], "host": {"total_bytes": GIB, "available_bytes": GIB}})
    estimate = fitplug.estimate(model, small, n_ctx=4096, registry=registry)

    assert estimate.n_bytes("CPU") > 4 * GIB
    assert not fitplug.fits(estimate, small)


def test_a_machine_can_be_read_as_text_and_as_an_object(machine):
    data = {"devices": [], "host": {"total_bytes": GIB, "available_bytes": GIB}}

    assert fitplug.read_machine(json.dumps(data)) == fitplug.read_machine(data)
    assert fitplug.read_machine(json.dumps(data).encode()).host.total_bytes == GIB


def test_this_machine_has_a_host(registry):
    assert fitplug.detect_machine(registry=registry).host.total_bytes > 0


def test_the_runner_decides_its_defaults(model, machine, registry):
    server = fitplug.estimate(model, machine, n_ctx=4096, registry=registry)
    library = fitplug.estimate(model, machine, n_ctx=4096, runner="llama-cpp-python", registry=registry)

    assert server.resolved.n_outputs_max == 1
    assert library.resolved.n_outputs_max > 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda registry: fitplug.open_model("/nowhere.gguf", registry=registry),
        lambda registry: fitplug.read_machine("no JSON"),
        lambda registry: fitplug.imagine_machine("Voodoo 2"),
        lambda registry: fitplug.load_registry().runner("abacus"),
    ],
)
def test_what_goes_wrong_is_a_fitplug_error_of_one_line(wrong, registry):
    with pytest.raises(fitplug.FitplugError) as caught:
        wrong(registry)

    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_does_not_exist_is_a_type_error(model, machine, registry):
    with pytest.raises(TypeError, match="n_contexts"):
        fitplug.fit(model, machine, n_contexts=4, registry=registry)


def test_the_keywords_are_the_settings():
    from typing import get_type_hints

    from fitplug.api import GivenSettings

    assert set(get_type_hints(GivenSettings)) == set(fitplug.Settings.__dataclass_fields__)
