"""The entry points are those that importlib.metadata finds, without importing it."""

import sys
from importlib import metadata

import pytest

from fitplug import entrypoints


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def distribution(folder, name, text, version="1.2.3"):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(text)
    return info


def test_they_agree_with_importlib_metadata():
    ours = {(point.name, point.module) for point in entrypoints.entry_points("fitplug")}
    theirs = {(point.name, point.value) for point in metadata.entry_points(group="fitplug")}

    assert theirs
    assert ours == theirs


def test_only_the_group_that_is_asked_for_is_read(folder):
    distribution(
        folder, "toys", "[console_scripts]\ntoy = toys:main\n\n[fitplug]\n# a remark\ntoy = toys.plugin\n\n[other]\nx = y\n"
    )

    assert entrypoints.entry_points("fitplug") == [entrypoints.EntryPoint("toy", "toys.plugin", "toys", "1.2.3")]


def test_a_distribution_that_is_on_the_path_twice_counts_once(tmp_path, monkeypatch):
    near, far = tmp_path / "near", tmp_path / "far"
    distribution(near, "toys", "[fitplug]\ntoy = near\n")
    distribution(far, "Toys", "[fitplug]\ntoy = far\n", version="0.9")
    monkeypatch.setattr(sys, "path", [str(near), str(far)])

    assert [point.module for point in entrypoints.entry_points("fitplug")] == ["near"]


def test_extras_behind_a_module_are_left_out(folder):
    distribution(folder, "toys", "[fitplug]\ntoy = toys.plugin [extra]\n")

    assert entrypoints.entry_points("fitplug")[0].module == "toys.plugin"


def test_where_folders_name_nothing_metadata_is_asked(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(metadata, "entry_points", lambda **kwargs: asked.append(kwargs) or ())

    assert entrypoints.entry_points("fitplug") == []
    assert asked == [{"group": "fitplug"}]


def test_folders_that_cannot_be_listed_and_files_that_are_missing_are_passed_over(folder):
    (folder / "empty-1.0.dist-info").mkdir()
    (folder / "broken-1.0.egg-info").write_text("a file")
    distribution(folder, "toys", "[fitplug]\ntoy = toys\n")

    assert len(entrypoints.entry_points("fitplug")) == 1
