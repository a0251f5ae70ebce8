"""Writing: whole files, and nothing of anybody's is lost."""

import pathlib

import pytest

from fitplug.errors import RefusedError
from fitplug.extension import File
from fitplug.writing import write_files, write_whole


def test_what_was_there_is_kept_each_time(tmp_path: pathlib.Path):
    for text in ("one", "two", "two", "three"):
        write_files([File(path="deep/in/Modelfile", text=text)], str(tmp_path))
    assert (tmp_path / "Modelfile").read_text() == "three"
    assert {p.name: p.read_text() for p in tmp_path.glob("*.bak")} == {"Modelfile.1.bak": "one", "Modelfile.2.bak": "two"}


def test_a_line_says_where_it_went(tmp_path: pathlib.Path):
    assert write_files([File(path="a", text="x")], str(tmp_path / "new")) == [f"wrote {tmp_path / 'new' / 'a'}"]
    (again,) = write_files([File(path="a", text="y")], str(tmp_path / "new"))
    assert again.endswith("kept what was there as a.1.bak")


def test_a_failure_leaves_what_was_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "settings.json"
    path.write_text("before")

    def fail(self: pathlib.Path, target: pathlib.Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(RefusedError, match="No space"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]


def test_a_folder_in_the_way_is_one_line(tmp_path: pathlib.Path):
    (tmp_path / "Modelfile").mkdir()
    with pytest.raises(RefusedError):
        write_files([File(path="Modelfile", text="x")], str(tmp_path))


def test_modes_stay_and_line_ends_are_not_changed(tmp_path: pathlib.Path):
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(0o600)
    write_whole(path, "one\ntwo\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b"one\ntwo\n"
