"""What the distribution promises: every plugin comes in by the same door, and every tool knows all of them."""

import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
POINTS = PROJECT["project"]["entry-points"]["fitplug"]
FOLDERS = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}


def test_every_plugin_folder_is_registered_and_nothing_else():
    assert {module for module in POINTS.values() if module != "fitplug.bundled"} == FOLDERS


def test_plugin_folders_are_packages_named_after_fitplug():
    folders = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert folders == FOLDERS
    assert all(name.startswith("fitplug_") for name in folders)


def test_the_installed_distribution_has_the_same_entry_points():
    installed = {point.name: point.value for point in metadata.entry_points(group="fitplug") if point.dist.name == "fitplug"}

    assert installed == POINTS


@pytest.mark.parametrize("module", sorted(POINTS.values()))
def test_every_entry_point_loads(module):
    assert any(name.startswith("fitplug_") for name in vars(import_module(module))), "no hook in it"


def test_no_bundled_plugin_is_broken():
    from fitplug.registry import load

    assert {status.name: status.problem for status in load().plugins if status.problem} == {}


def test_the_import_contracts_know_every_plugin():
    linter = PROJECT["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in linter["contracts"]}

    assert set(linter["root_packages"]) == {"fitplug", *FOLDERS}
    assert set(contracts["same-door"]["forbidden_modules"]) == FOLDERS
    assert set(contracts["neighbours"]["modules"]) == FOLDERS
    assert set(contracts["guests"]["source_modules"]) == FOLDERS


def test_the_console_script_is_the_command_line():
    script = next(point for point in metadata.entry_points(group="console_scripts") if point.name == "fitplug")

    assert script.load().__module__ == "fitplug.cli"


def test_the_version_is_one(capsys):
    from fitplug.cli import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fitplug {PROJECT['project']['version']}\n"


def test_types_are_shipped():
    import fitplug

    assert (Path(fitplug.__file__).parent / "py.typed").exists()


def test_what_fitplug_exports_is_there():
    import fitplug

    assert {name for name in fitplug.__all__ if getattr(fitplug, name, None) is None} == set()
    assert set(fitplug.__all__) <= set(dir(fitplug))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = fitplug.nonsense
